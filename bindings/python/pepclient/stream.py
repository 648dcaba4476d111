"""One connection to the daemon, blocking, for one request at a time.

Promises: one absolute deadline covers connecting, sending and receiving, however slowly the peer drips and however
many signals arrive; hello and first request leave in one write; what is not exactly the reply asked for raises; why
the daemon hung up is read before a write that failed is given up.
Never: stores more than the request's bound; is used again after it raised (the pool closes it).
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable

from pepcore.errors import BadFrame, DeadlinePassed, Fault

from . import frames
from .mapped import Shared, shared
from .place import absent, believe

_CHUNK = 65536
_PASSED = 4
LONGEST_GRACE_MS = 10_000


class Lost(Exception):
    """The connection was closed before one byte of the reply came: only then may the question be sent again."""


class Stream:
    """A connection whose hello is still to be sent, or was answered."""

    def __init__(self, path: str, hello: bytes, until: float) -> None:
        self.greeted = False
        self.boot = 0
        self.grace = 1.0
        self.on_close: Callable[[], None] | None = None
        """Of who keeps what came with the welcome: the daemon fetches the counts of its hits as long as this lasts."""
        self._same_clock = False
        self.frame_limit, self.many_limit = frames.FRAME_LIMIT, frames.MANY
        self._hello = hello
        self._next = 1
        self._rest = b""
        self._passed: list[int] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._sock.setblocking(False)
            self._connect(path, until)
            believe(self._sock, path)
            self._poll = select.poll()
            self._poll.register(self._sock, select.POLLIN)
        except BaseException:
            self._sock.close()
            raise

    def _connect(self, path: str, until: float) -> None:
        while True:
            try:
                return self._sock.connect(path)
            except BlockingIOError:  # the listener's backlog is full: nothing to poll for
                if time.monotonic() >= until:
                    raise DeadlinePassed("connect", "the daemon accepts nobody") from None
                time.sleep(0.001)
            except OSError as error:
                raise absent(path, error) from None

    def close(self) -> None:
        self._sock.close()
        self.boot = 0
        self.take_shared()
        if self.on_close is not None:
            self.on_close()

    def detach(self) -> socket.socket:
        """The socket, for somebody who goes on by himself."""
        self.boot = 0
        self.take_shared()
        mine, self._sock = self._sock, socket.socket(socket.AF_UNIX)
        return mine

    def take_shared(self) -> Shared | None:
        """What came with the welcome, once; None: answers are not kept.

        The page's lease is a time of the daemon's clock: where ours is another one (a time namespace), a dead daemon's
        page could look alive.
        """
        passed, self._passed = self._passed, []
        return shared(passed, self.boot if self._same_clock else 0)

    def exchange(self, request: frames.Request, until: float) -> bytes | Fault:
        """Send a request, return the body of its reply, or the fault in an error frame.

        Raises Lost, or a Fault after which the stream is out of order.
        """
        self._next += 1
        number = self._next
        data = request.frame(number, int((until - time.monotonic()) * 1e6))
        fresh = not self.greeted
        begun = time.clock_gettime_ns(time.CLOCK_BOOTTIME) if fresh else 0
        whole = self._send(self._hello + data if fresh else data, until)
        if fresh:
            body, failed = self._reply(frames.HELLO, 1, 0, frames.REPLY_LIMIT, until)
            if failed:
                raise frames.problem(body)
            told = frames.welcome(body)
            limits, self.boot = told.limits, told.boot
            self.grace = max(1, min(limits.get("grace", 1000), LONGEST_GRACE_MS)) / 1000
            self._same_clock = begun <= told.now <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            self.frame_limit = limits.get("frame", self.frame_limit)
            self.many_limit = max(1, limits.get("many", self.many_limit))
            self.greeted = True
        partition = 0 if request.op in frames.BARE else frames.PARTITION
        body, failed = self._reply(request.op, number, partition, request.limit, until)
        if self._rest:
            raise BadFrame("reply", "is followed by bytes that nobody asked for")
        if not whole:
            raise frames.problem(body) if failed else BadFrame("reply", frames.EARLY)
        return frames.problem(body) if failed else body

    def _send(self, data: bytes, until: float) -> bool:
        """False where the daemon hung up before it had all: what it said before that is still to be read."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._sock.send(left, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, until)
            except (BrokenPipeError, ConnectionResetError):
                return False
            except OSError as error:
                raise Lost(error.strerror or str(error)) from None
        return True

    def _reply(self, op: int, number: int, partition: int, limit: int, until: float) -> tuple[bytes, bool]:
        data, self._rest = bytearray(self._rest), b""
        while len(data) < frames.HEADER.size:
            data += self._receive(until, bool(data))
        length, failed = frames.body_length(data, op, number, partition, limit)
        end = frames.HEADER.size + length
        while len(data) < end:
            data += self._receive(until, True)
        self._rest = bytes(data[end:])
        return bytes(data[frames.HEADER.size : end]), failed

    def _receive(self, until: float, begun: bool) -> bytes:
        while True:
            self._wait(select.POLLIN, until)
            try:
                data = self._sock.recv(_CHUNK) if self.greeted else self._receive_with_page()
            except BlockingIOError:
                continue
            except OSError as error:
                if begun:
                    raise BadFrame("reply", f"ended in the middle: {error.strerror or error}") from None
                raise Lost(error.strerror or str(error)) from None
            if data:
                return data
            if begun:
                raise BadFrame("reply", "ended in the middle")
            raise Lost("the daemon closed the connection")

    def _receive_with_page(self) -> bytes:
        """As `recv`, until the welcome is there: the page's descriptor comes beside it."""
        data, passed, _, _ = socket.recv_fds(self._sock, _CHUNK, _PASSED)
        self._passed += passed
        return data

    def _wait(self, event: int, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise DeadlinePassed("deadline", "no answer came in time")
        if event != select.POLLIN:
            poll = select.poll()
            poll.register(self._sock, event)
        else:
            poll = self._poll
        if not poll.poll(math.ceil(left * 1000)):
            raise DeadlinePassed("deadline", "no answer came in time")
