"""Where misses go: one is evaluated inline in a turn of the loop, whichever connections they came on."""

import asyncio
import itertools
import time

from pepcore.core.cache import Cache
from pepcore.core.compose import compose
from pepcore.core.page import Page
from pepcore.enforcer import Enforcer
from pepcore.flight import Partition
from pepcore.model import Decision
from pepcore.pdp.cedar import load
from pepcore.server.misses import ALONE_NS, SLOW_NS, Misses
from pepcore.server.turn import Served

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


def test_a_set_whose_evaluations_are_long_for_the_loop_goes_to_the_workers_and_a_quick_one_stays():
    class Engine:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def decide(self, questions: object, wall_ms: int) -> list[Decision]:
            time.sleep(self.seconds)
            return [Decision(True)]

    async def inline_after_ten(seconds: float) -> tuple[int, bool]:
        misses = Misses(Enforcer(Cache(slots=64, slab=65536, seed=1), Page(5)), Served())
        misses.inline = Engine(seconds)
        for n in range(10):
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            misses.enforcer.ask(Partition(1, 1), 0, n, 1, compose(f"U::{n}", "read", "D::1"), now, 10**9)
            misses.pump(now, 10**9)
            misses.enforcer.gone(0)
            await asyncio.sleep(0)
        return misses.evaluated_inline, misses.inline is not None

    assert asyncio.run(inline_after_ten(SLOW_NS * 2 / 1e9)) == (8, False)
    assert asyncio.run(inline_after_ten(0)) == (10, True)
