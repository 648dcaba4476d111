"""The pipeline, sans I/O: ask, answer, revoke, tick. Read this first.

    ask ──► cache ──hit──────────────────────────────► reply
              └─miss─► flight ─► (host asks the PDP) ─► answer ─► settle ─► cache ─► replies

Promises: at most one flight per question and partition, unless a tag of it was revoked; the revision is read before
the PDP is asked, and what the answer hangs on is compared with it when it arrives and again when it is released; a
deadline that passes denies; every fault denies and is never cached; a follower waits until its own deadline, whatever
happens to its leader's.
Never: reads a clock, a socket or a file; builds a permit (`core.verdict.settle` does); evaluates a policy.

The host (the daemon, the embedded form, a simulator) takes work with `next_flight`, brings decisions with `answer`,
calls `tick` when `next_deadline` has come, and sends what `take_replies` gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from . import freshness
from .answers import Answers
from .backlog import IN_TURN, Backlog, Decided, May
from .batches import TOO_OLD, Batches
from .blocks import Blocks
from .core.cache import Cache
from .core.page import Page
from .core.verdict import Verdict
from .errors import DeadlinePassed, Draining, Expired, Fault, Overloaded, Stale
from .flight import Batch, Flight, Partition, Reply, Said, Times, Waiter
from .latency import Latency
from .model import Decision
from .modes import Known
from .revocation import Revocation
from .settlement import Notifier, Settlement, usable
from .waiting import Waiting
from .wire import Semantic

ALL = 1 << 30


class Enforcer:
    """One per process. `numbers` gives decision ids, `notify` discharges `notify` obligations (None: they deny)."""

    def __init__(
        self, cache: Cache, page: Page, times: Times | None = None, *, numbers: Iterator[int] | None = None,
        notify: Notifier | None = None, blocks: Blocks | None = None,
    ) -> None:  # fmt: skip
        self.cache, self.page, self.times, self.draining = cache, page, times or Times(), False
        self.revocation = Revocation(page, blocks)
        self.settlement = Settlement(page, self.times, numbers, notify)
        self._flights: dict[tuple[int, bytes], Flight] = {}
        self._backlog = Backlog()
        self._waiting = Waiting()
        self.answers = Answers(cache, page, self.settlement, self.revocation)
        self.modes = self.answers.modes
        self._batches = Batches(cache, page, self.settlement, self.modes)
        self._replies: list[Reply] = []
        self._decided, self.latency, self._serving = Decided(), Latency(), False
        self.asked = self.joined = self.late = self.asked_again = 0

    def set_times(self, times: Times) -> None:
        """New lifetimes and bounds, for what is asked from now on."""
        self.times = self.settlement.times = times

    def ask(
        self, partition: Partition, to: Any, request: int, local: int, key: bytes, now: int, wall_ms: int,
        *, deadline_ns: int = -1, not_after: int = -1, explain: bool = False, trace: bytes = b"", held: bool = False,
    ) -> None:  # fmt: skip
        """A canonical question that the cache did not answer. `deadline_ns` counts from `now`; -1: the default."""
        until = self._until(now, deadline_ns)
        waiter = Waiter(to, request, local, until, not_after, held=held, partition=partition, key=key, trace=trace)
        waiter.asked_ns = now
        self._wait(partition, key, waiter, now, wall_ms, explain)

    def ask_many(
        self, partition: Partition, to: Any, request: int, local: int, semantic: Semantic,
        items: list[bytes | Fault], now: int, wall_ms: int, *, deadline_ns: int = -1, not_after: int = -1,
        blocked: Fault | None = None, trace: bytes = b"",
    ) -> None:  # fmt: skip
        """A batch: what is cached is served, only the misses are asked, and none behind a cached item that ends it.

        `blocked` denies every item (the request's own bounds are not met).
        """
        if blocked is None and 0 <= not_after <= wall_ms:
            blocked = Expired("not_after", "the caller's own permission has ended")
        if blocked is not None:
            items = [blocked if isinstance(item, bytes) else item for item in items]
        until = self._until(now, deadline_ns)
        known: list[Any] = [None] * len(items)
        batch = Batch(
            partition, to, request, local, semantic, items, until, not_after, known, asked_ns=now, trace=trace
        )
        self._advance(batch, now, wall_ms)

    def allowed_ns(self, deadline_ns: int) -> int:
        """How long a request may wait that asks for `deadline_ns`; -1: it names none."""
        return self.times.deadline_ns if deadline_ns < 0 else min(deadline_ns, self.times.longest_deadline_ns)

    def _until(self, now: int, deadline_ns: int) -> int:
        return now + self.allowed_ns(deadline_ns)

    def _wait(
        self, partition: Partition, key: bytes, waiter: Waiter, now: int, wall_ms: int, explain: bool = False
    ) -> None:
        """Join the flight of this question, or start one."""
        if 0 <= waiter.not_after <= wall_ms:
            return self._fail(waiter, Expired("not_after", "the caller's own permission has ended"), now, wall_ms)
        if not freshness.in_time(waiter.deadline_ns, now):
            return self._fail(waiter, DeadlinePassed("deadline", "has passed already"), now, wall_ms)
        if self.draining:
            return self._fail(waiter, Draining("", "this daemon is stopping: ask its successor"), now, wall_ms)
        if not explain and (known := self.modes.unasked(partition, key, wall_ms)):
            return self._known(known, key, waiter, now, wall_ms)
        if not self._waiting.has_room(partition.owner, len(key), self.times):
            n = self._waiting.of_owner(partition.owner)
            fault = Overloaded("", f"{n} questions of this peer wait for the PDP already: ask later")
            return self._fail(waiter, fault, now, wall_ms)
        flight = None if explain else self._flights.get((partition.number, key))
        if flight is not None and freshness.may_join(flight, self.page):
            self.joined += 1
        else:
            flight = Flight(partition, key, {}, explain, begun_ns=now)
            if not explain:
                self._flights[partition.number, key] = flight
            self._backlog.put(flight)
        return self._waiting.enter(flight, waiter)

    def _known(self, known: Known, key: bytes, waiter: Waiter, now: int, wall_ms: int) -> None:
        """No PDP is asked: a block, kept like another deny (who lifts it revokes its tag), or a point that is `off`."""
        flight = Flight(known[0], key, {}, False, True, self.page.revision, now, wall_ms)
        self._waiting.enter(flight, waiter)
        self.answer(flight, known[1], now, wall_ms)

    # ---- the host's side ----

    @property
    def queued(self) -> bool:
        """Whether questions wait to be taken by the host."""
        return bool(self._backlog)

    @property
    def waiting(self) -> int:
        """Requests that wait for a decision."""
        return len(self._waiting)

    def next_flight(self, now: int, wall_ms: int, may: May | None = None) -> Flight | None:
        """The next question for the PDP, fair over peers (`backlog`), that the host may take now. None: there is none.

        Its stamps are read here, before the PDP is asked; the PDP decides as of `flight.asked_ms`.
        """
        flight = self._backlog.take(may)
        if flight is None:
            return None
        self.asked += 1
        flight.taken = True
        flight.revision, flight.asked_ns, flight.asked_ms = self.page.revision, now, wall_ms
        return flight

    def charge(self, flight: Flight, took_ns: int) -> None:
        """What the evaluation of a question took: its peer's next ones wait for those of others who took less."""
        self._backlog.charge(flight.partition.owner, took_ns)

    def answer(self, flight: Flight, decision: Decision, now: int, wall_ms: int, most: int = ALL) -> None:
        """What the PDP said about a flight. Those who wait are released, `most` at once, the others by `release`."""
        self._forget(flight)
        outcome = self.revocation.denied(flight.key, wall_ms) or usable(decision)  # a block may be newer than both
        flight.stamps = freshness.stamps_of(flight, outcome, self.page)
        stands = freshness.stands(flight, outcome, self.times, self.page, now)
        self.late += not stands
        self.latency.observe(flight.begun_ns, now)
        self._decided.put((flight, outcome, self.answers.share(flight, outcome, now, wall_ms) if stands else None))
        self.release(now, wall_ms, most)

    @property
    def releasing(self) -> bool:
        """Whether some wait whose question is decided: `release` goes on."""
        return bool(self._decided)

    def release(self, now: int, wall_ms: int, most: int = ALL) -> None:
        """Serve those whose question is decided, owners in turn; ask again for whom the answer is too old by now."""
        if not self._serving:  # else one who is asked for again is blocked by now: he is served from there
            self._serving = True
            try:
                self._serve(now, wall_ms, most)
            finally:
                self._serving = False

    def _serve(self, now: int, wall_ms: int, most: int) -> None:
        while self._decided and most > 0:
            flight, outcome, shared = self._decided.first()
            stands = freshness.stands(flight, outcome, self.times, self.page, now)
            for waiter in list(islice(flight.waiters, min(most, IN_TURN))):
                most -= 1
                self._waiting.leave(waiter)
                if not stands:
                    self._ask_again(waiter, flight, now, wall_ms)
                elif waiter.batch is None:
                    verdict, whole = self.answers.within(
                        flight, outcome, shared, waiter.deadline_ns, waiter.not_after, now, wall_ms, waiter.held
                    )
                    self._reply(waiter, verdict, whole, Said(flight, outcome))
                elif freshness.in_time(waiter.deadline_ns, now):
                    waiter.batch.outcomes[waiter.index] = self.answers.said(flight, outcome, shared)
                    self._arrived(waiter.batch, now, wall_ms)
                else:
                    self._fail(waiter, DeadlinePassed("deadline", "the decision came too late"), now, wall_ms)
            self.answers.served(flight, shared, now)
            self._decided.go_on()

    # ---- the short way: a question that is decided before anything else happens ----

    def take_alone(self, partition: Partition, key: bytes, now: int, wall_ms: int) -> Flight | None:
        """A flight that nobody can join and no alarm watches. None: others wait, so ask the long way."""
        if self.draining or len(self._waiting) or self.modes.unasked(partition, key, wall_ms):
            return None
        self.asked += 1
        return Flight(partition, key, {}, False, True, self.page.revision, now, wall_ms, now)

    def answer_alone(
        self, flight: Flight, decision: Decision, deadline_ns: int, not_after: int, now: int, wall_ms: int
    ) -> bytes | None:
        """The body for the one who asked. None: the answer came too old, so ask the long way."""
        outcome = usable(decision)
        flight.stamps = freshness.stamps_of(flight, outcome, self.page)
        if not freshness.stands(flight, outcome, self.times, self.page, now):
            return None
        self.latency.observe(flight.begun_ns, now)
        until = self._until(flight.asked_ns, deadline_ns)
        return self.answers.alone(flight, outcome, until, not_after, now, wall_ms)

    def _ask_again(self, waiter: Waiter, flight: Flight, now: int, wall_ms: int) -> None:
        """The answer is too old to stand: whoever waits is asked for once more within its deadline, else denied."""
        if waiter.again:
            self._fail(waiter, Stale("", TOO_OLD), now, wall_ms)
        else:
            self.asked_again += 1
            waiter.again = True
            self._wait(flight.partition, flight.key, waiter, now, wall_ms)

    def explained(self, flight: Flight, explanation: dict[str, Any], now: int) -> None:
        """What the PDP says about how it would decide goes to who asked for it. Never cached, never enforced."""
        self.answers.complete(flight, explanation, now)
        for waiter in list(flight.waiters):
            self._waiting.leave(waiter)
            self._replies.append(Reply(waiter.to, waiter.request, waiter.local, explanation=explanation))

    def tick(self, now: int, wall_ms: int, most: int = ALL) -> None:
        """Deny those whose deadline has passed, `most` of them: `next_deadline` tells whether there are more."""
        for _ in range(most):
            if (waiter := self._waiting.due(now)) is None:
                return
            self._leave(waiter)
            self._fail(waiter, DeadlinePassed("deadline", "no decision came in time"), now, wall_ms)

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, or None."""
        return self._waiting.next_deadline()

    def gone(self, *to: Any) -> None:
        """Peers have gone: nothing is sent to them any more, nothing is applied for them."""
        for peer in to:
            for waiter in self._waiting.of_peer(peer):
                self._leave(waiter)
                if waiter.batch is not None:
                    self._waiting.let_go(waiter.batch)
        gone = set(map(id, to))
        self._replies = [reply for reply in self._replies if id(reply.to) not in gone]

    def take_replies(self) -> list[Reply]:
        replies, self._replies = self._replies, []
        return replies

    def _leave(self, waiter: Waiter) -> None:
        """A waiter gives up. A flight that nobody waits for is not asked; one already asked may still be joined."""
        flight = self._waiting.leave(waiter)
        if not flight.taken and not flight.wanted:
            self._forget(flight)
            self._backlog.remove(flight)

    def _forget(self, flight: Flight) -> None:
        name = flight.partition.number, flight.key
        if self._flights.get(name) is flight:
            del self._flights[name]

    def _fail(self, waiter: Waiter, fault: Fault, now: int, wall_ms: int) -> None:
        """Deny a request that waits no more."""
        batch, partition = waiter.batch, waiter.partition
        if batch is not None:
            batch.outcomes[waiter.index] = self.modes.of_item(batch, waiter.index, fault, now, wall_ms)
            return self._arrived(batch, now, wall_ms)
        assert partition is not None, "a request of its own says who asks"
        refused = self.modes.refusal(partition, waiter.key, fault, now, wall_ms)
        self._reply(waiter, refused.verdict, refused.body(now))

    def _reply(self, waiter: Waiter, verdict: Verdict, whole: bytes, said: Said | None = None) -> None:
        self._replies.append(Reply(waiter.to, waiter.request, waiter.local, verdict, whole, said=said, asked=waiter))

    def _advance(self, batch: Batch, now: int, wall_ms: int) -> None:
        """Ask what is not known, or is known but too old: at most twice. Then answer."""
        missing = self._batches.missing(batch, self.times, now)
        if not missing or batch.rounds == 2 or 0 <= batch.not_after <= wall_ms:
            bodies = self._batches.bodies(batch, now, wall_ms)
            self._waiting.let_go(batch)
            self._replies.append(Reply(batch.to, batch.request, batch.local, bodies=bodies, asked=batch))
            return
        self._waiting.hold(batch)
        batch.rounds += 1
        batch.missing = len(missing)
        again = batch.rounds == 2
        for i, key in missing:
            who = batch.to, batch.request, batch.local
            waiter = Waiter(*who, batch.until_ns, batch.not_after, batch, i, again, trace=batch.trace)
            self._wait(batch.partition, key, waiter, now, wall_ms)

    def _arrived(self, batch: Batch, now: int, wall_ms: int) -> None:
        batch.missing -= 1
        if batch.missing == 0:
            self._advance(batch, now, wall_ms)
