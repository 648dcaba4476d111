"""Where the daemon lives: run directory, lock, listening socket.

Promises: one daemon per socket path, by a lock that is taken first and held for life, so that a socket file found
afterwards is stale and can be removed without a race; directory 0750, socket 0660 from the moment it exists; on the
way out only our own socket file is removed.
Never: follows a socket path that is something else than a socket; removes the lock file.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

from ..errors import ConfigError

BACKLOG = 1024


def default_path() -> Path:
    """The socket's path where none was given: systemd's directory, /run for root, else the user's own."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given) / "pepcore.sock"
    if os.geteuid() == 0:
        return Path("/run/pepcore/pepcore.sock")
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    if own:
        return Path(own) / "pepcore" / "pepcore.sock"
    raise ConfigError("no place for the socket: XDG_RUNTIME_DIR is not set, so pass `--socket PATH`")


class Place:
    """A socket path, held by this process."""

    def __init__(self, path: Path) -> None:
        if len(os.fsencode(path)) > 107:
            raise ConfigError(f"socket `{path}` is longer than the 107 bytes that a Unix socket address takes")
        self.path = path
        try:
            before = os.umask(0o027)  # what is made here has these modes under any umask
            try:
                path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            finally:
                os.umask(before)
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"socket `{path}`: cannot use its directory: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConfigError(f"socket `{path}` belongs to a running daemon: stop it, or pass another path") from None
        self._inode: tuple[int, int] | None = None

    def listen(self) -> socket.socket:
        """Bind the socket. The lock is held, so what is there is stale."""
        try:
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise ConfigError(f"socket `{self.path}` is a file of another kind: remove it, or pass another path")
            self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigError(f"socket `{self.path}`: the stale one cannot be removed: {error.strerror}") from None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o117)
        try:
            listener.bind(str(self.path))
        except OSError as error:
            listener.close()
            raise ConfigError(f"socket `{self.path}` cannot be bound: {error.strerror}") from None
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        info = self.path.lstat()
        self._inode = info.st_dev, info.st_ino
        return listener

    def leave(self) -> None:
        """Remove the socket file if it is still ours."""
        try:
            info = self.path.lstat()
            if (info.st_dev, info.st_ino) == self._inode:
                self.path.unlink()
        except OSError:
            pass

    def close(self) -> None:
        self.leave()
        os.close(self._lock)
