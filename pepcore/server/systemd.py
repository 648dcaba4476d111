"""What systemd asks of a service: readiness, watchdog, listening sockets (sd_notify(3), sd_listen_fds(3)).

A few datagrams, written here because the kept bindings need libsystemd's headers to install. Outside systemd each
function does nothing.
"""

from __future__ import annotations

import os
import socket

from ..errors import ConfigError

FIRST = 3


def notify(*lines: str) -> None:
    """Tell the service manager, e.g. `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as s:
            s.sendto("\n".join(lines).encode(), address)
    except OSError:
        pass  # the manager is gone; serving goes on


def watchdog_seconds() -> float:
    """How often to send `WATCHDOG=1`; 0.0: never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    except ValueError:
        return 0.0


def passed_socket() -> socket.socket | None:
    """The listening Unix socket that systemd opened for this process, or None. Raises ConfigError."""
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or count == "0":
        return None
    if count != "1":
        raise ConfigError(f"`{count}` listening sockets were passed: pass exactly one, a Unix stream socket")
    try:
        os.set_inheritable(FIRST, False)
        s = socket.socket(fileno=FIRST)
        listens = s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        name = s.getsockname()
    except OSError as error:
        raise ConfigError(f"the listening socket that was passed cannot be used: {error.strerror}") from None
    has_path = isinstance(name, str) and name != ""
    if s.family != socket.AF_UNIX or s.type != socket.SOCK_STREAM or not listens or not has_path:
        s.detach()
        raise ConfigError("the socket that was passed is not a listening Unix stream socket with a path")
    s.setblocking(False)
    return s
