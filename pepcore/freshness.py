"""The guards between an answer and those it would serve: nothing that is too old is joined, kept or released.

Promises: each is asked at the moment when it matters (a follower joins, an answer arrives, a batch is released), with
the page and the clock of that moment. A revoke of another tag than those an answer hangs on leaves it alone, so that
an incident does not stop all caching. Leaving any one out lets a stale permit through:
`tests/test_enforcer_simulation.py` does leave out each, and sees it.
Never: decides; reads a clock.
"""

from __future__ import annotations

from .core.cache import Stored
from .core.page import Page
from .core.tags import stamps
from .core.verdict import Verdict
from .errors import Fault
from .flight import Flight, Said, Times
from .model import Decision


def may_join(flight: Flight, page: Page) -> bool:
    """A follower may join a flight that is not with the PDP yet, or of which no entity was revoked since it is."""
    return (
        not flight.taken
        or flight.revision == page.revision
        or (page.untouched(stamps(page, flight.key), flight.revision))
    )


def stamps_of(flight: Flight, outcome: Decision | Fault, page: Page) -> bytes:
    """The slots that an answer hangs on: its entities, the PDP's tags, the policies that decided, the wall clock."""
    if isinstance(outcome, Fault):
        return stamps(page, flight.key)
    tags = outcome.tags
    if outcome.policies:
        tags += tuple([policy_tag(p) for p in outcome.policies])
    return stamps(page, flight.key, tags, outcome.timed or any(o.type == "window" for o in outcome.obligations))


def policy_tag(policy: str) -> str:
    """The tag of every answer that a policy decided."""
    return f"policy:{policy}"


def stamps_hold(slots: bytes, asked: Flight | Stored, page: Page) -> bool:
    """Whether nothing that an answer hangs on was revoked since it was asked for, or last found to stand."""
    return asked.revision == page.revision or page.untouched(slots, asked.revision)


def outlived(flight: Flight, decision: Decision, times: Times, now: int) -> bool:
    """Whether a permit's lifetime ended before it arrived. One that is not to be kept (0) holds for this answer."""
    life = times.permit_ms if decision.max_age_ms is None else min(times.permit_ms, decision.max_age_ms)
    return decision.permit and 0 < life * 1_000_000 <= now - flight.asked_ns


def in_time(deadline_ns: int, now: int) -> bool:
    """Whether a deadline has not passed yet."""
    return now < deadline_ns


def stands(flight: Flight, outcome: Decision | Fault, times: Times, page: Page, now: int) -> bool:
    """Whether what the PDP said about a flight may still be enforced."""
    return stamps_hold(flight.stamps, flight, page) and not (
        isinstance(outcome, Decision) and outlived(flight, outcome, times, now)
    )


def still_open(verdict: Verdict, now: int) -> bool:
    """Whether a verdict that was settled for all who wait may still be handed out: its window may close meanwhile."""
    return not (verdict.permit and 0 < verdict.expires_ns <= now)


def holds(outcome: bytes | Stored | Said, times: Times, page: Page, now: int) -> bool:
    """Whether what is known of a batch item may still be released. Bytes are denies, which do not age."""
    if isinstance(outcome, Stored):
        return stamps_hold(outcome.stamps, outcome, page) and outcome.expires > now
    return isinstance(outcome, bytes) or stands(outcome.flight, outcome.outcome, times, page, now)


def left_ms(not_after: int, wall_ms: int) -> int:
    """Milliseconds that a caller's own permission lasts; -1: it said nothing about that."""
    return max(0, not_after - wall_ms) if not_after >= 0 else -1
