"""One connection: bytes from the transport into the gate, replies back, bounds on both.

Promises: what one read brings is answered with one write, in turns of at most TURN bytes; a peer that does not read
its replies is not read from, and is closed when too much waits for it or it waits too long; a frame that stays half
sent is given up after the configured time; a peer that goes away gets nothing applied.
Never: parses anything (the gate does); decides anything (the enforcer does); reads ahead of what is answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from ..core.gate import Stream
from ..errors import Fault
from . import clock, logs
from .peer import Peer, credentials
from .replies import Explaining

if TYPE_CHECKING:
    from .service import Service

TURN = 65_536
"""Bytes that one turn of the loop takes from a peer: some hundred questions, a few milliseconds."""


class Connection(asyncio.Protocol):
    """The protocol of a client connection. `waiting`: replies that the enforcer still owes it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.peer: Peer | None = None
        self.closed = False
        self.waiting = 0
        self.explaining = Explaining(self)
        self._paused = self._turning = False
        self._later = b""
        self._partial: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit
        try:
            self.peer = self.service.admit(self, *credentials(self.transport.get_extra_info("socket")))
        except (Fault, OSError) as refused:
            logs.limited("a peer was refused", reason=str(refused))
            self.drop()
            return
        self.owner = self.peer.owner
        self.stream = Stream(self.peer)
        self._feed = self.service.gate.feed

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        if self._turning or self._paused:  # read before the transport heard that it should pause
            self._later += data
            return
        if len(data) > TURN:
            self._later = data[TURN:]
            data = data[:TURN]
        service, stream = self.service, self.stream
        now, wall_ms = clock.now(), clock.wall_ms()
        service.misses.served(self.owner, now)
        out = self._feed(stream, data, now, wall_ms)
        if out is not None:
            self.transport.write(out)
        asks = stream.asks
        if asks:
            service.ask(self, stream.take_asks(), now, wall_ms)
        if stream.lost:
            self.finish()
        elif stream.more or self._later:
            self._take_turns()
        if stream.waiting or self._partial is not None:
            self._watch(bool(out) or bool(asks))

    def _take_turns(self) -> None:
        """Leave the rest for the next turn of the loop, and read nothing before it is done."""
        if self.closed or self._turning:
            return
        self._turning = True
        self.transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        if self.closed or self._paused:
            return
        data, self._later = self._later, b""
        self.data_received(data)
        if not (self.closed or self._turning or self._paused):
            self.transport.resume_reading()

    def _watch(self, progress: bool) -> None:
        """Bound the time that a frame may stay half sent, counted from its first bytes."""
        half_sent = self.stream.waiting and not (self.closed or self._turning or self._paused)
        if self._partial is not None and (progress or not half_sent):
            self._partial.cancel()
            self._partial = None
        if self._partial is None and half_sent:
            loop = asyncio.get_running_loop()
            self._partial = loop.call_later(self.service.partial_s, self._too_slow)

    def _too_slow(self) -> None:
        logs.limited("a frame stayed half sent", uid=self.peer.uid if self.peer else -1)
        self.drop()

    def send(self, data: bytes) -> None:
        """Write replies that came later."""
        if self.closed:
            return
        if self.transport.get_write_buffer_size() > self.service.config.limits.queued:
            self._does_not_read()
        else:
            self.transport.write(data)

    def pause_writing(self) -> None:
        self._paused = True
        if not self.closed:
            self.transport.pause_reading()
            self._watch(False)
            self._unread = asyncio.get_running_loop().call_later(self.service.unread_s, self._does_not_read)

    def resume_writing(self) -> None:
        self._paused = False
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if not (self.closed or self._turning):
            self._turn()

    def _does_not_read(self) -> None:
        logs.limited("a peer does not read its replies", uid=self.peer.uid if self.peer else -1)
        self.drop()

    def finish(self) -> None:
        """Close once what is written was read, or after the time that a peer may leave replies unread."""
        if not self.closed:
            self.closed = True
            self.transport.close()
            if self._unread is None:
                self._unread = asyncio.get_running_loop().call_later(self.service.unread_s, self.transport.abort)

    def drop(self) -> None:
        """Close at once."""
        self.closed = True
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._later = b""
        for timer in (self._partial, self._unread):
            if timer is not None:
                timer.cancel()
        if self.peer is not None:
            self.service.gone(self)
