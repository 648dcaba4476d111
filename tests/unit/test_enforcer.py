"""The enforcer call by call: batches with the three semantics, explanations, bounds. Races: the simulation."""

import itertools
import struct
from typing import Any

import pytest

from pepcore.blocks import Block
from pepcore.core.cache import Cache
from pepcore.core.compose import compose
from pepcore.core.page import Page
from pepcore.enforcer import Enforcer
from pepcore.errors import BadQuestion, Fault, Stale
from pepcore.flight import Partition, Times
from pepcore.model import Decision, Obligation
from pepcore.wire import Semantic

MS = 10**6
PARTITION = Partition(1, 1)
KEYS = [compose(f"U::{n}", "read", "D::1") for n in range(6)]
BAD = BadQuestion("subject", "is broken")


class Host:
    """Asks and answers by hand; `policy` says what the PDP decides."""

    def __init__(self, *permitted: int) -> None:
        self.page, self.cache = Page(5), Cache(slots=64, slab=65536, seed=1)
        self.sent: list[str] = []
        self.e = Enforcer(
            self.cache,
            self.page,
            Times(),
            numbers=itertools.count(1),
            notify=lambda p, q, o: self.sent.append(q.subject.id),
        )
        self.permitted = {KEYS[n] for n in permitted}
        self.now = self.wall = 1000 * MS
        self.asked: list[int] = []

    def run(self, **decision: Any) -> None:
        while flight := self.e.next_flight(self.now, self.wall):
            self.asked.append(KEYS.index(flight.key))
            self.e.answer(flight, Decision(flight.key in self.permitted, **decision), self.now, self.wall)

    def check(self, n: int, **rest: Any) -> Any:
        self.e.ask(PARTITION, self, 1, 1, KEYS[n], self.now, self.wall, **rest)
        self.run()
        (reply,) = self.e.take_replies()
        return reply

    def many(self, semantic: Semantic, *items: int | Fault, **rest: Any) -> list[tuple[int, int, int]]:
        """(permit, fault, cached) of each item that is answered."""
        asked = [KEYS[item] if isinstance(item, int) else item for item in items]
        decision = {name: rest.pop(name) for name in ("obligations",) if name in rest}
        self.asked.clear()
        self.e.ask_many(PARTITION, self, 2, 1, semantic, asked, self.now, self.wall, **rest)
        self.run(**decision)
        (reply,) = self.e.take_replies()
        return [struct.unpack_from("<BBB", body) for body in reply.bodies]


ALL, DENY, PERMIT = Semantic.execute_all, Semantic.deny_on_first_deny, Semantic.permit_on_first_permit
YES, NO, HIT, BROKEN = (1, 0, 0), (0, 0, 0), (1, 0, 1), (0, 2, 0)


@pytest.mark.parametrize(
    ("semantic", "items", "told"),
    [
        (ALL, (0, 1, 2), [YES, NO, YES]),
        (ALL, (BAD, 0), [BROKEN, YES]),
        (DENY, (0, 1, 2), [YES, NO]),
        (DENY, (0, 2), [YES, YES]),
        (DENY, (BAD, 0), [BROKEN]),
        (PERMIT, (1, 0, 2), [NO, YES]),
        (PERMIT, (1, 3), [NO, NO]),
        (PERMIT, (BAD, 1, 2, 0), [BROKEN, NO, YES]),
    ],
)
def test_a_batch_ends_where_its_semantic_says(semantic: Semantic, items: tuple, told: list):
    assert Host(0, 2).many(semantic, *items) == told


def test_cached_items_are_served_and_only_the_misses_are_asked():
    host = Host(0, 1)
    host.check(0)
    assert host.many(ALL, 0, 1, 0) == [HIT, YES, HIT]
    assert host.asked == [1]
    assert host.many(ALL, 0, 1) == [HIT, HIT]
    assert host.asked == []


def test_nothing_behind_a_cached_item_that_ends_the_batch_is_asked():
    host = Host(0, 1)
    host.check(0)
    assert host.many(PERMIT, 0, 1) == [HIT]
    assert host.asked == []
    assert host.many(DENY, BAD, 1) == [BROKEN]
    assert host.asked == []


def test_the_same_question_twice_in_a_batch_is_asked_once():
    host = Host(0)
    assert host.many(ALL, 0, 0, 0) == [YES] * 3
    assert host.asked == [0]


def test_a_batch_whose_bounds_are_not_met_is_denied_item_by_item():
    host = Host(0, 1)
    host.check(0)
    assert host.many(ALL, 0, BAD, blocked=Stale("min_revision", "not yet")) == [(0, 12, 0), BROKEN]
    assert host.many(ALL, 0, 1, not_after=host.wall) == [(0, 13, 0)] * 2
    assert host.many(ALL, 0, 1, deadline_ns=0)[1][1] == 7
    assert host.many(ALL, 0, 1, not_after=host.wall + 1) == [HIT, YES]


def test_an_item_behind_the_one_that_ends_the_batch_discharges_nothing():
    host = Host(0, 1, 2)
    notice = (Obligation("n", "notify", {"to": "desk", "body": "x"}),)
    assert host.many(PERMIT, 0, 1, 2, obligations=notice) == [YES]
    assert host.sent == ["0"]
    assert host.many(ALL, 0, 1, 2, obligations=notice) == [YES] * 3
    assert host.sent == ["0", "0", "1", "2"]


def test_a_single_use_answer_is_discharged_for_each_that_waits_and_never_cached():
    host = Host(0)
    for request in (1, 2, 3):
        host.e.ask(PARTITION, host, request, 1, KEYS[0], host.now, host.wall)
    host.run(obligations=(Obligation("n", "notify", {"to": "desk", "body": "x"}),))
    assert [bool(r.verdict) for r in host.e.take_replies()] == [True] * 3
    assert (host.sent, host.asked) == (["0"] * 3, [0])
    assert host.cache.usage()["inserts"] == 0


def test_an_answer_is_cached_with_its_id_and_its_payload():
    host = Host(0)
    reply = host.check(0)
    stored = host.cache.get(1, KEYS[0], host.now, host.page)
    assert stored is not None
    assert stored[:3] == (True, reply.verdict.number, reply.verdict.expires_ns)
    assert reply.body[40:] == stored.payload + stored.stamps


@pytest.mark.parametrize(("named", "until"), [(-1, 200 * MS), (5 * MS, 5 * MS), (10**15, 30_000 * MS), (0, None)])
def test_a_deadline_is_the_default_the_named_one_or_the_longest(named: int, until: int | None):
    host = Host(0)
    host.e.ask(PARTITION, host, 1, 1, KEYS[0], host.now, host.wall, deadline_ns=named)
    assert host.e.next_deadline() == (None if until is None else host.now + until)


def test_an_explanation_is_asked_each_time_and_never_enforced_or_cached():
    host = Host(0)
    host.check(0)
    for request in (5, 6):
        host.e.ask(PARTITION, host, request, 1, KEYS[0], host.now, host.wall, explain=True)
    for _ in range(2):
        flight = host.e.next_flight(host.now, host.wall)
        assert flight is not None
        assert flight.explain
        host.e.explained(flight, {"policies": [], "permit": True, "lifetime": {"ms": 7, "why": "x"}}, host.now)
    replies = host.e.take_replies()
    assert [r.request for r in replies] == [5, 6]
    told = replies[0].explanation
    assert told == {
        "policies": [], "permit": True, "lifetime": {"ms": 7, "why": "x"}, "cached": True, "cached_left_ms": 60_000,
        "verdict": {"permit": True, "fault": None, "error": "", "reason": ""},
    }  # fmt: skip
    assert replies[0].verdict is None
    assert host.cache.usage()["inserts"] == 1


def test_who_waits_for_an_explanation_and_goes_is_forgotten():
    host = Host(0)
    host.e.ask(PARTITION, host, 5, 1, KEYS[0], host.now, host.wall, explain=True)
    host.e.gone(host)
    assert (host.e.waiting, host.e.queued, host.e.next_deadline()) == (0, False, None)


def test_a_disconnect_costs_its_own_waiters_only():
    host = Host(0)
    others = [object() for _ in range(50)]
    for n, other in enumerate([*others, host]):
        host.e.ask(PARTITION, other, n, 1, KEYS[n % 6], host.now, host.wall)
    assert len(host.e._waiting.of_peer(host)) == 1
    host.e.gone(host)
    assert host.e.waiting == 50
    host.run()
    assert sorted(r.request for r in host.e.take_replies()) == list(range(50))


@pytest.mark.parametrize("bad", [Decision(True, "down"), Decision(1), None, Decision(True, reason=None)])  # type: ignore[arg-type]
def test_a_pdp_that_fails_or_answers_nonsense_is_a_deny_and_its_neighbour_is_a_permit(bad: Any):
    host = Host(0)
    host.e.ask(PARTITION, host, 1, 1, KEYS[0], host.now, host.wall)
    flight = host.e.next_flight(host.now, host.wall)
    assert flight is not None
    host.e.answer(flight, bad, host.now, host.wall)
    (reply,) = host.e.take_replies()
    assert (reply.verdict.permit, reply.verdict.fault) == (False, 8)
    assert host.cache.usage()["inserts"] == 0
    assert host.check(0).verdict.permit


def test_new_times_hold_for_what_is_asked_from_now_on():
    host = Host(0)
    host.e.set_times(Times(permit_ms=7))
    assert host.check(0).verdict.expires_ns == host.now + 7 * MS


def test_what_waits_is_bounded_in_bytes_and_is_let_go_when_answered_or_gone():
    h, big = Host(0), [compose(f"U::{n}", "read", "D::1", {"x": "y" * 1000}) for n in range(8)]
    h.e.set_times(Times(waiting_bytes=3000))

    def ask(to: str, key: bytes) -> None:
        h.e.ask(PARTITION, to, 1, 1, key, h.now, h.wall)

    for key in (big[0], big[0], big[1], big[2]):  # who joins a flight holds nothing of his own
        ask("a", key)
    assert [r.verdict.error.split(":")[0] for r in h.e.take_replies()] == ["overloaded"]
    h.e.gone("a")
    ask("b", big[2])
    flight = h.e.next_flight(h.now, h.wall)
    h.e.answer(flight, Decision(True), h.now, h.wall)
    assert [r.verdict.permit for r in h.e.take_replies()] == [True]
    for n in (3, 4):
        ask("b", big[n])
    assert h.e.take_replies() == []


def test_a_batch_holds_the_bytes_of_all_its_items_until_it_is_answered_or_its_peer_is_gone():
    h, key = Host(0), [compose(f"U::{n}", "read", "D::1", {"x": "y" * 500}) for n in range(8)]
    h.e.set_times(Times(waiting_bytes=2700))

    def ask(to: str) -> int:
        h.e.ask(PARTITION, to, 1, 1, key[7], h.now, h.wall)
        return len(h.e.take_replies())

    def batch(*items: bytes) -> None:
        h.e.ask_many(PARTITION, "a", 1, 1, Semantic.execute_all, list(items), h.now, h.wall)

    def answer() -> None:
        h.e.answer(h.e.next_flight(h.now, h.wall), Decision(True), h.now, h.wall)

    batch(key[0])
    answer()
    assert len(h.e.take_replies()) == 1
    batch(key[0], key[0], key[0], key[1])  # three of them are cached, one waits
    assert ask("b") == 1
    h.e.gone("a")
    assert ask("b") == 0
    h.e.gone("b")
    batch(key[0], key[0], key[0], key[2])
    assert ask("b") == 1
    answer()
    assert len(h.e.take_replies()) == 1
    assert ask("b") == 0


def test_those_who_wait_for_one_decision_are_released_in_slices_and_a_reload_in_between_asks_again():
    h = Host(0)
    for n in range(10):
        h.e.ask(PARTITION, h, n, 1, KEYS[0], h.now, h.wall)
    flight = h.e.next_flight(h.now, h.wall)
    h.e.answer(flight, Decision(True), h.now, h.wall, 4)
    assert ([r.request for r in h.e.take_replies()], h.e.releasing, h.e.waiting) == ([0, 1, 2, 3], True, 6)
    h.e.release(h.now, h.wall, 4)
    assert [r.verdict.permit for r in h.e.take_replies()] == [True] * 4
    h.page.bump()
    h.e.release(h.now, h.wall, 4)
    assert (h.e.take_replies(), h.e.releasing, h.e.queued) == ([], False, True)
    h.permitted.clear()
    h.run()
    assert [(r.request, r.verdict.permit) for r in h.e.take_replies()] == [(8, False), (9, False)]


def test_many_who_wait_for_one_owners_decision_do_not_hold_back_that_of_another_owner():
    h = Host(0, 1)
    other = Partition(2, 2)
    for n in range(4000):
        h.e.ask(PARTITION, h, n, 1, KEYS[0], h.now, h.wall)
    h.e.ask(other, h, 5000, 1, KEYS[1], h.now, h.wall)
    first, second = h.e.next_flight(h.now, h.wall), h.e.next_flight(h.now, h.wall)
    assert (len(first.waiters), second.partition) == (4000, other)
    h.e.answer(first, Decision(True), h.now, h.wall, 16)
    h.e.answer(second, Decision(True), h.now, h.wall, 16)
    told = [r.request for r in h.e.take_replies()]
    assert 5000 in told
    assert len(told) == 32
    h.e.release(h.now, h.wall)
    told += [r.request for r in h.e.take_replies()]
    assert [n for n in told if n != 5000] == list(range(4000))  # who waits for the same is served in order


def test_one_who_still_waits_to_be_released_is_denied_at_its_deadline_or_goes():
    h = Host(0)
    for n in range(3):
        h.e.ask(PARTITION, h if n < 2 else "goes", n, 1, KEYS[0], h.now, h.wall)
    h.e.answer(h.e.next_flight(h.now, h.wall), Decision(True), h.now, h.wall, 1)
    h.e.gone("goes")
    h.now += 201 * MS
    h.e.tick(h.now, h.wall)
    h.e.release(h.now, h.wall)
    assert [(r.request, r.verdict.permit) for r in h.e.take_replies()] == [(0, True), (1, False)]
    assert (h.e.releasing, h.e.waiting) == (False, 0)


def test_a_block_that_comes_while_a_question_waits_for_its_turn_denies_it_and_nothing_of_it_is_kept():
    """It is taken after the block, so that its stamps say nothing: a permit would be cached in front of the block."""
    host = Host(0, 1)
    for n in (0, 1):
        host.e.ask(PARTITION, host, n, 1, KEYS[n], host.now, host.wall)
    host.e.revocation.block(Block("U::0", "gone", host.wall, 0, ""))
    host.run()
    told = {reply.request: reply.verdict for reply in host.e.take_replies()}
    assert (told[0].permit, told[0].reason) == (False, "blocked: gone")
    assert told[1].permit
    host.now += 60_000 * MS  # past the life of the deny
    kept = host.cache.get(1, KEYS[0], host.now, host.page)
    assert kept is None


def test_a_question_that_crosses_a_block_is_denied_and_those_who_are_released_with_it_are_served_once():
    host = Host(0, 1)
    for request in range(3):
        host.e.ask(PARTITION, host, request, 1, KEYS[0], host.now, host.wall)
    host.e.ask(PARTITION, host, 9, 1, KEYS[1], host.now, host.wall)
    flights = [host.e.next_flight(host.now, host.wall) for _ in range(2)]
    host.e.revocation.block(Block("U::0", "gone", host.wall, 0, ""))
    for flight in flights:
        host.e.answer(flight, Decision(True), host.now, host.wall)
    told = {reply.request: reply.verdict for reply in host.e.take_replies()}
    assert {request: verdict.permit for request, verdict in told.items()} == {0: False, 1: False, 2: False, 9: True}
    assert told[2].reason == "blocked: gone"
    assert not host.e.waiting
    assert not host.e.releasing
