"""Python values to canonical bytes: what is taken, what is refused and where."""

import datetime
import enum

import pytest
from hypothesis import given, settings

from pepcore.core.compose import compose
from pepcore.core.question import canonical
from pepcore.errors import BadQuestion
from pepcore.model import Action, Entity
from tests.unit.test_question import VALUES
from tests.vectors.frames import pack

ASK = ("User::alice", "read", "Document::roadmap")


@settings(max_examples=200, deadline=None)
@given(value=VALUES)
def test_composed_bytes_are_canonical_as_they_come(value):
    data = compose(*ASK, {"v": value})
    assert canonical(data) is data
    assert data == pack([["User", "alice", {}], ["read", {}], ["Document", "roadmap", {}], {"v": value}, []])


def test_text_entity_and_dict_make_the_same_key():
    whole = compose(*ASK, {}, ["Agent::a7"])
    assert whole == compose(
        Entity("User", "alice"), Action("read"), {"type": "Document", "id": "roadmap"}, None, (Entity("Agent", "a7"),)
    )
    assert compose("A::b::c", "r", "D::") == compose(Entity("A", "b::c"), {"name": "r"}, Entity("D", ""))


def test_the_order_of_keys_in_python_is_not_part_of_the_key():
    keys = ["b", "a", "\uffff", "\U00010000", "", "é"]
    assert compose(*ASK, {k: 1 for k in keys}) == compose(*ASK, {k: 1 for k in reversed(keys)})


def test_subclasses_are_taken_by_their_value():
    class Color(enum.StrEnum):
        RED = "red"

    class Number(int):
        def __index__(self):
            raise AssertionError("no code of a value runs")

    assert compose(*ASK, {"c": Color.RED, "n": Number(3)}) == compose(*ASK, {"c": "red", "n": 3})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"x", "bytes"),
        (bytearray(b"x"), "bytearray"),
        ({1}, "set"),
        (datetime.datetime(2020, 1, 1), "datetime"),
        (object(), "object"),
        (1j, "complex"),
        (float("nan"), "finite"),
        (float("-inf"), "finite"),
        (2**64, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        ("\ud800", "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        ({1: 2}, "not a string"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_its_place(value: object, words: str):
    with pytest.raises(BadQuestion, match=words) as error:
        compose(*ASK, {"args": {"x": value}})
    assert error.value.field == "context.args.x"
    assert compose(*ASK, {"args": {"x": "x"}})


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        (("alice", "read", "D::1"), "subject"),
        (("::alice", "read", "D::1"), "subject"),
        ((3, "read", "D::1"), "subject"),
        ((Entity("", "a"), "read", "D::1"), "subject.type"),
        (({"type": "U", "id": 1}, "read", "D::1"), "subject.id"),
        (({"type": "U", "id": "a", "dept": "x"}, "read", "D::1"), "subject"),
        (("U::a", "", "D::1"), "action.name"),
        (("U::a", {"name": "r", "x": 1}, "D::1"), "action"),
        (("U::a", None, "D::1"), "action"),
        (("U::a", "read", "D"), "resource"),
        (("U::a", "read", "D::1", []), "context"),
        (("U::a", "read", "D::1", None, "User::x"), "on_behalf_of"),
        (("U::a", "read", "D::1", None, ["x"]), "on_behalf_of"),
        (("U::a", "read", "D::1", None, ["U::x"] * 17), "on_behalf_of"),
    ],
)
def test_a_refusal_names_what_is_wrong(asked: tuple, place: str):
    with pytest.raises(BadQuestion) as error:
        compose(*asked)
    assert error.value.field == place
    assert compose("U::a", "read", "D::1", None, ["U::x"] * 16)


def test_sixteen_levels_are_composed_and_the_seventeenth_is_refused():
    def deep(levels: int) -> object:
        value: object = 1
        for _ in range(levels):
            value = [value]
        return value

    assert canonical(compose(*ASK, {"v": deep(14)}))
    with pytest.raises(BadQuestion, match="nested deeper"):
        compose(*ASK, {"v": deep(15)})
    own: list[object] = []
    own.append(own)
    with pytest.raises(BadQuestion, match="nested deeper"):
        compose(*ASK, {"v": own})


def test_a_key_that_occurs_twice_by_a_hash_of_its_own_is_refused():
    class Key(str):
        __slots__ = ("n",)

        def __hash__(self) -> int:
            return id(self)

        def __eq__(self, other: object) -> bool:
            return self is other

    with pytest.raises(BadQuestion, match="twice"):
        compose(*ASK, {Key("a"): 1, Key("a"): 2})
    assert compose(*ASK, {Key("a"): 1, Key("b"): 2})


def test_a_question_that_is_too_large_is_called_so_wherever_the_limit_was_met():
    huge = "x" * (1 << 24)
    for context in ({"a": huge}, {"a": {"b": huge}}, {"a": [{"b": huge}]}):
        with pytest.raises(BadQuestion, match=r"^question: is too large: send less$"):
            compose(*ASK, context)
    with pytest.raises(BadQuestion, match=r"^context\.a\.question: is not a finite number$"):
        compose(*ASK, {"a": {"question": float("inf")}})
    assert len(compose(*ASK, {"a": {"question": huge[: 1 << 20]}})) > 1 << 20
