"""One connection: what the hit path (turn.pyx) leaves over, and the bounds on both directions.

Promises: what one read brings is answered with one write, in turns of bounded size; a peer that does not read its
replies is not read from, and is closed when too much waits for it or it waits too long; a frame that stays half sent
is given up after the configured time; a peer that goes away gets nothing applied.
Never: parses anything (the gate does); decides anything (the enforcer does); reads ahead of what is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from typing import TYPE_CHECKING

from ..core.counts import Counts
from ..core.gate import Ask, Stream
from ..flight import Partition
from ..tenure import Holder
from . import logs
from .peer import Peer
from .replies import Explaining
from .turn import Turn

if TYPE_CHECKING:
    from .service import Service


class Connection:
    """A client's connection on a non-blocking socket.

    `asks` are what it asked that is not worked on yet, `waiting` counts the replies that the enforcer still owes it,
    `partitions` were made by its hellos.
    """

    def __init__(self, service: Service, sock: socket.socket, peer: Peer, administrator: bool = False) -> None:
        self.service, self.peer, self.administrator = service, peer, administrator
        self.closed = False
        self.hung_up = False
        """Whether it was the peer who ended it."""
        self.asks: deque[Ask] = deque()
        self.asked_ns = 0
        self.waiting = 0
        self.explaining, self.leasing = Explaining(self), Holder(self, peer.owner)
        self.partitions: list[Partition] = []
        self.counts: Counts | None = None
        """Where this client counts the hits that it serves by itself, in its first partition."""
        self.stream = Stream(self)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._queued = 0
        self._leaving = self._later = False
        self._partial: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        turns = service.turns
        self._turn = Turn(
            sock.fileno(), service.gate, self.stream, turns.served, turns.share(peer.owner), peer.owner,
            self._rest, self._read_later, self._ended,
        )  # fmt: skip
        self._loop.add_reader(sock, self._turn.readable)
        self._reading = True

    def give(self, page: int, counts: int) -> None:
        """Pass descriptors with the next replies, and close that of the counts (-1: none).

        These replies are all that is sent then: a hello comes before anything waits.
        """
        turn = self._turn

        def given() -> None:
            turn.given, turn.passed_too = None, -1
            if counts >= 0:
                os.close(counts)

        turn.passed, turn.passed_too, turn.given = page, counts, given

    # ---- reading ----

    def _rest(self, now: int, wall_ms: int, progress: bool, unsent: bytes) -> None:
        """Where the hit path ends: replies that the kernel did not take, asks, half a frame, lost framing."""
        stream = self.stream
        if faults := stream.take_faults():
            self.service.refusals.answered(self, faults)
        if unsent:
            self.send(unsent)
        if self.closed:
            return
        if stream.asks:
            progress = True
            self.service.ask(self, stream.take_asks(), now, wall_ms)
        if stream.lost:
            self._leaving = True
        self.go_on()
        self._watch(progress)

    def go_on(self) -> None:
        """Read on, unless something that was read or is to be sent comes first."""
        if self.closed:
            return
        idle = not (self._queued or self.asks)
        if self._leaving and idle and not (self.service.decides_on and self.waiting):
            self.drop()
            return
        reading = idle and not (self._later or self._leaving or self.stream.more)
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._loop.add_reader(self._sock, self._turn.readable)
            else:
                self._loop.remove_reader(self._sock)
            self._watch(False)  # the time that we do not read is not the peer's
        if idle and self.stream.more and not (self._later or self._leaving):
            self._later = True
            self.service.turns.later(self)

    def _read_later(self) -> None:
        if not self._later:
            self._later = True
            self.service.turns.later(self)
            self.go_on()

    def resume(self) -> None:
        """Go on with what was read but not reached, or with what the kernel holds."""
        self._later = False
        if not (self.closed or self._leaving or self._queued or self.asks):
            if self.stream.more:
                self._turn.again()
            else:
                self._turn.readable()
        self.go_on()

    def _watch(self, progress: bool) -> None:
        """Bound the time that a frame may stay half sent, counted from its first bytes."""
        half_sent = self._reading and self.stream.waiting and not self.closed
        if self._partial is not None and (progress or not half_sent):
            self._partial.cancel()
            self._partial = None
        if self._partial is None and half_sent:
            self._partial = self._loop.call_later(self.service.partial_s, self._too_slow)

    def _too_slow(self) -> None:
        logs.limited("a frame stayed half sent", uid=self.peer.uid)
        self.drop()

    # ---- writing ----

    @property
    def queued(self) -> int:
        """Bytes that wait for the peer to read."""
        return self._queued

    def send(self, data: bytes) -> None:
        """Send replies. What the kernel does not take waits here, and nothing is read from the peer until it went."""
        if self.closed:
            return
        if not self._queued:
            sent = self._write(data)
            if sent < 0 or sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._sock, self._writable)
            if self._unread is None:
                self._unread = self._loop.call_later(self.service.unread_s, self._does_not_read)
        self._unsent.append(data)
        self._queued += len(data)
        self.go_on()
        if self._queued > self.service.config.limits.queued:
            self._does_not_read()

    def _write(self, data: bytes) -> int:
        """Bytes that the kernel took; -1: the peer is gone."""
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.drop()
            return -1

    def _writable(self) -> None:
        data = b"".join(self._unsent)
        sent = self._write(data)
        if sent < 0:
            return
        self._unsent = [data[sent:]] if sent < len(data) else []
        self._queued = len(data) - sent
        if self._queued:
            return
        self._loop.remove_writer(self._sock)
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        self.go_on()

    def _does_not_read(self) -> None:
        logs.limited("a peer does not read its replies", uid=self.peer.uid)
        self.drop()

    # ---- the end ----

    def _ended(self, error: Exception | None) -> None:
        """The peer has closed, or only its sending side: both end what it asked. While draining, it was us."""
        self.hung_up = error is None
        if error is not None:
            logs.unexpected("a connection is closed", error)
        if self.service.leaving and error is None:
            self.finish()
        else:
            self.drop()

    def drain(self) -> None:
        """Read what has arrived, and no more; then finish."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def finish(self) -> None:
        """Close once what is written has been taken, or after the time that replies may stay unread.

        What is still being decided is given up: whoever lost the framing cannot tell what it asked.
        """
        self._leaving = True
        self.go_on()

    @property
    def lost(self) -> bool:
        """Whether the peer has closed its end, whatever we have read."""
        try:
            return self.closed or self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def detach(self) -> socket.socket:
        """The socket, for somebody who goes on with it elsewhere."""
        mine = self._sock.dup()
        self.drop()
        return mine

    def drop(self) -> None:
        """Let go of the peer at once; nothing is applied for it any more."""
        if self.closed:
            return
        self.closed = True
        for timer in (self._partial, self._unread):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._unsent.clear()
        self.asks.clear()
        self.service.gone(self)
        # each of these holds this connection: without a cycle its buffers are free now, not at the next full collection
        self._turn.close()
        self.stream.close()
        self._partial = self._unread = None
        del self.explaining, self.leasing
