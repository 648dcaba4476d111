"""What the demo has counted: the sums over all reports, the newest answer of each kind, latencies.

Promises: bounded memory: latencies are the newest 4,096 of each kind. Never: draws.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from .questions import POINTS


class Tally:
    def __init__(self) -> None:
        self.asked = self.permits = self.denies = self.faults = self.hits = 0
        self.surprises: list[str] = []
        self.surprised = 0
        self.hit_us: deque[int] = deque(maxlen=4096)
        self.miss_us: deque[int] = deque(maxlen=4096)
        self.by_point: dict[str, int] = dict.fromkeys(POINTS, 0)
        self.seen: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in POINTS}

    def add(self, point: str, report: dict[str, Any]) -> None:
        """Add one report of a point."""
        self.asked += report["asked"]
        self.permits += report["permits"]
        self.denies += report["denies"]
        self.faults += report["faults"]
        self.hits += report["hits"]
        self.surprised += len(report["surprises"])
        self.surprises = (self.surprises + report["surprises"])[:5]
        self.hit_us.extend(report["hit_us"])
        self.miss_us.extend(report["miss_us"])
        self.by_point[point] += report["asked"]
        kept, new = self.seen[point], report["seen"]
        if kept.get("permit", {}).get("after") and not new.get("permit", {}).get("after"):
            new.pop("permit", None)  # one that shows an obligation at work says more
        if "deny" in new:
            kept.pop("fault", None)
        kept.update(new)

    @property
    def hit_ratio(self) -> float:
        return self.hits / self.asked if self.asked else 0.0

    def summary(self) -> dict[str, Any]:
        """Everything as plain values, for `--json`."""
        return {
            "asked": self.asked,
            "permits": self.permits,
            "denies": self.denies,
            "faults": self.faults,
            "surprises": self.surprises,
            "hit_ratio": round(self.hit_ratio, 4),
            "hit_us": {"p50": percentile(self.hit_us, 50), "p99": percentile(self.hit_us, 99)},
            "miss_us": {"p50": percentile(self.miss_us, 50), "p99": percentile(self.miss_us, 99)},
            "points": {name: {"asked": self.by_point[name], "seen": self.seen[name]} for name in POINTS},
        }


def percentile(values: Sequence[int] | deque[int], percent: int) -> int:
    """The value that `percent` of a hundred do not exceed; 0 of none."""
    if not values:
        return 0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
