"""Where misses are evaluated (D11): hits never wait for them.

Promises: a miss is evaluated inline only if it is alone (nothing else waits, no worker is busy, no other peer was
served in the last 10 ms, none was evaluated in this turn of the loop, the set is here and quick) and small; every other
goes to a worker process, fair over peers: what an evaluation took is charged to whose question it was.
Never: evaluates two misses in one turn of the loop, whichever connections they came on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
from .workers import SMALL, Workers

ALONE_NS = 10_000_000
AT_ONCE = 16
"""Of those who wait for one decision, in one turn of the loop: each may discharge something of its own."""
SLOW_NS = 2_000_000
SLOW_AT_MOST = 8
"""More slow evaluations than others: one may only have been interrupted."""
TOO_LONG_NS = 20_000_000
"""One evaluation that takes so long is enough: the loop is never paused for longer (D11)."""
AWAY_NS = 10_000_000_000
"""How long all go to workers after evaluations took too long: one peer's questions, or a busy machine, may be why."""


class Misses:
    """Takes flights from the enforcer to where they are evaluated, and brings the answers back."""

    def __init__(self, enforcer: Enforcer, served: Served) -> None:
        self.enforcer, self.served = enforcer, served
        self.workers: Workers | None = None
        self.inline: Cedar | None = None
        self.decided: Callable[[Flight, Decision], None] | None = None  # is told what the PDP said, afterwards
        self.evaluated_inline = self.evaluated_by_workers = 0
        self._evaluated = False  # in this turn of the loop
        self._slow = 0
        self._away_until_ns = 0

    def swap(self, workers: Workers, inline: Cedar | None) -> Workers | None:
        """Evaluate by another set from here on; returns the workers of the old one."""
        old, self.workers, self.inline = self.workers, workers, inline
        self._slow = self._away_until_ns = 0
        return old

    def pump(self, now: int, wall_ms: int) -> None:
        """Hand on what waits, as far as there is room."""
        enforcer, workers = self.enforcer, self.workers
        if not enforcer.queued:
            return
        if self._alone(now, 1):
            flight = enforcer.next_flight(now, wall_ms, _small)
            if flight is not None:
                self._begin()
                self._evaluate(flight)
                return
        while workers is not None and enforcer.queued and workers.room:
            flight = enforcer.next_flight(now, wall_ms, workers.takes)
            if flight is None:
                return
            self.evaluated_by_workers += 1
            workers.give(flight)

    def at_once(self, partition: Partition, ask: Ask, now: int, wall_ms: int) -> bytes | None:
        """Decide a question that is alone, and return the verdict's body. None: it is not alone."""
        if len(ask.question) > SMALL or not self._alone(now, 0):
            return None
        flight = self.enforcer.take_alone(partition, ask.question, now, wall_ms)
        if flight is None:
            return None
        self._begin()
        decision = self._decide(flight)
        body = self.enforcer.answer_alone(flight, decision, ask.deadline_ns, ask.not_after, *self.clocks())
        if self.decided is not None:
            self.decided(flight, decision)
        return body

    def clocks(self) -> tuple[int, int]:
        """Both clocks, where an answer comes or is released. If the wall clock was set since they were last looked at,
        what was asked by the old one does not stand."""
        now, wall_ms = clock.now(), clock.wall_ms()
        if self.served.wall_was_set(now, wall_ms):
            self.enforcer.page.clock_was_set()
        return now, wall_ms

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
            and now >= self._away_until_ns
            and self.enforcer.waiting == waiting
            and (self.workers is None or not self.workers.busy)
            and now - self.served.others_ns > ALONE_NS
        )

    def _decide(self, flight: Flight) -> Decision:
        assert self.inline is not None
        began = clock.now()
        try:
            return self.inline.decide([read_question(flight.key)], flight.asked_ms)[0]
        except Exception as error:  # a defect of the engine denies this question and no other
            return Decision(False, f"the PDP raised {type(error).__name__}")
        finally:
            took_ns = clock.now() - began
            self.enforcer.charge(flight, took_ns)
            self._look_at(took_ns)

    def _explain(self, flight: Flight) -> Decision | dict[str, Any]:
        assert self.inline is not None
        began = clock.now()
        try:
            return explain(self.inline, read_question(flight.key), flight.asked_ms)
        except Exception as error:
            return Decision(False, f"the PDP raised {type(error).__name__}")
        finally:
            took_ns = clock.now() - began
            self.enforcer.charge(flight, took_ns)
            if took_ns > TOO_LONG_NS:  # below that it says nothing of the set: it is several evaluations
                self._look_at(took_ns)

    def _look_at(self, took_ns: int) -> None:
        """A set with evaluations that are long for the loop, of small questions, goes to workers for a while."""
        self._slow = max(0, self._slow + (1 if took_ns > SLOW_NS else -1))
        if self._slow >= SLOW_AT_MOST or took_ns > TOO_LONG_NS:
            self._slow = SLOW_AT_MOST // 2  # who comes back has less to prove
            self._away_until_ns = clock.now() + AWAY_NS
            logs.warning(
                "evaluations take too long for the loop: for a while all go to workers",
                took_ms=took_ns / 1e6,
                seconds=AWAY_NS / 1e9,
            )

    def _evaluate(self, flight: Flight) -> None:
        self.arrived(flight, self._explain(flight) if flight.explain else self._decide(flight))

    def arrived(self, flight: Flight, said: Decision | dict[str, Any]) -> None:
        now, wall_ms = self.clocks()
        if isinstance(said, Decision):
            self.enforcer.answer(flight, said, now, wall_ms, AT_ONCE)
            if self.decided is not None:
                self.decided(flight, said)
        else:
            self.enforcer.explained(flight, said, now)


def _small(flight: Flight) -> bool:
    return len(flight.key) <= SMALL
