"""Batches: what of a check-many is known, what has to be asked, and its answer in order.

Promises: a cached item is served and only misses are asked, none behind a cached item that ends the batch; nothing
is written out before the whole batch is answered, so that what grew old meanwhile is found and asked once more; an
item behind the one that ends the batch is neither answered nor discharged.
Never: waits or asks (`enforcer.py` does); builds a permit. A batch is not a snapshot.
"""

from __future__ import annotations

from . import freshness
from .core.cache import Cache, Stored
from .core.page import Page
from .core.verdict import body, stored_body
from .errors import Expired, Fault, Stale
from .flight import Batch, Said, Times
from .modes import Modes, Settled
from .settlement import Settlement, single_use
from .wire import Semantic

Outcome = bytes | Stored | Said | None
TOO_OLD = "two answers in a row were too old when they came: ask again"


class Batches:
    """What an enforcer knows about batches; `modes` settles the verdicts of their items."""

    def __init__(self, cache: Cache, page: Page, settlement: Settlement, modes: Modes) -> None:
        self.cache, self.page, self.settlement, self.modes = cache, page, settlement, modes

    def missing(self, batch: Batch, times: Times, now: int) -> list[tuple[int, bytes]]:
        """The items that the PDP has to be asked about, now that the cache was asked about each."""
        found: list[tuple[int, bytes]] = []
        for i, item in enumerate(batch.items):
            outcome = batch.outcomes[i]
            if outcome is None or not freshness.holds(outcome, times, self.page, now):
                outcome = batch.outcomes[i] = self._known(batch, item, now)
            if outcome is None and isinstance(item, bytes):
                found.append((i, item))
            elif isinstance(outcome, Stored):
                if ends(batch.semantic, outcome.permit):
                    break
            elif isinstance(outcome, bytes) and ends(batch.semantic, False):
                break
        return found

    def _known(self, batch: Batch, item: bytes | Fault, now: int) -> bytes | Stored | None:
        """What is known of an item without the PDP: its fault, or what the cache holds."""
        if isinstance(item, Fault):
            return self._deny(item, now)
        return self.cache.get(batch.partition.number, item, now, self.page)

    def bodies(self, batch: Batch, now: int, wall_ms: int) -> list[bytes]:
        """The answer: verdict bodies in order, up to the one that ends the batch."""
        bodies: list[bytes] = []
        left = freshness.left_ms(batch.not_after, wall_ms)
        for item, outcome in zip(batch.items, batch.outcomes, strict=True):
            if not isinstance(outcome, bytes) and left == 0:
                if isinstance(outcome, Said):
                    self.modes.untold(outcome.flight, outcome.shared, now)
                fault = Expired("not_after", "the caller's own permission has ended")
                bodies.append(self._deny(fault, now))
            else:
                bodies.append(self._body(batch, item, outcome, now, wall_ms, left))
            if ends(batch.semantic, bodies[-1][0] == 1):
                break
        return bodies

    def _body(self, batch: Batch, item: bytes | Fault, outcome: Outcome, now: int, wall_ms: int, left: int) -> bytes:
        if outcome is None and isinstance(item, bytes):
            return self.modes.refusal(batch.partition, item, Stale("", TOO_OLD), now, wall_ms).body(now)
        if outcome is None:
            return self._deny(Stale("", TOO_OLD), now)
        if isinstance(outcome, bytes):
            return outcome
        keep_ms = self.settlement.times.keep_ms
        if isinstance(outcome, Stored):
            return stored_body(outcome, now=now, boot=self.page.boot, limit_ms=left, keep_ms=keep_ms)
        if isinstance(outcome.outcome, Fault):
            flight = outcome.flight
            return self.modes.refusal(flight.partition, flight.key, outcome.outcome, now, wall_ms).body(now)
        settled: Settled | None = outcome.shared
        if settled is None or not freshness.still_open(settled.verdict, now):
            anew = self.modes.once if single_use(outcome.outcome) else self.modes.shared
            settled = anew(outcome.flight, outcome.outcome, now, wall_ms)
        return settled.body(now, left, keep_ms)

    def _deny(self, fault: Fault, now: int) -> bytes:
        return body(*self.settlement.refusal(fault), now)


def ends(semantic: Semantic, permit: bool) -> bool:
    """Whether an item with this answer ends its batch (AuthZEN 1.0, section 7.1.2.1)."""
    return (semantic is Semantic.deny_on_first_deny and not permit) or (
        semantic is Semantic.permit_on_first_permit and permit
    )
