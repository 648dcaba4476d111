"""Where misses go: one is evaluated inline in a turn of the loop, whichever connections they came on."""

import asyncio
import itertools
import time
from types import SimpleNamespace

import pytest

from pepcore.core.cache import Cache
from pepcore.core.compose import compose
from pepcore.core.page import Page
from pepcore.enforcer import Enforcer
from pepcore.flight import Partition
from pepcore.model import Decision, Question
from pepcore.pdp.cedar import load
from pepcore.server.misses import ALONE_NS, SLOW_NS, TOO_LONG_NS, Misses
from pepcore.server.turn import Served
from pepcore.server.workers import SMALL

NOW = 10 * ALONE_NS


def test_a_second_miss_in_one_turn_of_the_loop_is_not_evaluated_inline():
    async def turns() -> list[int]:
        enforcer = Enforcer(Cache(slots=64, slab=65536, seed=1), Page(5), numbers=itertools.count(1))
        misses = Misses(enforcer, Served())
        misses.inline = load('@id("all") permit(principal, action, resource);')
        evaluated = []
        for turn in range(3):
            for n in range(2):
                enforcer.ask(Partition(1, 1), n, n, 1, compose(f"U::{turn}-{n}", "read", "D::1"), NOW, 10**9)
                misses.pump(NOW, 10**9)
            evaluated.append(misses.evaluated_inline)
            enforcer.gone(0, 1)
            await asyncio.sleep(0)
        return evaluated

    assert asyncio.run(turns()) == [1, 2, 3]


class Engine:
    """Takes its time; the longer the question, the longer, where `per_byte` says so."""

    def __init__(self, seconds: float, per_byte: float = 0) -> None:
        self.seconds, self.per_byte = seconds, per_byte

    def decide(self, questions: list[Question], wall_ms: int) -> list[Decision]:
        time.sleep(self.seconds + self.per_byte * len(questions[0].context.get("pad", "")))
        return [Decision(True)]


def inline(engine: Engine, pads: list[int], pause: float = 0, *, explain: bool = False) -> list[bool]:
    """Which of these questions, with so much context and one after the other, are evaluated inline."""

    async def ask_each() -> list[bool]:
        misses = Misses(Enforcer(Cache(slots=64, slab=65536, seed=1), Page(5)), Served())
        misses.inline = engine  # type: ignore[assignment]
        seen = []
        for n, pad in enumerate(pads):
            now, before = time.clock_gettime_ns(time.CLOCK_BOOTTIME), misses.evaluated_inline
            key = compose(f"U::{n}", "read", "D::1", {"pad": "x" * pad})
            misses.enforcer.ask(Partition(1, 1), 0, n, 1, key, now, 10**9, explain=explain)
            misses.pump(now, 10**9)
            misses.enforcer.gone(0)
            seen.append(misses.evaluated_inline > before)
            await asyncio.sleep(pause)
        return seen

    return asyncio.run(ask_each())


def test_a_set_whose_evaluations_are_long_for_the_loop_goes_to_the_workers_and_a_quick_one_stays():
    assert inline(Engine(SLOW_NS * 2 / 1e9), [0] * 10) == [True] * 8 + [False] * 2
    assert inline(Engine(0), [0] * 10) == [True] * 10


def test_one_evaluation_that_pauses_the_loop_is_enough():
    assert inline(Engine(TOO_LONG_NS * 1.1 / 1e9), [0] * 3) == [True, False, False]


def test_a_set_that_went_to_the_workers_comes_back_and_goes_sooner_if_nothing_has_changed(monkeypatch):
    monkeypatch.setattr("pepcore.server.misses.AWAY_NS", 50_000_000)
    slow = Engine(SLOW_NS * 2 / 1e9)
    assert inline(slow, [0] * 8 + [0], 0) == [True] * 8 + [False]
    seen = inline(slow, [0] * 40, 0.01)
    away = seen.index(False)
    back = seen.index(True, away)
    assert 2 <= back - away <= 8
    assert seen[back : back + 5] == [True] * 4 + [False]


@pytest.mark.parametrize("explain", [False, True])
def test_a_large_question_is_never_evaluated_inline_and_proves_nothing_about_the_set(monkeypatch, explain):
    monkeypatch.setattr(
        "pepcore.server.misses.explain", lambda engine, question, wall_ms: engine.decide([question], wall_ms) and {}
    )
    engine = Engine(0, per_byte=1e-4)
    frame = len(compose("U::0", "read", "D::1", {"pad": "x" * 1000})) - 1000
    assert inline(engine, [0, SMALL + 1 - frame, 60_000, 0], explain=explain) == [True, False, False, True]
    assert inline(Engine(0), [SMALL - frame], explain=explain) == [True]


def test_a_large_question_takes_the_long_way_also_where_it_is_alone():
    async def body_of(pad: int) -> bytes | None:
        misses = Misses(Enforcer(Cache(slots=64, slab=65536, seed=1), Page(5)), Served())
        misses.inline = Engine(0)  # type: ignore[assignment]
        key = compose("U::0", "read", "D::1", {"pad": "x" * pad})
        ask = SimpleNamespace(question=key, deadline_ns=-1, not_after=-1)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return misses.at_once(Partition(1, 1), ask, now, 10**9)  # type: ignore[arg-type]

    assert asyncio.run(body_of(SMALL)) is None
    assert asyncio.run(body_of(100)) is not None


@pytest.mark.parametrize("was_set", [False, True])
def test_an_answer_that_was_asked_by_a_wall_clock_that_was_set_meanwhile_is_asked_again(was_set: bool):
    async def arrives() -> tuple[list[bool], bool]:
        misses = Misses(Enforcer(Cache(slots=64, slab=65536, seed=1), Page(5)), Served())
        now, wall_ms = misses.clocks()
        misses.enforcer.ask(Partition(1, 1), 0, 1, 1, compose("U::1", "read", "D::1"), now, wall_ms)
        flight = misses.enforcer.next_flight(now, wall_ms)
        assert flight is not None
        if was_set:
            misses.served.wall_was_set(now, wall_ms - 3_600_000)  # as if it had stood elsewhere until now
        misses.arrived(flight, Decision(True, timed=True))
        replies = misses.enforcer.take_replies()
        return [r.verdict is not None and r.verdict.permit for r in replies], misses.enforcer.queued

    assert asyncio.run(arrives()) == (([], True) if was_set else ([True], False))
