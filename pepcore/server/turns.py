"""Who gets the loop, and for how long (D11): hits never wait for what others ask, however many connections bring it.

Promises: what the gate could not answer is worked on in slices of SLICE_NS, owners in turn, each connection's asks in
the order they came, and a connection is not read from while one of its asks waits here; where several owners are
connected, what is read for one of them in one turn of the loop is bounded by SHARE_NS; what waits past that goes on
in the next turn, after the others.
Never: drops an ask of a connection that is open; reads ahead of what is answered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.gate import Ask
from . import clock
from .turn import Served, Share

if TYPE_CHECKING:
    from .connection import Connection

SLICE_NS = 200_000
"""Of what the gate could not answer, in one turn of the loop; at least one ask."""

Take = Callable[["Connection", Ask, int, int], None]
Flush = Callable[[int, int], None]


class Turns:
    """What waits for its turn. `take(connection, ask, now, wall_ms)` does one ask, `flush` sends what they brought."""

    def __init__(self, take: Take, flush: Flush) -> None:
        self.served = Served()
        self._take, self._flush = take, flush
        self._loop = asyncio.get_running_loop()
        self._shares: dict[int, Share] = {}
        self._asking: OrderedDict[int, deque[Connection]] = OrderedDict()
        self._reading: dict[int, deque[Connection]] = {}
        self._resuming: set[int] = set()
        self._spent_ns = 0
        self._over = False

    # ---- asks ----

    @property
    def waiting(self) -> bool:
        """Whether an ask waits, or this turn's slice is used up."""
        return self._over or bool(self._asking)

    def ask(self, connection: Connection, now: int, wall_ms: int) -> None:
        """Do the asks of a connection, at once as far as this turn's slice goes."""
        self._asking.setdefault(connection.peer.owner, deque()).append(connection)
        if not self._over:
            self._work(now, wall_ms)

    def _work(self, now: int, wall_ms: int) -> None:
        done: list[Connection] = []
        while self._asking and self._spent_ns < SLICE_NS:
            owner, queue = self._asking.popitem(last=False)
            connection = queue.popleft()
            if connection.asks:  # none: it was closed
                self._take(connection, connection.asks.popleft(), now, wall_ms)
                (queue if connection.asks else done).append(connection)
            if queue:
                self._asking[owner] = queue
            before, now = now, clock.now()
            self._spent_ns += now - before
        self._flush(now, wall_ms)
        for connection in done:
            connection.go_on()
        if self._spent_ns >= SLICE_NS and not self._over:
            self._over = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._over = False
        self._spent_ns = 0
        if self._asking:
            self._work(clock.now(), clock.wall_ms())

    # ---- reads ----

    def share(self, owner: int) -> Share:
        """What an owner has taken; all its connections count on the same one."""
        return self._shares.setdefault(owner, Share())

    def later(self, connection: Connection) -> None:
        """Read for this connection again when its owner has a share, in the next turn or after."""
        owner = connection.peer.owner
        self._reading.setdefault(owner, deque()).append(connection)
        self._resume_soon(owner)

    def _resume_soon(self, owner: int) -> None:
        """One callback a turn for an owner: each gives it a share."""
        if owner not in self._resuming:
            self._resuming.add(owner)
            self._loop.call_soon(self._resume, owner)

    def _resume(self, owner: int) -> None:
        queue, share = self._reading[owner], self.share(owner)
        share.spent_ns = 0
        for _ in range(len(queue)):  # who wants still more comes after the others of the loop
            if share.used_up:
                break
            queue.popleft().resume()
        self._resuming.discard(owner)
        if queue:
            self._resume_soon(owner)
