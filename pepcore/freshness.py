"""The guards between an answer and those it would serve: nothing that is too old is joined, kept or released.

Promises: each is asked at the moment when it matters (a follower joins, an answer arrives, a batch is released), with
the page's revision and the clock of that moment. Leaving any one out lets a stale permit through:
`tests/test_enforcer_simulation.py` does leave out each, and sees it.
Never: decides; reads a clock.
"""

from __future__ import annotations

from .core.verdict import Verdict
from .errors import Fault
from .flight import Cached, Flight, Said, Times
from .model import Decision


def may_join(flight: Flight, revision: int) -> bool:
    """A follower may join a flight that is not with the PDP yet, or one that was asked at this revision."""
    return not flight.taken or flight.revision == revision


def stamps_hold(stamp: int, revision: int) -> bool:
    """Whether nothing was revoked or reloaded since a stamp was read."""
    return stamp == revision


def outlived(flight: Flight, decision: Decision, times: Times, now: int) -> bool:
    """Whether a permit's lifetime ended before it arrived. One that is not to be kept (0) holds for this answer."""
    life = times.permit_ms if decision.max_age_ms is None else min(times.permit_ms, decision.max_age_ms)
    return decision.permit and 0 < life * 1_000_000 <= now - flight.asked_ns


def in_time(deadline_ns: int, now: int) -> bool:
    """Whether a deadline has not passed yet."""
    return now < deadline_ns


def stands(flight: Flight, outcome: Decision | Fault, times: Times, revision: int, now: int) -> bool:
    """Whether what the PDP said about a flight may still be enforced."""
    return stamps_hold(flight.revision, revision) and not (
        isinstance(outcome, Decision) and outlived(flight, outcome, times, now)
    )


def still_open(verdict: Verdict, now: int) -> bool:
    """Whether a verdict that was settled for all who wait may still be handed out: its window may close meanwhile."""
    return not (verdict.permit and 0 < verdict.expires_ns <= now)


def holds(outcome: bytes | Cached | Said, times: Times, revision: int, now: int) -> bool:
    """Whether what is known of a batch item may still be released. Bytes are denies, which do not age."""
    if isinstance(outcome, Cached):
        return stamps_hold(outcome.revision, revision) and outcome.stored[2] > now
    return isinstance(outcome, bytes) or stands(outcome.flight, outcome.outcome, times, revision, now)


def left_ms(not_after: int, wall_ms: int) -> int:
    """Milliseconds that a caller's own permission lasts; -1: it said nothing about that."""
    return max(0, not_after - wall_ms) if not_after >= 0 else -1
