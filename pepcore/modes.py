"""What a point's mode makes of a verdict: `enforce` tells it, `shadow` tells a permit, `off` asks nobody (DESIGN, D5).

Promises: opens up only what the config names; each pass carries the body of what would have been enforced, for the
record; a would-be deny and a fault are never kept, a would-be permit for no longer than it would be; whoever is blocked
is denied in every mode (a block is the kill switch), also where he was not blocked yet when he asked; and so is who may
not ask, and whose own bounds (`not_after`, `min_revision`) have passed: those are not the policies' to open.
Never: builds a permit (`core.verdict.settle` does); demands an obligation of a shadowed decision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec.structs import replace

from .core.verdict import Verdict, body, payload, settle
from .errors import DeadlinePassed, Draining, Fault, ObligationFault, Overloaded, PdpFault, Stale
from .flight import Batch, Flight, Partition, Passed, Said
from .model import Decision
from .revocation import Revocation
from .settlement import Settlement

OPENED = frozenset(kind.code for kind in (PdpFault, ObligationFault, DeadlinePassed, Overloaded, Stale, Draining))
"""Faults of the decision. Those of the request and of the record deny in every mode."""
OFF = Decision(True, reason="off", max_age_ms=0)
"""What a point gets whose mode is `off`: kept nowhere, so that each pass is recorded."""

Known = tuple[Partition, Decision]
"""What is decided without the PDP, and the partition that it is settled for."""


class Settled(NamedTuple):
    """A verdict with its payload; `real`: the body of what would have been enforced, where that is not told."""

    verdict: Verdict
    payload: bytes
    real: bytes = b""

    def body(self, now: int, left_ms: int = -1, keep_ms: int = 0) -> bytes:
        """As it is told."""
        whole = body(self.verdict, self.payload, now, left_ms, keep_ms)
        if self.real:
            whole = Passed(whole)
            whole.real = self.real
        return whole


class Modes:
    """Settles what an enforcer tells."""

    def __init__(self, settlement: Settlement, revocation: Revocation) -> None:
        self._settlement, self._revocation = settlement, revocation
        self.on_untold: Callable[[Partition, bytes, bytes, int], None] | None = None
        """Is told of a verdict that is kept and that nobody was told: partition, question, body, when it was asked."""

    def untold(self, flight: Flight, kept: Settled | None, now: int) -> None:
        """Nobody who waited was told the verdict that serves those who come: their hits name it all the same."""
        if kept is not None and kept.verdict.expires_ns > now and self.on_untold is not None:
            self.on_untold(flight.partition, flight.key, kept.body(now), flight.asked_ns)

    def unasked(self, partition: Partition, key: bytes, wall_ms: int) -> Known | None:
        """What is decided without the PDP, if it is: a block is enforced in every mode."""
        denied = self._revocation.denied(key, wall_ms)
        if denied is not None:
            return (partition if partition.mode == "enforce" else replace(partition, mode="enforce")), denied
        return (partition, OFF) if partition.mode == "off" else None

    def shared(self, flight: Flight, decision: Decision, now: int, wall_ms: int) -> Settled:
        """As `Settlement.shared`."""
        return self._told(flight.partition, now, *self._settlement.shared(flight, decision, now, wall_ms))

    def once(self, flight: Flight, decision: Decision, now: int, wall_ms: int) -> Settled:
        """As `Settlement.once`."""
        return self._told(flight.partition, now, *self._settlement.once(flight, decision, now, wall_ms))

    def refusal(self, partition: Partition, key: bytes, fault: Fault, now: int, wall_ms: int) -> Settled:
        """What a fault becomes. Where a mode would let it pass, the blocks are looked at once more."""
        real = self._settlement.refusal(fault)
        if partition.mode == "enforce" or fault.code not in OPENED:
            return Settled(*real)
        known = self.unasked(partition, key, wall_ms)
        if known is not None:  # blocked meanwhile, or `off`
            flight = Flight(known[0], key, {}, False, True, self._settlement.page.revision, now, wall_ms)
            return Settled(*self._settlement.shared(flight, replace(known[1], max_age_ms=0), now, wall_ms))
        return self._through(now, *real)

    def of_item(self, batch: Batch, index: int, fault: Fault, now: int, wall_ms: int) -> bytes | Said:
        """What is known of a batch item that failed. A deny is final; a pass is settled when the batch is released."""
        item = batch.items[index]
        if batch.partition.mode == "enforce" or isinstance(item, Fault):
            return Settled(*self._settlement.refusal(fault)).body(now)
        return Said(Flight(batch.partition, item, {}, False, True, self._settlement.page.revision, now, wall_ms), fault)

    def preview(self, flight: Flight, explanation: dict[str, Any]) -> dict[str, Any]:
        """As `Settlement.preview`, and the mode where it is not `enforce`."""
        found = self._settlement.preview(flight, explanation)
        mode, real = flight.partition.mode, found["verdict"]
        if mode == "enforce":
            return found
        why = "off" if mode == "off" else shadowed(real["permit"], real["error"] or real["reason"])
        passed = settle(True, why, (), (), ())
        found["verdict"] = {"permit": passed.permit, "fault": None, "error": "", "reason": why}
        if mode == "off" or not real["permit"]:
            found["lifetime"] = {"ms": 0, "why": f"a pass of `{mode}` is never kept"}
        return found | {"mode": mode, "enforced": real}

    def _told(self, partition: Partition, now: int, verdict: Verdict, encoded: bytes) -> Settled:
        if partition.mode != "shadow":
            return Settled(verdict, encoded)
        return self._through(now, verdict, encoded)

    def _through(self, now: int, real: Verdict, encoded: bytes) -> Settled:
        """The permit that is told in the place of a verdict: under its number, with no duty."""
        expires_ns = real.expires_ns if real.permit else 0
        passed = settle(
            True, shadowed(real.permit, real.error or real.reason), real.policies, (), (), number=real.number,
            boot=real.boot, revision=real.revision, expires_ns=expires_ns, stamps=real.stamps,
        )  # fmt: skip
        return Settled(passed, payload(passed), body(real, encoded, now))


def shadowed(permit: bool, why: str) -> str:
    """The reason that is told of a shadowed verdict."""
    return why if permit else f"shadow: would be denied: {why or 'no policy permits this'}"
