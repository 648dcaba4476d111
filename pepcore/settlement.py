"""From a decision to a verdict: windows, rates, notices, lifetimes.

Promises: a permit does not outlive the PDP's lifetime, its window, or the configured cap, counted from the moment
the PDP was asked; obligations that each request must discharge for itself are discharged once per request; those
that are understood run, also where another one turns the permit into a deny, those that are not do nothing. A preview
says what would be enforced, and has no effect at all. Of a point in `shadow` it settles what would be enforced, takes
its rates too, and sends no notice: nothing of it happens. What is told of that is for `modes.py`.
Never: reads a clock; builds a permit (`core.verdict.settle` does); raises for what a PDP said: that is a deny.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from .core.obligation import understood
from .core.page import Page
from .core.verdict import Verdict, deny, payload, settle
from .discharge import Rates, window_left_ms
from .errors import NAMES, Fault, ObligationFault, PdpFault
from .flight import Flight, Partition, Times
from .model import Decision, Obligation, Question

SINGLE_USE = frozenset({"rate", "notify", "approve", "end-session"})

PERMITS_END = "the longest life of a permit (a daemon's `cache.permit`)"
DENIES_END = "the life of a deny (a daemon's `cache.deny`)"

Notifier = Callable[[Partition, Question, Obligation], None]
"""Discharges one `notify`; raises ObligationFault where it cannot."""

OnDeny = Callable[[bytes, str, int, int], None]
"""Is told of a question that is denied: its canonical bytes, why, how many requests that denies, and when."""

read_question = msgspec.msgpack.Decoder(Question).decode


def single_use(decision: Decision) -> bool:
    """Whether each request must discharge something for itself, so that the answer cannot be shared or cached."""
    return any(o.type in SINGLE_USE for o in decision.obligations)


def usable(decision: object) -> Decision | Fault:
    """What a PDP said, or the fault that it is. Types are looked at: a PDP is code that others wrote."""
    if not isinstance(decision, Decision):
        return PdpFault("decision", f"is a `{type(decision).__name__}`")
    if decision.fault:
        return PdpFault("", str(decision.fault))
    age = decision.max_age_ms
    typed = (
        isinstance(decision.permit, bool)
        and isinstance(decision.reason, str)
        and isinstance(decision.policies, tuple)
        and all(isinstance(p, str) for p in decision.policies)
        and isinstance(decision.obligations, tuple)
        and all(isinstance(o, Obligation) for o in decision.obligations)
        and (age is None or (isinstance(age, int) and age >= 0))
    )
    return decision if typed else PdpFault("decision", "has a member of a type that cannot be")


class _Duty(msgspec.Struct, frozen=True):
    id: str
    type: str
    properties: dict[str, Any] = {}


class _Lifetime(msgspec.Struct, frozen=True):
    ms: int | None = None
    why: str = ""


class _Told(msgspec.Struct, frozen=True):
    """What of an explanation makes the decision that it explains."""

    permit: bool = False
    fault: str = ""
    reason: str = ""
    obligations: tuple[_Duty, ...] = ()
    lifetime: _Lifetime = _Lifetime()

    def decision(self) -> Decision:
        duties = tuple(Obligation(o.id, o.type, o.properties) for o in self.obligations)
        return Decision(self.permit, self.fault, (), self.reason, duties, self.lifetime.ms)


class Settlement:
    """Builds every verdict of an enforcer, through `core.verdict`."""

    def __init__(
        self, page: Page, times: Times, numbers: Iterator[int] | None = None, notify: Notifier | None = None
    ) -> None:
        self.page, self.times = page, times
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._notify = notify
        self._rates = Rates()
        self.faults: dict[int, int] = {}
        self.on_deny: OnDeny | None = None

    def deny(self, fault: Fault) -> Verdict:
        """The deny that a fault stands for; counted, never cached."""
        self.faults[fault.code] = self.faults.get(fault.code, 0) + 1
        return deny(fault, number=next(self._numbers), boot=self.page.boot, revision=self.page.revision)

    def shared(self, flight: Flight, decision: Decision, now: int, wall_ms: int) -> tuple[Verdict, bytes]:
        """The verdict of a decision whose obligations, if any, may be discharged from a cached answer; its payload."""
        permit, reason, expires, _ = self._bounded(flight, decision, now, wall_ms)
        verdict = settle(
            permit, reason, decision.policies, decision.obligations, flight.partition.handles,
            number=next(self._numbers), boot=self.page.boot, revision=flight.revision, expires_ns=expires,
            stamps=flight.stamps, kept_ns=expires if flight.partition.keeps else 0,
        )  # fmt: skip
        if verdict.fault:
            self.faults[verdict.fault] = self.faults.get(verdict.fault, 0) + 1
        try:
            return verdict, payload(verdict)
        except (ValueError, TypeError, RecursionError) as error:
            return self.refusal(PdpFault("decision", f"cannot be written: {error}"))

    def _bounded(self, flight: Flight, decision: Decision, now: int, wall_ms: int) -> tuple[bool, str, int, str]:
        """Permit, reason and end of a decision within the cap and its windows; what set the end, "": the PDP did.

        An end of 0 is not to be kept.
        """
        permit, reason = decision.permit, decision.reason
        life, why = (self.times.permit_ms, PERMITS_END) if permit else (self.times.deny_ms, DENIES_END)
        if decision.max_age_ms is not None and decision.max_age_ms <= life:
            life, why = decision.max_age_ms, ""
        expires = flight.asked_ns + life * 1_000_000
        for o in understood(decision.obligations, flight.partition.handles):
            if o.type == "window":
                left = window_left_ms(o.properties, wall_ms)
                if left is None:
                    until, closed = flight.asked_ns + self.times.deny_ms * 1_000_000, DENIES_END
                    if not permit:
                        continue
                    permit, reason = False, f"outside the window of `{o.id}`"
                else:
                    until, closed = now + left * 1_000_000, f"the window of `{o.id}` closes then"
                if until < expires:
                    expires, why = until, closed
        if life <= 0:
            return permit, reason, 0, why
        if single_use(decision):
            once = next(o.type for o in decision.obligations if o.type in SINGLE_USE)
            return permit, reason, 0, f"`{once}` is discharged for each request anew"
        return permit, reason, expires, why

    def preview(self, flight: Flight, explanation: dict[str, Any]) -> dict[str, Any]:
        """What would be enforced when the flight was asked, and for how long: `verdict` and `lifetime` in plain values.

        As if every rate had room: none is taken, no notice is sent, no decision id is used and no fault counted.
        """
        handles = flight.partition.handles
        why = "a fault is never kept"
        try:
            told = msgspec.convert(explanation, _Told)
            decision = usable(told.decision())
            if isinstance(decision, Fault):
                raise decision
            if decision.permit and self._notify is None:
                for o in understood(decision.obligations, handles):
                    if o.type == "notify":
                        raise _no_place(o)
            permit, reason, expires, limit = self._bounded(flight, decision, flight.asked_ns, flight.asked_ms)
            verdict = settle(permit, reason, (), decision.obligations, handles, expires_ns=expires)
            payload(verdict)
            if not verdict.fault:
                why = limit or told.lifetime.why
        except Fault as fault:
            verdict = deny(fault)
        except (ValueError, TypeError, RecursionError) as error:
            verdict = deny(PdpFault("decision", f"cannot be written: {error}"))
        return {
            "verdict": {
                "permit": verdict.permit,
                "fault": NAMES[verdict.fault] if verdict.fault else None,
                "error": verdict.error,
                "reason": verdict.reason,
            },
            "lifetime": {"ms": max(0, verdict.expires_ns - flight.asked_ns) // 1_000_000, "why": why},
        }

    def refusal(self, fault: Fault) -> tuple[Verdict, bytes]:
        """The deny of a fault, and its payload."""
        verdict = self.deny(fault)
        return verdict, payload(verdict)

    def once(self, flight: Flight, decision: Decision, now: int, wall_ms: int) -> tuple[Verdict, bytes]:
        """The verdict of one request, for which rates are taken and notices sent; its payload."""
        question = read_question(flight.key)
        subject = f"{question.subject.type}::{question.subject.id}".encode()
        failed: Fault | None = None
        refused = ""
        for o in understood(decision.obligations, flight.partition.handles):
            try:
                if o.type == "rate":
                    key = (flight.partition.number, o.id, subject)
                    if not self._rates.take(key, o.properties, now):
                        refused = refused or f"over the rate of `{o.id}`"
                elif o.type == "notify":
                    self._send(flight.partition, question, o)
            except Exception as error:  # a notifier is code of the host: whatever it raises is a notice not sent
                fault = error if isinstance(error, Fault) else ObligationFault(o.id, f"`{o.type}` failed: {error!r}")
                failed = failed or fault
        if decision.permit and failed is not None:
            return self.refusal(failed)
        if decision.permit and refused:
            decision = msgspec.structs.replace(decision, permit=False, reason=refused)
        verdict, encoded = self.shared(flight, decision, now, wall_ms)
        self.tell_denied(flight, verdict, 1, now)
        return verdict, encoded

    def tell_denied(self, flight: Flight, verdict: Verdict, times: int, now: int) -> None:
        """Say that so many requests are denied by a decision, and not by a fault, to whom the host named."""
        enforced = flight.partition.mode == "enforce"
        if self.on_deny is not None and enforced and not verdict.permit and not verdict.fault:
            by = ", ".join(verdict.policies)
            why = verdict.reason or (f"denied by {by}" if by else "no policy permits this")
            self.on_deny(flight.key, why, times, now)

    def _send(self, partition: Partition, question: Question, o: Obligation) -> None:
        if self._notify is None:
            raise _no_place(o)
        if partition.mode == "enforce":
            self._notify(partition, question, o)


def _no_place(o: Obligation) -> ObligationFault:
    return ObligationFault(o.id, "`notify` has no place to go here: set `notify.file` in the config")
