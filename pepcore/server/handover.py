"""From one daemon to the next without a lost request: `pepcore serve --takeover` (DESIGN, D3 fencing, invariant 17).

    successor: loads, warms up, tests the journal ──asks on the administration socket──► predecessor: joins the thread
    that renews its lease and zeroes it, accepts and reads nobody more, answers what was sent, closes its record, and
    only then ──sends its listening sockets, its locks, what it has of leases and blocks──► successor: saves the blocks,
    opens the record, binds its address ──can serve──► predecessor: ends ──it is yours──► successor: listens. Who is
    connected finds the end of the stream, connects again and is in the backlog already.

Promises: when the lock is passed, the predecessor answers no question, has nothing on its way to the disk, and no page
of it is believed; nobody acknowledges for both, nor before what the predecessor itself had to wait for. A successor
that goes before it can serve leaves a predecessor that serves on, and one that says nothing for too long is killed; one
that was not told that all is its own serves nobody. A peer that does not take its replies holds nobody up. Leases are
passed on as those of holders who stop within their grace, unless they come and ask.
Never: passes what a client said; takes over from a daemon of another user; signals a process that it does not know
from the kernel as the one that asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..blocks import Block
from ..config import milliseconds
from ..core.frame import header
from ..errors import ConfigError
from ..wire import ERROR, Op, Problem, pack, reply
from . import clock, logs

if TYPE_CHECKING:
    from .connection import Connection
    from .listener import Listener
    from .place import Place
    from .service import Service

PATIENCE_S = 30.0
PREPARED_S = 4.0
"""How long a successor that has everything may take until it can serve: meanwhile nobody does."""
UNREAD_S = 0.1
"""How long a peer may leave its replies where they are before a hand-over goes on without it."""
REOPENED_S = 5.0
"""How long the record of a successor that has gone may still be locked."""
READY, YOURS = 2, 3
"""Numbers of the requests by which a successor says that it can serve, and is told to."""
LARGEST = 256 << 20
"""Bytes of a hand-over: ten thousand of the longest blocks are 80 MB, and there are as many leases."""
_HEADER = struct.Struct("<IIBBHIQ")


class Successor(msgspec.Struct, frozen=True):
    """Who waits to take over, and the request to answer. `process` is its pidfd; -1: it cannot be had."""

    connection: Any
    request: int
    process: int


class HeldBefore(msgspec.Struct, frozen=True):
    """A lease of the predecessor, whose holder stops by himself within so many ms unless he asks again. `ended`: it is
    held no more, but its holder has not said that he stopped."""

    principals: tuple[str, ...]
    action: str
    resource: str
    tags: tuple[str, ...]
    point: str
    uid: int
    since_ms: int
    left_ms: int
    ended: bool


class Handed(msgspec.Struct, frozen=True):
    """What a predecessor says when it passes everything on. It may have just started in the place of a third one: for
    `fence_ns` from now its page may be believed still, and for `before_ns` its leases may be held. Its blocks may not
    be on disk; `broken` says why it has none to pass on and denies everything."""

    leases: tuple[HeldBefore, ...]
    blocks: tuple[Block, ...]
    broken: str
    fence_ns: int
    before_ns: int


class Taken(msgspec.Struct, frozen=True):
    """What a successor has: listening sockets, the locks of socket and state folder, and the connection to the
    predecessor, which goes on where that ends."""

    accepting: Any
    administrators: Any
    lock: int
    state: int
    handed: Handed
    connection: Any


_handed = msgspec.msgpack.Decoder(Handed).decode
_problem = msgspec.msgpack.Decoder(Problem).decode


# ---- the predecessor ----


async def hand_over(service: Service, place: Place, administrators: Listener, accepting: Listener) -> bool:
    """Give everything to the successor that asked for it. False: it has gone, and this daemon serves on; its lease is
    not renewed then."""
    successor: Successor = service.successor
    logs.info("handing over", waiting=service.enforcer.waiting)
    service.renewal.stop()  # first: what clients answer by themselves afterwards, nobody would count
    accepting.pause()
    administrators.pause()
    service.leaving = service.decides_on = True
    await _let_go(service, successor)
    await service.administration.settled()
    if successor.connection.lost:
        _go_on(service, administrators, accepting)
        return False
    if service.endpoint is not None:
        service.endpoint.close()
        service.endpoint = None
    await service.leasing.leave("handed-over")
    service.recording.close()
    if not service.holds():  # nobody takes over what is not ours
        return True
    handed, state = service.administration.passed_on(tuple(service.leasing.passed_on(clock.now())))
    frame = reply(Op.TAKEOVER, successor.request, 0, pack(handed))
    fds = [accepting.fileno(), administrators.fileno(), place.lock, state]
    if await asyncio.to_thread(_pass, successor.connection.detach(), successor.process, frame, fds):
        place.passed_on()
        return True
    await _reopen(service, place)
    _go_on(service, administrators, accepting)
    return False


async def _let_go(service: Service, successor: Successor) -> None:
    """Answer what was sent, and part with everybody else; all within `daemon.drain`."""
    now = clock.now()
    until = now + milliseconds(service.config.daemon.drain) * 1_000_000
    stuck: dict[Connection, tuple[int, int]] = {}  # bytes that wait to be read, since when
    for connection in _others(service, successor):
        connection.drain()
    while (left := _others(service, successor)) and now < until:
        for connection in left:
            queued, since = stuck.get(connection, (0, now))
            if connection.queued != queued:
                queued, since = stuck[connection] = connection.queued, now
            if queued and now - since > UNREAD_S * 1e9:
                connection.drop()
            else:
                connection.go_on()
        await asyncio.sleep(0.002)
        now = clock.now()
    for connection in left:
        connection.drop()


def _go_on(service: Service, administrators: Listener, accepting: Listener) -> None:
    logs.error("the successor has gone: this daemon serves on")
    if service.successor.process >= 0:
        os.close(service.successor.process)
    service.successor, service.leaving, service.decides_on = None, False, False
    service.administration.go_on()
    accepting.go_on()
    administrators.go_on()


async def _reopen(service: Service, place: Place) -> None:
    """Take back what a successor was to have. Raises ConfigError where the record cannot be opened any more."""
    until = clock.now() + int(REOPENED_S * 1e9)
    while True:
        try:
            service.recording.open()
            break
        except ConfigError:  # the successor may not be quite gone
            if clock.now() > until:
                raise
            await asyncio.sleep(0.02)
    service.recording.start()
    try:
        observe(service, place)
    except ConfigError as error:
        logs.error("the metrics are not served any more", reason=str(error))


def _others(service: Service, successor: Successor) -> list[Connection]:
    return [c for c in service.connections if c is not successor.connection]


def _pass(sock: socket.socket, process: int, frame: bytes, fds: list[int]) -> bool:
    """Send everything, and wait until the successor can serve. False: it must not, and will not."""
    with sock, contextlib.suppress(OSError):
        try:
            sock.settimeout(PREPARED_S)
            sent = socket.send_fds(sock, [frame], fds)
            if sent < len(frame):  # nothing more to send could already find the other end closed
                sock.sendall(frame[sent:])
            said = sock.recv(_HEADER.size, socket.MSG_WAITALL)
            if said == header(Op.TAKEOVER, READY, 0):
                sock.sendall(reply(Op.TAKEOVER, YOURS, 0, b""))
                return True
        except TimeoutError:  # it may be stopped, with all our locks in its hands
            _kill(process)
    return False


def _kill(process: int) -> None:
    """End a process, and wait until it is gone."""
    if process >= 0:
        logs.error("the successor says nothing: it is killed")
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [], REOPENED_S)


def observe(service: Service, place: Place) -> None:
    """Serve metrics and health, where the config says so. Raises ConfigError."""
    if service.config.observe.listen and service.endpoint is None:
        from .endpoint import Endpoint, bind

        service.endpoint = Endpoint(service, bind(service.config.observe.listen, place.files))


# ---- the successor ----


async def take(service: Service, place: Place) -> Taken:
    """Get everything from the daemon that serves this place, and its word that it has ended. Raises ConfigError: that
    one serves on, or there is none."""
    await asyncio.to_thread(service.recording.rehearse)
    taken = await asyncio.to_thread(ask, place.admin)
    if taken is None:
        raise ConfigError("the daemon to take over from is gone: start without `--takeover`")
    with taken.connection:
        try:
            await service.administration.succeeds(taken.handed, taken.state)
            service.leasing.adopt(taken.handed.leases)
            service.recording.open()
            observe(service, place)
            await asyncio.to_thread(_confirm, taken.connection, place.admin)
            place.succeed(taken.lock)
        except BaseException:  # let go of all before the connection: that tells the predecessor to go on
            if service.recording.writer is not None:
                service.recording.writer.close()
            if service.endpoint is not None:
                service.endpoint.close()
                service.endpoint = None
            raise
    return taken


def _confirm(sock: socket.socket, admin: Path) -> None:
    """Say that this daemon can serve, and wait until all is its own. Raises ConfigError."""
    said = b""
    with contextlib.suppress(OSError):
        sock.sendall(header(Op.TAKEOVER, READY, 0))
        said = sock.recv(_HEADER.size, socket.MSG_WAITALL)
    if said != reply(Op.TAKEOVER, YOURS, 0, b""):
        raise ConfigError(f"the daemon at `{admin}` has taken back what it had handed over, or has ended")


def ask(admin: Path) -> Taken | None:
    """Ask the daemon at this administration socket for everything; None: there is none. Raises ConfigError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(PATIENCE_S)
    fds: list[int] = []
    taken: Taken | None = None
    try:
        try:
            sock.connect(str(admin))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            raise ConfigError(f"the daemon at `{admin}` is one of uid `{uid}`: take over from your own only")
        sock.sendall(header(Op.TAKEOVER, 1, 0))
        data = bytearray()
        while len(data) < _HEADER.size or len(data) < _HEADER.size + _length(data):
            some, passed, _, _ = socket.recv_fds(sock, 1 << 20, 8)
            fds += passed
            if not some:
                raise ConfigError(f"the daemon at `{admin}` ended before it had handed over")
            data += some
        op, body = data[9], data[_HEADER.size :]
        if op == ERROR:
            raise ConfigError(f"the daemon at `{admin}` does not hand over: {_problem(body).reason}")
        if op != Op.TAKEOVER | 0x80 or len(fds) != 4:
            raise ConfigError(f"the daemon at `{admin}` answered something else than a hand-over")
        handed = _handed(body)
        taken = Taken(_listening(fds[0]), _listening(fds[1]), fds[2], fds[3], handed, sock)
        return taken
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"nothing was handed over by the daemon at `{admin}`: {error}") from None
    finally:
        if taken is None:
            sock.close()
            for fd in fds:
                os.close(fd)


def _length(data: bytearray) -> int:
    length = int.from_bytes(data[:4], "little")
    if length > LARGEST:
        raise ConfigError("the hand-over is larger than it can be")
    return length


def _listening(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock
