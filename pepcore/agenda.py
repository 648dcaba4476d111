"""What is due when: at most one time for each thing, which a later one replaces.

Promises: memory follows the things that have a time now, not those that had one (what was replaced or dropped leaves
the heap when half of it is of that kind, so that no look has to pass over very many); of what is due at the same time,
what came first comes first.
Never: reads a clock.

INVARIANT: a thing is in `_place` if and only if it has a time; the heap's entry with that place is the one that counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

SPARE = 1024  # entries that do not count and are not worth a sweep

T = TypeVar("T", bound=Hashable)


class Agenda(Generic[T]):
    """Things by the time when they are due."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, T]] = []
        self._place: dict[T, int] = {}
        self._places = itertools.count()

    def __len__(self) -> int:
        return len(self._place)

    def set(self, thing: T, at: int) -> None:
        """It is due then, and at no other time."""
        place = self._place[thing] = next(self._places)
        heappush(self._heap, (at, place, thing))
        self._sweep()

    def drop(self, thing: T) -> None:
        """It is not due any more."""
        if self._place.pop(thing, None) is not None:
            self._sweep()

    def _sweep(self) -> None:
        if len(self._heap) > 2 * len(self._place) + SPARE:
            self._heap = [entry for entry in self._heap if self._place.get(entry[2]) == entry[1]]
            heapify(self._heap)

    def first(self) -> int | None:
        """When something is due next, or None."""
        while self._heap and self._place.get(self._heap[0][2]) != self._heap[0][1]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: int) -> T | None:
        """What is due by now and was not taken yet, or None."""
        at = self.first()
        if at is None or at > now:
            return None
        thing = heappop(self._heap)[2]
        del self._place[thing]
        return thing
