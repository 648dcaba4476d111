"""Where misses are evaluated (D11): hits never wait for them.

Promises: a miss is evaluated inline only if it is alone (nothing else waits, no worker is busy, no other peer was
served in the last 10 ms, none was evaluated in this turn of the loop, the set is here and quick); every other goes to a
worker process, fair over peers.
Never: evaluates two misses in one turn of the loop, whichever connections they came on.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..core.gate import Ask
from ..enforcer import Enforcer
from ..flight import Flight, Partition
from ..model import Decision
from ..pdp.cedar import Cedar
from ..pdp.cedar_explain import explain
from ..settlement import read_question
from . import clock, logs
from .turn import Served
from .workers import Workers

ALONE_NS = 10_000_000
AT_ONCE = 16
"""Of those who wait for one decision, in one turn of the loop: each may discharge something of its own."""
SLOW_NS = 2_000_000
SLOW_AT_MOST = 8
"""More slow evaluations than others: one may only have been interrupted."""


class Misses:
    """Takes flights from the enforcer to where they are evaluated, and brings the answers back."""

    def __init__(self, enforcer: Enforcer, served: Served) -> None:
        self.enforcer, self.served = enforcer, served
        self.workers: Workers | None = None
        self.inline: Cedar | None = None
        self.evaluated_inline = self.evaluated_by_workers = 0
        self._evaluated = False  # in this turn of the loop
        self._slow = 0

    def pump(self, now: int, wall_ms: int) -> None:
        """Hand on what waits, as far as there is room."""
        enforcer, workers = self.enforcer, self.workers
        if not enforcer.queued:
            return
        if self._alone(now, 1):
            flight = enforcer.next_flight(now, wall_ms)
            if flight is not None:
                self._begin()
                self._evaluate(flight)
            return
        while workers is not None and enforcer.queued:
            worker = workers.room()
            if worker is None:
                return
            flight = enforcer.next_flight(now, wall_ms)
            if flight is not None:
                self.evaluated_by_workers += 1
                workers.give(worker, flight)

    def at_once(self, partition: Partition, ask: Ask, now: int, wall_ms: int) -> bytes | None:
        """Decide a question that is alone, and return the verdict's body. None: it is not alone."""
        flight = self.enforcer.take_alone(partition, ask.question, now, wall_ms) if self._alone(now, 0) else None
        if flight is None:
            return None
        self._begin()
        decision = self._decide(flight)
        return self.enforcer.answer_alone(
            flight, decision, ask.deadline_ns, ask.not_after, clock.now(), clock.wall_ms()
        )

    def _begin(self) -> None:
        self.evaluated_inline += 1
        self._evaluated = True
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._evaluated = False

    def _alone(self, now: int, waiting: int) -> bool:
        return (
            self.inline is not None
            and not self._evaluated
            and self.enforcer.waiting == waiting
            and (self.workers is None or not self.workers.busy)
            and now - self.served.others_ns > ALONE_NS
        )

    def _decide(self, flight: Flight) -> Decision:
        assert self.inline is not None
        try:
            return self.inline.decide([read_question(flight.key)], flight.asked_ms)[0]
        except Exception as error:  # a defect of the engine denies this question and no other
            return Decision(False, f"the PDP raised {type(error).__name__}")
        finally:
            self._look_at(clock.now() - flight.asked_ns)

    def _look_at(self, took_ns: int) -> None:
        """A set with evaluations that are long for the loop goes to workers, as one that is long to load."""
        self._slow = max(0, self._slow + (1 if took_ns > SLOW_NS else -1))
        if self._slow == SLOW_AT_MOST:
            self._slow = 0
            self.inline = None
            logs.warning("evaluations take too long for the loop: all go to workers", took_ms=took_ns / 1e6)

    def _evaluate(self, flight: Flight) -> None:
        assert self.inline is not None
        if not flight.explain:
            self.arrived(flight, self._decide(flight))
            return
        try:
            self.arrived(flight, explain(self.inline, read_question(flight.key), flight.asked_ms))
        except Exception as error:
            self.arrived(flight, Decision(False, f"the PDP raised {type(error).__name__}"))

    def arrived(self, flight: Flight, said: Decision | dict[str, Any]) -> None:
        if isinstance(said, Decision):
            self.enforcer.answer(flight, said, clock.now(), clock.wall_ms(), AT_ONCE)
        else:
            self.enforcer.explained(flight, said, clock.now())
