"""What a run found: tables of figures, and the targets of DESIGN with what was measured against them.

Promises: a target says met, missed or not yet, and never more than its figures do; every ratio carries the spread of
its rounds. Never: rounds a missed target into a met one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from .rounds import Spread


class Target(Struct, frozen=True):
    """A row of "Speed to reach". `measured` None: not yet, and `note` says why."""

    what: str
    bound: float
    unit: str = "x"
    at_least: bool = False
    measured: Spread | None = None
    also: bool = True
    """A second condition of the same row, such as the share that still hits."""
    note: str = ""

    @property
    def state(self) -> str:
        if self.measured is None:
            return "not yet"
        median = self.measured.median
        held = median >= self.bound if self.at_least else median <= self.bound
        return "met" if held and self.also else "missed"

    def row(self) -> list[str]:
        goal = f"{'at least' if self.at_least else 'at most'} {self.bound:g} {self.unit}"
        got = f"{span(self.measured)} {self.unit}" if self.measured else ""
        return [self.what, goal, got, self.state, self.note]


class Table(Struct, frozen=True):
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        lines = [f"### {self.title}", ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])

    def text(self) -> str:
        """For a terminal: columns aligned."""
        every = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(row[i]) for row in every) for i in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in every]
        return "\n".join([self.title, *("  " + line for line in lines), *(["  " + self.note] if self.note else [])])


class Series(Struct, frozen=True):
    """A line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]


class Found:
    """Everything that one run found, in the order in which it was measured."""

    def __init__(self) -> None:
        self.targets: list[Target] = []
        self.tables: list[Table] = []
        self.latencies: list[Series] = []
        self.scaling: list[Series] = []

    def summary(self) -> Table:
        columns = ["what", "target", "measured", "state", "note"]
        return Table("Speed to reach", columns, [t.row() for t in self.targets])

    def as_json(self) -> dict[str, object]:
        return {"targets": [{"state": t.state, **_plain(t)} for t in self.targets], "tables": self.tables}


def _plain(target: Target) -> dict[str, object]:
    return {name: getattr(target, name) for name in target.__struct_fields__}


def number(value: float) -> str:
    """Three significant digits, never an exponent."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def span(s: Spread, scale: float = 1) -> str:
    """`median (least to most)`."""
    return f"{number(s.median / scale)} ({number(s.least / scale)} to {number(s.most / scale)})"
