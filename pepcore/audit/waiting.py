"""Those who wait for the sync, and the clock that they do not wait past.

Promises: `done` of an entry is called exactly once, with its index or with an OSError; never later than its deadline,
even while the disk hangs in a call, since this thread never touches the disk.
Never: calls `done` with an index before the sync, or holds a lock while it calls.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

_log = logging.getLogger("pepcore")
Done = Callable[[int, OSError | None], None]
"""Called with the entry's index and None, or with -1 and what went wrong."""


class Item(Struct, eq=False):
    """An entry on its way into the journal."""

    body: bytes
    durable: bool
    essential: bool
    done: Done | None = None
    until: float = 0.0
    index: int = -1
    dropped: tuple[str, int] | None = None
    """It says that so many others were dropped, and why."""
    late: bool = False
    """Its caller was told that it is too late."""


class Deadlines:
    """Durable entries in the order they came, and a thread that tells those whose time has passed."""

    def __init__(self, seconds: float, deliver: Callable[[Callable[[], None]], None]) -> None:
        self.seconds, self._deliver = seconds, deliver
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._items: deque[Item] = deque()
        self._idle = self._ended = False
        self._thread = threading.Thread(target=self._run, name="journal-deadline", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, item: Item) -> None:
        item.until = time.monotonic() + self.seconds
        with self._lock:
            self._items.append(item)
            if self._idle:
                self._wake.notify()

    def settle(self, items: Iterable[Item], error: OSError | None) -> list[Item]:
        """Tell those who still wait. Return those that had been told already that it is too late."""
        told: list[tuple[Done, int]] = []
        late = []
        with self._lock:
            for item in items:
                if item.done is not None:
                    told.append((item.done, item.index if error is None else -1))
                    item.done = None
                elif item.late:
                    late.append(item)
        self._call(told, error)
        return late

    def _call(self, told: list[tuple[Done, int]], error: OSError | None) -> None:
        if not told:
            return

        def all_of_them() -> None:
            for done, index in told:
                try:
                    done(index, error)
                except Exception:  # one caller's mistake is not the others'
                    _log.exception("record-callback-failed")

        try:
            self._deliver(all_of_them)
        except Exception:  # a loop that was closed: nobody there is let in, and the record goes on
            _log.exception("record-callbacks-undelivered")

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._items and not self._ended:
                    self._idle = True
                    self._wake.wait()
                    self._idle = False
                if self._ended and not self._items:
                    return
                now = time.monotonic()
                passed: list[tuple[Done, int]] = []
                while self._items and (self._items[0].done is None or self._items[0].until <= now):
                    item = self._items.popleft()
                    if item.done is not None:
                        passed.append((item.done, -1))
                        item.done, item.late = None, True
                rest = self._items[0].until - now if self._items else 0.0
            reason = f"the record was not on disk within {self.seconds:g} s"
            self._call(passed, OSError(errno.ETIMEDOUT, reason))
            if rest > 0:
                with self._lock:
                    if not self._ended:
                        self._wake.wait(rest)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(self.seconds + 1)
