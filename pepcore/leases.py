"""Leases: permits that are held. A session, a stream, a job: they end when access ends, and their holder is told.

Promises: an explicit revoke of a tag ends every lease that carries it, a block every lease whose subject or chain it
names; a lease is asked about again before its lifetime ends, at once when policies, entities or the wall clock changed,
and ends where that gives no permit in time. Whoever was to be told counts as holding until he says that he stopped, or
until the grace has passed after which a holder without a daemon stops by itself.
Never: reads a clock or a socket; keeps an answer (a lease is always asked of the PDP); ends a lease for a tag that
merely shares a slot with its own.

INVARIANT: a lease is in `_all` from its permit until its holder has stopped; in the indexes only while it is held.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Any

from msgspec import Struct

from .blocks import read_question, tag_of
from .flight import Partition
from .freshness import policy_tag

AHEAD_NS = 1_000_000_000
"""How long before its lifetime ends a lease is asked about again, at most a quarter of what it has."""
AT_ONCE = 128
"""Leases that are with the PDP at one time: the others of ten thousand wait their turn after a reload."""


class Cause(enum.IntEnum):
    """Why a lease ended (bindings/README.md, "lease")."""

    REVOKED = 1
    BLOCKED = 2
    DENIED = 3
    ENDED = 4
    OVER = 5


class Lease(Struct, eq=False):
    """One held permit. `until_ns`: it is asked about again before, and ends then (CLOCK_BOOTTIME)."""

    number: int
    to: Any
    request: int
    local: int
    partition: Partition
    key: bytes
    principals: tuple[str, ...]
    resource: str
    action: str
    since_ms: int
    not_after: int = -1
    tags: frozenset[str] = frozenset()
    until_ns: int = 0
    asking: bool = False
    again: bool = False
    """Something changed while it was with the PDP: ask once more."""
    held: bool = True
    revision: int = 0
    """At which it ended."""
    gone_ns: int = 0
    """When its holder, who has no connection any more, has stopped by itself; 0: he has one."""


class Leases:
    """All leases of a daemon. `grace_ns`: how long a holder goes on without a daemon."""

    def __init__(self, grace_ns: int, most: int, numbers: Iterator[int] | None = None) -> None:
        self.grace_ns, self.most = grace_ns, most
        self.started = self.ended = 0
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._all: dict[int, Lease] = {}
        self._tagged: dict[str, set[Lease]] = {}
        self._blockable: dict[str, set[Lease]] = {}
        self._of_holder: dict[int, set[Lease]] = {}
        self._due: list[tuple[int, int, Lease]] = []
        self._stopping: list[tuple[int, int, Lease]] = []
        self._order = itertools.count()
        self._asking = 0

    def __len__(self) -> int:
        return len(self._all)

    def counts(self) -> dict[str, int]:
        """How many were started and ended, how many are held, and of how many we do not know that they stopped."""
        held = self.started - self.ended
        return {"held": held, "started": self.started, "ended": self.ended, "untold": len(self._all) - held}

    @property
    def full(self) -> bool:
        return len(self._all) >= self.most

    # ---- a permit is held, and asked about again ----

    def hold(
        self, to: Any, request: int, local: int, partition: Partition, key: bytes, not_after: int, wall_ms: int
    ) -> Lease:
        """A permit of this question is held from now on; `renewed` says for how long."""
        question = read_question(key)
        principals = tuple(tag_of(entity) for entity in (question.subject, *question.chain))
        lease = Lease(
            next(self._numbers), to, request, local, partition, key, principals, tag_of(question.resource),
            question.action.name, wall_ms, not_after,
        )  # fmt: skip
        self._all[lease.number] = lease
        self._of_holder.setdefault(id(to), set()).add(lease)
        for tag in principals:
            self._blockable.setdefault(tag, set()).add(lease)
        self.started += 1
        return lease

    def renewed(
        self, lease: Lease, tags: Iterable[str], policies: Iterable[str], until_ns: int, now: int, wall_ms: int
    ) -> None:
        """The PDP permits it, until then at most."""
        if lease.not_after >= 0:
            until_ns = min(until_ns, now + max(0, lease.not_after - wall_ms) * 1_000_000)
        self._answered(lease)
        self._unindex(lease)
        lease.tags = frozenset((*lease.principals, lease.resource, *tags, *map(policy_tag, policies)))
        for tag in lease.tags:
            self._tagged.setdefault(tag, set()).add(lease)
        lease.until_ns = until_ns
        ahead = min(AHEAD_NS, (until_ns - now) // 4)
        self._soon(lease, now if lease.again else max(now, until_ns - ahead))
        lease.again = False

    def recheck(self, now: int) -> None:
        """Policies, entities or the wall clock changed: ask about every lease again."""
        for lease in self._all.values():
            if lease.held and lease.asking:
                lease.again = True
            elif lease.held:
                self._soon(lease, now)

    def due(self, now: int) -> Lease | None:
        """A lease to ask the PDP about, as far as there is room there; the caller answers with `renewed` or `end`."""
        while self._due and self._asking < AT_ONCE and self._due[0][0] <= now:
            _, _, lease = heappop(self._due)
            if lease.held and not lease.asking:
                lease.asking = True
                self._asking += 1
                return lease
        return None

    def next_due(self) -> int | None:
        """When `due` or `stopped` has something to do, or None."""
        while self._due and not (self._due[0][2].held and not self._due[0][2].asking):
            heappop(self._due)
        nearest = [heap[0][0] for heap in (self._due if self._asking < AT_ONCE else [], self._stopping) if heap]
        return min(nearest, default=None)

    def _soon(self, lease: Lease, at: int) -> None:
        heappush(self._due, (at, next(self._order), lease))

    def _answered(self, lease: Lease) -> None:
        if lease.asking:
            lease.asking = False
            self._asking -= 1

    # ---- the end ----

    def revoked(self, tags: Iterable[str], revision: int) -> list[Lease]:
        """End every lease that carries one of these tags; the caller tells the holders."""
        found = {lease for tag in tags for lease in self._tagged.get(tag, ())}
        return [self.end(lease, revision) for lease in sorted(found, key=lambda lease: lease.number)]

    def revoked_all(self, revision: int) -> list[Lease]:
        """End every lease."""
        return [self.end(lease, revision) for lease in list(self._all.values()) if lease.held]

    def blocked(self, tag: str, revision: int) -> list[Lease]:
        """End every lease of whom a block names."""
        found = self._blockable.get(tag, ())
        return [self.end(lease, revision) for lease in sorted(found, key=lambda lease: lease.number)]

    def end(self, lease: Lease, revision: int) -> Lease:
        """End one lease. Its holder still has to be told, or to stop by itself."""
        self._answered(lease)
        self._unindex(lease)
        for tag in lease.principals:
            self._drop(self._blockable, tag, lease)
        lease.held, lease.revision = False, revision
        self.ended += 1
        if lease.gone_ns:
            self._stop_at(lease, lease.gone_ns)
        return lease

    def given_up(self, number: int, to: Any) -> Lease | None:
        """A holder says that it has stopped. Returns the lease if it was still held."""
        lease = self._all.get(number)
        if lease is None or lease.to is not to:
            return None
        was = lease if lease.held else None
        if lease.held:
            self.end(lease, lease.revision)
        self._forget(lease)
        return was

    def lost(self, to: Any, now: int) -> None:
        """A holder has no connection any more: it stops by itself when its grace is over."""
        for lease in self._of_holder.pop(id(to), ()):
            lease.gone_ns = now + self.grace_ns
            self._stop_at(lease, lease.gone_ns)

    def stopped(self, now: int) -> list[Lease]:
        """Forget those whose holders have stopped by now; returns the ones that were still held."""
        were: list[Lease] = []
        while self._stopping and self._stopping[0][0] <= now:
            _, _, lease = heappop(self._stopping)
            if lease.number in self._all:
                if lease.held:
                    lease.gone_ns = 0  # it is forgotten here, at once
                    were.append(self.end(lease, lease.revision))
                self._forget(lease)
        return were

    def untold(self, revision: int) -> int:
        """Holders of leases that ended at this revision or before, and who have not stopped yet as far as we know."""
        return sum(1 for lease in self._all.values() if not lease.held and lease.revision <= revision)

    def get(self, number: int) -> Lease | None:
        """A lease that is held."""
        lease = self._all.get(number)
        return lease if lease is not None and lease.held else None

    def held(self) -> list[Lease]:
        """Every lease that is held, oldest first."""
        return [lease for lease in self._all.values() if lease.held]

    def _stop_at(self, lease: Lease, at: int) -> None:
        heappush(self._stopping, (at, next(self._order), lease))

    def _forget(self, lease: Lease) -> None:
        del self._all[lease.number]
        mine = self._of_holder.get(id(lease.to))
        if mine is not None:
            mine.discard(lease)
            if not mine:
                del self._of_holder[id(lease.to)]

    def _unindex(self, lease: Lease) -> None:
        for tag in lease.tags:
            self._drop(self._tagged, tag, lease)

    @staticmethod
    def _drop(index: dict[str, set[Lease]], tag: str, lease: Lease) -> None:
        found = index.get(tag)
        if found is not None:
            found.discard(lease)
            if not found:
                del index[tag]
