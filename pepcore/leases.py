"""Leases: permits that are held. A session, a stream, a job: they end when access ends, and their holder is told.

Promises: an explicit revoke of a tag ends every lease that carries it, a block every lease whose subject or chain it
names, before the call returns; a lease is asked about again before its lifetime ends, at once when policies, entities
or the wall clock changed, and ends where no permit comes in time, also while others wait for the PDP. Whoever was to be
told counts as holding until he says that he stopped, or until the grace has passed after which a holder without a
daemon stops by itself. What costs more than a few milliseconds for ten thousand leases is done in slices.
Never: reads a clock or a socket; keeps an answer (a lease is always asked of the PDP); ends a lease for a tag that
merely shares a slot with its own; counts for a lease what was asked before it ended.

INVARIANT: a lease is in `_all`, and counts for its owner, from its permit until its holder has stopped; `held` is true
of it from its permit until its end, and it is in the indexes until `to_tell` has come to it after that.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Any

from .agenda import Agenda
from .blocks import read_question, tag_of
from .flight import Partition
from .freshness import policy_tag
from .lease import Cause, Lease
from .leaseroom import Room

AHEAD_NS = 1_000_000_000
"""How long before its lifetime ends a lease is asked about again, at most a quarter of what it has."""
LATE_NS = 100_000_000
"""Where asking ahead gains nothing (a window closes), it is asked at the edge itself, and ends so long after it at most
if nothing is said: what is permitted on both sides of an edge goes on."""
SAME_NS = 2_000_000
"""Ends of a lifetime that are so close are the same edge: the PDP counts in milliseconds."""
AT_ONCE = 128
"""Leases that are with the PDP at one time: the others of ten thousand wait their turn after a reload."""
RECHECK_NS = 10_000_000_000
"""How long the PDP may take over a lease, from when it is first asked; never longer than the lease has."""
AGAIN_NS = 20_000_000
"""Until a lease is asked about again, of which no decision could be had."""


class Leases:
    """All leases of a daemon. `grace_ns`: how long a holder goes on without a daemon."""

    def __init__(self, grace_ns: int, most: int, of_one: int = 1 << 30, numbers: Iterator[int] | None = None) -> None:
        self.grace_ns, self.room = grace_ns, Room(most, of_one)
        self.started = self.ended = 0
        self.on_end: Callable[[Lease], None] | None = None
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._all: dict[int, Lease] = {}
        self._tagged: dict[str, dict[Lease, None]] = {}
        self._of_holder: dict[int, dict[Lease, None]] = {}
        self._due: Agenda[Lease] = Agenda()
        self._ends: Agenda[Lease] = Agenda()
        self._at_once: deque[Lease] = deque()
        self._over: deque[Lease] = deque()
        self._stopping: deque[tuple[int, list[Lease]]] = deque()
        self._asking = 0

    def __len__(self) -> int:
        return len(self._all)

    def counts(self) -> dict[str, int]:
        """How many were started (or adopted) and ended, how many are held, and of how many we do not know that they
        stopped."""
        held = self.started - self.ended
        return {"held": held, "started": self.started, "ended": self.ended, "untold": len(self._all) - held}

    # ---- a permit is held, and asked about again ----

    def hold(
        self, to: Any, owner: int, request: int, local: int, partition: Partition, key: bytes, not_after: int,
        wall_ms: int,
    ) -> Lease:  # fmt: skip
        """A permit of this question, which has entered, is held from now on; `renewed` says for how long."""
        question = read_question(key)
        principals = tuple(tag_of(entity) for entity in (question.subject, *question.chain))
        lease = Lease(
            next(self._numbers), to, owner, request, local, partition, key, principals, tag_of(question.resource),
            question.action.name, wall_ms, not_after,
        )  # fmt: skip
        self._all[lease.number] = lease
        self._of_holder.setdefault(id(to), {})[lease] = None
        self.started += 1
        return lease

    def adopt(
        self, partition: Partition, principals: tuple[str, ...], action: str, resource: str, tags: frozenset[str],
        since_ms: int, stops_ns: int, ended: bool = False,
    ) -> None:  # fmt: skip
        """A lease of a daemon before this one, whose holder stops then, unless he asks here by then. One that ended
        there did so before any revision of this one: revisions of two daemons are not compared."""
        owner = partition.owner
        lease = Lease(
            next(self._numbers), self, owner, 0, 0, partition, b"", principals, resource, action, since_ms, tags=tags,
            held=not ended, lost=True,
        )  # fmt: skip
        self._all[lease.number] = lease
        self.started += 1
        self.ended += ended
        for tag in tags if lease.held else ():
            self._tagged.setdefault(tag, {})[lease] = None
        self.room.adopt(owner)
        self._stopping.append((stops_ns, [lease]))

    def renewed(
        self, lease: Lease, tags: Iterable[str], policies: Iterable[str], until_ns: int, now: int, wall_ms: int
    ) -> None:
        """The PDP permits it, until then at most."""
        if not lease.held:
            return
        same = until_ns <= lease.until_ns + SAME_NS
        last_ns = until_ns + (LATE_NS if same else 0)
        if lease.not_after >= 0:
            last_ns = min(last_ns, now + max(0, lease.not_after - wall_ms) * 1_000_000)
        self._unindex(lease)
        lease.tags = frozenset((*lease.principals, lease.resource, *tags, *map(policy_tag, policies)))
        for tag in lease.tags:
            self._tagged.setdefault(tag, {})[lease] = None
        lease.until_ns, lease.ends_ns, lease.tried = until_ns, last_ns, False
        self._ends.set(lease, last_ns)
        self._due.set(lease, until_ns if same else until_ns - min(AHEAD_NS, max(0, until_ns - now) // 4))
        self._answered(lease)

    def undecided(self, lease: Lease, now: int) -> None:
        """No decision could be had about it: it is asked about again, as long as it lasts."""
        if lease.held:
            self._due.set(lease, now + AGAIN_NS)
            self._answered(lease)

    def recheck(self) -> None:
        """Policies, entities or the wall clock changed: ask about every lease again, those that end first before."""
        waiting = []
        for lease in self._all.values():
            if not lease.key:  # of a daemon before this one, whose holder asks here or stops: nothing is known to ask
                continue
            if lease.held and lease.asking:
                lease.again = True
            elif lease.held:
                waiting.append(lease)
        waiting.sort(key=attrgetter("ends_ns"))
        self._at_once = deque(waiting)

    def due(self, now: int) -> Lease | None:
        """A lease to ask the PDP about, as far as there is room; `renewed`, `undecided` or `end` is the answer."""
        if self._asking >= AT_ONCE:
            return None
        lease: Lease | None = None
        while lease is None and self._at_once:
            first = self._at_once.popleft()
            if first.held and not first.asking:
                lease = first
        lease = lease or _held(self._due, now)
        if lease is not None:
            self._due.drop(lease)
            if not lease.tried:
                lease.tried, lease.ends_ns = True, min(lease.ends_ns, now + RECHECK_NS)
                self._ends.set(lease, lease.ends_ns)
            lease.asking = True
            self._asking += 1
        return lease

    def over(self, now: int) -> Lease | None:
        """A lease whose time has come, whatever it waits for; the caller ends it."""
        return _held(self._ends, now)

    def next_due(self) -> int | None:
        """When `due`, `over` or `stopped` has something to do, or None; 0: at once."""
        times = [self._ends.first()]
        if self._asking < AT_ONCE:
            times += [0 if self._at_once else None, self._due.first()]
        if self._stopping:
            times.append(self._stopping[0][0])
        return min((at for at in times if at is not None), default=None)

    def _answered(self, lease: Lease) -> None:
        if lease.asking:
            lease.asking = False
            self._asking -= 1
        if lease.again and lease.held:
            self._at_once.append(lease)
        lease.again = False

    # ---- the end ----

    def revoked(self, tags: Iterable[str], revision: int, reason: str) -> None:
        """End every lease that carries one of these tags."""
        for tag in tags:
            for lease in self._tagged.get(tag, ()):
                self.end(lease, revision, Cause.REVOKED, reason)

    def revoked_all(self, revision: int, reason: str) -> None:
        """End every lease."""
        for lease in self._all.values():
            self.end(lease, revision, Cause.REVOKED, reason)

    def blocked(self, tag: str, revision: int, reason: str) -> None:
        """End every lease of whom a block names."""
        for lease in self._tagged.get(tag, ()):
            if tag in lease.principals:
                self.end(lease, revision, Cause.BLOCKED, reason)

    def end(self, lease: Lease, revision: int, cause: Cause, reason: str) -> None:
        """End one lease, if it is held. Its holder still has to be told, or to stop by itself."""
        if lease.held:  # what else there is to do for ten thousand is done in slices, by `to_tell`
            lease.held, lease.revision, lease.cause, lease.reason = False, revision, cause, reason
            if lease.asking:
                self._answered(lease)
            self.ended += 1
            self._over.append(lease)

    @property
    def telling(self) -> bool:
        """Whether holders have to be told."""
        return bool(self._over)

    def to_tell(self, most: int) -> list[Lease]:
        """So many of those that ended, whose holders are there and have to be told now."""
        found: list[Lease] = []
        while self._over and most > 0:
            lease = self._over.popleft()
            most -= 1
            self._due.drop(lease)
            self._ends.drop(lease)
            self._unindex(lease)
            if self.on_end is not None:
                self.on_end(lease)
            if lease.number in self._all and not lease.lost:
                found.append(lease)
        return found

    def given_up(self, number: int, to: Any) -> bool:
        """A holder says that it has stopped; False: he holds no such lease, as far as we know."""
        lease = self._all.get(number)
        if lease is None or lease.to is not to:
            return False
        self.end(lease, lease.revision, Cause.ENDED, "given up")
        mine = self._of_holder[id(to)]
        del mine[lease]
        if not mine:
            del self._of_holder[id(to)]
        del self._all[lease.number]
        self.room.leave(lease.owner)
        return True

    def lost(self, to: Any, now: int) -> None:
        """A holder has no connection any more: it stops by itself when its grace is over."""
        leases = list(self._of_holder.pop(id(to), ()))
        for lease in leases:
            lease.lost = True
            self.room.lose(lease.owner)
        if leases:
            self._stopping.append((now + self.grace_ns, leases))

    def stopped(self, now: int, most: int) -> None:
        """Forget so many of those whose holders have stopped by now."""
        while self._stopping and self._stopping[0][0] <= now and most > 0:
            leases = self._stopping[0][1]
            while leases and most > 0:
                lease = leases.pop()
                most -= 1
                self.end(lease, lease.revision, Cause.ENDED, "its holder is gone")
                del self._all[lease.number]
                self.room.leave_lost(lease.owner)
            if not leases:
                self._stopping.popleft()

    def untold(self, revision: int) -> int:
        """Holders of leases that ended at this revision or before, and who have not stopped yet as far as we know."""
        return sum(1 for lease in self._all.values() if not lease.held and lease.revision <= revision)

    def get(self, number: int) -> Lease | None:
        """A lease that is held."""
        lease = self._all.get(number)
        return lease if lease is not None and lease.held else None

    def held(self, after: int = -1, most: int | None = None) -> list[Lease]:
        """The leases that are held, oldest first, those behind a number, so many at most."""
        return list(islice((lease for lease in self._all.values() if lease.held and lease.number > after), most))

    def unstopped(self) -> list[Lease]:
        """All whose holders have not stopped yet, as far as we know: held, or ended."""
        return list(self._all.values())

    def _unindex(self, lease: Lease) -> None:
        for tag in lease.tags:
            found = self._tagged.get(tag)
            if found is not None:
                found.pop(lease, None)
                if not found:
                    del self._tagged[tag]


def _held(agenda: Agenda[Lease], now: int) -> Lease | None:
    """The next that is due and held."""
    while (lease := agenda.pop(now)) is not None and not lease.held:
        pass
    return lease
