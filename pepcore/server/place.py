"""Where the daemon lives: run directory, lock, listening socket.

Promises: one daemon per socket path, by a lock that is taken first and held for life, so that a socket file found
afterwards is stale and can be removed without a race; directory 0750, socket 0660 from the moment it exists; on the
way out only our own socket files are removed.
Never: follows a socket path that is something else than a socket; removes the lock file.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from ..errors import ConfigError
from ..lockfile import in_place, is_taken, take
from . import clock

BACKLOG = 1024
LONGEST = 101
"""Bytes of a socket path: 107 go into a Unix address, six are for the name of the administration socket."""


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


def state_of(given: str, path: Path, named: bool) -> Path:
    """The folder of what outlives a daemon, as its blocks: given in the config, systemd's, the system's or the user's
    own; beside the socket where that has a path of its own (`named`)."""
    if given:
        return Path(given)
    return path.with_name(path.name + ".state") if named else default_state()


def journal_of(given: str, state: Path) -> Path:
    """The folder of the record: given in the config, else in that of what outlives a daemon."""
    return Path(given) if given else state / "journal"


def default_state() -> Path:
    """The folder of what outlives a daemon whose socket has no path of its own."""
    from_systemd = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if from_systemd:
        return Path(from_systemd)
    if os.geteuid() == 0:
        return Path("/var/lib/pepcore")
    own = os.environ.get("XDG_STATE_HOME", "") or os.path.expanduser("~/.local/state")
    return Path(own) / "pepcore"


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


class Place:
    """A socket path, held by this process."""

    def __init__(self, path: Path, *, locked: bool = True) -> None:
        """`locked`: take the lock now, else it comes from a predecessor (`succeed`). Raises ConfigError."""
        if len(os.fsencode(path)) > LONGEST:
            raise ConfigError(f"socket `{path}` is longer than {LONGEST} bytes, which leave room for `.admin`")
        self.path = path
        self.admin = path.with_name(path.name + ".admin")
        self.lock_path = _lock_of(path)
        self.lock = -1
        self._inodes: dict[Path, tuple[int, int]] = {}
        self.taken_ns = 0
        if locked:
            self._take()

    @property
    def files(self) -> tuple[Path, ...]:
        """What lies in the run directory because of us."""
        return self.path, self.admin, self.lock_path

    @staticmethod
    def is_served(path: Path) -> bool:
        """Whether a daemon holds the lock of this path."""
        return is_taken(_lock_of(path))

    def _take(self) -> None:
        path = self.path
        try:
            before = os.umask(0o027)  # what is made here has these modes under any umask
            try:
                path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            finally:
                os.umask(before)
            self.lock = take(self.lock_path)
        except BlockingIOError:
            raise ConfigError(f"socket `{path}` belongs to a running daemon: stop it, or pass another path") from None
        except OSError as error:
            raise ConfigError(f"socket `{path}`: cannot use its directory: {error.strerror}") from None
        self.taken_ns = clock.now()

    @property
    def holds(self) -> bool:
        """Whether nobody else can have our lock. `renewal.pyx` asks the same, all the time."""
        return in_place(self.lock, self.lock_path)

    def succeed(self, lock: int) -> None:
        """Go on with the lock and the socket files of a predecessor, who has let go of them."""
        self.lock = lock
        for path in (self.path, self.admin):
            self._remember(path)

    def passed_on(self) -> None:
        """A successor has the lock and the socket files: they are not ours any more."""
        self._inodes.clear()

    def listen(self, path: Path) -> socket.socket:
        """Bind one of our sockets. The lock is held, so what is there is stale."""
        if not self.holds:  # what is there may be another daemon's, which has locked a new file
            raise ConfigError(f"socket `{path}`: the lock file beside it was removed meanwhile: start again")
        try:
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ConfigError(f"socket `{path}` is a file of another kind: remove it, or pass another path")
            path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigError(f"socket `{path}`: the stale one cannot be removed: {error.strerror}") from None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o117)
        try:
            listener.bind(str(path))
        except OSError as error:
            listener.close()
            raise ConfigError(f"socket `{path}` cannot be bound: {error.strerror}") from None
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        self._remember(path)
        return listener

    def _remember(self, path: Path) -> None:
        info = path.lstat()
        self._inodes[path] = info.st_dev, info.st_ino

    def leave(self) -> None:
        """Remove the socket files that are still ours."""
        for path, inode in self._inodes.items():
            with contextlib.suppress(OSError):
                info = path.lstat()
                if (info.st_dev, info.st_ino) == inode:
                    path.unlink()

    def close(self) -> None:
        self.leave()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1
