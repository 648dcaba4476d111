"""The PDP interface: decisions for these questions, as of this wall time. One file per engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..model import Decision, Question


class Pdp(Protocol):
    """An engine that decides. It never raises for a question: what it cannot decide is a `Decision` with a fault."""

    def decide(self, questions: Sequence[Question], wall_ms: int) -> list[Decision]:
        """Return one decision per question, in order. `wall_ms` is Unix milliseconds."""
        ...
