"""The pipeline, sans I/O: ask, answer, tick. Read this first.

    ask ──► cache ──hit──────────────────────────────► reply
              └─miss─► flight ─► (host asks the PDP) ─► answer ─► settle ─► cache ─► replies

Promises: at most one flight per question and partition at one revision; a stamp is read before the PDP is asked and
compared when its answer arrives; a deadline that passes denies; every fault denies and is never cached; a follower
waits until its own deadline, whatever happens to its leader's.
Never: reads a clock, a socket or a file; builds a permit (`core.verdict.settle` does); evaluates a policy.

The host (the daemon, the embedded form, a simulator) takes work with `next_flight`, brings decisions with `answer`,
calls `tick` when `next_deadline` has come, and sends what `take_replies` gives.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

from .core.cache import Cache
from .core.page import Page
from .core.verdict import Verdict, body, payload, stored_body
from .errors import DeadlinePassed, Draining, Expired, Fault, Overloaded, PdpFault, Stale
from .flight import Batch, Flight, Partition, Reply, Times, Waiter
from .model import Decision
from .settlement import Notifier, Settlement, outlived, single_use
from .wire import Semantic


class Enforcer:
    """One per process. `numbers` gives decision ids, `notify` discharges `notify` obligations (None: they deny)."""

    def __init__(
        self,
        cache: Cache,
        page: Page,
        times: Times | None = None,
        *,
        numbers: Iterator[int] | None = None,
        notify: Notifier | None = None,
    ) -> None:
        self.cache, self.page, self.times = cache, page, times or Times()
        self.draining = False
        self.settlement = Settlement(page, self.times, numbers, notify)
        self._flights: dict[tuple[int, bytes], Flight] = {}
        self._queue: OrderedDict[int, deque[Flight]] = OrderedDict()
        self._deadlines: list[tuple[int, int, Waiter, Flight]] = []
        self._order = itertools.count()
        self._waiting: dict[int, int] = {}
        self._waiting_all = 0
        self._replies: list[Reply] = []
        self.asked = self.joined = self.late = self.asked_again = 0

    def set_times(self, times: Times) -> None:
        """New lifetimes and bounds, for what is asked from now on."""
        self.times = self.settlement.times = times

    # ---- ask ----

    def ask(
        self, partition: Partition, to: Any, request: int, local: int, key: bytes, now: int, wall_ms: int,
        *, deadline_ns: int = -1, not_after: int = -1, explain: bool = False,
    ) -> None:  # fmt: skip
        """A canonical question that the cache did not answer. `deadline_ns` counts from `now`; -1: the default."""
        waiter = Waiter(to, request, local, self._until(now, deadline_ns), not_after)
        self._wait(partition, key, waiter, now, wall_ms, explain)

    def ask_many(
        self, partition: Partition, to: Any, request: int, local: int, semantic: Semantic,
        items: list[bytes | Fault], now: int, wall_ms: int, *, deadline_ns: int = -1, not_after: int = -1,
        blocked: Fault | None = None,
    ) -> None:  # fmt: skip
        """A batch: what is cached is served, only the misses are asked, and none behind a cached item that ends it.

        `blocked` denies every item (the request's own bounds are not met).
        """
        batch = Batch(to, request, local, semantic, [None] * len(items))
        misses: list[tuple[int, bytes]] = []
        for i, item in enumerate(items):
            if isinstance(item, bytes) and blocked is None:
                stored = self.cache.get(partition.number, item, now, self.page.revision)
                if stored is None:
                    misses.append((i, item))
                    continue
                permit = stored[0]
                left = (stored[2] - now) // 1_000_000
                if not_after >= 0 and not_after - wall_ms < left:
                    stored = (stored[0], stored[1], now + (not_after - wall_ms) * 1_000_000, stored[3])
                batch.outcomes[i] = stored_body(stored, now=now, boot=self.page.boot, revision=self.page.revision)
            else:
                permit = False
                fault = item if isinstance(item, Fault) else blocked
                batch.outcomes[i] = self._body(self.settlement.deny(fault), now) if fault else b""
            if ends(semantic, permit):
                del batch.outcomes[i + 1 :]
                break
        batch.missing = len(misses)
        until = self._until(now, deadline_ns)
        for i, key in misses:
            self._wait(partition, key, Waiter(to, request, local, until, not_after, batch, i), now, wall_ms)
        if not misses:
            self._finish(batch, now, wall_ms)

    def _until(self, now: int, deadline_ns: int) -> int:
        longest = self.times.longest_deadline_ns
        return now + (self.times.deadline_ns if deadline_ns < 0 else min(deadline_ns, longest))

    def _wait(
        self, partition: Partition, key: bytes, waiter: Waiter, now: int, wall_ms: int, explain: bool = False
    ) -> None:
        """Join the flight of this question, or start one."""
        if 0 <= waiter.not_after <= wall_ms:
            return self._fail(waiter, Expired("not_after", "the caller's own permission has ended"), now, wall_ms)
        if waiter.deadline_ns <= now:
            return self._fail(waiter, DeadlinePassed("deadline", "has passed already"), now, wall_ms)
        if self.draining:
            return self._fail(waiter, Draining("", "this daemon is stopping: ask its successor"), now, wall_ms)
        flight = None if explain else self._flights.get((partition.number, key))
        if flight is not None and may_join(flight, self.page.revision):
            self.joined += 1
        else:
            flight = Flight(partition, key, [], explain)
        owner = partition.owner
        waiting = self._waiting.get(owner, 0)
        if self._waiting_all >= self.times.waiting or waiting >= self.times.waiting_per_owner:
            fault = Overloaded("", f"{waiting} questions of this peer wait for the PDP already: ask later")
            return self._fail(waiter, fault, now, wall_ms)
        if not flight.waiters:
            if not explain:
                self._flights[partition.number, key] = flight
            if owner not in self._queue:
                self._queue[owner] = deque()
            self._queue[owner].append(flight)
        self._waiting[owner] = waiting + 1
        self._waiting_all += 1
        flight.waiters.append(waiter)
        heappush(self._deadlines, (waiter.deadline_ns, next(self._order), waiter, flight))
        return None

    # ---- the host's side: work out, decisions in ----

    @property
    def queued(self) -> bool:
        """Whether questions wait to be taken by the host."""
        return bool(self._queue)

    @property
    def waiting(self) -> int:
        """Requests that wait for a decision."""
        return self._waiting_all

    def next_flight(self, now: int, wall_ms: int) -> Flight | None:
        """The next question for the PDP, fair over peers: each peer's oldest in turn. None: there is none.

        Its stamps are read here, before the PDP is asked; the PDP decides as of `flight.asked_ms`.
        """
        while self._queue:
            owner, flights = self._queue.popitem(last=False)
            flight = flights.popleft()
            if flights:
                self._queue[owner] = flights
            if flight.wanted:
                self.asked += 1
                flight.taken = True
                flight.revision, flight.asked_ns, flight.asked_ms = self.page.revision, now, wall_ms
                return flight
            self._forget(flight)
        return None

    def answer(self, flight: Flight, decision: Decision, now: int, wall_ms: int) -> None:
        """What the PDP said about a flight."""
        self._forget(flight)
        if not stamps_hold(flight, self.page.revision) or outlived(flight, decision, now):
            return self._ask_again(flight, now, wall_ms)
        outcome: Decision | Fault = PdpFault("pdp", decision.fault) if decision.fault else decision
        shared: tuple[Verdict, bytes] | None = None
        if isinstance(outcome, Decision) and not single_use(outcome):
            verdict = self.settlement.shared(flight, outcome, now, wall_ms)
            shared = verdict, payload(verdict)
            self._keep(flight, *shared, now)
        for waiter in flight.waiters:
            if waiter.done:
                continue
            self._leave(flight, waiter)
            if waiter.batch is not None:
                waiter.batch.outcomes[waiter.index] = (flight, outcome, waiter)
                self._arrived(waiter.batch, now, wall_ms)
            elif isinstance(outcome, Fault):
                self._fail(waiter, outcome, now, wall_ms)
            else:
                verdict = shared[0] if shared else self.settlement.once(flight, outcome, now, wall_ms)
                self._reply(waiter, verdict, shared[1] if shared else payload(verdict), now, wall_ms)
        return None

    def _ask_again(self, flight: Flight, now: int, wall_ms: int) -> None:
        """The answer is too old to stand: each waiter is asked once more within its deadline, else denied."""
        self.late += 1
        for waiter in flight.waiters:
            if waiter.done:
                continue
            self._leave(flight, waiter)
            if waiter.again:
                fault = Stale("", "two answers in a row were too old when they came: ask again")
                self._fail(waiter, fault, now, wall_ms)
            else:
                self.asked_again += 1
                waiter.again, waiter.done = True, False
                self._wait(flight.partition, flight.key, waiter, now, wall_ms)

    def explained(self, flight: Flight, explanation: dict[str, Any], now: int) -> None:
        """What the PDP says about how it would decide. Explanations are never cached and never enforced."""
        stored = self.cache.get(flight.partition.number, flight.key, now, self.page.revision)
        explanation["cached"] = stored is not None
        explanation["cached_left_ms"] = (stored[2] - now) // 1_000_000 if stored else 0
        for waiter in flight.waiters:
            if not waiter.done:
                self._leave(flight, waiter)
                self._replies.append(Reply(waiter.to, waiter.request, waiter.local, explanation=explanation))

    def tick(self, now: int, wall_ms: int) -> None:
        """Deny those whose deadline has passed."""
        while self._deadlines and (self._deadlines[0][2].done or self._deadlines[0][0] <= now):
            _, _, waiter, flight = heappop(self._deadlines)
            if not waiter.done:
                self._leave(flight, waiter)
                self._fail(waiter, DeadlinePassed("deadline", "no decision came in time"), now, wall_ms)

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, or None."""
        while self._deadlines and self._deadlines[0][2].done:
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def gone(self, to: Any) -> None:
        """A peer has gone: nothing is sent to it any more, nothing is applied for it."""
        for flight in list(self._flights.values()):
            for waiter in flight.waiters:
                if waiter.to is to and not waiter.done:
                    self._leave(flight, waiter)

    def take_replies(self) -> list[Reply]:
        replies, self._replies = self._replies, []
        return replies

    def _keep(self, flight: Flight, verdict: Verdict, encoded: bytes, now: int) -> None:
        if verdict.fault == 0 and verdict.expires_ns > now:
            self.cache.put(
                flight.partition.owner, flight.partition.number, flight.key, encoded, permit=verdict.permit,
                id=verdict.number, expires=verdict.expires_ns, revision=flight.revision, now=now,
                current=self.page.revision,
            )  # fmt: skip

    # ---- replies ----

    def _body(self, verdict: Verdict, now: int) -> bytes:
        return body(verdict, payload(verdict), now)

    def _reply(self, waiter: Waiter, verdict: Verdict, encoded: bytes, now: int, wall_ms: int) -> None:
        verdict, encoded, left = self._bounded(waiter, verdict, encoded, wall_ms)
        self._replies.append(Reply(waiter.to, waiter.request, waiter.local, verdict, body(verdict, encoded, now, left)))

    def _bounded(self, waiter: Waiter, verdict: Verdict, encoded: bytes, wall_ms: int) -> tuple[Verdict, bytes, int]:
        """The verdict for one request: a permit does not outlive its caller's own permission."""
        if waiter.not_after < 0:
            return verdict, encoded, -1
        left = waiter.not_after - wall_ms
        if left <= 0:
            verdict = self.settlement.deny(Expired("not_after", "the caller's own permission ended while it waited"))
            return verdict, payload(verdict), 0
        return verdict, encoded, left

    def _fail(self, waiter: Waiter, fault: Fault, now: int, wall_ms: int) -> None:
        waiter.done = True
        verdict = self.settlement.deny(fault)
        if waiter.batch is not None:
            waiter.batch.outcomes[waiter.index] = self._body(verdict, now)
            self._arrived(waiter.batch, now, wall_ms)
        else:
            self._replies.append(Reply(waiter.to, waiter.request, waiter.local, verdict, self._body(verdict, now)))

    def _arrived(self, batch: Batch, now: int, wall_ms: int) -> None:
        batch.missing -= 1
        if batch.missing == 0:
            self._finish(batch, now, wall_ms)

    def _finish(self, batch: Batch, now: int, wall_ms: int) -> None:
        """Answer a batch in order; an item behind the one that ends it is neither answered nor discharged."""
        bodies: list[bytes] = []
        for outcome in batch.outcomes:
            if isinstance(outcome, tuple):
                flight, said, waiter = outcome
                if isinstance(said, Fault):
                    verdict = self.settlement.deny(said)
                else:
                    settled = self.settlement.once if single_use(said) else self.settlement.shared
                    verdict = settled(flight, said, now, wall_ms)
                encoded = payload(verdict)
                verdict, encoded, left = self._bounded(waiter, verdict, encoded, wall_ms)
                bodies.append(body(verdict, encoded, now, left))
            else:
                bodies.append(outcome or self._body(self.settlement.deny(PdpFault("pdp", "no decision came")), now))
            if ends(batch.semantic, bodies[-1][0] == 1):
                break
        self._replies.append(Reply(batch.to, batch.request, batch.local, bodies=bodies))

    # ---- bookkeeping ----

    def _leave(self, flight: Flight, waiter: Waiter) -> None:
        """A waiter stops waiting for this flight."""
        waiter.done = True
        owner = flight.partition.owner
        self._waiting_all -= 1
        self._waiting[owner] -= 1
        if not self._waiting[owner]:
            del self._waiting[owner]

    def _forget(self, flight: Flight) -> None:
        name = flight.partition.number, flight.key
        if self._flights.get(name) is flight:
            del self._flights[name]


def may_join(flight: Flight, revision: int) -> bool:
    """A follower may join a flight that is not with the PDP yet, or one that was asked at this revision."""
    return not flight.taken or flight.revision == revision


def stamps_hold(flight: Flight, revision: int) -> bool:
    """Whether nothing was revoked or reloaded since the flight's stamp was read."""
    return flight.revision == revision


def ends(semantic: Semantic, permit: bool) -> bool:
    """Whether an item with this answer ends its batch (AuthZEN 1.0, section 7.1.2.1)."""
    return (semantic is Semantic.deny_on_first_deny and not permit) or (
        semantic is Semantic.permit_on_first_permit and permit
    )
