"""From what the PDP said to what is kept and what each one gets who waits.

Promises: a decision that several may share is settled once and kept for those who come; each request gets it within its
own bounds, its deadline and its caller's permission; what must be discharged for each is settled for each.
Never: decides whether an answer is too old (`freshness` does); keeps a fault, or an answer for which nothing is left.
"""

from __future__ import annotations

from typing import Any

from . import freshness
from .core.cache import Cache
from .core.page import Page
from .core.verdict import Verdict
from .errors import DeadlinePassed, Expired, Fault
from .flight import Flight, Said
from .model import Decision
from .modes import Modes, Settled
from .revocation import Revocation
from .settlement import Settlement, single_use


class Answers:
    """What an enforcer does with a decision that stands."""

    def __init__(self, cache: Cache, page: Page, settlement: Settlement, revocation: Revocation) -> None:
        self.cache, self.page, self.settlement, self.revocation = cache, page, settlement, revocation
        self.modes = Modes(settlement, revocation)

    def share(self, flight: Flight, outcome: Decision | Fault, now: int, wall_ms: int) -> Settled | None:
        """The verdict that serves all who wait, kept for those who come; None: there is none for all."""
        if not isinstance(outcome, Decision) or single_use(outcome):
            return None
        settled = self.modes.shared(flight, outcome, now, wall_ms)
        self._keep(flight, settled.verdict, settled.payload, now)
        self.settlement.tell_denied(flight, settled.verdict, max(1, len(flight.waiters)), now)
        return settled

    def within(
        self, flight: Flight, outcome: Decision | Fault, shared: Settled | None, until_ns: int,
        not_after: int, now: int, wall_ms: int, held: bool = False,
    ) -> tuple[Verdict, bytes]:  # fmt: skip
        """The verdict for one request within its own bounds, and its body. `held`: no rate is taken, no notice sent."""
        if not freshness.in_time(until_ns, now):
            outcome = DeadlinePassed("deadline", "the decision came too late")
        elif 0 <= not_after <= wall_ms:
            outcome = Expired("not_after", "the caller's own permission ended while it waited")
        if isinstance(outcome, Fault):
            refused = self.modes.refusal(flight.partition, flight.key, outcome, now, wall_ms)
            return refused.verdict, refused.body(now)
        if shared is not None and not freshness.still_open(shared.verdict, now):
            shared = self.modes.shared(flight, outcome, now, wall_ms)  # a deny where a window closed meanwhile
        flight.told |= shared is not None
        settled = shared or (self.modes.shared if held else self.modes.once)(flight, outcome, now, wall_ms)
        left = freshness.left_ms(not_after, wall_ms)
        return settled.verdict, settled.body(now, left, self.settlement.times.keep_ms)

    def alone(
        self, flight: Flight, outcome: Decision | Fault, until_ns: int, not_after: int, now: int, wall_ms: int
    ) -> bytes:
        """The body for the only one who asked, of what stands."""
        shared = self.share(flight, outcome, now, wall_ms)
        whole = self.within(flight, outcome, shared, until_ns, not_after, now, wall_ms)[1]
        self.served(flight, shared, now)
        return whole

    def said(self, flight: Flight, outcome: Decision | Fault, shared: Settled | None) -> Said:
        """What a batch is told."""
        flight.told = True
        return Said(flight, outcome, shared)

    def served(self, flight: Flight, shared: Settled | None, now: int) -> None:
        """Some of those who wait were served. When it was all: what is kept and was told to none is on record, too."""
        if not (flight.waiters or flight.told):
            self.modes.untold(flight, shared, now)

    def complete(self, flight: Flight, explanation: dict[str, Any], now: int) -> None:
        """Add to an explanation what would be enforced, and whether the answer is cached."""
        explanation.update(self.modes.preview(flight, explanation))
        self.revocation.explain(explanation, flight.key, flight.asked_ms)
        stored = self.cache.get(flight.partition.number, flight.key, now, self.page)
        explanation["cached"] = stored is not None
        explanation["cached_left_ms"] = (stored.expires - now) // 1_000_000 if stored else 0

    def _keep(self, flight: Flight, verdict: Verdict, encoded: bytes, now: int) -> None:
        if verdict.fault == 0 and verdict.expires_ns > now and not flight.partition.durable:
            self.cache.put(
                flight.partition.owner, flight.partition.number, flight.key, encoded, permit=verdict.permit,
                id=verdict.number, expires=verdict.expires_ns, revision=flight.revision, now=now, page=self.page,
                stamps=flight.stamps, kept=flight.partition.keeps,
            )  # fmt: skip
