"""The way of a lease, sans I/O: asked for, held, asked about again, ended. The host sends what is told.

    ask ──► enforcer (never the cache) ──► answered ──► held ◄──────── rechecked
                                                         └─► due ─► enforcer ─┘

Promises: a permit is held only if it still stands at that moment: one that was asked for before a revoke and comes out
after it is asked for once more; an answer about a lease that ended meanwhile changes nothing; a connection that
goes gets nothing held; a fault of the PDP ends a lease, what only says that it could not be asked now does not. What
the mode of a point lets pass is held, and asked about each second.
Never: reads a clock or a socket; takes a lease from the cache; holds a permit past its window.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from . import freshness
from .core.obligation import understood
from .discharge import window_left_ms
from .enforcer import Enforcer
from .errors import BadRequest, DeadlinePassed, Draining, Overloaded, Stale
from .flight import Flight, Partition, Reply, Said
from .lease import Cause, Lease
from .leases import AT_ONCE, Leases
from .model import Decision

UNKEPT_MS = 1_000
"""How long a permit is held, before it is asked about again, that nothing may be kept of."""
UNDECIDED = frozenset({DeadlinePassed.code, Draining.code, Overloaded.code, Stale.code})
"""Faults that say nothing of the question: it is asked again, as long as the lease lasts."""
LAPSED = "no decision permitted it again in time"


class Asked(NamedTuple):
    """A lease that was asked for."""

    partition: Partition
    key: bytes
    local: int
    not_after: int
    until_ns: int
    trace: bytes


class Holder:
    """Who asks for leases: stands for a connection in the enforcer. `owner` is whom they count for."""

    def __init__(self, connection: Any, owner: int) -> None:
        self.connection, self.owner = connection, owner
        self.asked: dict[int, Asked] = {}


class Recheck:
    """Stands for a lease that is asked about again: nobody is sent what is decided."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease


class Tenure:
    """The leases of an enforcer."""

    def __init__(self, enforcer: Enforcer, leases: Leases) -> None:
        self.enforcer, self.leases = enforcer, leases

    # ---- asking ----

    def ask(
        self, holder: Holder, partition: Partition, request: int, local: int, key: bytes, deadline_ns: int,
        not_after: int, now: int, wall_ms: int, trace: bytes = b"",
    ) -> None:  # fmt: skip
        """Somebody wants to hold a permit. Raises Overloaded or BadRequest."""
        if request in holder.asked:
            raise BadRequest("request id", f"`{request}` is asked for already on this connection")
        self.leases.room.enter(holder.owner)
        until_ns = now + self.enforcer.allowed_ns(deadline_ns)
        holder.asked[request] = Asked(partition, key, local, not_after, until_ns, trace)
        self._ask(holder, request, now, wall_ms)

    def _ask(self, holder: Holder, request: int, now: int, wall_ms: int) -> None:
        asked = holder.asked[request]
        self.enforcer.ask(
            asked.partition, holder, request, asked.local, asked.key, now, wall_ms,
            deadline_ns=max(0, asked.until_ns - now), not_after=asked.not_after, trace=asked.trace,
        )  # fmt: skip

    def answered(self, r: Reply, now: int, wall_ms: int) -> Lease | bool:
        """What became of a request: the lease; False: none, its verdict says why; True: it is asked once more."""
        holder: Holder = r.to
        if r.request not in holder.asked:
            return False  # whoever asked has gone
        permit = r.verdict is not None and r.verdict.permit
        if permit and not self._stands(r, holder.asked[r.request].key, holder.asked[r.request].not_after, now, wall_ms):
            self._ask(holder, r.request, now, wall_ms)
            return True
        asked = holder.asked.pop(r.request)
        if not permit:
            self.leases.room.leave(holder.owner)
            return False
        lease = self.leases.hold(
            holder, holder.owner, r.request, r.local, asked.partition, asked.key, asked.not_after, wall_ms
        )
        self._renew(lease, r, now, wall_ms)
        return lease

    def rechecked(self, r: Reply, now: int, wall_ms: int) -> None:
        """The PDP was asked about a lease again."""
        lease: Lease = r.to.lease
        verdict = r.verdict
        assert verdict is not None, "a lease is a single question"
        if not lease.held:
            return
        if verdict.permit:
            if self._stands(r, lease.key, lease.not_after, now, wall_ms):
                self._renew(lease, r, now, wall_ms)
            else:
                self.leases.undecided(lease, now)
        elif verdict.fault in UNDECIDED:
            self.leases.undecided(lease, now)
        else:
            self._end(lease, verdict.error or verdict.reason or "no policy permits it any more", wall_ms)

    def _stands(self, r: Reply, key: bytes, not_after: int, now: int, wall_ms: int) -> bool:
        """Whether a permit may still be held: between its release and now, access may have been taken away."""
        said, enforcer = r.said, self.enforcer
        if 0 <= not_after <= wall_ms:
            return False
        if said is None or permit_of(said) is None:  # no revoke ends what a mode lets pass: a block does
            return enforcer.revocation.denied(key, wall_ms) is None
        return freshness.stands(said.flight, said.outcome, enforcer.times, enforcer.page, now)

    def _renew(self, lease: Lease, r: Reply, now: int, wall_ms: int) -> None:
        decision = permit_of(r.said)
        if r.said is None or decision is None:
            self.leases.renewed(lease, (), (), now + UNKEPT_MS * 1_000_000, now, wall_ms)
        else:
            until_ns = self._until(r.said.flight, decision, now, wall_ms)
            self.leases.renewed(lease, decision.tags, decision.policies, until_ns, now, wall_ms)

    def _until(self, flight: Flight, decision: Decision, now: int, wall_ms: int) -> int:
        """When a permit has to be asked for anew: as for any other, but that what is not to be kept lasts a second."""
        life = self.enforcer.times.permit_ms or UNKEPT_MS
        if decision.max_age_ms is not None:
            life = min(life, decision.max_age_ms or UNKEPT_MS)
        until_ns = flight.asked_ns + life * 1_000_000
        for o in understood(decision.obligations, flight.partition.handles):
            if o.type == "window":
                until_ns = min(until_ns, now + (window_left_ms(o.properties, wall_ms) or 0) * 1_000_000)
        enforced = flight.partition.mode == "enforce"  # else what is held outlives its window, and is not asked at once
        return until_ns if enforced else max(until_ns, now + UNKEPT_MS * 1_000_000)

    # ---- the end ----

    def revoke(self, tags: Iterable[str], reason: str) -> int:
        """End every answer and every lease that hangs on one of these tags; returns the revision."""
        tags = tuple(tags)
        revision = self.enforcer.revocation.revoke(tags)
        self.leases.revoked(tags, revision, reason)
        return revision

    def revoke_all(self, reason: str) -> int:
        """End every answer and every lease; returns the revision."""
        revision = self.enforcer.revocation.revoke_all()
        self.leases.revoked_all(revision, reason)
        return revision

    def blocked(self, tag: str, revision: int, reason: str) -> None:
        """A block stands at this revision: end the leases of whom it names."""
        self.leases.blocked(tag, revision, reason)

    def gone(self, holder: Holder, now: int) -> None:
        """A holder has no connection any more: nothing is held for what he asked for, what he holds is lost."""
        for _ in holder.asked:
            self.leases.room.leave(holder.owner)
        holder.asked.clear()
        self.leases.lost(holder, now)

    def _end(self, lease: Lease, reason: str, wall_ms: int) -> None:
        over = 0 <= lease.not_after <= wall_ms
        if over:
            reason = "the caller's own permission has ended"
        self.leases.end(lease, self.enforcer.page.revision, Cause.OVER if over else Cause.DENIED, reason)

    # ---- time ----

    def look(self, now: int, wall_ms: int, most: int = AT_ONCE) -> None:
        """End what is over, ask about so many of what is due. The host evaluates it, as any other question."""
        while (lease := self.leases.over(now)) is not None:
            self._end(lease, LAPSED, wall_ms)
        while most > 0 and (lease := self.leases.due(now)) is not None:
            most -= 1
            left = lease.ends_ns - now
            if lease.partition.mode != "enforce":  # what lets pass there is the deadline itself: before the lease ends
                left //= 2
            self.enforcer.ask(
                lease.partition, Recheck(lease), lease.number, 0, lease.key, now, wall_ms, deadline_ns=max(1, left),
                not_after=lease.not_after, held=True,
            )  # fmt: skip


def permit_of(said: Said | None) -> Decision | None:
    """The permit of the policies; None: the mode of a point lets pass what they deny, or what nobody could decide."""
    decision = said.outcome if said is not None else None
    return decision if isinstance(decision, Decision) and decision.permit else None
