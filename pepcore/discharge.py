"""The obligations that a clock discharges: `window` and `rate`. The clock comes in as an argument.

Promises: a window says how long it stays open, so that no permit outlives it; a rate counts in whole
nanoseconds and in bounded memory, and forgets a bucket only when it is full again, when that changes nothing.
Never: reads a clock, decides, or allows more than the rate because memory ran out: a key that finds no place
is denied. Both take properties that `check` has passed; what did not may raise ObligationFault.

INVARIANT: for every key, the takes allowed in any span of time t are at most count + t x count / per.
"""

from __future__ import annotations

from hashlib import blake2b
from heapq import heappop, heappush, heapreplace
from typing import Any

from .core.properties import instant_ms, minute_of_day, span_ms

MINUTE_MS, DAY_MS = 60_000, 86_400_000
NO_EDGE_MS = 2**53 - 1
SWEEP = 8  # buckets looked at for each take: two would keep up, eight catch up


def window_left_ms(properties: dict[str, Any], wall_ms: int) -> int | None:
    """Milliseconds until a window closes, at least 1; None outside; NO_EDGE_MS where it never closes.

    A window is open from `not_before` on, until just before `not_after`, and each day from `start` until just
    before `end` in UTC, over midnight where `end` is the earlier of the two; what is given must all be open.
    """
    left = NO_EDGE_MS
    if "not_before" in properties and wall_ms < instant_ms(properties["not_before"], "not_before"):
        return None
    if "not_after" in properties:
        left = instant_ms(properties["not_after"], "not_after") - wall_ms
    if "daily" in properties:
        start = minute_of_day(properties["daily"]["start"], "daily.start") * MINUTE_MS
        end = minute_of_day(properties["daily"]["end"], "daily.end") * MINUTE_MS
        since = (wall_ms - start) % DAY_MS
        left = min(left, (end - start) % DAY_MS - since)
    return left if left > 0 else None


class Rates:
    """Token buckets, each `count` deep and filled evenly, `count` in every `per`.

    A bucket is one number: when it will be full again. It is kept under a digest, so that a long subject
    takes no more memory than a short one. A partition holds at most 60 % of the places: none takes them all.
    """

    def __init__(self, places: int = 65_536) -> None:
        self._places = places
        self._quota = max(1, places * 6 // 10)
        self._full_at: dict[tuple[int, bytes], int] = {}
        self._now_ns = 0
        # a heap with one item for each bucket; its time may be too early, never too late
        self._soonest: list[tuple[int, tuple[int, bytes]]] = []
        self._held: dict[int, int] = {}  # places by partition

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: tuple[int, str, bytes], properties: dict[str, Any], now_ns: int) -> bool:
        """Take a token of the bucket (partition, obligation id, subject) if there is one. False is a deny."""
        partition, obligation, subject = key
        name = obligation.encode()
        place = (partition, blake2b(b"%d:%b%b" % (len(name), name, subject), digest_size=16).digest())
        count = properties["count"]
        per_ms = properties["per_ms"] if "per_ms" in properties else span_ms(properties["per"], "per")
        one_ns = -(-per_ms * 1_000_000 // count)  # rounded up: never more than the rate
        self._now_ns = now_ns = max(self._now_ns, now_ns)  # one that goes back would fill forgotten buckets twice
        self._sweep(now_ns)
        full_at = self._full_at.get(place)
        if full_at is None and not self._has_place(partition):
            return False
        after = max(full_at or now_ns, now_ns) + one_ns
        if after - now_ns > one_ns * count:
            return False
        if full_at is None:
            heappush(self._soonest, (after, place))
            self._held[partition] = self._held.get(partition, 0) + 1
        self._full_at[place] = after
        return True

    def _has_place(self, partition: int) -> bool:
        return len(self._full_at) < self._places and self._held.get(partition, 0) < self._quota

    def _sweep(self, now_ns: int) -> None:
        """Forget buckets that are full again, those that are full first."""
        for _ in range(SWEEP):
            if not self._soonest or self._soonest[0][0] > now_ns:
                return
            place = self._soonest[0][1]
            full_at = self._full_at[place]
            if full_at > now_ns:
                heapreplace(self._soonest, (full_at, place))
                continue
            heappop(self._soonest)
            del self._full_at[place]
            self._held[place[0]] -= 1
            if not self._held[place[0]]:
                del self._held[place[0]]
