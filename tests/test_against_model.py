"""The compiled core equals the reference model, tests/model/pep.py: a state machine and a seeded generator.

`PEPCORE_HISTORIES=1000000 pytest -s -m slow tests/test_against_model.py` plays a million histories; `PEPCORE_SEED`
repeats a run from its first history.
"""

import os
import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pepcore import freshness
from pepcore.errors import BadFrame
from tests.model import pep
from tests.model.both import KEYS, PARTITIONS, Both, Differs

HISTORIES = int(os.environ.get("PEPCORE_HISTORIES", "100000"))
SEED = int(os.environ.get("PEPCORE_SEED", "0")) or random.SystemRandom().getrandbits(48)

TAGS = ["U::1", "U::2", "U::5", "D::0", "D::1", "G::1", "t0", "t1", "t2", "policy:p", "nobody"]

peers = st.integers(0, len(PARTITIONS) - 1)
keys = st.integers(0, len(KEYS) - 1)


class Histories(RuleBasedStateMachine):
    """Calls in any order; after each, the core and the model have to look the same."""

    @initialize(slots=st.sampled_from([8, 16, 32]), blocks=st.integers(4, 60), quota=st.sampled_from([0.3, 0.6, 1.0]))
    def start(self, slots: int, blocks: int, quota: float) -> None:
        self.both = Both(slots, blocks, quota)

    @rule(
        peer=peers,
        key=keys,
        deadline=st.sampled_from([0, 20, 200]),
        token=st.none() | st.integers(-5, 500),
        ahead=st.integers(-1, 1),
    )
    def check(self, peer: int, key: int, deadline: int, token: int | None, ahead: int) -> None:
        self.both.check(peer, key, deadline, token, ahead)

    @rule(peer=peers, key=keys, permit=st.booleans(), size=st.sampled_from([0, 1, 60, 200]))
    def check_and_answer(self, peer: int, key: int, permit: bool, size: int) -> None:
        self.both.check(peer, key)
        self.both.take()
        self.both.answer(-1, permit, size=size)

    @rule()
    def take(self) -> None:
        self.both.take()

    @rule(
        nth=st.integers(0, 3),
        permit=st.booleans(),
        age=st.sampled_from([None, 0, 15, 1000]),
        size=st.sampled_from([0, 1, 60, 200]),
        fault=st.integers(0, 4).map(lambda n: n == 0),
        tags=st.sampled_from([0, 1, 3, 40]),
    )
    def answer(self, nth: int, permit: bool, age: int | None, size: int, fault: bool, tags: int) -> None:
        self.both.answer(nth, permit, age, size, fault, tags)

    @rule(ms=st.sampled_from([1, 10, 60, 300]), jump=st.sampled_from([0, 0, -1000, 1000]))
    def pass_time(self, ms: int, jump: int) -> None:
        self.both.pass_time(ms, jump)

    @rule()
    def tick(self) -> None:
        self.both.tick()

    @rule()
    def reload(self) -> None:
        self.both.reload()

    @rule(tag=st.sampled_from(TAGS))
    def revoke(self, tag: str) -> None:
        self.both.revoke(tag)

    @rule(peer=peers)
    def gone(self, peer: int) -> None:
        self.both.gone(peer)

    @invariant()
    def they_agree(self) -> None:
        if hasattr(self, "both"):
            self.both.compare()


Histories.TestCase.settings = settings(
    max_examples=2000, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTheCoreEqualsTheModelInEveryHistoryThatHypothesisFinds = Histories.TestCase


def history(seed: int) -> None:
    """Play one seeded history; raises Differs."""
    r = random.Random(seed)
    both = Both(r.choice((8, 16, 32)), r.randint(4, 60), r.choice((0.3, 0.6, 1.0)), r.getrandbits(64))
    near = r.sample(range(len(KEYS)), r.randint(2, len(KEYS)))
    ages, sizes = (None, None, 0, 15, 1000), (0, 1, 60, 200)
    for _ in range(r.randint(5, 40)):
        n = r.random()
        if n < 0.35:
            both.check(r.randrange(len(PARTITIONS)), r.choice(near))
            both.take()
            both.answer(-1, n < 0.25, size=r.choice(sizes), tags=r.choice((0, 0, 1, 2, 3, 40)))
        elif n < 0.55:
            token = r.randint(-5, 500) if n < 0.42 else None
            both.check(r.randrange(4), r.choice(near), r.choice((0, 20, 200, 200)), token, r.choice((-1, -1, 0, 1)))
        elif n < 0.67:
            both.take()
        elif n < 0.82:
            said = n < 0.77, r.choice(ages), r.choice(sizes), r.random() < 0.1, r.choice((0, 0, 1, 2, 3, 40))
            both.answer(r.randrange(4), *said)
        elif n < 0.89:
            both.pass_time(r.choice((1, 10, 60, 300)), r.choice((0, 0, 0, -1000, 1000)))
        elif n < 0.92:
            both.tick()
        elif n < 0.97:
            both.revoke(*r.sample(TAGS, r.choice((1, 1, 3))))
        elif n < 0.985:
            r.choice((both.reload, both.clock_was_set))()
        else:
            both.gone(r.randrange(4))
        both.compare()


def run(count: int, seed: int) -> None:
    for n in range(count):
        try:
            history(seed + n)
        except Differs as error:
            raise Differs(
                f"history {n}, repeat it with PEPCORE_SEED={seed + n} PEPCORE_HISTORIES=1: {error}"
            ) from error


def test_the_compiled_core_equals_the_reference_model_on_two_thousand_random_histories():
    print(f"seed {SEED}")
    run(2000, SEED)


@pytest.mark.slow
def test_the_compiled_core_equals_the_reference_model_on_a_million_random_histories():
    print(f"seed {SEED}, {HISTORIES} histories: PEPCORE_HISTORIES says how many")
    run(HISTORIES, SEED)


def hand_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    victim = pep.Cache.victim

    def moved(self: pep.Cache, n: int, owner: int | None = None) -> int | None:
        at = victim(self, n, owner)
        self.hands[n] = (self.hands[n] - 1) % pep.WAYS
        return at

    monkeypatch.setattr(pep.Cache, "victim", moved)


def stale_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pep.Page, "untouched", lambda self, stamps, since: True)


def a_revoke_ends_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pep.Page, "untouched", lambda self, stamps, since: self.revision == since)


def a_tag_of_the_answer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps_of = freshness.stamps_of
    monkeypatch.setattr(
        "pepcore.freshness.stamps_of", lambda flight, outcome, page: stamps_of(flight, BadFrame("", ""), page)
    )


def what_a_flight_crossed_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepcore.freshness.stamps_hold", lambda slots, asked, page: True)


def lives_a_tick_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = pep.Entry.dead
    monkeypatch.setattr(pep.Entry, "dead", lambda e, now, page: dead(e, now - 1, page))


def follower_joins_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepcore.freshness.may_join", lambda flight, page: True)


def partition_is_no_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    find = pep.Cache.find
    monkeypatch.setattr(
        pep.Cache,
        "find",
        lambda self, p, key, *rest: next((e for q in (p, 1, 2, 3, 4) if (e := find(self, q, key, *rest))), None),
    )


@pytest.mark.parametrize(
    "plant",
    [
        hand_moves_on,
        stale_is_served,
        lives_a_tick_longer,
        follower_joins_anything,
        partition_is_no_part_of_the_key,
        a_revoke_ends_everything,
        a_tag_of_the_answer_is_forgotten,
        what_a_flight_crossed_is_not_looked_at,
    ],
)
def test_the_generator_first_finds_a_planted_difference(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
):
    plant(monkeypatch)
    with pytest.raises(Differs):
        run(20_000, 1)
