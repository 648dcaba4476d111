"""How long a run is, and what every measurement gets to work with."""

from __future__ import annotations

from msgspec import Struct

from .corpus import Corpus, corpus
from .processes import Stage
from .progress import Progress
from .results import Found


class Plan(Struct, frozen=True):
    """`seconds` is the length of one measurement; a candidate gets `rounds` of them."""

    rounds: int
    seconds: float
    entries: tuple[int, ...]
    connections: tuple[int, ...]
    zipf_draws: int
    starts: int


QUICK = Plan(
    rounds=3, seconds=0.25, entries=(1_000, 10_000), connections=(1, 10, 100, 1_000), zipf_draws=20_000, starts=3
)
FULL = Plan(
    rounds=9,
    seconds=1.0,
    entries=(1_000, 10_000, 100_000, 1_000_000),
    connections=(1, 10, 100, 1_000, 10_000),
    zipf_draws=200_000,
    starts=9,
)


class Run(Struct, frozen=True):
    """Handed to every measurement."""

    plan: Plan
    stage: Stage
    found: Found
    bar: Progress
    small: Corpus
    large: Corpus


def new_run(plan: Plan, stage: Stage, bar: Progress) -> Run:
    return Run(plan, stage, Found(), bar, corpus(10, 10), corpus(1000, 10_000))
