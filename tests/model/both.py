"""The compiled core under the enforcer, and the reference model: the same calls to both, all that is seen compared.

One history is a list of calls. What is compared after each: replies (permit, fault, cached, lifetime told, decision id,
revision, payload), what the PDP is asked, hits, misses, inserts, evictions, declined, and what each owner holds.
"""

import struct
from typing import Any

from pepcore.core.cache import Cache
from pepcore.core.compose import compose
from pepcore.core.frame import header
from pepcore.core.gate import Gate, Stream
from pepcore.core.page import Page
from pepcore.core.tags import slot
from pepcore.enforcer import Enforcer
from pepcore.flight import Partition, Times
from pepcore.model import Decision, Entity
from tests.model import pep

MS = 10**6
BOOT, TAGS = 77, 5
PARTITIONS = (Partition(1, 1), Partition(2, 1), Partition(3, 2), Partition(4, 3))
SIZES = (0, 0, 3, 17, 40, 90, 150, 400)
NAMED = [(f"U::{i}", f"D::{i % 3}", *([f"G::{i % 2}"] if i % 5 == 0 else [])) for i in range(2 * len(SIZES))]
"""The entities of each question: subject, resource, and now and then one on whose behalf."""
KEYS = [
    compose(Entity("U", f"{i}", {"p": "x" * size} if size else {}), "r", NAMED[i][1], None, NAMED[i][2:])
    for i, size in enumerate(SIZES * 2)
]
ENTITIES = dict(zip(KEYS, NAMED, strict=True))


class Differs(AssertionError):
    """The core and the model do not agree."""


class Both:
    """A PEP twice. Peers are numbered 0..3, the n-th speaks for the n-th partition."""

    def __init__(self, slots: int = 16, blocks: int = 40, quota: float = 0.6, seed: int = 1) -> None:
        self.now, self.wall, self.request = 1_000 * MS, 1_000_000_000, 0
        self.page = Page(BOOT, seed=seed | 1)
        self.cache = Cache(slots=slots, slab=64 * blocks, seed=seed, quota=quota)
        times = Times(permit_ms=400, deny_ms=90, keep_ms=0, deadline_ns=200 * MS)
        self.enforcer = Enforcer(self.cache, self.page, times, numbers=iter(range(1 << 62)))
        self.gate = Gate(self.cache, self.page, lambda s, n, b: (s.peer, b""))
        self.streams = [Stream(p.number) for p in PARTITIONS]
        for stream in self.streams:
            self.gate.feed(stream, header(1, 0, 0), self.now, self.wall)
        self.model = pep.Pep(
            pep.Cache(slots, 64 * blocks, seed, quota),
            pep.Page(seed | 1),
            {p.number: p.owner for p in PARTITIONS},
            ENTITIES,
            400,
            90,
        )
        self.flights: list[tuple[Any, Any]] = []
        self.of_peer: list[set[int]] = [set() for _ in PARTITIONS]

    def check(self, peer: int, key: int, deadline_ms: int = 200, token_ms: int | None = None, ahead: int = -1) -> None:
        self.request += 1
        self.of_peer[peer].add(self.request)
        flags, tail = 1, struct.pack("<I", deadline_ms * 1000)
        not_after = None if token_ms is None else self.wall + token_ms
        if not_after is not None:
            flags, tail = flags | 2, tail + struct.pack("<Q", not_after)
        least = max(0, self.page.revision + ahead)
        if ahead >= 0:
            flags, tail = flags | 4, tail + struct.pack("<QQ", BOOT, least)
        question, stream, partition = KEYS[key], self.streams[peer], PARTITIONS[peer]
        head = header(2, self.request, len(question) + len(tail), question=len(question), partition=1, flags=flags)
        out = self.gate.feed(stream, head + question + tail, self.now, self.wall)
        for ask in stream.take_asks():
            self.enforcer.ask(
                partition, stream, ask.id, ask.local, ask.question, self.now, self.wall,
                deadline_ns=ask.deadline_ns, not_after=ask.not_after,
            )  # fmt: skip
        said = self.model.check(
            self.request, partition.number, question, self.now, self.wall, deadline_ms * MS, not_after, least
        )
        same("gate", seen(self.request, out[24:]) if out else None, said)

    def take(self) -> None:
        if self.enforcer.queued != bool(self.model.queue):
            raise Differs("only one of them has a question for the PDP")
        if self.enforcer.queued:
            real, said = self.enforcer.next_flight(self.now, self.wall), self.model.take(self.now)
            assert real is not None
            same("asked", (real.partition.number, real.key, real.revision), (said.partition, said.key, said.revision))
            self.flights.append((real, said))

    def answer(
        self, nth: int, permit: bool, age_ms: int | None = None, size: int = 0, fault: bool = False, tags: int = 0
    ) -> None:
        """`tags`: how many the PDP names; an odd number reads the clock, too, and a policy decided."""
        if self.flights:
            real, said = self.flights.pop(nth % len(self.flights))
            decision = Decision(
                permit, "down" if fault else "", ("p",) * (tags % 2), "y" * size, (), age_ms,
                tuple(f"t{n % TAGS if tags < TAGS else n}" for n in range(tags)), bool(tags % 2),
            )  # fmt: skip
            self.enforcer.answer(real, decision, self.now, self.wall)
            self.model.answer(said, decision, self.now, self.wall)

    def pass_time(self, ms: int, wall_jump_ms: int = 0) -> None:
        self.now += ms * MS
        self.wall += ms + wall_jump_ms

    def tick(self) -> None:
        self.enforcer.tick(self.now, self.wall)
        self.model.tick(self.now)

    def reload(self) -> None:
        self.page.bump()
        self.model.page.revoke([0])

    def clock_was_set(self) -> None:
        self.page.clock_was_set()
        self.model.page.revoke([1])

    def revoke(self, *tags: str) -> None:
        self.page.revoke([slot(self.page, tag) for tag in tags])
        self.model.page.revoke(self.model.page.stamps(tags)[1:])

    def gone(self, peer: int) -> None:
        self.enforcer.gone(self.streams[peer])
        self.model.gone(self.of_peer[peer])

    def compare(self) -> None:
        replies = [seen(r.request, r.body) for r in self.enforcer.take_replies()]
        same("replies", replies, self.model.replies)
        self.model.replies = []
        same("waiting", self.enforcer.waiting, len(self.model.waiters))
        m, usage = self.model.cache, self.cache.usage()
        names = ("hits", "misses", "inserts", "evictions", "declined")
        same("counters", [usage[n] for n in names], [getattr(m, n) for n in names])
        held = [len(m.entries()), m.used()]
        same("held", [usage["entries"], usage["blocks_used"]], held)
        for owner in (1, 2, 3):
            same(f"owner {owner}", self.cache.owned(owner), (len(m.entries(owner)), m.used(owner)))


def seen(request: int, body: bytes) -> tuple[Any, ...]:
    """A verdict body as the model says it."""
    permit, fault, flags, stamps, left, keep, size, number, boot, revision = struct.unpack_from("<BBBBIIIQQQ", body)
    same("fixed fields", (keep, boot, len(body)), (0, BOOT, 40 + size + 2 * stamps))
    slots = struct.unpack_from(f"<{stamps}H", body, 40 + size)
    said = None if fault else body[40 : 40 + size]
    return request, bool(permit), fault, bool(flags), left, number, revision, said, slots


def same(what: str, core: object, model: object) -> None:
    if core != model:
        raise Differs(f"{what}: the core says {core!r}, the model {model!r}")
