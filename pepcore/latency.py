"""How long misses took: a histogram with fixed bounds.

Promises: one comparison of bounds per observation; memory is fixed. Never: reads a clock (the caller brings what it
took); forgets, so that the difference of two readings is what happened between them.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

BOUNDS_US = (50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
             10_000_000)  # fmt: skip
"""What an evaluation inline takes is at the beginning, the default deadline in the middle, the longest at the end."""


class Latency:
    """Counts of what took so long at most; the last is of all that took longer."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.sum_us = 0

    def observe(self, begun_ns: int, now: int) -> None:
        """Something that begun then is done now; 0: it is not to be counted."""
        if not begun_ns:
            return
        took_us = max(0, now - begun_ns) // 1000
        self.counts[bisect_left(BOUNDS_US, took_us)] += 1
        self.sum_us += took_us

    def told(self) -> dict[str, object]:
        """Plain values: microseconds."""
        return {"bounds": list(BOUNDS_US), "counts": list(self.counts), "sum": self.sum_us}


def quantile(bounds: list[int], counts: list[int], share: float) -> float:
    """The value that this share of all did not exceed, in the unit of the bounds, as exact as they are; 0 of none.

    Above the last bound: the last bound.
    """
    total = sum(counts)
    if total == 0:
        return 0.0
    rank, below = share * total, 0
    for i, reached in enumerate(accumulate(counts)):
        if reached >= rank and counts[i]:
            if i == len(bounds):
                break
            lower = bounds[i - 1] if i else 0
            return lower + (bounds[i] - lower) * (rank - below) / counts[i]
        below = reached
    return float(bounds[-1])
