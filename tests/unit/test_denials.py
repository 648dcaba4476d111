"""Who was denied most: bounded, sliding, and right for those who matter."""

import msgspec

from pepcore.denials import LONGEST, NAMES, SLICE_NS, SLICES, TOP, Denials


def key(subject: str) -> bytes:
    return msgspec.msgpack.encode([["User", subject, {}], ["read", {}], ["Document", "d", {}], {}, []])


def test_those_who_are_denied_most_come_first_with_the_newest_reason():
    denials = Denials()
    denials.add(key("a"), "old", 1, 0)
    denials.add(key("b"), "no", 5, 1)
    denials.add(key("a"), "new", 2, SLICE_NS)
    assert denials.top(SLICE_NS) == [
        {"subject": "User::b", "denies": 5, "over": 0, "reason": "no"},
        {"subject": "User::a", "denies": 3, "over": 0, "reason": "new"},
    ]


def test_what_is_over_a_minute_old_is_gone():
    denials = Denials()
    denials.add(key("a"), "", 1, 0)
    assert denials.top(SLICE_NS * (SLICES - 1))
    assert denials.top(SLICE_NS * SLICES) == []
    denials.add(key("b"), "", 1, SLICE_NS * SLICES * 5)
    assert [each["subject"] for each in denials.top(SLICE_NS * SLICES * 5)] == ["User::b"]


def test_memory_is_bounded_and_the_frequent_are_found_among_a_flood_of_names():
    denials = Denials()
    for n in range(20_000):
        denials.add(key(f"x{n}"), "flood", 1, n)
        if n % 10 == 0:
            denials.add(key("noisy"), "why", 1, n)
    for _, names in denials._slices:
        assert len(names) <= NAMES
    top = denials.top(20_000)
    assert len(top) == TOP
    first = top[0]
    assert (first["subject"], first["reason"]) == ("User::noisy", "why")
    assert first["denies"] - first["over"] <= 2000 <= first["denies"]
    for n in range(SLICES * 3):
        denials.add(key("a"), "", 1, n * SLICE_NS)
    assert len(denials._slices) == SLICES


def test_names_and_reasons_are_cut():
    denials = Denials()
    denials.add(key("x" * 5000), "y" * 5000, 1, 0)
    (only,) = denials.top(0)
    assert (len(only["subject"]), len(only["reason"])) == (LONGEST, LONGEST)
