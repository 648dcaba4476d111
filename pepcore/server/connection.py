"""One connection: bytes from the transport into the gate, replies back, bounds on both.

Promises: what one read brings is answered with one write; a peer that does not read its replies is not read from, and
is closed when too much waits for it; a frame that stays half sent is given up after the configured time; a peer that
goes away gets nothing applied.
Never: parses anything (the gate does); decides anything (the enforcer does).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from ..core.gate import Stream
from ..errors import Fault
from . import clock, logs
from .peer import Peer, credentials

if TYPE_CHECKING:
    from .service import Service


class Connection(asyncio.Protocol):
    """The protocol of a client connection."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.peer: Peer | None = None
        self.closed = self._paused = False
        self._partial: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit
        try:
            self.peer = self.service.admit(self, *credentials(self.transport.get_extra_info("socket")))
        except (Fault, OSError) as refused:
            logs.limited("a peer was refused", reason=str(refused))
            self.closed = True
            self.transport.abort()
            return
        self.owner = self.peer.owner
        self.stream = Stream(self.peer)
        self._feed = self.service.gate.feed

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        service, stream = self.service, self.stream
        now, wall_ms = clock.now(), clock.wall_ms()
        service.misses.served(self.owner, now)
        out = self._feed(stream, data, now, wall_ms)
        if out is not None:
            self.transport.write(out)
        asks = stream.asks
        if asks:
            service.ask(self, stream.take_asks(), now, wall_ms)
        if stream.more and not self._paused:
            asyncio.get_running_loop().call_soon(self.data_received, b"")
        if stream.waiting or self._partial is not None:
            self._watch(bool(out) or bool(asks))
        if stream.lost:
            self.transport.close()

    def _watch(self, progress: bool) -> None:
        """Bound the time that a frame may stay half sent, counted from its first bytes."""
        if self._partial is not None and (progress or not self.stream.waiting):
            self._partial.cancel()
            self._partial = None
        if self._partial is None and self.stream.waiting and not self.stream.more:
            loop = asyncio.get_running_loop()
            self._partial = loop.call_later(self.service.partial_s, self._too_slow)

    def _too_slow(self) -> None:
        logs.limited("a frame stayed half sent", uid=self.peer.uid if self.peer else -1)
        self.transport.abort()

    def send(self, data: bytes) -> None:
        """Write replies that came later."""
        if self.closed:
            return
        self.transport.write(data)
        if self.transport.get_write_buffer_size() > self.service.config.limits.queued:
            logs.limited("a peer does not read its replies", uid=self.peer.uid if self.peer else -1)
            self.transport.abort()

    def pause_writing(self) -> None:
        self._paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if not self.closed:
            self.transport.resume_reading()
            if self.stream.more:
                self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._partial is not None:
            self._partial.cancel()
        if self.peer is not None and not self.closed:
            self.closed = True
            self.service.gone(self)
