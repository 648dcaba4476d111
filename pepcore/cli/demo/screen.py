"""How the demo looks: 23 lines of 80 columns, on a terminal or in a plain summary.

Promises: no line is longer than 80 columns, whatever a reason or payload holds, and nothing in it can move the
cursor; the terminal is given back as it was. Never: waits, or reads the clock.
"""

from __future__ import annotations

from typing import Any, TextIO

from ..terminal import paint, plain
from .questions import POINTS
from .tally import Tally, percentile

COLUMNS, LINES = 80, 24
KINDS = {"permit": "green", "deny": "red", "fault": "yellow"}


class Screen:
    """The live view. Uses the alternate screen, so that what was there before comes back."""

    def __init__(self, out: TextIO, colours: bool) -> None:
        self._out = out
        self.colours = colours

    def __enter__(self) -> Screen:
        self._write("\x1b[?1049h\x1b[?25l\x1b[2J")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("\x1b[?25h\x1b[?1049l")

    def draw(self, tally: Tally, heading: str) -> None:
        lines = [paint(fit(heading), "bold", self.colours), *_numbers(tally, self.colours)]
        for name in POINTS:
            lines += block(tally, name, self.colours)
        self.show(lines)

    def show(self, lines: list[str]) -> None:
        """Draw these lines, none of them longer than the screen is wide."""
        self._write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[J")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def summary(tally: Tally, colours: bool) -> list[str]:
    """The same without a live terminal."""
    lines = _numbers(tally, colours)
    for name in POINTS:
        lines += block(tally, name, colours)
    return [line.rstrip() for line in lines]


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


def fit(text: str, columns: int = COLUMNS - 1) -> str:
    """The text in exactly this many columns."""
    text = plain(text)
    return f"{text:<{columns}}" if len(text) <= columns else f"{text[: columns - 2]}.."
