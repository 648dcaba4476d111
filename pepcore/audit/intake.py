"""The queue before the writer: bounded, never waited for.

Promises: putting an entry in takes one short lock and never waits for the disk; what does not fit is refused and
counted, lossy entries first (they may fill half of it), and the count becomes a `dropped` entry.
Never: reorders. What one caller put in comes out in that order.
"""

from __future__ import annotations

import threading
from collections import deque

from .waiting import Item

MOST = (1 << 63) - 1
"""A count stops here: a larger one has no place in an entry, or in what statistics say."""
GROUP, GROUP_BYTES = 4096, 1 << 20
"""Most entries and bytes that are written at once."""


class Intake:
    def __init__(self, entries: int, size: int) -> None:
        self._entries, self._bytes = entries, size
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._items: deque[Item] = deque()
        self._held = 0
        self._idle = self.closed = False
        self._dropped: dict[str, int] = {}
        self.lost = 0
        """Entries that are not in the record, ever."""

    def put(self, item: Item, lossy: bool) -> bool:
        """False: it was not taken, and is counted."""
        with self._lock:
            share = 2 if lossy else 1
            if self.closed:  # nobody will write how many these were
                self.lost = min(MOST, self.lost + 1)
                return False
            full = len(self._items) >= self._entries // share
            if full or self._held + len(item.body) > self._bytes // share:
                self._count("the queue is full", 1)
                return False
            self._items.append(item)
            self._held += len(item.body)
            if self._idle:
                self._wake.notify()
            return True

    def take(self, seconds: float) -> list[Item]:
        """One group; empty after so many seconds without any, or once it is closed."""
        with self._lock:
            if not self._items and not self.closed and seconds > 0:
                self._idle = True
                self._wake.wait(seconds)
                self._idle = False
            found: list[Item] = []
            size = 0
            while self._items and len(found) < GROUP and size < GROUP_BYTES:
                item = self._items.popleft()
                size += len(item.body)
                found.append(item)
            self._held -= size
            return found

    def count(self, why: str, number: int, again: bool = False) -> None:
        """So many entries were lost. `again`: they were counted before, and that could not be written down."""
        with self._lock:
            self._count(why, number, again)

    def _count(self, why: str, number: int, again: bool = False) -> None:
        if not again:
            self.lost = min(MOST, self.lost + number)
        self._dropped[why] = min(MOST, self._dropped.get(why, 0) + number)

    def take_dropped(self) -> dict[str, int]:
        """What was lost since the last time. Whoever takes it writes it down, or counts it again."""
        if not self._dropped:
            return {}
        with self._lock:
            found, self._dropped = self._dropped, {}
            return found

    def close(self) -> None:
        with self._lock:
            self.closed = True
            self._wake.notify()

    @property
    def length(self) -> int:
        return len(self._items)
