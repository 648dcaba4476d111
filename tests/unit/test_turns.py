"""Who gets the loop: asks in slices, owners in turn, reads by shares. Times here are burnt, never measured."""

import asyncio
import time
from collections import deque
from types import SimpleNamespace

from pepcore.server.turns import SLICE_NS, Turns


class Connection:
    """As much of a connection as waits for its turn."""

    def __init__(self, owner: int, *asks: str) -> None:
        self.peer = SimpleNamespace(owner=owner)
        self.asks = deque(asks)
        self.closed = False
        self.went_on = 0

    def go_on(self) -> None:
        self.went_on += 1


def burn(ns: int) -> None:
    until = time.perf_counter_ns() + ns
    while time.perf_counter_ns() < until:
        pass


def test_one_owners_asks_are_done_in_slices_and_another_owner_comes_in_between():
    async def run() -> tuple[list[str], int, list[int]]:
        taken: list[str] = []
        turns_between = 0

        def take(connection, ask, now, wall_ms):
            taken.append(ask)
            burn(SLICE_NS)

        turns = Turns(take, lambda now, wall_ms: None)
        flood = [Connection(1, *(f"{c}{n}" for n in range(5))) for c in "abc"]
        other = Connection(2, "other")
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for connection in flood:
            turns.ask(connection, now, 0)
        assert taken == ["a0"]  # the rest waits for the next turns of the loop
        turns.ask(other, now, 0)
        assert taken == ["a0"]
        while turns.waiting:
            await asyncio.sleep(0)
            turns_between += 1
        return taken, turns_between, [c.went_on for c in [*flood, other]]

    taken, turns_between, went_on = asyncio.run(run())
    assert taken.index("other") <= 2
    assert [ask for ask in taken if ask[0] == "a"] == ["a0", "a1", "a2", "a3", "a4"]
    assert taken.index("c0") < taken.index("a2")  # connections of one owner take turns as well
    assert len(taken) == 16
    assert turns_between >= 15
    assert went_on == [1, 1, 1, 1]  # each is read from again when its last ask was taken


def test_a_connection_that_closed_while_its_asks_waited_is_passed_over():
    async def run() -> list[str]:
        taken: list[str] = []

        def take(connection, ask, now, wall_ms):
            taken.append(ask)
            burn(SLICE_NS)

        turns = Turns(take, lambda now, wall_ms: None)
        first, gone, last = Connection(1, "first"), Connection(1, "gone"), Connection(1, "last")
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for connection in (first, gone, last):
            turns.ask(connection, now, 0)
        gone.asks.clear()
        while turns.waiting:
            await asyncio.sleep(0)
        return taken

    assert asyncio.run(run()) == ["first", "last"]


def test_reads_that_wait_for_their_owners_share_go_on_in_order_after_a_turn_of_the_loop():
    async def run() -> list[list[str]]:
        turns = Turns(lambda *_: None, lambda *_: None)
        resumed: list[str] = []
        seen = []

        def reader(name: str, owner: int) -> Connection:
            connection = Connection(owner)

            def resume() -> None:
                resumed.append(name)
                turns.share(owner).spent_ns += 300_000

            connection.resume = resume
            return connection

        for name, owner in (("a", 1), ("b", 1), ("c", 1), ("x", 2)):
            turns.share(owner).spent_ns = 10**9
            turns.later(reader(name, owner))
        for _ in range(3):
            seen.append(list(resumed))
            await asyncio.sleep(0)
        return seen

    assert asyncio.run(run()) == [[], ["a", "b", "x"], ["a", "b", "x", "c"]]


def test_a_connection_that_always_has_more_gets_one_share_a_turn():
    async def run() -> list[int]:
        turns = Turns(lambda *_: None, lambda *_: None)
        connection = Connection(1)
        resumed = 0

        def resume() -> None:
            nonlocal resumed
            resumed += 1
            turns.later(connection)

        connection.resume = resume
        turns.later(connection)
        seen = []
        for _ in range(6):
            await asyncio.sleep(0)
            seen.append(resumed)
        return seen

    assert asyncio.run(run()) == [1, 2, 3, 4, 5, 6]
