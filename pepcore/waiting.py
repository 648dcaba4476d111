"""Who waits: how many, how many bytes, for which peer, until when.

Promises: a peer that disconnects costs its own waiters and no more; a deadline is found without looking at the
others; memory follows those who wait now, not those who waited (a deadline that nobody needs any more leaves the
heap when half of it is of that kind).
Never: decides, answers, or reads a clock.

INVARIANT: `len(waiting)` is the number of waiters that have a flight, and the sum over owners and over peers; the bytes
of an owner are those of its flights that are waited for, and of its batches that are not answered.
"""

from __future__ import annotations

import itertools
from heapq import heapify, heappop, heappush
from typing import Any

from .flight import Batch, Flight, Times, Waiter

SPARE = 1024  # dead deadlines that are not worth a sweep


class Waiting:
    """All waiters of an enforcer."""

    def __init__(self) -> None:
        self._all = 0
        self._of_owner: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self._of_peer: dict[int, dict[Waiter, None]] = {}  # by identity: a waiter keeps its peer alive
        self._deadlines: list[tuple[int, int, Waiter]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return self._all

    def of_owner(self, owner: int) -> int:
        """How many of an owner's requests wait."""
        return self._of_owner.get(owner, 0)

    def has_room(self, owner: int, size: int, times: Times) -> bool:
        """Whether one more question of this size may wait for an owner."""
        return (
            self._all < times.waiting
            and self._of_owner.get(owner, 0) < times.waiting_per_owner
            and self._bytes.get(owner, 0) + size <= times.waiting_bytes
        )

    def hold(self, batch: Batch) -> None:
        """A batch waits: all its items stay in memory, also those that are cached."""
        if not batch.held:
            batch.held = sum(len(item) for item in batch.items if isinstance(item, bytes))
            self._charge(batch.partition.owner, batch.held)

    def let_go(self, batch: Batch) -> None:
        """A batch is answered, or its peer is gone."""
        self._charge(batch.partition.owner, -batch.held)
        batch.held = 0

    def _charge(self, owner: int, size: int) -> None:
        left = self._bytes.get(owner, 0) + size
        if left:
            self._bytes[owner] = left
        else:
            self._bytes.pop(owner, None)

    def of_peer(self, to: Any) -> list[Waiter]:
        """What waits for one peer, batches item by item."""
        return list(self._of_peer.get(id(to), ()))

    def enter(self, flight: Flight, waiter: Waiter) -> None:
        """A waiter waits for this flight from now on."""
        owner = flight.partition.owner
        if not flight.waiters:
            self._charge(owner, len(flight.key))
        flight.waiters[waiter] = None
        waiter.flight = flight
        self._all += 1
        self._of_owner[owner] = self._of_owner.get(owner, 0) + 1
        self._of_peer.setdefault(id(waiter.to), {})[waiter] = None
        if not waiter.timed:  # who asks again keeps the place that he has
            waiter.timed = True
            heappush(self._deadlines, (waiter.deadline_ns, next(self._order), waiter))
            if len(self._deadlines) > 2 * self._all + SPARE:
                self._deadlines = [entry for entry in self._deadlines if entry[2].flight is not None]
                heapify(self._deadlines)

    def leave(self, waiter: Waiter) -> Flight:
        """A waiter waits no more; returns what it waited for."""
        flight = waiter.flight
        assert flight is not None, "only those who wait can leave"
        waiter.flight = None
        del flight.waiters[waiter]
        owner = flight.partition.owner
        if not flight.waiters:
            self._charge(owner, -len(flight.key))
        self._all -= 1
        self._of_owner[owner] -= 1
        if not self._of_owner[owner]:
            del self._of_owner[owner]
        peers = self._of_peer[id(waiter.to)]
        del peers[waiter]
        if not peers:
            del self._of_peer[id(waiter.to)]
        return flight

    def next_deadline(self) -> int | None:
        """The nearest deadline of those who wait, or None."""
        while self._deadlines and self._deadlines[0][2].flight is None:
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def due(self, now: int) -> Waiter | None:
        """A waiter whose deadline has passed, or None. The caller makes it leave."""
        deadline = self.next_deadline()
        return self._deadlines[0][2] if deadline is not None and deadline <= now else None
