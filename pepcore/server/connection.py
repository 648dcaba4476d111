"""One connection: what the hit path (turn.pyx) leaves over, and the bounds on both directions.

Promises: what one read brings is answered with one write, in turns of bounded size; a peer that does not read its
replies is not read from, and is closed when too much waits for it or it waits too long; a frame that stays half sent
is given up after the configured time; a peer that goes away gets nothing applied.
Never: parses anything (the gate does); decides anything (the enforcer does); reads ahead of what is answered.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from ..core.gate import Stream
from . import logs
from .peer import Peer
from .replies import Explaining
from .turn import Turn

if TYPE_CHECKING:
    from .service import Service


class Connection:
    """A client's connection on a non-blocking socket. `waiting`: replies that the enforcer still owes it."""

    def __init__(self, service: Service, sock: socket.socket, peer: Peer) -> None:
        self.service, self.peer = service, peer
        self.closed = False
        self.waiting = 0
        self.explaining = Explaining(self)
        self.stream = Stream(peer)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._queued = 0
        self._leaving = self._turning = False
        self._partial: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._turn = Turn(
            sock.fileno(), service.gate, self.stream, service.misses.served, peer.owner, self._rest, self.drop
        )
        self._loop.add_reader(sock, self._turn.readable)

    # ---- reading ----

    def _rest(self, now: int, wall_ms: int, progress: bool, unsent: bytes) -> None:
        """Where the hit path ends: replies that the kernel did not take, asks, half a frame, lost framing."""
        stream = self.stream
        if unsent:
            self.send(unsent)
        if self.closed:
            return
        if stream.asks:
            progress = True
            self.service.ask(self, stream.take_asks(), now, wall_ms)
        if stream.lost:
            self.finish()
        elif stream.more and not self._queued:
            self._loop.remove_reader(self._sock)
            self._take_turns()
        self._watch(progress)

    def _take_turns(self) -> None:
        """Leave the rest for the next turn of the loop; the reader is off until all that was read is answered."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._again)

    def _again(self) -> None:
        """Go on with what was read but not reached in the last turn."""
        self._turning = False
        if not (self.closed or self._leaving or self._queued):
            self._turn.again()
            if not (self.closed or self._leaving or self._queued or self._turning):
                self._loop.add_reader(self._sock, self._turn.readable)

    def _watch(self, progress: bool) -> None:
        """Bound the time that a frame may stay half sent, counted from its first bytes."""
        half_sent = self.stream.waiting and not (self.closed or self._leaving or self._queued or self.stream.more)
        if self._partial is not None and (progress or not half_sent):
            self._partial.cancel()
            self._partial = None
        if self._partial is None and half_sent:
            self._partial = self._loop.call_later(self.service.partial_s, self._too_slow)

    def _too_slow(self) -> None:
        logs.limited("a frame stayed half sent", uid=self.peer.uid)
        self.drop()

    # ---- writing ----

    def send(self, data: bytes) -> None:
        """Send replies. What the kernel does not take waits here, and nothing is read from the peer until it went."""
        if self.closed:
            return
        if not self._queued:
            sent = self._write(data)
            if sent < 0 or sent == len(data):
                return
            data = data[sent:]
            self._loop.remove_reader(self._sock)
            self._loop.add_writer(self._sock, self._writable)
            if self._unread is None:
                self._unread = self._loop.call_later(self.service.unread_s, self._does_not_read)
        self._unsent.append(data)
        self._queued += len(data)
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
        if self._leaving:
            self.drop()
            return
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self.stream.more or self._turning:
            self._take_turns()
        else:
            self._loop.add_reader(self._sock, self._turn.readable)
        self._watch(False)

    def _does_not_read(self) -> None:
        logs.limited("a peer does not read its replies", uid=self.peer.uid)
        self.drop()

    # ---- the end ----

    def finish(self) -> None:
        """Close once what waits for the peer was taken, or after the time that it may leave replies unread."""
        if self.closed or self._leaving:
            return
        if not self._queued:
            self.drop()
            return
        self._leaving = True

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
        self.service.gone(self)
