"""A host around the enforcer that a seed drives: slow answers, faults, reloads, clock jumps, peers that go, batches.

The world's policies are numbered by the page's revision: `permits` says what the set of that number decides, and a
decision is made when the question is taken, as a PDP would. Every reply is judged when it leaves; what breaks a
promise raises Broken, which names it.
"""

import itertools
import random
import struct
from typing import Any

from pepcore.core.cache import Cache
from pepcore.core.compose import compose
from pepcore.core.frame import header
from pepcore.core.gate import Gate, Stream
from pepcore.core.page import Page
from pepcore.enforcer import Enforcer
from pepcore.errors import BadQuestion, Fault
from pepcore.flight import Flight, Partition, Reply, Times
from pepcore.model import Decision, Obligation
from pepcore.wire import Semantic

MS = 10**6
PERMIT_MS, DENY_MS = 400, 90
PARTITIONS = (Partition(1, 1), Partition(2, 1), Partition(3, 2))
KEYS = [compose(f"User::{n}", "read", "Document::1") for n in range(6)]
NOTICE = (Obligation("n", "notify", {"to": "desk", "body": "read"}),)


class Broken(AssertionError):
    """A promise of the enforcer does not hold; the first word says which."""


def permits(partition: int, key: bytes, revision: int) -> bool:
    return (KEYS.index(key) * 7 + partition * 3 + revision) % 3 != 0


class Peer:
    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.stream = Stream(partition.number)
        self.alive = True


class Asked:
    def __init__(self, peer: Peer, keys: list[bytes], until: int, not_after: int, semantic: Semantic | None) -> None:
        self.peer, self.keys, self.until, self.not_after, self.semantic = peer, keys, until, not_after, semantic
        self.answered = False


class Host:
    """Enforcer, gate, PDP and peers; `now` and `wall` are its clocks."""

    def __init__(self, seed: int = 1, *, notices: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.now, self.wall = 1_000 * MS, 50_000
        self.page, self.cache = Page(9), Cache(slots=32, slab=8192, seed=seed)
        self.sent: list[tuple[Partition, Any]] = []
        self.enforcer = Enforcer(
            self.cache,
            self.page,
            Times(permit_ms=PERMIT_MS, deny_ms=DENY_MS, waiting=40, waiting_per_owner=30),
            notify=lambda partition, question, obligation: self.sent.append((partition, question)),
        )
        self.gate = Gate(self.cache, self.page, lambda stream, n, body: (stream.peer, b""))
        self.peers = [self.connect(p) for p in PARTITIONS]
        self.asked: dict[int, Asked] = {}
        self.numbers = itertools.count(1)
        self.with_pdp: list[tuple[Flight, Decision]] = []
        self.notices = notices
        self.calls = self.permitted = self.denied = 0

    def connect(self, partition: Partition) -> Peer:
        peer = Peer(partition)
        self.gate.feed(peer.stream, header(1, 0, 0), self.now, self.wall)
        return peer

    # ---- what peers do ----

    def check(self, peer: Peer, key: bytes, deadline_ms: int = 200, token_ms: int | None = None) -> int:
        request = next(self.numbers)
        not_after = -1 if token_ms is None else self.wall + token_ms
        self.asked[request] = Asked(peer, [key], self.now + deadline_ms * MS, not_after, None)
        flags, tail = 1, struct.pack("<I", deadline_ms * 1000)
        if token_ms is not None:
            flags, tail = 3, tail + struct.pack("<Q", max(0, not_after))
        head = header(2, request, len(key) + len(tail), question=len(key), partition=1, flags=flags)
        out = self.gate.feed(peer.stream, head + key + tail, self.now, self.wall)
        for ask in peer.stream.take_asks():
            self.enforcer.ask(
                peer.partition, peer, ask.id, ask.local, ask.question, self.now, self.wall,
                deadline_ns=ask.deadline_ns, not_after=ask.not_after,
            )  # fmt: skip
        if out:
            self.judge(request, [out[24:]])
        self.release()
        return request

    def check_many(
        self, peer: Peer, keys: list[bytes], semantic: Semantic, deadline_ms: int = 200, token_ms: int | None = None
    ) -> int:
        request = next(self.numbers)
        not_after = -1 if token_ms is None else self.wall + token_ms
        self.asked[request] = Asked(peer, keys, self.now + deadline_ms * MS, not_after, semantic)
        items: list[bytes | Fault] = [key if key in KEYS else BadQuestion("item", "is malformed") for key in keys]
        self.enforcer.ask_many(
            peer.partition, peer, request, 1, semantic, items, self.now, self.wall,
            deadline_ns=deadline_ms * MS, not_after=not_after,
        )  # fmt: skip
        self.release()
        return request

    def leave(self, n: int) -> None:
        self.peers[n].alive = False
        self.enforcer.gone(self.peers[n])
        self.peers[n] = self.connect(self.peers[n].partition)

    # ---- what the host and the PDP do ----

    def take(self) -> Flight | None:
        """Hand a question to the PDP, which decides now and answers later."""
        flight = self.enforcer.next_flight(self.now, self.wall)
        if flight is None:
            return None
        for other, _ in self.with_pdp:
            if (other.partition, other.key, other.revision) == (flight.partition, flight.key, flight.revision):
                raise Broken("twice: one question of one partition is with the PDP two times")
        self.calls += 1
        permit = permits(flight.partition.number, flight.key, self.page.revision)
        notice = NOTICE if self.random.random() < self.notices else ()
        age = self.random.choice((None, None, 0, 30))
        fault = "down" if self.random.random() < 0.1 else ""
        self.with_pdp.append(
            (flight, Decision(permit, fault, reason=f"{flight.partition.number}", obligations=notice, max_age_ms=age))
        )
        return flight

    def answer(self, n: int = 0, decision: Decision | None = None) -> None:
        flight, said = self.with_pdp.pop(n % len(self.with_pdp))
        before = len(self.sent)
        self.enforcer.answer(flight, decision or said, self.now, self.wall)
        for partition, _ in self.sent[before:]:
            if not any(p.partition == partition and a.peer is p for p in self.peers for a in self.asked.values()):
                raise Broken("gone: a notice was sent for a peer that has gone")
        self.release()

    def reload(self) -> None:
        self.page.bump()

    def tick(self) -> None:
        self.enforcer.tick(self.now, self.wall)
        self.release()

    def release(self) -> list[Reply]:
        replies = self.enforcer.take_replies()
        for reply in replies:
            self.judge(reply.request, [reply.body] if reply.bodies is None else reply.bodies)
        return replies

    # ---- what must hold ----

    def judge(self, request: int, bodies: list[bytes]) -> None:
        asked = self.asked[request]
        if asked.answered or not asked.peer.alive:
            raise Broken("once: a request was answered twice, or after its peer had gone")
        asked.answered = True
        partition = asked.peer.partition.number
        told = [self.permit(asked, partition, key, body) for key, body in zip(asked.keys, bodies, strict=False)]
        ends = {None: None, Semantic.execute_all: None, Semantic.deny_on_first_deny: False}.get(asked.semantic, True)
        whole = told.index(ends) + 1 if ends in told else len(asked.keys)
        if len(bodies) != whole:
            raise Broken("batch: it does not end where its semantic says")
        self.permitted += sum(told)
        self.denied += len(told) - sum(told)

    def permit(self, asked: Asked, partition: int, key: bytes, body: bytes) -> bool:
        permit, fault, _, _, left, _, size, _, _, revision = struct.unpack_from("<BBBBIIIQQQ", body)
        if not permit:
            return False
        if fault or key not in KEYS:
            raise Broken("fault: something broken was permitted")
        if revision != self.page.revision or not permits(partition, key, self.page.revision):
            raise Broken("stale: permitted by policies that are not in force any more")
        if asked.semantic is None and self.now > asked.until:
            raise Broken("deadline: permitted after it had passed")
        if asked.not_after >= 0 and (self.wall >= asked.not_after or left > asked.not_after - self.wall):
            raise Broken("token: permitted past the caller's own permission")
        if left > PERMIT_MS:
            raise Broken("lifetime: longer than any permit lives")
        if body[40 : 40 + size].find(b"reason\xa1%d" % partition) < 0:
            raise Broken("partition: the answer of another one")
        return True

    # ---- a run ----

    def step(self) -> None:
        r, n = self.random, self.random.random()
        peer, token = r.choice(self.peers), r.choice((None, None, None, 0, 50, 300))
        if n < 0.3:
            self.check(peer, r.choice(KEYS), r.choice((0, 30, 200, 200)), token)
        elif n < 0.4:
            items = [r.choice([*KEYS, b"malformed"]) for _ in range(r.randint(1, 5))]
            self.check_many(peer, items, r.choice(list(Semantic)), r.choice((30, 200)), token)
        elif n < 0.6:
            self.take()
        elif n < 0.8 and self.with_pdp:
            self.answer(r.randrange(4))
        elif n < 0.9:
            ms = r.choice((1, 5, 40, 150, 500))
            self.now, self.wall = self.now + ms * MS, self.wall + ms
            if r.random() < 0.7:
                self.tick()
        elif n < 0.93:
            self.wall += r.choice((-3000, 3000))
        elif n < 0.98:
            self.reload()
        else:
            self.leave(r.randrange(len(self.peers)))
        self.release()

    def drain(self) -> None:
        """Let every deadline pass and every answer come: nothing may be left behind."""
        self.now += 10_000 * MS
        self.tick()
        while self.with_pdp:
            self.answer()
        e = self.enforcer
        if e.waiting or e.queued or e.next_deadline() is not None or e._flights or e._waiting._of_peer:
            raise Broken("leak: something still waits")
        if any(not a.answered for a in self.asked.values() if a.peer.alive):
            raise Broken("lost: a request was never answered")


def run(seed: int, steps: int = 120) -> Host:
    """Play one seeded run. Raises Broken."""
    host = Host(seed, notices=0.2)
    try:
        for _ in range(steps):
            host.step()
        host.drain()
    except Broken as error:
        raise Broken(f"{error} (seed {seed})") from None
    return host
