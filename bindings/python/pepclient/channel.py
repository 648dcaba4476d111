"""One connection to the daemon under asyncio: many requests in flight, told apart by their ids.

Promises: nothing waits but for replies; a reply goes to the request whose id, op and partition it carries; what is
malformed ends every request of the connection with a fault; a request that was cancelled or ran out of time leaves
the others alone, and its late reply is dropped by its id, which is never used twice; why the daemon hung up is read
before a write that failed is given up.
Never: stores more than the largest bound of a reply; queues more than QUEUED bytes for a daemon that does not read;
touches the parent's event loop after a fork.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from pepcore.errors import BadFrame, DeadlinePassed, Fault, Overloaded, Unreachable

from . import frames
from .mapped import Shared, shared
from .place import absent, believe
from .stream import Lost

QUEUED = 4 << 20
ABANDONED = 1024  # requests nobody waits for any more, before the connection takes no new ones
_CHUNK = 262144
_PASSED = 4

Reply = asyncio.Future[bytes | Fault]


class Waiting(NamedTuple):
    """A request that somebody waits for, and where it ends among all the bytes that are sent."""

    request: frames.Request
    reply: Reply
    end: int


class Channel:
    """A connection that belongs to one event loop. `retired`: it takes no new requests."""

    def __init__(self, sock: socket.socket, path: str, hello: bytes) -> None:
        self.loop = asyncio.get_running_loop()
        self.retired = False
        self.answered = False
        """Whether anything ever came: only then may its loss be taken for that of a kept connection."""
        self.frame_limit, self.many_limit = frames.FRAME_LIMIT, frames.MANY
        self._path, self._sock = path, sock
        self._in, self._out = bytearray(), bytearray(hello)
        self._next, self._sent, self._queued = 1, 0, len(hello)
        self._greeted = self._blocked = False
        self._passed: list[int] = []
        self.on_close: Callable[[], None] | None = None
        self._boot = 0
        self._same_clock = False
        self._begun = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._waiting: dict[int, Waiting] = {}
        self._abandoned: dict[int, frames.Request] = {}
        believe(sock, path)
        self.loop.add_reader(sock, self._readable)

    async def ask(self, request: frames.Request, until: float) -> bytes | Fault:
        """Send a request and wait for the body of its reply, or for the fault in an error frame.

        Raises Lost where no byte of the reply came before the connection ended, or a Fault.
        """
        if len(self._out) > QUEUED:
            raise Overloaded("", "the daemon does not read what is sent to it")
        self._next += 1
        number = self._next
        reply: Reply = self.loop.create_future()
        left = until - time.monotonic()
        data = request.frame(number, int(left * 1e6))
        self._queued += len(data)
        self._waiting[number] = Waiting(request, reply, self._queued)
        late = self.loop.call_later(max(0.0, left), self._late, number)
        try:
            self._send(data)
            return await reply
        finally:
            late.cancel()
            if self._waiting.pop(number, None) is not None:
                self._abandon(number, request)

    def take_shared(self) -> Shared | None:
        """What came with the welcome, once; None: answers are not kept. See `Stream.take_shared`."""
        passed, self._passed = self._passed, []
        return shared(passed, self._boot if self._same_clock else 0)

    def _late(self, number: int) -> None:
        asked = self._waiting.get(number)
        if asked is not None and not asked.reply.done():
            asked.reply.set_exception(DeadlinePassed("deadline", "no answer came in time"))
            self.retired = True  # it may hang: whoever asks next gets a new connection

    def _abandon(self, number: int, request: frames.Request) -> None:
        if self._sock.fileno() >= 0:
            self._abandoned[number] = request
            self.retired = self.retired or len(self._abandoned) >= ABANDONED
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self.retired and not self._waiting:
            self.close()

    # ---- the socket ----

    def _send(self, data: bytes) -> None:
        self._out += data
        if not self._blocked:
            self._writable()

    def _writable(self) -> None:
        if self._sock.fileno() < 0:
            return
        try:
            sent = self._sock.send(self._out, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            self.retired, sent = True, 0
            self._out.clear()  # what the daemon said before it hung up, and the end, come by reading
        except OSError as error:
            return self._lost(error.strerror or str(error))
        self._sent += sent
        del self._out[:sent]
        if bool(self._out) != self._blocked:
            self._blocked = bool(self._out)
            if self._blocked:
                self.loop.add_writer(self._sock, self._writable)
            else:
                self.loop.remove_writer(self._sock)
        return None

    def _readable(self) -> None:
        try:
            if self._greeted:
                data = self._sock.recv(_CHUNK)
            else:  # the page's descriptor comes beside the welcome
                data, passed, _, _ = socket.recv_fds(self._sock, _CHUNK, _PASSED)
                self._passed += passed
        except BlockingIOError:
            return
        except OSError as error:
            return self._lost(error.strerror or str(error))
        if not data:
            return self._lost("the daemon closed the connection")
        self._in += data
        try:
            self._take_frames()
        except Fault as fault:
            self.end(fault)

    def _take_frames(self) -> None:
        """Hand out the replies that are whole, after all of them were looked at.

        Raises Fault where the stream is out of order; then it is the answer to every request, also those in front.
        """
        arrived: list[tuple[Reply, bytes | Fault]] = []
        at, size = 0, frames.HEADER.size
        try:
            while len(self._in) - at >= size:
                head = self._in[at : at + size]
                number = frames.HEADER.unpack(head)[6]
                request, partition = self._expected(number)
                length, failed = frames.body_length(head, request.op, number, partition, request.limit)
                end = at + size + length
                if len(self._in) < end:
                    break
                self._arrived(number, bytes(self._in[at + size : end]), failed, arrived)
                at = end
            if len(self._in) > at and not self._waiting and not self._abandoned:
                raise BadFrame("reply", "is followed by bytes that nobody asked for")
        except Fault as fault:
            deliver(arrived, fault)
            raise
        del self._in[:at]
        deliver(arrived, None)
        self._close_if_done()

    def _expected(self, number: int) -> tuple[frames.Request, int]:
        """The request that a reply may be for, and the partition that it must carry."""
        if number == 1 and not self._greeted:
            return frames.Request(frames.HELLO), 0
        if not self._greeted:
            raise BadFrame("reply", "comes before that to the hello")
        request = self._waiting[number].request if number in self._waiting else self._abandoned.get(number)
        if request is None:
            raise BadFrame("reply", f"answers request `{number}`, which nobody asked")
        return request, 0 if request.op == frames.STATS else frames.PARTITION

    def _arrived(self, number: int, body: bytes, failed: bool, arrived: list[tuple[Reply, bytes | Fault]]) -> None:
        self.answered = True
        if number == 1:
            if failed:
                raise frames.problem(body)
            welcome = frames.welcome(body)
            limits, self._boot = welcome.limits, welcome.boot
            self._same_clock = self._begun <= welcome.now <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            self.frame_limit = limits.get("frame", self.frame_limit)
            self.many_limit = max(1, limits.get("many", self.many_limit))
            self._greeted = True
            return
        told: bytes | Fault = frames.problem(body) if failed else body
        if self._abandoned.pop(number, None) is not None:
            return
        if self._waiting[number].end > self._sent and not failed:
            raise BadFrame("reply", frames.EARLY)
        arrived.append((self._waiting.pop(number).reply, told))

    # ---- the end ----

    def _lost(self, why: str) -> None:
        """The connection ended. Where a reply had begun, its request may not be asked again."""
        if self._in:
            self.end(BadFrame("reply", f"ended in the middle: {why}"))
        elif self.answered:
            self.end(Lost(why))
        else:
            self.end(Unreachable("", f"the daemon at `{self._path}` hung up: {why}"))

    def end(self, error: Exception) -> None:
        """Close, and end every request that waits with this error."""
        self.close()
        waiting, self._waiting = self._waiting, {}
        for asked in waiting.values():
            if not asked.reply.done():
                asked.reply.set_exception(error)

    def broken(self) -> None:
        """A reply that came whole cannot be read: nothing else on this stream is believed."""
        self.end(BadFrame("reply", "another reply on this connection was malformed"))

    def close(self) -> None:
        """Close the socket; requests that wait for it end by their deadlines."""
        self.retired = True
        self._boot = 0
        self.take_shared()
        if self.on_close is not None:
            self.on_close()
        if self._sock.fileno() >= 0:
            if not self.loop.is_closed():
                self.loop.remove_reader(self._sock)
                self.loop.remove_writer(self._sock)
            self._sock.close()

    def forget(self) -> None:
        """In a forked child: close our copy of the socket and leave the loop, which the parent still uses, alone."""
        self.retired = True
        self._boot = 0
        self.take_shared()
        if self.on_close is not None:
            self.on_close()
        if self._sock.fileno() >= 0:
            os.close(self._sock.detach())


def deliver(arrived: list[tuple[Reply, bytes | Fault]], fault: Fault | None) -> None:
    """Give each request its reply, or all of them the fault."""
    for reply, told in arrived:
        if not reply.done():
            if fault is None:
                reply.set_result(told)
            else:
                reply.set_exception(fault)


async def dial(path: str, until: float) -> socket.socket:
    """A connected socket. Raises Unreachable or DeadlinePassed."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:  # the listener's backlog is full: nothing to poll for
                if time.monotonic() >= until:
                    raise DeadlinePassed("connect", "the daemon accepts nobody") from None
                await asyncio.sleep(0.001)
            except OSError as error:
                raise absent(path, error) from None
    except BaseException:
        sock.close()
        raise
