"""The nearest instant at which a comparison of `context.now` can change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepcore.pdp.cedar_reads import reads_of
from pepcore.pdp.cedar_times import DAY, UNKNOWN, as_text, until_next

NOON = 1_795_608_000_000
HOUR = 3_600_000


def clock(condition: str) -> frozenset[tuple[str, int]] | None:
    return reads_of(f"permit(principal, action, resource) when {{ {condition} }};").clock


@pytest.mark.parametrize(
    ("condition", "instants"),
    [
        ('context.now < datetime("2026-11-25T12:00:00Z")', {("at", NOON)}),
        ('datetime("2026-11-25T12:00:00.001Z") >= context["now"]', {("at", NOON + 1)}),
        ('context.now == datetime("2026-11-25T14:30:00+0230")', {("at", NOON)}),
        ('context.now == datetime("2026-11-25T09:30:00-0230")', {("at", NOON)}),
        ('context.now < datetime("2026-11-25")', {("at", NOON - 12 * HOUR)}),
        ('context.now < datetime("2026-11-25").offset(duration("1d2h"))', {("at", NOON + 14 * HOUR)}),
        ('context.now.toTime() >= duration("18h30m")', {("daily", 18 * HOUR + HOUR // 2)}),
        ("context has now", set()),
        ('context.now.toDate() == datetime("2026-11-25")', {UNKNOWN}),
        ("context.now < resource.ends", {UNKNOWN}),
        ('context.now < datetime("2026-02-30")', {UNKNOWN}),
        ('context.now < datetime("0000-01-01")', {UNKNOWN}),
        ("context == {a: 1}", {UNKNOWN}),
        ("{c: context}.c has now", {UNKNOWN}),
        ("context.nowhere == 1", None),
    ],
)
def test_a_use_of_now_gives_its_instants(condition: str, instants: set[tuple[str, int]] | None) -> None:
    assert clock(condition) == instants


def test_the_instant_itself_and_the_one_after_count() -> None:
    assert until_next({("at", NOON)}, NOON - 1) == 1
    assert until_next({("at", NOON)}, NOON) == 1
    assert until_next({("at", NOON)}, NOON + 1) is None
    assert until_next({("at", NOON), UNKNOWN}, NOON - 9999) == 1000
    assert until_next((), NOON) is None


@given(st.integers(0, DAY - 1), st.integers(0, 10 * DAY))
def test_a_daily_instant_is_never_slept_through(after: int, wall: int) -> None:
    left = until_next({("daily", after)}, wall)
    assert left is not None
    assert left > 0
    for passed in {left - 1, left // 2}:
        then = wall + passed
        for op in (lambda a, b: a < b, lambda a, b: a <= b, lambda a, b: a == b):
            assert op(then % DAY, after) == op(wall % DAY, after)


def test_wall_time_is_written_as_cedar_reads_it() -> None:
    assert as_text(NOON + 7) == "2026-11-25T12:00:00.007Z"
    assert as_text(0) == "1970-01-01T00:00:00.000Z"
    assert as_text(-62_135_596_800_000) == "0001-01-01T00:00:00.000Z"
    with pytest.raises(OverflowError):
        as_text(10**15)
