"""The enforcer in a deterministic simulator, and every race with its vulnerable twin.

A race test plays one order of events twice: with one guard taken out it has to end in the stale permit itself, with the
guard in place it has to end in a deny or a fresh answer. Seeds are printed by what fails: `simulation.run(seed)`.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from pepcore import freshness
from pepcore.core.cache import Cache
from pepcore.core.page import Page
from pepcore.enforcer import Enforcer
from pepcore.flight import Times
from pepcore.model import Decision, Obligation
from pepcore.wire import Semantic
from tests.simulation import KEYS, MS, NOTICE, Broken, Host, run

RUNS = int(os.environ.get("PEPCORE_HISTORIES", "100000")) // 10
# a question that the policies of revision 0 permit and those of revision 1 deny, for the first partition
KEY = next(k for k in KEYS if (KEYS.index(k) * 7 + 3) % 3 != 0 and (KEYS.index(k) * 7 + 4) % 3 == 0)
OTHER = next(k for k in KEYS if (KEYS.index(k) * 7 + 3) % 3 != 0 and k != KEY)
PERMIT = Decision(True, reason="1")


def always(monkeypatch: pytest.MonkeyPatch, name: str, value: Any = True) -> None:
    monkeypatch.setattr(freshness, name, lambda *args: value)


# ---- the orders of events ----


def answer_crosses_a_reload(host: Host) -> None:
    host.check(host.peers[0], KEY)
    host.take()
    host.reload()
    host.answer(0, PERMIT)


def cached_after_a_reload(host: Host) -> None:
    host.check(host.peers[0], KEY)
    host.take()
    host.reload()
    host.enforcer.gone(host.peers[0])  # nobody is served by it: it can only be kept
    host.asked.clear()
    host.enforcer.answer(host.with_pdp.pop()[0], PERMIT, host.now, host.wall)
    host.check(host.peers[0], KEY)


def follower_joins_after_a_reload(host: Host) -> None:
    first = host.check(host.peers[0], KEY)
    host.take()
    host.reload()
    host.check(host.peers[0], KEY)
    host.asked[first].peer.alive = True
    host.enforcer.answer(host.with_pdp.pop()[0], PERMIT, host.now, host.wall)
    replies = host.enforcer.take_replies()
    for reply in replies:  # the first was asked before the reload: only the second is judged here
        if reply.request != first:
            host.judge(reply.request, [reply.body])


def batch_is_released_after_a_reload(host: Host) -> None:
    host.check_many(host.peers[0], [KEY, OTHER], Semantic.execute_all)
    host.take()
    host.take()
    host.answer(0, PERMIT)
    host.reload()
    host.answer(0, Decision(False, "down"))
    while host.take():
        host.answer(0, Decision(False))


def batch_holds_a_cached_permit_over_a_reload(host: Host) -> None:
    host.check(host.peers[0], KEY)
    host.take()
    host.answer(0, PERMIT)
    host.check_many(host.peers[0], [KEY, OTHER], Semantic.permit_on_first_permit)
    host.check_many(host.peers[0], [OTHER, KEY], Semantic.execute_all)
    host.take()
    host.reload()
    host.answer(0, Decision(False, "down"))
    while host.take():
        host.answer(0, Decision(False))


def answer_comes_after_the_deadline(host: Host) -> None:
    host.check(host.peers[0], KEY, 50)
    host.take()
    host.now += 51 * MS
    host.answer(0, PERMIT)


RACES = [
    (answer_crosses_a_reload, "stale", {"stamps_hold": True}),
    (batch_is_released_after_a_reload, "stale", {"holds": True, "stands": True}),
    (batch_holds_a_cached_permit_over_a_reload, "stale", {"holds": True}),
    (answer_comes_after_the_deadline, "deadline", {"in_time": True}),
]


@pytest.mark.parametrize(("race", "broken", "twin"), RACES)
def test_an_answer_computed_before_a_reload_is_never_served_after_it(
    monkeypatch: pytest.MonkeyPatch, race: Callable[[Host], None], broken: str, twin: dict[str, Any]
):
    with monkeypatch.context() as vulnerable:
        for name, value in twin.items():
            always(vulnerable, name, value)
        with pytest.raises(Broken, match=broken):
            race(Host())
    host = Host()
    race(host)
    host.drain()
    assert host.denied, "the question was answered"


class InsertsUnchecked:
    """A cache that takes the page's word for the stamp instead of the one read before the PDP was asked."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def put(self, *args: Any, page: Page, revision: int, **rest: Any) -> bool:
        return self.cache.put(*args, page=page, revision=page.revision, **rest)

    def get(self, *args: Any) -> Any:
        return self.cache.get(*args)


def test_an_answer_computed_before_a_reload_is_never_served_after_it_by_insert(monkeypatch: pytest.MonkeyPatch):
    always(monkeypatch, "stamps_hold")  # so that the insert's own guard is all that stands
    host = Host()
    host.enforcer.answers.cache = InsertsUnchecked(host.cache)  # type: ignore[assignment]
    with pytest.raises(Broken, match="stale"):
        cached_after_a_reload(host)
    cached_after_a_reload(Host())


def test_an_answer_computed_before_a_reload_is_never_served_after_it_by_join(monkeypatch: pytest.MonkeyPatch):
    always(monkeypatch, "stamps_hold")
    follower_joins_after_a_reload(Host())
    always(monkeypatch, "may_join")
    with pytest.raises(Broken, match="stale"):
        follower_joins_after_a_reload(Host())


def test_an_answer_computed_before_a_reload_is_never_served_after_it_by_retry():
    host = Host()
    host.check(host.peers[0], KEY)
    for _ in range(2):
        host.take()
        host.reload()
        host.answer(0, PERMIT)
    assert (host.permitted, host.denied, host.enforcer.waiting) == (0, 1, 0)
    host.check(host.peers[0], KEY)  # and the neighbour: two reloads on, the policies that permit it say so
    host.reload()
    host.take()
    host.answer(0, PERMIT)
    assert host.permitted == 1


def test_no_permit_outlives_its_lifetime_on_a_slow_way(monkeypatch: pytest.MonkeyPatch):
    def slow(host: Host) -> list[Any]:
        host.check(host.peers[0], OTHER, 200)
        flight = host.enforcer.next_flight(host.now, host.wall)
        assert flight is not None
        host.now += 31 * MS
        host.enforcer.answer(flight, Decision(True, reason="1", max_age_ms=30), host.now, host.wall)
        return host.enforcer.take_replies()

    assert slow(Host()) == []  # it is asked once more
    always(monkeypatch, "outlived", False)
    assert slow(Host())[0].verdict.permit


def test_no_permit_is_released_after_its_window_closed_while_others_were_served_first(monkeypatch: pytest.MonkeyPatch):
    def window_closes_between_two_releases(host: Host) -> list[bool]:
        window = Obligation("w", "window", {"not_after": host.wall + 20})
        for _ in range(3):
            host.check(host.peers[0], OTHER)
        host.take()
        flight = host.with_pdp.pop()[0]
        told = Decision(True, reason="1", obligations=(window,))
        host.enforcer.answer(flight, told, host.now, host.wall, 1)
        for ms in (19, 1):
            host.now, host.wall = host.now + ms * MS, host.wall + ms
            host.enforcer.release(host.now, host.wall, 1)
        return [reply.verdict.permit for reply in host.release() if reply.verdict is not None]

    assert window_closes_between_two_releases(Host()) == [True, True, False]
    always(monkeypatch, "still_open")
    assert window_closes_between_two_releases(Host()) == [True, True, True]


@pytest.mark.parametrize("semantic", list(Semantic))
def test_no_permit_outlives_its_callers_token_in_a_batch(monkeypatch: pytest.MonkeyPatch, semantic: Semantic):
    def waits(host: Host) -> None:
        host.check(host.peers[0], OTHER)
        host.take()
        host.answer(0, PERMIT)
        host.check_many(host.peers[0], [KEY, OTHER], semantic, token_ms=20)
        host.take()
        host.now, host.wall = host.now + 20 * MS, host.wall + 20
        host.answer(0, Decision(semantic is Semantic.deny_on_first_deny, reason="1"))

    host = Host()
    waits(host)
    assert (host.permitted, host.denied) == (1, 1 if semantic is Semantic.deny_on_first_deny else 2)
    always(monkeypatch, "left_ms", -1)
    with pytest.raises(Broken, match="token"):
        waits(Host())


def test_a_peer_killed_at_any_await_point_leaks_nothing_and_gets_nothing_applied(monkeypatch: pytest.MonkeyPatch):
    def play(point: int) -> Host:
        host = Host()
        steps: list[Callable[[], Any]] = [
            lambda: host.check(host.peers[0], KEY),
            lambda: host.check_many(host.peers[0], [OTHER, KEY], Semantic.execute_all),
            host.take,
            host.take,
            lambda: host.answer(0, Decision(True, reason="1", obligations=NOTICE)),
            lambda: host.answer(0, Decision(True, reason="1", obligations=NOTICE)),
        ]
        for step in [*steps[:point], lambda: host.leave(0), *steps[max(point, 2) :]]:
            if host.with_pdp or step not in steps[4:]:
                step()
        host.drain()
        return host

    whole = play(6)
    assert (whole.permitted, len(whole.sent)) == (3, 3)
    for point in range(5):
        assert play(point).sent == [], point
    assert len(play(5).sent) < 3
    monkeypatch.setattr(Enforcer, "gone", lambda self, to: None)
    with pytest.raises(Broken, match=r"gone|once"):
        play(4)


def test_a_batch_of_a_peer_that_has_gone_discharges_nothing():
    host = Host()
    host.check_many(host.peers[0], [KEY, OTHER], Semantic.execute_all)
    host.take()
    host.take()
    host.answer(0, Decision(True, reason="1", obligations=NOTICE))
    host.leave(0)
    host.answer(0, Decision(True, reason="1", obligations=NOTICE))
    assert host.sent == []
    host.drain()


# ---- single flight, deadlines ----


def test_at_most_one_pdp_call_per_question_and_partition_is_in_flight(monkeypatch: pytest.MonkeyPatch):
    def many(host: Host) -> Host:
        for _ in range(5):
            host.check(host.peers[0], KEY)
            host.take()
        host.check(host.peers[1], KEY)
        host.take()
        return host

    assert many(Host()).calls == 2  # one for each partition
    always(monkeypatch, "may_join", False)
    with pytest.raises(Broken, match="twice"):
        many(Host())


def test_a_leaders_deadline_never_fails_its_followers_past_their_own():
    host = Host()
    leader, follower = host.check(host.peers[0], KEY, 50), host.check(host.peers[0], KEY, 200)
    host.now += 50 * MS
    host.tick()
    assert host.asked[leader].answered
    assert not host.asked[follower].answered
    flight = host.take()
    assert flight is not None
    assert flight.deadline_ns == host.asked[follower].until
    host.answer(0, PERMIT)
    assert (host.permitted, host.denied) == (1, 1)


def test_a_leader_that_goes_leaves_its_flight_to_its_followers():
    host = Host()
    second = host.connect(host.peers[0].partition)
    host.check(host.peers[0], KEY)
    host.check(second, KEY)
    host.leave(0)
    host.take()
    host.answer(0, PERMIT)
    assert (host.calls, host.permitted) == (1, 1)


def test_what_nobody_waits_for_is_not_asked():
    host = Host()
    host.check(host.peers[0], KEY, 50)
    host.now += 60 * MS
    host.tick()
    assert not host.enforcer.queued
    assert host.take() is None


def test_a_deadline_that_passes_denies_and_a_late_answer_is_cached_only_if_its_stamps_hold():
    host = Host()
    for reload in (False, True):
        host.check(host.peers[0], OTHER, 50)
        host.take()
        host.now += 60 * MS
        host.tick()
        if reload:
            host.reload()
        host.answer(0, Decision(True, reason="1"))
        kept = host.cache.get(1, OTHER, host.now, host.page)
        assert (kept is None) == reload
        host.now += 1000 * MS
    assert host.denied == 2


def test_errors_are_never_cached():
    host = Host()
    host.check(host.peers[0], KEY)
    host.take()
    host.answer(0, Decision(True, "down"))
    assert (host.denied, host.cache.usage()["inserts"]) == (1, 0)
    host.check(host.peers[0], KEY)
    host.take()
    host.answer(0, PERMIT)
    assert (host.permitted, host.cache.usage()["inserts"]) == (1, 1)


def test_one_who_asks_again_is_denied_once_when_its_deadline_comes():
    host = Host()
    request = host.check(host.peers[0], KEY, 100)
    host.take()
    host.reload()
    host.answer(0, PERMIT)
    assert (host.enforcer.waiting, host.enforcer.asked_again) == (1, 1)
    host.now += 100 * MS
    host.tick()
    host.drain()
    assert host.asked[request].answered
    assert host.denied == 1


def test_memory_stays_fixed_under_a_flood_of_questions_that_time_out():
    host = Host()
    for _ in range(8000):
        host.check(host.peers[0], KEY, 10_000)  # names a long deadline, is answered at once
        host.take()
        host.answer(0, Decision(False, "down"))
        host.check(host.peers[0], OTHER, 1)  # is never taken
        host.now += MS
        host.tick()
        host.asked.clear()
    assert len(host.enforcer._waiting._deadlines) <= 1024 + 2
    assert not host.enforcer._flights
    assert not host.enforcer.queued


def test_peers_are_served_in_turn():
    host = Host()
    for key in KEYS[:4]:
        host.check(host.peers[0], key)
    host.check(host.peers[2], KEYS[0])
    owners = []
    while flight := host.take():
        owners.append(flight.partition.owner)
    assert owners == [1, 2, 1, 1, 1]


def test_a_peer_over_its_share_of_waiting_is_denied_and_another_is_not():
    host = Host()
    host.enforcer.set_times(Times(waiting=4, waiting_per_owner=2))
    for key in KEYS[:3]:
        host.check(host.peers[0], key)
    host.release()
    assert (host.denied, host.enforcer.waiting) == (1, 2)
    host.check(host.peers[2], KEYS[0])
    assert host.enforcer.waiting == 3


def test_draining_denies_what_has_to_be_asked_and_still_serves_what_is_cached():
    host = Host()
    host.check(host.peers[0], KEY)
    host.take()
    host.answer(0, PERMIT)
    host.enforcer.draining = True
    host.check(host.peers[0], KEY)
    host.check(host.peers[0], OTHER)
    host.release()
    assert (host.permitted, host.denied) == (2, 1)


# ---- seeded runs ----


@pytest.mark.parametrize("runs", [300, pytest.param(RUNS, marks=pytest.mark.slow)])
def test_no_order_of_slow_answers_faults_reloads_jumps_and_departures_breaks_a_promise(runs: int):
    permitted = denied = 0
    for seed in range(runs):
        host = run(seed)
        permitted, denied = permitted + host.permitted, denied + host.denied
    assert permitted > runs
    assert denied > runs


@pytest.mark.parametrize(
    ("guard", "value", "broken"),
    [
        ("stamps_hold", True, "stale"),
        ("holds", True, "stale"),
        ("in_time", True, "deadline"),
        ("left_ms", -1, "token"),
        ("may_join", False, "twice"),
    ],
)
def test_every_race_test_first_fails_on_its_vulnerable_twin(
    monkeypatch: pytest.MonkeyPatch, guard: str, value: Any, broken: str
):
    always(monkeypatch, guard, value)
    found = set()
    for seed in range(1500):
        try:
            run(seed)
        except Broken as error:
            found.add(str(error).split(":")[0])
            if broken in found:
                return
    pytest.fail(f"taking out `{guard}` was never seen as `{broken}`, only as {found}")
