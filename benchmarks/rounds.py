"""Rounds: candidates measured one after the other, again and again, in changing order; medians with their spread.

Promises: a ratio compares figures of the same round only, so that a machine that changes its mood between rounds
changes both; one round at the start warms up and is thrown away.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

Figures = dict[str, float]


class Spread(Struct, frozen=True):
    """A median with the least and the greatest of its rounds."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


class Rounds:
    """What each candidate gave in each round."""

    def __init__(self) -> None:
        self.of: dict[str, list[Figures]] = {}

    def figure(self, name: str, key: str) -> Spread:
        return spread([f[key] for f in self.of[name]])

    def ratio(self, name: str, other: str, key: str) -> Spread:
        """`name` divided by `other`, round by round."""
        return spread([a[key] / b[key] for a, b in zip(self.of[name], self.of[other], strict=True)])


def alternate(number: int, candidates: Mapping[str, Callable[[], Figures]], warm: bool = True) -> Rounds:
    rounds = Rounds()
    names = list(candidates)
    for i in range(-1 if warm else 0, number):
        for name in names if i % 2 else reversed(names):
            figures = candidates[name]()
            if i >= 0:
                rounds.of.setdefault(name, []).append(figures)
    return rounds
