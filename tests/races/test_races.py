"""A cached permit cannot outlive an acknowledged revoke anywhere on the host: shown by force (invariants 2, 3, 4, 23).

Real daemons, many processes, no stubs. `race_record` has the rule and how the age of a permit is known. Each test has
its twin: the same race with one guard left out must show exactly that stale permit, or the race shows nothing.
Never: a race of one language only; each has processes in Python and in C, and must show hits in process of both.
`PEPCORE_RACE_SECONDS` is how long the slow ones race (60).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import race_twins as twins
from race_record import Revoke, Stale
from race_run import Outcome, Race

SECONDS = float(os.environ.get("PEPCORE_RACE_SECONDS", "60"))
SHORT = 5.0
PDP_S = 0.02

Start = Callable[..., Race]
Found = tuple[list[Stale], Outcome]
ALL = ("shared", "one", "async", "async", "c", "c")
SETTLED = ("settled", "c-settled")


def holds(outcome: Outcome) -> None:
    assert not outcome.stale, "\n".join(map(str, outcome.stale[:5]))
    assert outcome.shows_something(), str(outcome)


def test_a_question_asked_after_an_acknowledged_revoke_is_never_permitted_by_an_older_answer(race: Start) -> None:
    holds(race().ask(*ALL).revoke(2).go_on(SHORT).over())


@pytest.mark.slow
def test_no_permit_outlives_an_acknowledged_revoke_in_many_processes_for_a_minute(race: Start) -> None:
    holds(race().ask(*ALL, "shared").revoke(3).go_on(SECONDS).over())


@pytest.mark.slow
def test_no_answer_of_a_slow_pdp_is_served_after_a_revoke_by_insert_join_or_retry(race: Start) -> None:
    holds(race(slow_pdp=PDP_S).ask(*ALL).revoke(3).go_on(SECONDS).over())


@pytest.mark.slow
def test_no_permit_outlives_an_acknowledged_revoke_across_kill_9_stop_and_fork(race: Start) -> None:
    running = race().ask(*ALL, "shared").revoke(3)
    outcome = running.go_on(SECONDS, killed=True, stopped=True, forked=True).over()
    holds(outcome)
    assert outcome.counts["inherited"] == 0, "a forked child was served from its parent's table"
    if SECONDS > 20:
        assert outcome.counts["forks"] > 5
        assert len({r.boot for r in outcome.revokes}) > 3


def test_no_permit_outlives_an_acknowledged_revoke_across_hand_overs(race: Start) -> None:
    outcome = race(before=twins.LINGERS).ask(*ALL, *SETTLED).revoke(2).go_on(SHORT, handed=True).over()
    holds(outcome)
    assert outcome.counts["hand-overs"]
    assert len({r.boot for r in outcome.revokes}) > 1


@pytest.mark.slow
def test_no_permit_outlives_an_acknowledged_revoke_across_hand_overs_kill_9_and_stop(race: Start) -> None:
    running = race(before=twins.LINGERS).ask(*ALL, *SETTLED).revoke(3)
    outcome = running.go_on(SECONDS, handed=True, killed=True, stopped=True).over()
    holds(outcome)
    if SECONDS > 20:
        assert outcome.counts["hand-overs"] > 3
        assert outcome.counts["kills"] > 3
        assert len({r.boot for r in outcome.revokes}) > 5


def until_stale(start: Callable[[], Race], how: set[str], seconds: float = SHORT, **happens: bool) -> Found:
    """A race that must go wrong in one of these ways: more of them where the machine is slow."""
    for _ in range(3):
        outcome = start().go_on(seconds, **happens).over()
        if found := [s for s in outcome.stale if s.how in how]:
            return found, outcome
    raise AssertionError(f"the guard is out, and nobody noticed: {outcome}")


IN_THE_DAEMON = {
    "stamps after asking": (twins.STAMPS_AFTER_ASKING, PDP_S, {"seen", "asked"}),
    "joins any flight": (twins.JOINS_ANY_FLIGHT, PDP_S, {"asked", "stamps"}),
    "acknowledges before the effect": (twins.ACKNOWLEDGES_FIRST, 0.0, {"seen", "asked"}),
    "looks at no block": (twins.BLOCKS_NOBODY, 0.0, {"blocked"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("guard", IN_THE_DAEMON)
def test_the_race_first_fails_on_a_daemon_that(race: Start, guard: str) -> None:
    before, pdp, how = IN_THE_DAEMON[guard]
    until_stale(lambda: race(before=before, slow_pdp=pdp).ask(*ALL).revoke(2), how)


@pytest.mark.slow
@pytest.mark.parametrize("guard", ["a client that ignores its slots", "a daemon whose cache ignores its slots"])
def test_the_race_first_fails_on(race: Start, twin: twins.Build, guard: str) -> None:
    found, _ = until_stale(lambda: race(twin=twin(guard)).ask(*ALL).revoke(2), {"seen", "asked"})
    assert any(s.permit.local == ("client" in guard) for s in found)


@pytest.mark.slow
def test_the_race_first_fails_on_a_client_in_c_that_ignores_its_slots(race: Start) -> None:
    guard = "a client in C that ignores its slots"
    found, outcome = until_stale(lambda: race(guard_in_c=guard).ask(*ALL).revoke(2), {"seen", "asked"})
    assert all(s.permit.local for s in found)
    assert all(s.permit in outcome.in_c for s in found), "the clients in Python have their guards"


@pytest.mark.slow
def test_the_race_first_fails_on_a_client_in_c_that_does_not_look_at_the_lease_when_its_daemon_is_replaced(
    race: Start,
) -> None:
    unled = "a client in C that does not look at the lease"
    found, outcome = until_stale(
        lambda: race(guard_in_c=unled).ask("c-settled", "settled", "c-settled").revoke(2), {"seen"}, 8.0, killed=True
    )
    assert all(s.permit.local and s.permit in outcome.in_c for s in found)
    assert any(isinstance(s.against, Revoke) and s.permit.boot != s.against.boot for s in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guard", "local"), [(twins.KEEPS_ITS_LEASE, True), (twins.KEEPS_ITS_CLIENTS, False)], ids=["lease", "clients"]
)
def test_the_race_first_fails_on_a_daemon_that_hands_over_and_keeps_its(race: Start, guard: str, local: bool) -> None:
    found, _ = until_stale(lambda: race(before=guard).ask(*ALL, *SETTLED).revoke(2), {"seen"}, handed=True)
    assert all(s.permit.local == local for s in found)
    assert all(isinstance(s.against, Revoke) and s.permit.boot != s.against.boot for s in found)


@pytest.mark.slow
def test_the_race_first_fails_on_a_client_that_does_not_look_at_the_lease_when_its_daemon_is_replaced(
    race: Start, twin: twins.Build
) -> None:
    unled = twin("a client that does not look at the lease")
    found, _ = until_stale(lambda: race(twin=unled).ask("settled", "settled").revoke(2), {"seen"}, 8.0, killed=True)
    assert all(s.permit.local for s in found)
    assert any(isinstance(s.against, Revoke) and s.permit.boot != s.against.boot for s in found)
