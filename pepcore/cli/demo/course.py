"""What happened in `pepcore demo revoke`: what the loop reported, what the administrator did, and what follows.

Promises: every number comes from stamps of CLOCK_MONOTONIC that the two processes took; a permit counts as late where
it was asked after the acknowledgement of the block. Never: draws, or reads a clock.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

CELL = 5
"""Reports in one mark of the strip."""


class Change(NamedTuple):
    """Another kind of answer than before: when it was asked and came, and when the one before it was asked."""

    kind: str
    why: str
    last_ns: int
    asked_ns: int
    answered_ns: int


class Act(NamedTuple):
    """What the administrator did, and the acknowledgement."""

    called_ns: int
    acknowledged_ns: int
    revision: int
    durable: bool
    held: int

    @property
    def us(self) -> int:
        return (self.acknowledged_ns - self.called_ns) // 1000


class Course:
    """`foreign`: the block that somebody else set, as the daemon lists it; `foreign_us`: from its stamp to the deny."""

    def __init__(self) -> None:
        self.permits = self.denies = self.faults = self.hits = 0
        self.rate = 0
        self.fastest = 0
        self.changes: list[Change] = []
        self.strip: deque[str] = deque(maxlen=36)
        self._cell: list[str] = []
        self.block: Act | None = None
        self.lift: Act | None = None
        self.foreign: dict[str, Any] | None = None
        self.foreign_us: int | None = None

    def add(self, report: dict[str, Any]) -> None:
        """Add one report of the loop."""
        self.permits += report["permit"]
        self.denies += report["deny"]
        self.faults += report["fault"]
        self.hits += report["hits"]
        self.changes += [Change(**change) for change in report["changes"]]
        self.rate = (report["permit"] + report["deny"] + report["fault"]) * 1_000_000_000 // max(1, report["ns"])
        if not report["deny"] and not report["fault"]:
            self.fastest = max(self.fastest, self.rate)
        self._cell.append("fault" if report["fault"] else "deny" if report["deny"] else "permit")
        if len(self._cell) == CELL:
            self.strip.append(min(self._cell))  # deny, fault, permit: what is less than a permit is seen
            self._cell.clear()

    @property
    def asked(self) -> int:
        return self.permits + self.denies + self.faults

    @property
    def hit_ratio(self) -> float:
        return self.hits / self.asked if self.asked else 0.0

    @property
    def now(self) -> Change | None:
        """The newest change."""
        return self.changes[-1] if self.changes else None

    @property
    def stopped(self) -> Change | None:
        """The first deny, of the demo's own block where there is one."""
        since = self.block.called_ns if self.block else 0
        return next((c for c in self.changes if c.kind == "deny" and c.answered_ns >= since), None)

    @property
    def resumed(self) -> Change | None:
        """The first permit after the block was lifted."""
        since = self.lift.called_ns if self.lift else self.stopped.answered_ns if self.stopped else None
        if since is None:
            return None
        return next((c for c in self.changes if c.kind == "permit" and c.answered_ns >= since), None)

    @property
    def late(self) -> int:
        """How often the loop got a permit for what it asked after the block was acknowledged, before it was lifted."""
        if self.block is None:
            return 0
        since = self.block.acknowledged_ns
        until = self.lift.called_ns if self.lift else None
        stopped = self.stopped
        late = 1 if stopped is not None and stopped.last_ns > since else 0
        for change in self.changes:
            if change.kind == "permit" and change.asked_ns > since and (until is None or change.answered_ns < until):
                late += 1
        return late

    def problems(self) -> list[str]:
        """What did not go as promised in a demo that ran to its end."""
        found = []
        if self.faults:
            found.append(f"the loop got {self.faults:,} faults: the machine may be too busy")
        if self.stopped is None:
            found.append("the loop was never denied")
        elif self.late:
            found.append("the loop got a permit for what it asked after the block was acknowledged")
        if self.stopped is not None and self.resumed is None:
            found.append("the loop did not go on after the block was lifted")
        return found

    def summary(self) -> dict[str, Any]:
        """Everything as plain values, for `--json`."""
        return {
            "asked": self.asked,
            "permits": self.permits,
            "denies": self.denies,
            "faults": self.faults,
            "hits": self.hits,
            "hit_ratio": round(self.hit_ratio, 6),
            "checks_per_second": self.fastest,
            "block": _told(self.block, self.stopped, "first_deny_us"),
            "blocked_by": self.foreign["by"] if self.foreign else "demo" if self.block else None,
            "gap_us": self.gap_us,
            "reason": self.stopped.why if self.stopped else None,
            "late_permits": self.late if self.block else None,  # who else blocks knows when it was acknowledged
            "unblock": _told(self.lift, self.resumed, "first_permit_us"),
            "problems": self.problems(),
        }

    @property
    def gap_us(self) -> int | None:
        """From asking for the last permit to having the first deny: the effect reached the loop within."""
        stopped = self.stopped
        return (stopped.answered_ns - stopped.last_ns) // 1000 if stopped else None


def since_us(act: Act, change: Change) -> int:
    """Microseconds from the call to the answer that it changed."""
    return (change.answered_ns - act.called_ns) // 1000


def _told(act: Act | None, change: Change | None, name: str) -> dict[str, Any] | None:
    if act is None:
        return None
    told = {"acknowledged_us": act.us, "revision": str(act.revision), "durable": act.durable, "held": act.held}
    return {**told, name: since_us(act, change) if change else None}
