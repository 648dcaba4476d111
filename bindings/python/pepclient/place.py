"""Where the daemon is, and whether the process behind a socket may be believed.

Promises: the first of the four places of `bindings/README.md` is taken; a peer is who the kernel says it is
(SO_PEERCRED): root, our own user, or the owner of the socket's directory where nobody else can write to it.
Never: believes uid 65534, which stands for every user whom a user namespace cannot name; follows what a message says.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct

from pepcore.errors import Refused, Unreachable

OVERFLOW_UID = 65534
FALLBACK = "/run/pepcore/pepcore.sock"
_ADVICE = {
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED),
        ": start it with `pepcore serve`, or name its socket in PEPCORE_SOCKET",
    ),
    errno.EACCES: ": ask as a user who may open it, or name another socket in PEPCORE_SOCKET",
}


def find(path: str | os.PathLike[str] | None) -> str:
    """The daemon's socket: the path given, PEPCORE_SOCKET, the user's run directory, the system's."""
    if path is not None:
        return os.fspath(path)
    named = os.environ.get("PEPCORE_SOCKET")
    if named:
        return named
    run = os.environ.get("XDG_RUNTIME_DIR")
    if run:
        own = os.path.join(run, "pepcore", "pepcore.sock")
        if os.path.exists(own):
            return own
    return FALLBACK


def absent(path: str, error: OSError) -> Unreachable:
    """Why nobody answers at `path`, and what to do about it."""
    return Unreachable("", f"no daemon at `{path}`: {error.strerror or error}{_ADVICE.get(error.errno or 0, '')}")


def believe(sock: socket.socket, path: str) -> None:
    """Raise Refused unless the daemon behind `sock` is one whose answers may be enforced."""
    _, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid == OVERFLOW_UID:
        raise Refused("peer", f"uid `{uid}` stands for a user of another namespace: give this one its own listener")
    if uid in (0, os.geteuid()):
        return
    folder = os.stat(os.path.dirname(path) or ".")
    if uid != folder.st_uid or stat.S_IMODE(folder.st_mode) & 0o022:
        raise Refused(
            "peer",
            f"the daemon runs as uid `{uid}`, which is not root, not us, and not the sole writer of the "
            f"directory of `{path}`: run it as one of these",
        )
