"""The checker by itself: histories of a few lines, each with one that differs by a step and is fine."""

from __future__ import annotations

import math
from typing import Any

import pytest
from race_record import Block, Log, Revoke, Seen, Stale, check, seen
from race_world import QUESTIONS

BOOT, LATER = 1, 2
MINE = frozenset({"User::u0"})


def permit(start: int, number: int = 7, revision: int = 0, boot: int = BOOT, end: int = 0, question: int = 0) -> Seen:
    end = end or start + 1
    return Seen(1, 1, question, 1, boot, number, revision, start, start, end, end)


def revoke(start: int, ack: int, revision: int = 5, boot: int = BOOT, tags: frozenset[str] = MINE) -> Revoke:
    return Revoke(tags, start, ack, boot, revision)


def how(*permits: Seen, revokes: Any = (), blocks: Any = (), pdp: Any = None) -> list[str]:
    found: list[Stale] = check(permits, revokes, blocks, pdp)
    assert all(str(s) for s in found)
    return [s.how for s in found]


@pytest.mark.parametrize(
    ("first_end", "start", "found"), [(90, 121, ["seen"]), (90, 120, []), (90, 119, []), (100, 121, [])]
)
def test_a_decision_that_somebody_held_before_a_revoke_is_stale_after_its_acknowledgement(first_end, start, found):
    # a revision that is no evidence, so that only the decision's age is
    got = how(permit(80, revision=9, end=first_end), permit(start, revision=9), revokes=[revoke(100, 120)])
    assert got == found


@pytest.mark.parametrize(("asked", "found"), [(99, ["asked"]), (100, []), (110, [])])
def test_a_decision_that_the_pdp_was_asked_for_before_a_revoke_is_stale(asked, found):
    assert how(permit(121, revision=9), revokes=[revoke(100, 120)], pdp={(BOOT, 7): asked}) == found


@pytest.mark.parametrize(("revision", "boot", "found"), [(4, BOOT, ["stamps"]), (5, BOOT, []), (4, LATER, [])])
def test_a_verdict_that_says_a_revision_below_the_acknowledged_one_of_its_boot_is_stale(revision, boot, found):
    assert how(permit(121, revision=revision, boot=boot), revokes=[revoke(100, 120)]) == found


def test_a_decision_of_a_dead_daemon_is_stale_after_what_its_successor_acknowledged():
    permits = permit(80, revision=9), permit(121, revision=9)
    assert how(*permits, revokes=[revoke(100, 120, 1, LATER)]) == ["seen"]


def test_a_revoke_of_another_tag_ends_nothing_and_one_of_everything_does():
    permits = permit(80), permit(121)
    assert how(*permits, revokes=[revoke(100, 120, tags=frozenset({"User::u2"}))]) == []
    assert how(*permits, revokes=[revoke(100, 120, tags=frozenset({"Role::staff"}))]) == ["seen"]
    assert how(*permits, revokes=[revoke(100, 120, tags=frozenset())]) == ["seen"]


def test_a_slow_revoke_that_began_early_hides_no_later_one():
    permits = permit(80, revision=9, end=81), permit(121, revision=9)
    assert how(*permits, revokes=[revoke(100, 110), revoke(50, 120)]) == ["seen"]


@pytest.mark.parametrize(
    ("start", "end", "found"), [(121, 130, ["blocked"]), (120, 130, []), (121, 201, []), (201, 202, [])]
)
def test_a_permit_within_a_block_is_wrong_whatever_it_carries(start, end, found):
    block = Block("User::u0", 120, 200)
    assert how(permit(start, revision=99, end=end), blocks=[block]) == found
    assert how(permit(start, end=end, question=3), blocks=[block]) == [], "another subject"
    assert QUESTIONS[7].chain == ("User::u0",)
    assert how(permit(start, end=end, question=7), blocks=[block]) == found, "on behalf of the one who is blocked"
    endless = Block("User::u0", 120, math.inf)
    assert how(permit(500), blocks=[endless]) == ["blocked"]


def test_a_log_loses_neither_the_first_nor_the_last_of_equal_answers(tmp_path):
    log = Log()
    for at in range(0, 25_000_000, 1000):
        log.add(3, True, BOOT, 7, 2, at, at + 10)
    (tmp_path / "x").write_bytes(log.bytes())
    found = list(seen(tmp_path / "x"))
    assert sum(s.times for s in found) == 25_000
    assert (found[0].first_start, found[0].first_end, found[-1].last_start) == (0, 10, 24_999_000)
    assert all(s.last_start - s.first_start < 10_000_000 for s in found)
