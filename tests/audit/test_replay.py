"""Replay: what changes, what cannot be decided again, what hits weigh, and what a damaged record leaves."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from pepcore.audit import entries, replay
from pepcore.audit.digest import Recorder
from pepcore.audit.query import Query
from pepcore.audit.reader import Recorded, read
from pepcore.audit.replay import Replay, Report
from pepcore.flight import Partition
from pepcore.model import Action, Decision, Entity, Obligation, Question
from pepcore.pdp.cedar import load
from pepcore.recorded import hits_of
from tests.audit.journals import durable, last_segment, writer

ALICE = '@id("readers") permit(principal == User::"alice", action == Action::"read", resource);\n'
WALL = 1_700_000_000_000
REDACT = Obligation("o", "redact", {"fields": ["/a"]})
WINDOW = Obligation("w", "window", {"not_after": "2023-11-14T22:13:20Z"})  # that is WALL
RATE = Obligation("r", "rate", {"count": 1, "per": "1s"})
numbers = itertools.count(1)


def question(user: str = "alice", **context: Any) -> Question:
    return Question(Entity("User", user), Action("read"), Entity("Document", "a"), context)


def entry(asked: Question | None = None, *, plain: tuple[str, ...] = ("*",), **members: Any) -> entries.Decision:
    given: dict[str, Any] = {"permit": True, "wall_ns": WALL * 10**6, "boottime_ns": 1, "decision": next(numbers)}
    return Recorder(b"k" * 32, plain).decision(question() if asked is None else asked, **given | members)


def hits(decision: int, count: int, **members: Any) -> entries.Hits:
    return entries.Hits(**entries.times(), served=((decision, count),), count=count, first_ns=1, last_ns=2, **members)


def report(found: list[entries.Entry], decide: Any = ALICE, **wanted: Any) -> Report:
    if isinstance(decide, str):
        cedar = load(decide)
        one = Replay(lambda q, wall_ms: cedar.decide([q], wall_ms)[0], Query(kinds=("decision",), **wanted))
    else:
        one = Replay(decide if callable(decide) else lambda q, wall_ms: decide, Query(kinds=("decision",), **wanted))
    return one.run(Recorded(i, each, 1, 0) for i, each in enumerate(found))


def test_what_changes_is_grouped_and_told_with_old_and_new_policies_and_reasons():
    old = entry(policies=("old",), reason="all may")
    other = entry(question("eve"), policies=("old",), reason="all may")
    same = entry(question("eve"), permit=False)
    found = report([old, other, other, same])
    assert (found.replayed, found.changed, len(found.changes)) == (4, 2, 1)
    change = found.changes[0]
    assert (change.old.verdict, change.old.policies, change.old.reason) == ("permit", ("old",), "all may")
    assert (change.new.verdict, change.new.policies) == ("deny", ())
    assert (change.entries, change.examples[0]["subject"], change.examples[0]["index"]) == (2, "User::eve", 1)
    assert report([old, same]).changed == 0


def test_a_hit_weighs_the_decision_that_it_was_served_from():
    changed, same = entry(question("eve")), entry()
    found = report([changed, same, hits(changed.decision, 40), hits(same.decision, 7), hits(10**9, 3)])
    assert (found.replayed, found.times, found.changed, found.changed_times) == (2, 49, 1, 41)
    assert (found.changes[0].entries, found.changes[0].times, found.unknown_hits) == (1, 41, 3)


def test_a_hit_of_another_peer_or_point_weighs_nothing():
    changed = entry(question("eve"), uid=7, point="pay")
    found = report([
        changed, *(hits(changed.decision, count, uid=uid, point=point) for count, uid, point in [
            (40, 7, "pay"), (100, 8, "pay"), (1000, 7, "shop"), (10_000, -1, ""),
        ])
    ])  # fmt: skip
    assert (found.changes[0].times, found.changed_times, found.times) == (41, 41, 41)
    assert (found.foreign_hits, found.unknown_hits) == (11_100, 0)


def test_an_entry_of_hits_names_each_decision_once_and_has_their_sum():
    of = Partition(1, 0, "pay", frozenset(), 7, 7)
    (one,) = hits_of([(1, 2), (2, 3), (1, 5)], of, first_ns=1, last_ns=2)
    assert (one.served, one.count, one.uid, one.point) == (((1, 7), (2, 3)), 10, 7, "pay")
    several = list(hits_of([(1 + n % 1500, (1 << 64) - 1) for n in range(3000)], of, first_ns=1, last_ns=2))
    assert [len(each.served) for each in several] == [1024, 476]
    assert len({number for each in several for number, _ in each.served}) == 1500
    for each in several:
        assert each.count == sum(count for _, count in each.served) < 1 << 63
        assert entries.read(entries.pack(each)) == each


def test_what_only_digests_are_kept_of_is_counted_with_what_hides_it():
    hidden = entry(question(ip="10.0.0.1", amount=5), plain=("context.amount",))
    found = report([hidden, hidden, entry(question(ip="x")), hits(hidden.decision, 5)])
    assert (found.hidden, found.replayed, found.times) == (2, 1, 1)
    assert found.hidden_by == {"context.ip": 2}
    many = entry(question(**{f"n{i}": i for i in range(99)}))
    assert report([many]).hidden_by == {"context.*": 1}
    assert report([entry(question("u" * 9000))]).hidden_by == {"subject": 1}


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"permit": False, "reason": "blocked: stolen"}, "blocked"),
        ({"reason": "off"}, "the point was off"),
        ({"permit": False, "fault": "deadline", "reason": "deadline: late"}, "deadline"),
        ({"permit": False, "fault": "overloaded"}, "overloaded"),
        (
            {"permit": False, "fault": "pdp", "reason": "pdp: the PDP raised ValueError"},
            "a worker or the engine failed",
        ),
    ],
    ids=str,
)
def test_what_policies_had_no_part_in_is_no_change(members: dict[str, Any], why: str):
    found = report([entry(**members)], Decision(not members.get("permit", True)))
    assert (found.changed, found.replayed, found.undecided) == (0, 0, {why: 1})
    neighbour = (
        {"policies": ("off",), **members} if why == "the point was off" else {**members, "fault": "", "reason": ""}
    )
    assert report([entry(**neighbour)], Decision(not members.get("permit", True))).changed == 1


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ({}, Decision(True), True),
        ({"obligations": (("x", "redact", None),)}, Decision(True, obligations=(REDACT,)), False),
        ({"obligations": (("x", "redact", None),)}, Decision(True), True),
        ({}, Decision(True, obligations=(REDACT,)), True),
        ({"permit": False, "obligations": (("x", "redact", None),)}, Decision(False), False),
        ({"permit": False, "fault": "pdp"}, Decision(False), True),
        ({"permit": False}, Decision(False, fault="policy failed"), True),
        ({"permit": False, "fault": "pdp"}, Decision(False, fault="policy failed"), False),
        ({"permit": False}, Decision(True, obligations=(WINDOW,)), False),
        ({"permit": False, "latency_us": 2000}, Decision(True, obligations=(WINDOW,)), True),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_a_change(old: dict[str, Any], new: Decision, changed: bool):
    if old == {} and not new.obligations:
        changed = False
    assert report([entry(**old)], new).changed == changed


def test_rates_and_what_a_point_discharges_are_not_guessed():
    over = entry(permit=False, policies=("p",), reason="over the rate of `r`", obligations=(("r", "rate", False),))
    assert report([over], Decision(True, obligations=(RATE,))).undecided == {"rate": 1}
    assert report([over], Decision(True)).changed == 1
    unable = entry(permit=False, policies=("p",), fault="obligation", obligations=(("o", "redact", None),))
    why = {"obligations that the point may not discharge": 1}
    assert report([unable], Decision(True, obligations=(REDACT,))).undecided == why
    assert report([unable], Decision(True, obligations=(Obligation("d", "drop", {"fields": ["/a"]}),))).undecided == why
    assert report([unable], Decision(True)).changed == 1


def test_each_question_is_decided_as_of_the_time_when_it_was_asked():
    asked: list[int] = []

    def decide(q: Question, wall_ms: int) -> Decision:
        asked.append(wall_ms)
        return Decision(True)

    report([entry(), entry(latency_us=1_500_000)], decide)
    assert asked == [WALL, WALL - 1500]


def test_only_what_is_wanted_is_replayed():
    found = [entry(point="pay"), entry(question("eve"), point="pay"), entry(question("eve"))]
    assert report(found, Decision(False), point="pay").changed == 2
    assert report(found, Decision(False), subject="User::e*").changed == 2
    assert report(found, Decision(False), since_ns=WALL * 10**6 + 1).replayed == 0
    assert report(found, Decision(False), until_ns=WALL * 10**6 + 1).replayed == 3


def test_memory_is_bounded_whatever_is_on_record(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replay, "GROUPS", 5)
    monkeypatch.setattr(replay, "REMEMBERED", 10)
    found: list[entries.Entry] = [entry(reason=f"r{n}", policies=(f"p{n}",)) for n in range(100)]
    first, last = found[0], found[-1]
    assert isinstance(first, entries.Decision)
    assert isinstance(last, entries.Decision)
    cedar = Replay(lambda q, wall_ms: Decision(False), Query())
    told = cedar.run(
        Recorded(i, e, 1, 0) for i, e in enumerate([*found, hits(first.decision, 2), hits(last.decision, 3)])
    )
    assert (len(told.changes), told.more, told.changed, told.changed_times) == (5, 95, 100, 103)
    assert (len(cedar._seen), told.unknown_hits) == (10, 2)


def test_a_record_with_a_damaged_tail_is_replayed_up_to_there(tmp_path: Path):
    with writer(tmp_path) as one:
        durable(one, *(entry(question("eve")) for _ in range(20)))
    cedar = load(ALICE)

    def again() -> Report:
        return Replay(lambda q, wall_ms: cedar.decide([q], wall_ms)[0], Query()).run(read(tmp_path))

    assert (again().changed, again().damaged) == (20, "")
    segment = last_segment(tmp_path)
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data) - 200])
    torn = again()
    assert (15 < torn.changed < 20, torn.damaged) == (True, ""), "an entry that is half there may still be written"
    segment.write_bytes(data[:-200] + bytes(200))
    damaged = again()
    assert (damaged.changed, segment.name in damaged.damaged) == (torn.changed, True)
