"""Why embedded Cedar decides as it does: one question decided once more, told as plain values.

Promises: the same engine, slice and entities as `decide`, on the smallest slice; every determining policy
with file, lines, source and annotations; the lifetime with what set it; every error with its policy; which
properties of the question were not used because the store holds the entity or its type is not open. Plain
values: JSON can write them. Never: decides anything. Nothing that this unit returns is enforced.
"""

from __future__ import annotations

from typing import Any

from ..errors import Fault
from ..model import Question
from .cedar import Answered, Asked, Cedar, engine_arguments, read
from .cedar_engine import evaluate
from .cedar_policies import Policy
from .cedar_times import UNKNOWN, until_next


def explain(cedar: Cedar, question: Question, wall_ms: int) -> dict[str, Any]:
    """Return decision, policies, lifetime, slice and errors of one question."""
    decision = cedar.decide([question], wall_ms)[0]
    told: dict[str, Any] = {
        "permit": decision.permit,
        "fault": decision.fault,
        "reason": decision.reason,
        "obligations": [{"id": o.id, "type": o.type, "properties": o.properties} for o in decision.obligations],
        "tags": list(decision.tags),
        "policies": [],
        "errors": [],
        "lifetime": {"ms": decision.max_age_ms, "why": "no policy limits it"},
        "slice": {"policies": 0, "of": sum(not p.template for p in cedar.policies)},
    }
    try:
        asked = cedar.ask(question, wall_ms, exact=True)
        told["slice"]["policies"] = asked.mask.bit_count()
        told["properties_not_used"] = asked.unused
        answered = read(evaluate(*engine_arguments(asked, cedar.store)), asked.slice)
    except (Fault, ValueError, OverflowError):
        return told  # `fault` says it already
    told["policies"] = [_policy(p) for p in sorted(answered.determining, key=lambda p: p.id)]
    told["errors"] = [{**_policy(p), "error": text, "meaning": _MEANING[p.effect]} for p, text in answered.errors]
    told["lifetime"] = _lifetime(asked, answered, wall_ms) or told["lifetime"]
    return told


_MEANING = {
    "permit": "the policy does not apply",
    "forbid": "a forbid that fails is a fault: nobody knows what it would have said",
}


def _policy(p: Policy) -> dict[str, Any]:
    s = p.statement
    return {
        "id": p.id,
        "effect": p.effect,
        "file": s.file,
        "lines": [s.line, s.last_line],
        "source": s.text,
        "annotations": dict(p.annotations),
        "values": {slot: f'{t}::"{i}"' for slot, (t, i) in p.values.items()},
    }


def _lifetime(asked: Asked, answered: Answered, wall_ms: int) -> dict[str, Any] | None:
    """The shortest of what limits the decision, and its source."""
    limits = [(p.notes.ttl_ms, f"@ttl of policy `{p.id}`") for p in answered.determining if p.notes.ttl_ms is not None]
    clock = asked.slice.reads.clock
    left = until_next(clock, wall_ms) if clock else None
    if left is not None:
        why = "the nearest time literal of a policy that could apply"
        if clock and UNKNOWN in clock and until_next(clock - {UNKNOWN}, wall_ms) != left:
            why = "a policy that could apply uses context.now in a way that has no nearest literal"
        limits.append((left, why))
    ms, why = min(limits, default=(None, ""))
    return {"ms": ms, "why": why} if limits else None
