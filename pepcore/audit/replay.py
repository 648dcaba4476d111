"""What other policies would have decided of the questions that are on record.

Promises: one pass, in memory that does not grow with the record; a question is decided again only where the record has
all of it, at the time when it was asked; what the policies had no part in (a block, a deadline, a rate, a point that is
`off`) is counted apart and never called a change; a hit counts for the decision that it was served from, where both are
of one peer and point: those that a client serves by itself are its own word.
Never: evaluates anything itself (`decide` does). Of obligations it compares types: the record has no properties.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..discharge import window_left_ms
from ..errors import Fault
from ..model import Decision, Question
from . import entries
from .digest import question_of
from .query import Query
from .reader import Recorded
from .segments import Damaged

Decide = Callable[[Question, int], Decision]
"""A question as of a wall time in milliseconds."""

GROUPS = 4096
"""Most changes that are told apart; the others are counted."""
REMEMBERED = 131_072
"""Decisions whose hits may still come: a decision lives a minute, so that many are those of the last."""
EXAMPLES = 3
NAMES = 1024
OF_THE_POLICIES = frozenset({"", "pdp", "obligation"})
"""Faults that policies can make or mend."""
BY_OURSELVES = frozenset({"window", "rate"})
BROKEN = ("the worker that evaluated this question ended", "this worker has no policies", "the PDP raised")


class Side(msgspec.Struct, frozen=True):
    """A verdict of the old or the new policies: `permit`, `deny`, or `fault` (a deny, too)."""

    verdict: str
    policies: tuple[str, ...] = ()
    reason: str = ""
    obligations: tuple[str, ...] = ()


class Change(msgspec.Struct):
    """What changes in one way: so many entries, and so often with the hits that were served from them."""

    old: Side
    new: Side
    entries: int = 0
    times: int = 0
    examples: list[dict[str, Any]] = []


class Report(msgspec.Struct):
    """What a replay found."""

    replayed: int = 0
    times: int = 0
    changed: int = 0
    changed_times: int = 0
    changes: list[Change] = []
    more: int = 0
    """Changed entries that are in none of `changes`: there were too many kinds of them."""
    hidden: int = 0
    """Entries that cannot be replayed, since the record has not all of their question."""
    hidden_by: dict[str, int] = {}
    undecided: dict[str, int] = {}
    """Entries in whose verdict something else than policies had its part, by what it was."""
    unknown_hits: int = 0
    """Hits whose decision is not among the entries that were looked at."""
    foreign_hits: int = 0
    """Hits that name a decision of another peer, or of another point: nobody was served so."""
    damaged: str = ""
    """Where the record ends before its end, and why."""


class Replay:
    """Takes entries in their order; `report` says what was found so far."""

    def __init__(self, decide: Decide, wanted: Query) -> None:
        self._decide, self._wanted = decide, wanted
        self._groups: dict[tuple[Side, Side], Change] = {}
        self._seen: OrderedDict[int, tuple[int, str, Change | bool | None]] = OrderedDict()
        self.report = Report()

    def run(self, found: Iterable[Recorded]) -> Report:
        """Take all that can be read."""
        try:
            for recorded in found:
                self.take(recorded)
        except Damaged as damaged:
            self.report.damaged = str(damaged)
        self.report.changes = sorted(self._groups.values(), key=lambda c: -c.times)
        return self.report

    def take(self, recorded: Recorded) -> None:
        entry = recorded.entry
        if isinstance(entry, entries.Hits):
            self._hits(entry)
        elif isinstance(entry, entries.Decision) and self._wanted.matches(recorded):
            self._remember(entry, self._again(recorded.index, entry))

    def _again(self, index: int, entry: entries.Decision) -> Change | bool | None:
        """Decide an entry once more; its change, None where nothing changes, False where it was not replayed."""
        report = self.report
        question = question_of(entry)
        if why := other_part(entry):
            report.undecided[why] = report.undecided.get(why, 0) + 1
            return False
        if question is None:
            report.hidden += 1
            for name in hiding(entry):
                if name in report.hidden_by or len(report.hidden_by) < NAMES:
                    report.hidden_by[name] = report.hidden_by.get(name, 0) + 1
            return False
        wall_ms = (entry.wall_ns - entry.latency_us * 1000) // 1_000_000
        old, new = recorded_side(entry), side(self._decide(question, wall_ms), wall_ms)
        if why := depends(entry, new):
            report.undecided[why] = report.undecided.get(why, 0) + 1
            return False
        report.replayed += 1
        report.times += 1
        if not differs(old, new):
            return None
        report.changed += 1
        report.changed_times += 1
        change = self._groups.get((old, new))
        if change is None and len(self._groups) >= GROUPS:
            report.more += 1
            return True
        if change is None:
            change = self._groups[old, new] = Change(old, new)
        change.entries += 1
        change.times += 1
        if len(change.examples) < EXAMPLES:
            change.examples.append({
                "index": index, "subject": "::".join(entry.subject), "action": entry.action,
                "resource": "::".join(entry.resource), "point": entry.point,
            })  # fmt: skip
        return change

    def _remember(self, entry: entries.Decision, change: Change | bool | None) -> None:
        self._seen[entry.decision] = entry.uid, sys.intern(entry.point), change
        self._seen.move_to_end(entry.decision)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _hits(self, entry: entries.Hits) -> None:
        for number, count in entry.served:
            if number not in self._seen:
                self.report.unknown_hits += count
                continue
            uid, point, change = self._seen[number]
            if (uid, point) != (entry.uid, entry.point):
                self.report.foreign_hits += count
                continue
            if change is False:
                continue
            self.report.times += count
            if change is not None:
                self.report.changed_times += count
            if isinstance(change, Change):
                change.times += count


def other_part(entry: entries.Decision) -> str:
    """What else than policies made this verdict; "": nothing."""
    if entry.fault not in OF_THE_POLICIES:
        return entry.fault
    if entry.fault == "pdp" and any(text in entry.reason for text in BROKEN):
        return "a worker or the engine failed"
    if entry.policies or entry.fault:
        return ""
    if entry.permit and entry.reason == "off":
        return "the point was off"
    blocked = entry.reason == "blocked" or entry.reason.startswith("blocked: ")  # with a reason, or without
    return "blocked" if blocked and not entry.permit else ""


def depends(entry: entries.Decision, new: Side) -> str:
    """What the new verdict depends on that the record does not tell; "": nothing."""
    if new.verdict != "permit":
        return ""
    if not entry.permit and entry.reason.startswith("over the rate of `") and "rate" in new.obligations:
        return "rate"
    same = new.obligations == tuple(sorted(kind for _, kind, _ in entry.obligations))
    if entry.fault == "obligation" and (same or set(new.obligations) - BY_OURSELVES):
        return "obligations that the point may not discharge"
    return ""


def hiding(entry: entries.Decision) -> list[str]:
    """The attributes whose values are missing, as `record.plain` would name them; names that are shortened."""
    found: list[str] = [name for name in ("subject", "action", "resource", "chain") if name in entry.cut]
    for place, names in entry.digests.items():
        found += [f"{place.partition('.')[0]}.{name or '*'}" for name in names]
    return sorted(set(found)) or ["what was left out"]


def recorded_side(entry: entries.Decision) -> Side:
    verdict = "permit" if entry.permit else "fault" if entry.fault else "deny"
    return Side(verdict, entry.policies, entry.reason, tuple(sorted(kind for _, kind, _ in entry.obligations)))


def side(decision: Decision, wall_ms: int) -> Side:
    """What would be enforced of a decision."""
    kinds = tuple(sorted(o.type for o in decision.obligations))
    if decision.fault:
        return Side("fault", decision.policies, decision.fault, kinds)
    if decision.permit:
        for o in decision.obligations:
            try:
                closed = o.type == "window" and window_left_ms(o.properties, wall_ms) is None
            except Fault as fault:
                return Side("fault", decision.policies, str(fault), kinds)
            if closed:
                return Side("deny", decision.policies, f"outside the window of `{o.id}`", kinds)
    return Side("permit" if decision.permit else "deny", decision.policies, decision.reason, kinds)


def differs(old: Side, new: Side) -> bool:
    """Whether something else is enforced. Of a deny, its obligations and its reason are not."""
    return old.verdict != new.verdict or (new.verdict == "permit" and old.obligations != new.obligations)
