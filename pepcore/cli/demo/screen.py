"""How the demo looks: 23 lines of 80 columns, on a terminal or in a plain summary.

Promises: no line is longer than 80 columns, whatever a reason or payload holds, and nothing in it can move the cursor.
Never: writes, waits, or reads the clock.
"""

from __future__ import annotations

from typing import Any

from ..live import COLUMNS, fit
from ..terminal import paint
from .questions import POINTS
from .tally import Tally, percentile

KINDS = {"permit": "green", "deny": "red", "fault": "yellow"}


def frame(tally: Tally, heading: str, colours: bool) -> list[str]:
    """The lines of the live view."""
    return [paint(fit(heading), "bold", colours), *_lines(tally, colours)]


def summary(tally: Tally, colours: bool) -> list[str]:
    """The same without a live terminal."""
    return [line.rstrip() for line in _lines(tally, colours)]


def _lines(tally: Tally, colours: bool) -> list[str]:
    lines = _numbers(tally, colours)
    for name in POINTS:
        lines += block(tally, name, colours)
    return lines


def _numbers(tally: Tally, colours: bool) -> list[str]:
    full = round(tally.hit_ratio * 16)
    surprises = f"surprises {tally.surprised}" if tally.surprised else "all as the company expects"
    counts = f"asked {tally.asked:,}   permit {tally.permits:,}   deny {tally.denies:,}   fault {tally.faults:,}   "
    speeds = [f"{percentile(us, 50)}/{percentile(us, 99)}" for us in (tally.hit_us, tally.miss_us)]
    bar = f"[{'#' * full}{'.' * (16 - full)}]"
    return [
        paint(fit(counts + surprises), "red" if tally.surprised else "bold", colours),
        fit(f"hits {tally.hit_ratio:6.1%} {bar}   p50/p99 in us: hit {speeds[0]}, miss {speeds[1]}"),
    ]


def block(tally: Tally, name: str, colours: bool) -> list[str]:
    """Five lines for one point: its newest permit with what its obligations did, and its newest deny with why."""
    seen = tally.seen[name]
    permit, deny, kind = seen.get("permit"), seen.get("fault") or seen.get("deny"), "deny"
    if "fault" in seen:
        kind = "fault"
    before, after = "", ""
    if permit:
        before, after = permit["before"] or "nothing to discharge", permit["after"]
        if after:
            after += f"  ({', '.join(permit['duties'])})"
    rows = [
        (name, "permit", *_answer(permit)),
        (f"{tally.by_point[name]:,}", "in" if after else "", before, ""),
        ("asked", "out" if after else "", after, ""),
        ("", kind, *_answer(deny)),
        ("", "why" if deny else "", deny["why"] if deny else "", ""),
    ]
    return [_row(*row, colours) for row in rows]


def _answer(answer: dict[str, Any] | None) -> tuple[str, str]:
    if answer is None:
        return "", ""
    return answer["title"], f"{'hit' if answer['cached'] else 'miss'} {answer['us']:>5} us"


def _row(left: str, label: str, text: str, right: str, colours: bool) -> str:
    """One line of a block: point, label, text, and time where there is one."""
    room = COLUMNS - 1 - 18 - (len(right) and len(right) + 1)
    first = paint(f"{left:<9}", "bold", colours) if label == "permit" else f"{left:<9}"
    word = paint(f"{label:<7}", KINDS.get(label, "dim"), colours)
    return f"{first} {word} {fit(text, room)}{' ' if right else ''}{right}"
