"""Windows and rates against a clock that the test holds; each deny beside a permit one tick away."""

from fractions import Fraction

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from pepcore.discharge import NO_EDGE_MS, Rates, window_left_ms
from pepcore.errors import ObligationFault

NOON = 1_767_268_800_000  # 2026-01-01T12:00:00Z
HOUR, SECOND = 3_600_000, 1_000_000_000


def daily(start, end):
    return {"daily": {"start": start, "end": end}}


# ---- windows ----


@pytest.mark.parametrize(
    ("properties", "wall_ms", "left"),
    [
        ({"not_before": NOON}, NOON - 1, None),
        ({"not_before": NOON}, NOON, NO_EDGE_MS),
        ({"not_after": NOON}, NOON, None),
        ({"not_after": NOON}, NOON - 1, 1),
        ({"not_after": "2026-01-01T13:00:00.5+01:00"}, NOON, 500),
        ({"not_after": "2026-01-01T12:00:00Z"}, NOON, None),
        ({"not_before": NOON - 5, "not_after": NOON + 5}, NOON, 5),
        (daily("09:00", "17:00"), NOON, 5 * HOUR),
        (daily("12:00", "17:00"), NOON, 5 * HOUR),
        (daily("12:00", "17:00"), NOON - 1, None),
        (daily("09:00", "12:00"), NOON - 1, 1),
        (daily("09:00", "12:00"), NOON, None),
        (daily("22:00", "06:00"), NOON, None),
        (daily("22:00", "06:00"), NOON + 11 * HOUR, 7 * HOUR),
        (daily("22:00", "06:00"), NOON - 7 * HOUR, HOUR),
        (daily("22:00", "06:00"), NOON - 6 * HOUR, None),
        (daily("18:00", "00:00"), NOON + 12 * HOUR - 1, 1),
        (daily("18:00", "00:00"), NOON + 12 * HOUR, None),
        (daily("12:01", "12:00"), NOON, None),
        (daily("12:01", "12:00"), NOON - 1, 1),
        ({**daily("09:00", "17:00"), "not_after": NOON + HOUR}, NOON, HOUR),
        ({**daily("09:00", "12:30"), "not_after": NOON + HOUR}, NOON, HOUR // 2),
        ({**daily("13:00", "17:00"), "not_after": NOON + HOUR}, NOON, None),
    ],
)
def test_a_window_is_open_until_just_before_its_edge(properties, wall_ms, left):
    assert window_left_ms(properties, wall_ms) == left


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 2**42))
@settings(max_examples=500, deadline=None)
def test_a_daily_window_closes_exactly_when_it_says_and_not_before(start, end, wall_ms):
    def clock(minute):
        return f"{minute // 60:02}:{minute % 60:02}"

    if start == end:
        return
    left = window_left_ms(daily(clock(start), clock(end)), wall_ms)
    minute = wall_ms // 60_000 % 1440
    assert (left is not None) == (start <= minute < end if start < end else minute >= start or minute < end)
    if left is not None:
        assert window_left_ms(daily(clock(start), clock(end)), wall_ms + left - 1) == 1
        assert window_left_ms(daily(clock(start), clock(end)), wall_ms + left) is None


@pytest.mark.parametrize("bad", [{"not_after": "soon"}, {"not_before": True}, daily("9", "17:00")])
def test_a_malformed_window_is_a_fault_and_not_open(bad):
    with pytest.raises(ObligationFault):
        window_left_ms(bad, NOON)
    assert window_left_ms({"not_before": 0}, NOON) == NO_EDGE_MS


# ---- rates ----

KEY = (1, "r", b"User::ada")


def test_a_rate_allows_count_at_once_and_then_one_as_each_is_filled_again():
    rates, three = Rates(), {"count": 3, "per": "3s"}
    assert [rates.take(KEY, three, 0) for _ in range(5)] == [True, True, True, False, False]
    assert not rates.take(KEY, three, SECOND - 1)
    assert rates.take(KEY, three, SECOND)
    assert not rates.take(KEY, three, SECOND)
    assert [rates.take(KEY, three, 100 * SECOND) for _ in range(4)] == [True, True, True, False]


def test_partition_obligation_and_subject_each_have_a_bucket_of_their_own():
    rates, one = Rates(), {"count": 1, "per_ms": 1000}
    for key in (KEY, (2, "r", KEY[2]), (1, "s", KEY[2]), (1, "r", b"User::bob"), (1, "rU", b"ser::ada")):
        assert rates.take(key, one, 0)
        assert not rates.take(key, one, 0)
    assert len(rates) == 5


def test_a_clock_that_goes_back_gives_nothing():
    rates, one = Rates(), {"count": 1, "per_ms": 1000}
    assert rates.take(KEY, one, 5 * SECOND)
    assert rates.take((1, "other", b""), one, 7 * SECOND)
    assert rates.take(KEY, one, 5 * SECOND)
    assert not rates.take(KEY, one, 5 * SECOND)


def test_a_full_table_denies_a_new_key_until_a_bucket_is_full_again():
    rates, one = Rates(places=10), {"count": 1, "per_ms": 1000}
    for partition in (1, 2):
        for n in range(5):
            assert rates.take((partition, "r", b"%d" % n), one, 0)
    assert len(rates) == 10
    assert not rates.take((3, "r", b"new"), one, SECOND - 1)
    assert not rates.take((1, "r", b"0"), one, SECOND - 1)
    assert rates.take((3, "r", b"new"), one, SECOND)
    assert not rates.take((3, "r", b"new"), one, SECOND)
    assert len(rates) <= 10


def test_a_partition_cannot_take_all_places():
    rates, one = Rates(places=10), {"count": 1, "per": "1h"}
    assert [rates.take((1, "r", b"%d" % n), one, 0) for n in range(10)] == [True] * 6 + [False] * 4
    assert rates.take((2, "r", b"0"), one, 0)


def test_a_flood_of_keys_keeps_memory_fixed_and_all_of_it_comes_back():
    rates, two = Rates(places=100), {"count": 2, "per_ms": 10}
    for n in range(10_000):
        rates.take((n % 3, "r", b"x" * 10_000 + b"%d" % n), two, n * 1_000)
        assert len(rates) <= 100
    for n in range(100):
        assert rates.take((9, "r", b"%d" % n), two, (n + 1) * 1_000 * SECOND)
    assert len(rates) == 1
    assert (len(rates._soonest), rates._held) == (1, {9: 1})


takes = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 700)), min_size=1, max_size=60)
terms = st.tuples(st.integers(1, 4), st.integers(1, 1000))


def stays_within_the_rate(rates, steps, rate):
    """Every span of time between two takes of a key holds at most count + t x count / per takes."""
    count, per_ms = rate
    now, taken = 0, {}
    for subject, step in steps:
        now += step * 1_000_000
        times = taken.setdefault(subject, [])
        if rates.take((subject % 2, "r", b"%d" % subject), {"count": count, "per_ms": per_ms}, now):
            times.append(now)
        for i, since in enumerate(times):
            if len(times) - i > count + Fraction((now - since) * count, per_ms * 1_000_000):
                return False
    return True


@given(takes, terms, st.integers(1, 6))
@settings(max_examples=500, deadline=None)
def test_forgetting_never_allows_more_than_the_rate(steps, rate, places):
    rates = Rates(places)
    assert stays_within_the_rate(rates, steps, rate)
    assert len(rates) <= places


class Forgetful(Rates):
    """Makes room by forgetting whatever is there."""

    def _has_place(self, partition):
        if not super()._has_place(partition):
            self._full_at.clear()
            self._soonest.clear()
            self._held.clear()
        return True


def test_the_property_finds_a_table_that_forgets_too_early():
    find(st.tuples(takes, terms), lambda case: not stays_within_the_rate(Forgetful(2), *case))


@given(takes, terms)
@settings(max_examples=500, deadline=None)
def test_a_table_with_room_allows_all_of_the_rate(steps, rate):
    count, per_ms = rate
    rates, now, levels, filled = Rates(), 0, {}, {}
    one_ns = -(-per_ms * 1_000_000 // count)
    for subject, step in steps:
        now += step * 1_000_000
        level = min(Fraction(count), levels.get(subject, count) + Fraction(now - filled.get(subject, 0), one_ns))
        levels[subject], filled[subject] = level - (level >= 1), now
        assert rates.take((1, "r", b"%d" % subject), {"count": count, "per_ms": per_ms}, now) == (level >= 1)
