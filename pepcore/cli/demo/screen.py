"""How the demo looks: 23 lines of 80 columns, on a terminal or in a plain summary.

Promises: no line is longer than 80 columns, whatever a reason or payload holds, and nothing in it can move the
cursor; the terminal is given back as it was. Never: waits, or reads the clock.
"""

from __future__ import annotations

from typing import Any, TextIO

from ..terminal import paint, plain
from .company import POINTS
from .tally import Tally, percentile

COLUMNS, LINES = 80, 24
_KINDS = {"permit": "green", "deny": "red", "fault": "yellow"}


class Screen:
    """The live view. Uses the alternate screen, so that what was there before comes back."""

    def __init__(self, out: TextIO, colours: bool) -> None:
        self._out = out
        self._colours = colours

    def __enter__(self) -> Screen:
        self._write("\x1b[?1049h\x1b[?25l\x1b[2J")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("\x1b[?25h\x1b[?1049l")

    def draw(self, tally: Tally, heading: str) -> None:
        lines = [paint(_fit(heading), "bold", self._colours), *_numbers(tally, self._colours)]
        for name in POINTS:
            lines += block(tally, name, self._colours)
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
    full = round(tally.hit_ratio * 20)
    surprises = f"surprises {tally.surprised}" if tally.surprised else "all as the company expects"
    counts = f"asked {tally.asked:,}   permit {tally.permits:,}   deny {tally.denies:,}   fault {tally.faults:,}   "
    fast, slow = tally.hit_us, tally.miss_us
    speeds = f"p50 {percentile(fast, 50)} us hit, {percentile(slow, 50)} us miss"
    tails = f"p99 {percentile(fast, 99)}, {percentile(slow, 99)}"
    bar = f"[{'#' * full}{'.' * (20 - full)}]"
    return [
        paint(_fit(counts + surprises), "red" if tally.surprised else "bold", colours),
        _fit(f"hits {tally.hit_ratio:6.1%} {bar}  {speeds}   {tails}"),
    ]


def block(tally: Tally, name: str, colours: bool) -> list[str]:
    """Five lines for one point: its newest permit with what its obligations did, and its newest deny."""
    seen = tally.seen[name]
    title = f"{name:<9} {POINTS[name].about}"
    asked = f"{tally.by_point[name]:,} asked"
    lines = [paint(_fit(f"{title:<{COLUMNS - len(asked) - 1}} {asked}"), "dim", colours)]
    permit, deny = seen.get("permit"), seen.get("fault") or seen.get("deny")
    lines.append(_answer(permit, "permit", colours))
    duties = ", ".join(permit["duties"]) if permit else ""
    if permit and permit["after"]:
        lines += [_fit(f"     in   {permit['before']}"), _fit(f"     out  {permit['after']}  ({duties})")]
    else:
        lines += [_fit("          nothing has to be done to what passes" if permit else ""), ""]
    lines.append(_answer(deny, "fault" if "fault" in seen else "deny", colours))
    return lines


def _answer(answer: dict[str, Any] | None, kind: str, colours: bool) -> str:
    if answer is None:
        return ""
    how = f"{'hit' if answer['cached'] else 'miss'} {answer['us']:>5} us"
    what = plain(answer["title"] + (f": {answer['why']}" if answer["why"] else ""))
    return "  " + paint(f"{kind:<7}", _KINDS[kind], colours) + " " + _fit(what, COLUMNS - 26) + f" {how:>14}"


def _fit(text: str, columns: int = COLUMNS - 1) -> str:
    """The text in exactly this many columns."""
    text = plain(text)
    return f"{text:<{columns}}" if len(text) <= columns else f"{text[: columns - 3]}..."
