"""Rounds: candidates measured one after the other, again and again, in changing order; medians with their spread.

Promises: a ratio compares figures of the same round only; one round at the start warms up and is thrown away. A
virtual core that went idle takes some 35 us more to wake, and the machine flips between both moods within a run: rounds
in which one side was asleep and the other awake are left out of `awake`, and of nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

Figures = dict[str, float]
ASLEEP = 2.2
"""A round is asleep where its figure is above so many times the least of both candidates, which do about the same."""


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

    def awake(self, name: str, other: str, key: str = "p50") -> tuple[Spread | None, Spread | None]:
        """The ratio over the rounds in which both were awake, and over those in which both had to be woken."""
        pairs = [(a[key], b[key]) for a, b in zip(self.of[name], self.of[other], strict=True)]
        limit = ASLEEP * min(map(min, pairs))
        both = [a / b for a, b in pairs if max(a, b) <= limit]
        none = [a / b for a, b in pairs if min(a, b) > limit]
        return (spread(both) if both else None), (spread(none) if none else None)


def alternate(number: int, candidates: Mapping[str, Callable[[], Figures]], warm: bool = True) -> Rounds:
    rounds = Rounds()
    names = list(candidates)
    for i in range(-1 if warm else 0, number):
        for name in names if i % 2 else reversed(names):
            figures = candidates[name]()
            if i >= 0:
                rounds.of.setdefault(name, []).append(figures)
    return rounds
