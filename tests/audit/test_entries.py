"""Entries: every kind comes back as it was, every text is bounded, and nothing is longer than a frame."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from pepcore.audit import entries
from pepcore.audit.digest import Recorder, question_of
from pepcore.audit.frames import LONGEST
from pepcore.model import Action, Decision, Entity, Obligation, Question

NOW: Any = entries.times()
ONE_OF_EACH: list[entries.Entry] = [
    entries.Decision(**NOW, subject=("User", "a"), action="read", resource=("Doc", "1"), permit=True),
    entries.Difference(
        **NOW,
        subject=("User", "a"),
        action="read",
        resource=("Doc", "1"),
        what=("decision",),
        permit=True,
        candidate_permit=False,
        candidate_reason="no",
        candidate_obligations=(("o", "redact"),),
    ),
    entries.Hits(**NOW, served=((1, 2), (3, 4)), count=6, first_ns=3, last_ns=4),
    entries.Revoke(**NOW, tags=("a", "b"), reason="left"),
    entries.Block(**NOW, tag="Agent::x"),
    entries.Unblock(**NOW, tag="Agent::x"),
    entries.LeaseStart(**NOW, lease=1),
    entries.LeaseEnd(**NOW, lease=1, cause="revoke"),
    entries.Reload(**NOW, ok=False, reason="p.cedar:1"),
    entries.Fault(**NOW, what="sync", denied=(1, 2)),
    entries.Dropped(**NOW, count=3, why="full"),
    entries.Cut(**NOW, segment=1, offset=2, bytes=3, why="torn"),
    entries.Retired(**NOW, segment=1, size=2, root=b"r" * 32),
    entries.Start(**NOW, boot=1, version="0.1", pid=2),
    entries.Stop(**NOW, boot=1),
]


def test_there_is_one_of_each_kind() -> None:
    assert {type(each) for each in ONE_OF_EACH} == set(get_args(entries.Any_)) == set(entries.KINDS.values())


@pytest.mark.parametrize("entry", ONE_OF_EACH, ids=lambda each: type(each).__name__)
def test_every_kind_comes_back_as_it_was(entry: entries.Entry) -> None:
    assert entries.read(entries.pack(entry)) == entry


@pytest.mark.parametrize("entry", ONE_OF_EACH, ids=lambda each: type(each).__name__)
def test_no_kind_can_be_made_longer_than_a_frame(entry: entries.Entry) -> None:
    if isinstance(entry, entries.Question):
        return  # see below: the recorder bounds it
    huge = {
        name: "\u20ac" * 100_000 if isinstance(value, str) else ("\u20ac" * 9000,) * 900 if name == "tags"
        else tuple(range(1 << 40, (1 << 40) + 9000)) if name == "denied" else value
        for name in entry.__struct_fields__ if (value := getattr(entry, name)) is not None and name != "cut"
    }  # fmt: skip
    long = type(entry)(**huge)
    assert len(entries.pack(long)) <= LONGEST
    assert entries.read(entries.pack(long)) == long


def test_an_unknown_kind_is_told_and_an_unknown_member_is_passed_over() -> None:
    assert entries.read(msgspec.msgpack.encode({"kind": "later", "x": 1})) == entries.Unknown("later", {"x": 1})
    known = msgspec.msgpack.decode(entries.pack(ONE_OF_EACH[4])) | {"later": 1}
    assert entries.read(msgspec.msgpack.encode(known)) == ONE_OF_EACH[4]


def test_two_long_names_with_the_same_beginning_do_not_look_the_same() -> None:
    one, other = entries.bounded("a" * 9000 + "1"), entries.bounded("a" * 9000 + "2")
    assert one != other
    assert len(one.encode()) <= entries.NAME
    assert entries.bounded("x" * entries.NAME) == "x" * entries.NAME
    cut = entries.Block(**NOW, tag="t" * 9000)
    assert cut.cut == ("tag",)
    assert entries.Block(**NOW, tag=cut.tag).cut == ()  # who wrote that text himself was not shortened


def test_what_lets_somebody_in_is_not_essential() -> None:
    permit, deny = ONE_OF_EACH[0], msgspec.structs.replace(ONE_OF_EACH[0], permit=False)  # type: ignore[type-var]
    assert not entries.essential(permit)
    assert entries.essential(deny)
    assert not entries.essential(msgspec.structs.replace(deny, shadow=True))  # it would have been one: it let in
    assert entries.essential(ONE_OF_EACH[3])
    assert not entries.essential(ONE_OF_EACH[1])


# ---- the recorder ----

QUESTION = Question(
    Entity("Agent", "a7", {"model": "m", "level": 3}), Action("read", {"bulk": True}),
    Entity("Doc", "1", {"owner": "ann"}), {"ip": "10.0.0.1", "amount": 5}, (Entity("User", "ann", {"role": "lead"}),),
)  # fmt: skip


def made(recorder: Recorder, question: Question = QUESTION, **more: Any) -> entries.Decision:
    return recorder.decision(question, permit=True, **NOW, **more)


def test_values_are_digests_unless_the_config_names_them() -> None:
    entry = made(Recorder(b"k" * 32, plain=("context.amount", "chain.*")))
    assert entry.attributes == {"context": {"amount": 5}, "chain.0": {"role": "lead"}}
    assert {place: set(names) for place, names in entry.digests.items()} == {
        "subject": {"model", "level"}, "action": {"bulk"}, "resource": {"owner"}, "context": {"ip"},
    }  # fmt: skip
    raw = entries.pack(entry)
    assert b"10.0.0.1" not in raw
    assert b"lead" in raw
    assert not entry.whole
    assert question_of(entry) is None


def test_equal_values_have_equal_digests_under_one_key_and_name_only() -> None:
    one = Recorder(b"k" * 32)
    assert one.digest("context", "ip", "x") == Recorder(b"k" * 32).digest("context", "ip", "x")
    values: list[Any] = ["xx", 1, True, 1.0]
    others = [one.digest("context", "ip", value) for value in values]
    others += [one.digest("context", "host", "x"), one.digest("subject", "ip", "x")]
    others.append(Recorder(b"l" * 32).digest("context", "ip", "x"))
    assert len({one.digest("context", "ip", "x"), *others}) == len(others) + 1


def test_what_was_not_digested_can_be_replayed_word_for_word() -> None:
    entry = made(Recorder(b"k" * 32, plain=("*",)))
    assert entry.whole
    again = entries.read(entries.pack(entry))
    assert isinstance(again, entries.Decision)
    assert question_of(again) == QUESTION
    bare = Question(Entity("User", "a"), Action("read"), Entity("Doc", "1"))
    assert question_of(made(Recorder(b"k" * 32), bare)) == bare


def test_left_out_values_leave_nothing_and_are_not_replayable() -> None:
    entry = made(Recorder(b"k" * 32, omit=True))
    assert (entry.attributes, entry.digests, entry.whole) == ({}, {}, False)


def test_a_value_cannot_look_like_a_digest() -> None:
    digest = Recorder(b"k" * 32).digest("context", "ip", "x")
    question = Question(Entity("U", "a"), Action("r"), Entity("D", "1"), {"ip": digest.hex(), "digests": {"ip": "x"}})
    entry = made(Recorder(b"k" * 32, plain=("*",)), question)
    assert entry.digests == {}
    assert entry.whole


LARGE = {"\u20ac" * 120 + str(i): "v" * 1000 for i in range(16)}


@pytest.mark.parametrize(
    "question",
    [
        Question(Entity("U" * 9000, "\u20ac" * 30000), Action("r" * 30000), Entity("D", "1" * 60000)),
        Question(Entity("U", "a"), Action("r"), Entity("D", "1"), {f"n{i}": i for i in range(3000)}),
        Question(Entity("U", "a"), Action("r"), Entity("D", "1"), {"n" * 9000: 1}),
        Question(Entity("U", "a"), Action("r"), Entity("D", "1"), {"n": "v" * 60000}),
        Question(
            Entity("U", "a", LARGE),
            Action("r", LARGE),
            Entity("D", "1", LARGE),
            LARGE,
            tuple(Entity("U", "\u20ac" * 900, LARGE) for _ in range(50)),
        ),
    ],
    ids=["names", "many", "name", "value", "everything"],
)  # fmt: skip
@pytest.mark.parametrize("plain", [("*",), ()])
def test_no_question_makes_an_entry_longer_than_a_frame_and_a_shortened_one_is_not_whole(
    question: Question, plain: tuple[str, ...]
) -> None:
    entry = made(
        Recorder(b"k" * 32, plain=plain), question, policies=("\u20ac" * 900,) * 99, reason="\u20ac" * 9000,
        fault="f" * 9000, point="p" * 9000, trace="t" * 9000,
        obligations=(("\u20ac" * 900, "\u20ac" * 900, None),) * 99,
    )  # fmt: skip
    said = Decision(
        True, "f" * 9000, ("\u20ac" * 900,) * 99, "\u20ac" * 9000, (Obligation("\u20ac" * 900, "\u20ac" * 900),) * 99
    )
    other = Recorder(b"k" * 32, plain).difference(question, said, said, ("errors",), point="p" * 9000, **NOW)
    assert len(entries.pack(other)) <= LONGEST
    assert {"candidate_reason", "candidate_policies", "candidate_obligations", "obligations"} < set(other.cut)
    assert len(entries.pack(entry)) <= LONGEST
    assert not entry.whole
    assert question_of(entry) is None
