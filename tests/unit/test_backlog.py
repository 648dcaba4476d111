"""Whose question is next, and who is served of what is decided: by the time that was taken, else in turn."""

import itertools
import random

from pepcore.backlog import IN_TURN, SPARE, Backlog, Decided
from pepcore.flight import Flight, Partition, Waiter
from pepcore.model import Decision

names = itertools.count()


def flight(owner: int) -> Flight:
    return Flight(Partition(owner, owner), b"%d" % next(names), {})


def filled(*owners: int) -> Backlog:
    backlog = Backlog()
    for owner in owners:
        backlog.put(flight(owner))
    return backlog


def taken(backlog: Backlog, cost: dict[int, int] | None = None, most: int = 1000) -> list[int]:
    """The owners in the order they are served, each charged what its questions cost."""
    out = []
    while len(out) < most and (found := backlog.take()) is not None:
        out.append(found.partition.owner)
        backlog.charge(out[-1], (cost or {}).get(out[-1], 0))
    return out


def test_owners_that_took_the_same_come_in_turn_and_each_ones_questions_in_order():
    assert taken(filled(1, 1, 1, 2, 2, 3)) == [1, 2, 3, 1, 2, 1]
    backlog = Backlog()
    mine = [flight(1) for _ in range(5)]
    for one in mine:
        backlog.put(one)
    assert [backlog.take() for _ in range(6)] == [*mine, None]


def test_an_owner_whose_questions_take_long_gets_the_same_time_as_one_whose_are_quick():
    served = taken(filled(*[1] * 100, *[2] * 100), {1: 10, 2: 1}, 66)
    assert served.count(1) == 6
    assert served.count(2) == 60


def test_one_whose_long_question_is_over_waits_while_another_asks_now_and_then():
    backlog = filled(*[1] * 50)
    served = []
    for _ in range(20):
        backlog.put(flight(2))
        served += taken(backlog, {1: 1000, 2: 1}, 1)
    assert served.count(2) >= 18


def test_who_was_away_has_saved_nothing_up_and_who_was_alone_owes_nothing():
    backlog = filled(*[1] * 10)
    assert taken(backlog, {1: 1000}) == [1] * 10
    for owner in (1, 2, 1, 2, 1, 2):
        backlog.put(flight(owner))
    served = taken(backlog, {1: 1000, 2: 1000})
    assert [sorted(served[n : n + 2]) for n in (0, 2, 4)] == [[1, 2]] * 3, served


def test_an_owner_that_may_not_is_passed_over_and_keeps_its_place():
    backlog = filled(1, 2, 1, 2)
    found = backlog.take(lambda f: f.partition.owner != 1)
    assert found is not None
    assert found.partition.owner == 2
    assert backlog.take(lambda f: False) is None
    assert taken(backlog) == [1, 2, 1]
    assert not backlog


def test_what_is_removed_is_not_taken_and_leaves_nothing_behind():
    backlog = filled(2)
    for _ in range(5 * SPARE):
        gone = flight(1)
        backlog.put(gone)
        backlog.remove(gone)
    assert len(backlog._turns) <= SPARE + 3
    assert taken(backlog) == [2]
    assert not backlog._place


def test_no_question_is_lost_whatever_is_put_removed_charged_and_refused():
    r = random.Random(5)
    backlog, known = Backlog(), set()
    for _ in range(20_000):
        n = r.random()
        if n < 0.45:
            one = flight(r.randrange(6))
            known.add(id(one))
            backlog.put(one)
            kept = one
        elif n < 0.5 and id(kept) in known:
            known.remove(id(kept))
            backlog.remove(kept)
        elif n < 0.9:
            refused = r.randrange(8)
            found = backlog.take(lambda f, refused=refused: f.partition.owner != refused)
            if found is not None:
                known.remove(id(found))
                backlog.charge(found.partition.owner, r.randrange(100))
        assert bool(backlog) == bool(known)
    assert len(taken(backlog, most=10**6)) == len(known)


def test_what_is_decided_is_served_in_slices_owners_in_turn():
    decided = Decided()
    for owner, waiting in ((1, 2 * IN_TURN), (2, 1), (1, 1), (3, 0)):
        one = flight(owner)
        one.waiters = {Waiter(n, n, 1, 0): None for n in range(waiting)}
        decided.put((one, Decision(True), None))
    seen = []
    while decided:
        one, _, _ = decided.first()
        waiters = list(one.waiters)[:IN_TURN]
        seen.append((one.partition.owner, len(waiters)))
        for waiter in waiters:
            del one.waiters[waiter]
        decided.go_on()
    assert seen == [(1, IN_TURN), (2, 1), (3, 0), (1, IN_TURN), (1, 1)]


def test_who_was_served_alone_without_waiting_owes_nothing_either():
    backlog = Backlog()
    for _ in range(100_000):
        backlog.charge(0, 1_000_000)
    order = []
    backlog.put(flight(0))
    backlog.put(flight(1))
    for _ in range(4):
        found = backlog.take()
        assert found is not None
        order.append(found.partition.owner)
        if found.partition.owner == 0:
            break
        backlog.charge(1, 1_000_000)
        backlog.put(flight(1))
    assert 0 in order
