"""Questions: one canonical form for each, and the place of what is wrong with the rest."""

import math
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepcore.core.question import canonical
from pepcore.errors import BadQuestion
from tests.vectors.frames import PLAIN, context, nested, pack, text

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def loose(value, draw):
    """Valid msgpack of a value in a form that is seldom the canonical one."""
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return pack(value)
    if isinstance(value, int):
        return b"\xcf" + value.to_bytes(8, "big") if value >= 0 else b"\xd3" + value.to_bytes(8, "big", signed=True)
    if isinstance(value, str):
        data = value.encode()
        return b"\xdb" + len(data).to_bytes(4, "big") + data
    if isinstance(value, list):
        return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(loose(v, draw) for v in value)
    pairs = draw(st.permutations(list(value.items())))
    return b"\xdf" + len(pairs).to_bytes(4, "big") + b"".join(loose(k, draw) + loose(v, draw) for k, v in pairs)


@settings(max_examples=300, deadline=None)
@given(value=VALUES, data=st.data())
def test_every_form_of_a_question_has_one_canonical_form(value, data):
    asked = [["U", "a", {"p": value}], ["r", {}], ["D", "x", {}], {"v": value}, [["A", "b", {"q": value}]]]
    one = pack(asked)
    assert canonical(one) is one
    assert canonical(loose(asked, data.draw)) == one


@settings(max_examples=100, deadline=None)
@given(value=VALUES, other=VALUES)
def test_changing_any_attribute_that_the_pdp_may_read_changes_the_key(value, other):
    if pack(value) == pack(other):
        return
    base = [
        ["U", "a", {"p": value}],
        ["r", {"p": value}],
        ["D", "x", {"p": value}],
        {"v": value},
        [["A", "b", {"p": value}]],
    ]
    keys = {pack(base)}
    for change in range(5):
        asked = [
            ["U", "a", {"p": other if change == 0 else value}],
            ["r", {"p": other if change == 1 else value}],
            ["D", "x", {"p": other if change == 2 else value}],
            {"v": other if change == 3 else value},
            [["A", "b", {"p": other if change == 4 else value}]],
        ]
        keys.add(canonical(pack(asked)))
    assert len(keys) == 6


def test_1_and_1_0_and_true_and_text_are_different_questions():
    assert len({canonical(pack(context(v))) for v in (1, 1.0, True, "1", None, 0, 0.0, -0.0, False, "")}) == 10


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ([["", "a", {}], *PLAIN[1:]], "subject.type"),
        ([["U", 1, {}], *PLAIN[1:]], "subject.id"),
        ([["U", "a", []], *PLAIN[1:]], "subject.properties"),
        ([["U", "a"], *PLAIN[1:]], "subject"),
        ([PLAIN[0], ["", {}], *PLAIN[2:]], "action.name"),
        ([*PLAIN[:3], [], []], "context"),
        ([*PLAIN[:4], {}], "chain"),
        ([*PLAIN[:4], [["", "a", {}]]], "chain.0.type"),
        ([*PLAIN[:4], [PLAIN[0], ["U", "a", {"x": 1}], ["U", "a", 1]]], "chain.2.properties"),
        (PLAIN[:4], "question"),
        ([*PLAIN, 1], "question"),
    ],
)
def test_a_refusal_names_the_place(asked: list, place: str):
    with pytest.raises(BadQuestion) as error:
        canonical(pack(asked))
    assert error.value.field == place
    assert canonical(pack(PLAIN)) == pack(PLAIN)


def test_a_place_deep_inside_is_named_to_the_item():
    bad = (
        b"\x95" + b"".join(map(pack, PLAIN[:3])) + b"\x81" + text(b"args") + b"\x92\x01\x81" + text(b"p") + b"\xc1\x90"
    )
    with pytest.raises(BadQuestion) as error:
        canonical(bad)
    assert error.value.field == "context.args.1.p"


@pytest.mark.parametrize("depth", [4, 5, 16, 32])
def test_depth_counts_from_the_question_and_stops_at_the_limit(depth: int):
    asked = pack(nested(depth)) if depth > 4 else pack([*PLAIN[:3], {"v": {"w": {}}}, []])
    assert canonical(asked, depth) == asked
    with pytest.raises(BadQuestion, match="too deep"):
        canonical(pack(nested(depth + 1)), depth)


COUNTED = [
    ["U", "a", {"x": [1, 2]}],  # 3: the list, its items
    ["r", {"x": {}}],  # 1
    ["D", "x", {}],
    {"a": [[], []], "b": {"c": None}},  # 5
    [["A", "b", {"y": ""}]],  # 1
]


@pytest.mark.parametrize("form", [pack, lambda asked: b"\xdc\0\x05" + pack(asked)[1:]])
def test_values_count_wherever_they_stand_and_stop_at_the_limit(form):
    assert canonical(form(COUNTED), 16, 10) == pack(COUNTED)
    with pytest.raises(BadQuestion, match=r"limits\.values") as error:
        canonical(form(COUNTED), 16, 9)
    assert error.value.field == "chain.0.properties.y"


def test_an_item_too_many_is_named_before_those_behind_it_are_read():
    asked = pack([*PLAIN[:3], {"v": [[]] * 4096}, []])
    with pytest.raises(BadQuestion, match=r"limits\.values") as error:
        canonical(asked)
    assert error.value.field == "context.v.4095"
    assert canonical(asked, values=4097) == asked


def test_a_limit_over_32_is_32():
    assert canonical(pack(nested(32)), 1000)
    with pytest.raises(BadQuestion):
        canonical(pack(nested(33)), 1000)


def test_floats_of_32_bits_are_widened_and_nothing_that_is_no_number_gets_in():
    for value in (1.5, -0.0, math.pi):
        single = msgspec.msgpack.decode(b"\xca" + struct.pack(">f", value))
        data = pack(context(0.0))[:-10] + b"\xca" + struct.pack(">f", value) + b"\x90"
        assert canonical(data) == pack(context(single))
    for bits in (b"\x7f\x80\0\0", b"\xff\x80\0\0", b"\x7f\xc0\0\0"):
        with pytest.raises(BadQuestion, match="finite"):
            canonical(pack(context(0.0))[:-10] + b"\xca" + bits + b"\x90")


def test_a_map_of_thousands_of_unsorted_keys_is_sorted_once():
    pairs = {f"{i * 7919 % 5003:05}": i for i in range(5000)}
    data = b"\xde" + len(pairs).to_bytes(2, "big") + b"".join(pack(k) + pack(v) for k, v in pairs.items())
    asked = b"\x95" + b"".join(map(pack, PLAIN[:3])) + data + b"\x90"
    assert canonical(asked, values=5000) == pack([*PLAIN[:3], pairs, []])
