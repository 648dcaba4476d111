"""Tags to slots: every entity of a question, what the PDP names, and no more than an answer can carry."""

import struct

import pytest
import xxhash

from pepcore.core.compose import compose
from pepcore.core.page import Page
from pepcore.core.tags import slot, stamps
from pepcore.model import Entity

PAGE = Page(1, seed=99)


def numbers(found: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(found) // 2}H", found))


def test_a_slot_is_what_the_specification_says_and_never_one_of_the_two_with_a_meaning():
    for n in range(2000):
        tag = f"User::{n}"
        assert slot(PAGE, tag) == 2 + xxhash.xxh3_64_intdigest(tag.encode(), 99) % 65534
    assert slot(Page(1, seed=98), "User::1") != slot(PAGE, "User::1")


def test_an_answer_hangs_on_everybody_in_the_question_and_on_what_the_pdp_named():
    chain = ("User::ann", Entity("Team", "a::b", {"p": 1}))
    key = compose(Entity("Agent", "x", {"k": ["v"]}), "read", "Doc::1", {"c": {"d": 1}}, chain)
    tags = ["Agent::x", "Doc::1", "User::ann", "Team::a::b", "Role::payer", "policy:p1"]
    found = numbers(stamps(PAGE, key, ("Role::payer", "policy:p1")))
    assert found == [0] + [slot(PAGE, tag) for tag in tags]
    assert numbers(stamps(PAGE, key, (), True))[:2] == [0, 1]


def test_a_tag_that_comes_twice_is_stamped_once():
    key = compose("User::ann", "read", "User::ann")
    assert numbers(stamps(PAGE, key, ("User::ann", "User::ann"))) == [0, slot(PAGE, "User::ann")]


def test_more_than_32_slots_hang_the_answer_on_the_revision_itself():
    key = compose("User::ann", "read", "Doc::1")
    assert len(numbers(stamps(PAGE, key, tuple(f"t{n}" for n in range(29))))) == 32
    assert stamps(PAGE, key, tuple(f"t{n}" for n in range(30))) == b""


def test_a_lone_surrogate_in_a_tag_of_the_pdp_is_a_tag_like_another():
    key = compose("User::ann", "read", "Doc::1")
    assert slot(PAGE, "\ud800") in numbers(stamps(PAGE, key, ("\ud800",)))


@pytest.mark.parametrize("cut", [1, 5, 12, 20])
def test_what_hangs_on_no_question_hangs_on_the_revision_itself(cut: int):
    key = compose("User::ann", "read", "Doc::1")
    assert stamps(PAGE, key[:cut]) == b""
    assert stamps(PAGE, key)
