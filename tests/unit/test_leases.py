"""The book of leases with a fake clock: what is due, what ends, who still has to be told, who has room."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pepcore.agenda import Agenda
from pepcore.core.compose import compose
from pepcore.errors import Overloaded
from pepcore.flight import Partition
from pepcore.lease import Cause, Lease
from pepcore.leases import AHEAD_NS, AT_ONCE, LATE_NS, RECHECK_NS, Leases
from pepcore.model import Entity

MS = 10**6
S = 10**9
NOW = 1_000 * S
WALL = 5_000_000
GRACE = S
HERE = Partition(1, 1)
FOREVER = 10**18


def key(subject: str = "User::ann", resource: str = "Document::1", chain: tuple[str, ...] = ()) -> bytes:
    return compose(subject, "read", resource, {}, [Entity(*member.split("::")) for member in chain])


def held(
    leases: Leases, subject: str = "User::ann", *, to: Any = "holder", owner: int = 1, until: int = NOW + 60 * S,
    not_after: int = -1, tags: tuple[str, ...] = (), policies: tuple[str, ...] = (), **question: Any,
) -> Lease:  # fmt: skip
    leases.room.enter(owner)
    lease = leases.hold(to, owner, 7, 1, HERE, key(subject, **question), not_after, WALL)
    leases.renewed(lease, tags, policies, until, NOW, WALL)
    return lease


@pytest.fixture
def leases() -> Leases:
    return Leases(GRACE, 100)


# ---- what a revoke and a block end ----


@pytest.mark.parametrize(
    "tag", ["User::ann", "Agent::x", "Agent::y", "Document::1", "Role::payer", "payments", "policy:readers"]
)
def test_a_revoke_of_a_tag_ends_the_leases_that_carry_it_and_no_others(leases: Leases, tag: str):
    what = {"chain": ("Agent::x", "Agent::y"), "tags": ("Role::payer", "payments"), "policies": ("readers",)}
    mine = held(leases, **what)
    other = held(leases, "User::bob", resource="Document::2", tags=("Role::reader",), policies=("others",))
    leases.revoked(["User::nobody", "policy:payments", "readers"], 4, "")
    assert mine.held
    leases.revoked([tag], 5, "stolen")
    assert not mine.held
    assert (mine.cause, mine.reason, mine.revision) == (Cause.REVOKED, "stolen", 5)
    assert other.held
    assert leases.held() == [other]
    leases.revoked_all(6, "all")
    assert not other.held
    assert mine.revision == 5, "it had ended before"


def test_a_lease_is_found_by_the_tags_of_its_last_answer_only(leases: Leases):
    lease = held(leases, tags=("Role::payer",))
    leases.renewed(lease, ("Role::reader",), (), NOW + 120 * S, NOW, WALL)
    leases.revoked(["Role::payer"], 5, "")
    assert lease.held
    leases.revoked(["Role::reader"], 6, "")
    assert not lease.held
    while leases.telling:
        leases.to_tell(10)
    assert not leases._tagged, "an index that keeps what has ended grows for ever"


def test_a_block_ends_what_the_subject_or_a_chain_member_holds_and_not_what_is_held_of_it(leases: Leases):
    by_subject, by_chain = held(leases, "Agent::x"), held(leases, "User::ann", chain=("Agent::y", "Agent::x"))
    of_it, tagged = held(leases, "User::bob", resource="Agent::x"), held(leases, "User::bob", tags=("Agent::x",))
    leases.blocked("Agent::x", 5, "amok")
    assert [lease.held for lease in (by_subject, by_chain, of_it, tagged)] == [False, False, True, True]
    assert (by_chain.cause, by_chain.reason) == (Cause.BLOCKED, "amok")


# ---- asked about again ----


def test_a_lease_is_asked_about_ahead_of_its_end_and_goes_on_where_it_is_permitted(leases: Leases):
    lease = held(leases, until=NOW + 60 * S)
    at = NOW + 60 * S - AHEAD_NS
    assert leases.next_due() == at
    assert leases.due(at - 1) is None
    assert leases.due(at) is lease
    assert leases.due(at) is None, "it is with the PDP already"
    leases.renewed(lease, (), (), at + 60 * S, at, WALL)
    assert lease.held
    assert leases.next_due() == at + 60 * S - AHEAD_NS
    assert leases.over(NOW + 60 * S) is None


def test_a_lease_ends_with_its_lifetime_whatever_the_pdp_does(leases: Leases):
    lease = held(leases, until=NOW + 60 * S)
    assert leases.due(NOW + 60 * S - AHEAD_NS) is lease
    assert leases.over(NOW + 60 * S - 1) is None
    assert leases.over(NOW + 60 * S) is lease


def test_a_lease_ends_with_its_lifetime_also_where_others_have_all_places_at_the_pdp():
    leases = Leases(GRACE, 1000)
    for n in range(AT_ONCE):
        held(leases, f"User::{n}", until=NOW + 600 * S)
    last = held(leases, "User::last", until=NOW + 60 * S)
    for lease in leases.held()[:AT_ONCE]:
        leases._due.set(lease, NOW)
    assert all(leases.due(NOW) for _ in range(AT_ONCE))
    assert leases.due(NOW + 60 * S) is None, "no place"
    assert leases.next_due() == NOW + RECHECK_NS
    while (over := leases.over(NOW + 60 * S)) is not None:
        leases.end(over, 1, Cause.DENIED, "")
    assert not last.held


def test_asking_ahead_of_an_edge_that_does_not_move_is_done_once(leases: Leases):
    """Where a window closes, asking ahead says the same each time: asking again in a quarter of what is left, and so
    on, would be fifteen evaluations of each lease that ends at six o'clock."""
    edge = NOW + 60 * S
    lease = held(leases, until=edge)
    assert leases.due(edge - AHEAD_NS) is lease
    leases.renewed(lease, (), (), edge + MS, edge - AHEAD_NS + MS, WALL)
    assert leases.due(edge - 1) is None
    assert leases.due(edge + MS) is lease, "at the edge itself: another policy may permit from here on"
    assert leases.over(edge + MS + LATE_NS - 1) is None
    assert leases.over(edge + MS + LATE_NS) is lease


@pytest.mark.parametrize(("left_ms", "ends"), [(500, NOW + 500 * MS), (70_000, NOW + 60 * S), (0, NOW)])
def test_a_lease_never_outlives_its_callers_own_permission(leases: Leases, left_ms: int, ends: int):
    lease = held(leases, until=NOW + 60 * S, not_after=WALL + left_ms)
    assert leases.over(ends - 1) is None
    assert leases.over(ends) is lease


def test_what_is_rechecked_is_asked_at_once_those_first_that_end_first(leases: Leases):
    late, soon = held(leases, "User::ann", until=NOW + 60 * S), held(leases, "User::bob", until=NOW + 30 * S)
    leases.recheck()
    assert leases.next_due() == 0
    assert [leases.due(NOW), leases.due(NOW), leases.due(NOW)] == [soon, late, None]


def test_a_lease_that_is_with_the_pdp_while_something_changes_is_asked_about_once_more(leases: Leases):
    lease = held(leases)
    leases.recheck()
    assert leases.due(NOW) is lease
    leases.recheck()
    assert leases.due(NOW) is None
    leases.renewed(lease, (), (), NOW + 60 * S, NOW, WALL)
    assert leases.due(NOW) is lease
    leases.renewed(lease, (), (), NOW + 61 * S, NOW, WALL)
    assert leases.due(NOW) is None


def test_many_reloads_do_not_make_a_lease_asked_about_more_often_later(leases: Leases):
    lease = held(leases)
    for n in range(50):
        leases.recheck()
        assert leases.due(NOW) is lease
        leases.renewed(lease, (), (), NOW + 60 * S + n * S, NOW, WALL)
    asked, now = 0, NOW
    while now < NOW + 300 * S:
        now += S // 2
        if leases.due(now) is lease:
            asked += 1
            leases.renewed(lease, (), (), now + 60 * S, now, WALL)
    assert asked <= 5


def test_a_recheck_that_the_pdp_does_not_answer_ends_a_lease_in_ten_seconds_and_not_in_its_whole_lifetime(
    leases: Leases,
):
    lease = held(leases, until=NOW + 3600 * S)
    leases.recheck()
    assert leases.due(NOW) is lease
    assert leases.next_due() == NOW + RECHECK_NS
    leases.undecided(lease, NOW + 5 * S)
    assert leases.due(NOW + 6 * S) is lease, "asked again"
    assert leases.over(NOW + RECHECK_NS - 1) is None
    assert leases.over(NOW + RECHECK_NS) is lease
    other = held(leases, until=NOW + 3600 * S)
    leases.recheck()
    assert leases.due(NOW) is other
    leases.renewed(other, (), (), NOW + 3601 * S, NOW + S, WALL)
    assert leases.over(NOW + 3600 * S) is None


# ---- the end, and who knows of it ----


def test_a_holder_counts_as_untold_until_he_says_that_he_has_stopped(leases: Leases):
    lease, other = held(leases), held(leases, "User::bob")
    leases.revoked(["User::ann"], 5, "")
    assert (leases.untold(4), leases.untold(5)) == (0, 1)
    assert leases.to_tell(10) == [lease]
    assert leases.untold(5) == 1
    assert not leases.given_up(lease.number, "another holder")
    assert leases.untold(5) == 1
    assert leases.given_up(lease.number, "holder")
    assert (leases.untold(5), len(leases)) == (0, 1)
    assert not leases.given_up(lease.number, "holder")
    assert leases.given_up(other.number, "holder")
    assert not other.held
    assert len(leases) == 0
    assert leases.to_tell(10) == [], "he said so himself"
    assert leases.next_due() is None
    assert not leases._of_holder
    assert not leases.room._counted


def test_a_holder_that_is_lost_counts_until_his_grace_is_over(leases: Leases):
    ended, lease = held(leases), held(leases, "User::bob")
    leases.revoked(["User::ann"], 5, "")
    leases.lost("holder", NOW)
    assert leases.to_tell(10) == [], "nobody is there"
    leases.stopped(NOW + GRACE - 1, 100)
    assert (leases.untold(5), lease.held) == (1, True)
    leases.revoked(["User::bob"], 6, "")
    assert leases.untold(6) == 2
    assert leases.next_due() == NOW + GRACE
    leases.stopped(NOW + GRACE, 1)
    leases.stopped(NOW + GRACE, 1)
    assert (leases.untold(6), len(leases), ended.held) == (0, 0, False)
    assert not leases.room._counted
    assert not leases.room._lost


def test_an_answer_about_a_lease_that_has_ended_changes_nothing(leases: Leases):
    lease = held(leases)
    leases.recheck()
    leases.due(NOW)
    leases.revoked(["User::ann"], 5, "")
    assert (leases.due(FOREVER), leases.over(FOREVER)) == (None, None)
    leases.to_tell(1)
    for late in (lambda: leases.renewed(lease, (), (), FOREVER, NOW, WALL), lambda: leases.undecided(lease, NOW)):
        late()
        assert not lease.held
        assert (leases.next_due(), leases.due(FOREVER), leases.over(FOREVER)) == (None, None, None)
    leases.end(lease, 9, Cause.DENIED, "late")
    assert (lease.revision, lease.cause) == (5, Cause.REVOKED)
    assert leases._asking == 0


# ---- room ----


def test_room_is_by_peer_and_in_all_and_comes_back_when_holders_have_stopped():
    leases = Leases(GRACE, 3, 2)
    first = held(leases, to="a")
    held(leases, to="a")
    with pytest.raises(Overloaded, match="this peer holds 2 leases"):
        leases.room.enter(1)
    held(leases, to="b", owner=2)
    with pytest.raises(Overloaded, match="all peers hold 3 leases"):
        leases.room.enter(2)
    leases.revoked_all(5, "")
    with pytest.raises(Overloaded):  # their holders have not said that they stopped
        leases.room.enter(1)
    leases.given_up(first.number, "a")
    leases.room.enter(1)
    leases.room.leave(1)  # it was denied
    leases.room.enter(1)
    with pytest.raises(Overloaded):
        leases.room.enter(1)


def test_who_was_lost_may_ask_afresh_once_and_not_without_end():
    leases = Leases(GRACE, 4, 2)
    for to in ("first", "second"):
        held(leases, to=to)
        held(leases, to=to)
        leases.lost(to, NOW)
    with pytest.raises(Overloaded):
        leases.room.enter(1)
    leases.stopped(NOW + GRACE, 100)
    assert not leases.room._counted
    leases.room.enter(1)


# ---- agenda ----


def test_an_agenda_equals_a_plain_table_and_stays_small():
    generator = random.Random(4)
    agenda: Agenda[int] = Agenda()
    table: dict[int, int] = {}
    for _ in range(20_000):
        thing, at = generator.randrange(50), generator.randrange(1000)
        step = generator.random()
        if step < 0.6:
            agenda.set(thing, at)
            table[thing] = at
        elif step < 0.8:
            agenda.drop(thing)
            table.pop(thing, None)
        else:
            first = min(table.values(), default=at + 1)
            found = agenda.pop(at)
            assert (found is None) == (first > at)
            if found is not None:
                assert table.pop(found) == first
        assert agenda.first() == min(table.values(), default=None)
        assert len(agenda) == len(table)
        assert len(agenda._heap) <= 2 * 50 + 1024 + 1
