"""The same PEP in plain Python: page, cache, gate, flights, verdicts. The reference that the compiled core must equal.

Lists instead of slots, whole scans instead of indexes: slow, and short enough to be read as the specification.
"""

import math
from dataclasses import dataclass

import msgspec
import xxhash

WAYS, BLOCK, CONTENT, SWEEP, M = 8, 64, 60, 16, (1 << 64) - 1


class Page:
    """Which revision each slot was revoked at last."""

    def __init__(self, seed):
        self.seed, self.revision, self.at = seed, 0, {}

    def stamps(self, tags, timed=False):
        """The slots of these tags; none: on the revision itself."""
        places = [2 + xxhash.xxh3_64_intdigest(t.encode(), self.seed) % 65534 for t in tags]
        slots = tuple(dict.fromkeys([0, *[1] * timed, *places]))
        return slots if len(slots) <= 32 else ()

    def revoke(self, slots):
        self.revision += 1
        self.at |= dict.fromkeys(slots, self.revision)

    def untouched(self, stamps, since):
        return all(self.at.get(s, 0) <= since for s in stamps) if stamps else self.revision == since


@dataclass
class Entry:
    owner: int
    partition: int
    key: bytes
    payload: bytes
    permit: bool
    id: int
    expires: int
    revision: int
    stamps: tuple
    visited: bool = False

    @property
    def blocks(self):
        return -(-(len(self.key) + len(self.payload) + 2 * len(self.stamps)) // CONTENT)

    def dead(self, now, page):
        if self.expires <= now or not page.untouched(self.stamps, self.revision):
            return True
        self.revision = page.revision
        return False


class Cache:
    def __init__(self, slots, slab, seed, quota):
        self.sets = [[None] * WAYS for _ in range(-(-slots // WAYS))]
        self.hands = [WAYS - 1] * len(self.sets)
        self.seed, self.blocks, self.swept = seed, slab // BLOCK, 0
        self.slot_quota, self.block_quota = int(len(self.sets) * WAYS * quota), int(self.blocks * quota)
        self.way_quota = math.ceil(WAYS * quota)
        self.hits = self.misses = self.inserts = self.evictions = self.declined = 0

    def entries(self, owner=None):
        return [e for s in self.sets for e in s if e and owner in (None, e.owner)]

    def used(self, owner=None):
        return sum(e.blocks for e in self.entries(owner))

    def place(self, partition, key):
        h = xxhash.xxh3_64_intdigest(key, self.seed) ^ ((partition + 1) * 0x9E3779B97F4A7C15 & M)
        h = (h ^ h >> 32) * 0xD6E8FEB86659FD93 & M
        return (h >> 32) * len(self.sets) >> 32

    def find(self, partition, key, now, page):
        for e in self.sets[self.place(partition, key)]:
            if e and (e.partition, e.key) == (partition, key) and not e.dead(now, page):
                e.visited = True
                return e
        return None

    def victim(self, n, owner=None):
        for _ in range(2 * WAYS):
            at = self.hands[n]
            e = self.sets[n][at]
            if e and owner in (None, e.owner):
                if not e.visited:
                    return at
                e.visited = False
            self.hands[n] = at - 1 if at else WAYS - 1
        return None

    def evict(self, n, at):
        self.sets[n][at] = None
        self.evictions += 1

    def room(self, need, spare, now, page):
        for _ in range(SWEEP):
            if self.blocks - self.used() >= need:
                return True
            self.swept = n = (self.swept + 1) % len(self.sets)
            if n == spare:
                continue
            self.sets[n] = [e if e and not e.dead(now, page) else None for e in self.sets[n]]
            if self.blocks - self.used() < need and (at := self.victim(n)) is not None:
                self.evict(n, at)
        return self.blocks - self.used() >= need

    def put(self, new, now, page):
        if new.expires <= now or not page.untouched(new.stamps, new.revision):
            return
        n = self.place(new.partition, new.key)
        same = (new.partition, new.key)
        self.sets[n] = [
            e if e and not e.dead(now, page) and (e.partition, e.key) != same else None for e in self.sets[n]
        ]
        while True:
            over = len(self.entries(new.owner)) + 1 > self.slot_quota
            over = over or self.used(new.owner) + new.blocks > self.block_quota
            if None in self.sets[n] and not over:
                break
            own = sum(1 for e in self.sets[n] if e and e.owner == new.owner)
            at = self.victim(n, new.owner if over or own >= self.way_quota else None)
            if at is None:
                self.declined += 1
                return
            self.evict(n, at)
        if not self.room(new.blocks, n, now, page):
            self.declined += 1
            return
        self.sets[n].remove(None)
        self.sets[n].insert(0, new)
        self.inserts += 1


@dataclass(eq=False)
class Asked:
    """A question with the PDP, or (no revision yet) on its way to it."""

    partition: int
    key: bytes
    tags: tuple
    revision: int | None = None
    ns: int = 0


@dataclass(eq=False)
class Waiter:
    request: int
    until: int
    not_after: int | None
    order: int
    flight: Asked | None = None
    again: bool = False


class Pep:
    """A reply is (request, permit, fault, cached, left ms, id, revision, payload, stamps); `owner`: of each partition,
    `entities`: those of each question, as tags."""

    def __init__(self, cache, page, owner, entities, permit_ms, deny_ms):
        self.cache, self.page, self.owner, self.entities = cache, page, owner, entities
        self.permit_ms, self.deny_ms = permit_ms, deny_ms
        self.number = self.order = 0
        self.queue, self.turn, self.flights, self.waiters, self.replies = [], [], {}, [], []

    def check(self, request, partition, key, now, wall, life, not_after, least):
        """The answer of the gate, or None: the question waits."""
        fault = 13 if not_after is not None and not_after <= wall else 12 if least > self.page.revision else 0
        if fault:
            return request, False, fault, False, 0, 0, self.page.revision, None, ()
        if e := self.cache.find(partition, key, now, self.page):
            self.cache.hits += 1
            left = (e.expires - now) // 10**6
            left = left if not_after is None else min(left, not_after - wall)
            return request, e.permit, 0, True, left, e.id, e.revision, e.payload, e.stamps
        self.cache.misses += 1
        self.order += 1
        self.wait(Waiter(request, now + life, not_after, self.order), partition, key, now, wall)
        return None

    def wait(self, waiter, partition, key, now, wall):
        if waiter.not_after is not None and waiter.not_after <= wall:
            return self.deny(waiter, 13)
        if waiter.until <= now:
            return self.deny(waiter, 7)
        flight = self.flights.get((partition, key))
        if not flight or not (flight.revision is None or self.stands(flight, self.page.stamps(flight.tags))):
            flight = self.flights[partition, key] = Asked(partition, key, self.entities[key])
            self.queue.append(flight)
            if self.owner[partition] not in self.turn:
                self.turn.append(self.owner[partition])
        waiter.flight = flight
        return self.waiters.append(waiter)

    def stands(self, flight, stamps):
        """Whether nothing that this hangs on was revoked since the flight was asked."""
        return flight.revision == self.page.revision or self.page.untouched(stamps, flight.revision)

    def deny(self, waiter, fault):
        self.number += 1
        self.replies.append((waiter.request, False, fault, False, 0, self.number - 1, self.page.revision, None, ()))

    def leave(self, waiter):
        """A waiter gives up: what nobody waits for is not asked."""
        self.waiters.remove(waiter)
        flight = waiter.flight
        if flight.revision is None and not any(w.flight is flight for w in self.waiters):
            self.queue.remove(flight)
            del self.flights[flight.partition, flight.key]
            if not any(self.owner[f.partition] == self.owner[flight.partition] for f in self.queue):
                self.turn.remove(self.owner[flight.partition])

    def take(self, now):
        """The oldest question of the owner whose turn it is."""
        owner = self.turn.pop(0)
        mine = [f for f in self.queue if self.owner[f.partition] == owner]
        self.queue.remove(mine[0])
        self.turn += [owner] if mine[1:] else []
        mine[0].revision, mine[0].ns = self.page.revision, now
        return mine[0]

    def answer(self, flight, decision, now, wall):
        if self.flights.get((flight.partition, flight.key)) is flight:
            del self.flights[flight.partition, flight.key]
        waiters = [w for w in self.waiters if w.flight is flight]
        self.waiters = [w for w in self.waiters if w.flight is not flight]
        life = self.permit_ms if decision.permit else self.deny_ms
        life = life if decision.max_age_ms is None else min(life, decision.max_age_ms)
        over = decision.permit and not decision.fault and 0 < life * 10**6 <= now - flight.ns
        named = () if decision.fault else (*decision.tags, *(f"policy:{p}" for p in decision.policies))
        stamps = self.page.stamps((*flight.tags, *named), not decision.fault and decision.timed)
        if not self.stands(flight, stamps) or over:
            for waiter in waiters:
                if waiter.again:
                    self.deny(waiter, 12)
                else:
                    waiter.again = True
                    self.wait(waiter, flight.partition, flight.key, now, wall)
            return
        if not decision.fault:
            expires = flight.ns + life * 10**6 if life else 0
            content = {"policies": list(decision.policies)} if decision.policies else {}
            content |= {"reason": decision.reason} if decision.reason else {}
            payload = msgspec.msgpack.encode(content) if content else b""
            number, self.number = self.number, self.number + 1
            where = self.owner[flight.partition], flight.partition, flight.key, payload
            self.cache.put(Entry(*where, decision.permit, number, expires, flight.revision, stamps), now, self.page)
        for waiter in waiters:
            late = waiter.until <= now
            fault = 7 if late else 13 if waiter.not_after is not None and waiter.not_after <= wall else 0
            if fault or decision.fault:
                self.deny(waiter, fault or 8)
                continue
            left = max(0, (expires - now) // 10**6)
            left = left if waiter.not_after is None else min(left, waiter.not_after - wall)
            said = decision.permit, 0, False, left, number, flight.revision, payload, stamps
            self.replies.append((waiter.request, *said))

    def tick(self, now):
        for waiter in sorted((w for w in self.waiters if w.until <= now), key=lambda w: (w.until, w.order)):
            self.leave(waiter)
            self.deny(waiter, 7)

    def gone(self, requests):
        for waiter in [w for w in self.waiters if w.request in requests]:
            self.leave(waiter)
        self.replies = [r for r in self.replies if r[0] not in requests]
