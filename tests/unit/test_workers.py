"""What a worker may hold: a window in all, and little of one owner. No process is started here."""

import asyncio
from typing import Any

from pepcore.flight import Flight, Partition
from pepcore.server.workers import OF_ONE_OWNER, QUICK_NS, QUICK_OF_ONE_OWNER, SMALL, WINDOW, Worker, Workers


def pool(count: int) -> Workers:
    class Transport:
        def write(self, data: bytes) -> None: ...

    made = Workers(None, count, lambda *_: None, lambda: None)  # type: ignore[arg-type]
    for _ in range(count):
        worker = Worker(made, None)  # type: ignore[arg-type]
        worker.connection_made(Transport())  # type: ignore[arg-type]
        worker.ready = True
        made._workers.append(worker)
    return made


def given(owners: list[int], workers: int = 1, *, took_ns: int = 10 * QUICK_NS, size: int = 1) -> list[int]:
    """Whose questions are with the workers, of those that these owners ask, each of whom has asked before."""

    async def give() -> list[int]:
        made = pool(workers)
        for owner in set(owners):
            made.took(Flight(Partition(owner, owner), b"", {}), took_ns)
        for owner in owners:
            flight = Flight(Partition(owner, owner), bytes(size), {})
            if made.takes(flight):
                made.give(flight)
        assert all(len(w.given) <= WINDOW for w in made._workers)
        return [f.partition.owner for w in made._workers for f in w.given.values()]

    return asyncio.run(give())


def test_one_owner_fills_no_worker_and_leaves_room_for_others():
    assert given([1] * 16) == [1] * OF_ONE_OWNER
    assert given([1] * 16 + [2] * 16) == [1, 1, 2, 2]


def test_an_owner_whose_questions_are_small_and_quick_has_more_room_and_leaves_some():
    assert given([1] * 16 + [2] * 16, took_ns=QUICK_NS) == [1] * QUICK_OF_ONE_OWNER + [2, 2]
    assert given([1] * 16, took_ns=QUICK_NS + 1) == [1] * OF_ONE_OWNER
    assert given([1] * 16, took_ns=QUICK_NS, size=SMALL + 1) == [1] * OF_ONE_OWNER
    assert given([1] * 16, took_ns=QUICK_NS, size=SMALL) == [1] * QUICK_OF_ONE_OWNER


def test_a_worker_holds_no_more_than_its_window():
    assert len(given([n for n in range(20) for _ in range(2)])) == WINDOW


def test_each_worker_has_room_for_the_same_owner():
    assert given([1] * 16 + [2], workers=2) == [1, 1, 2, 1, 1]


def test_a_worker_that_is_not_ready_takes_nothing():
    async def takes() -> list[Any]:
        made = pool(1)
        flight = Flight(Partition(1, 1), b"", {})
        found: list[Any] = [made.takes(flight)]
        made._workers[0].ready = False
        return [*found, made.takes(flight), made.room]

    assert asyncio.run(takes()) == [True, False, False]
