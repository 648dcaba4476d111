"""What the report says about figures: a bench that cannot say `missed` would be worth nothing."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks import corpus
from benchmarks.results import Series, Target, number
from benchmarks.rounds import Rounds, Spread
from benchmarks.svg import chart


def test_target_is_met_at_its_bound_and_missed_above_it() -> None:
    assert Target("w", 1.2, measured=Spread(1.2, 1, 2)).state == "met"
    assert Target("w", 1.2, measured=Spread(1.2001, 1, 2)).state == "missed"
    assert Target("w", 0.5, at_least=True, measured=Spread(0.5, 0, 1)).state == "met"
    assert Target("w", 0.5, at_least=True, measured=Spread(0.49, 0, 1)).state == "missed"


def test_second_condition_alone_misses_a_target() -> None:
    assert Target("w", 32, measured=Spread(1, 1, 1), also=False).state == "missed"


def test_target_without_figures_is_not_yet() -> None:
    assert Target("w", 1).state == "not yet"


def test_rounds_of_two_moods_are_told_apart() -> None:
    rounds = Rounds()
    rounds.of = {
        "a": [{"p50": 10.0}, {"p50": 44.0}, {"p50": 10.0}],
        "b": [{"p50": 8.0}, {"p50": 40.0}, {"p50": 40.0}],
    }
    awake, asleep = rounds.awake("a", "b")
    assert awake == Spread(1.25, 1.25, 1.25)
    assert asleep == Spread(1.1, 1.1, 1.1)


def test_numbers_keep_three_digits() -> None:
    assert [number(x) for x in (0, 0.1234, 1.234, 12.34, 1234.5)] == ["0", "0.123", "1.23", "12.3", "1,234"]


def test_chart_is_well_formed_whatever_a_series_is_called() -> None:
    drawn = chart("a < b", "x", "y", [Series("C & echo", [(1, 10), (1000, 20)])])
    assert len(ElementTree.fromstring(drawn).findall("{http://www.w3.org/2000/svg}polyline")) == 1


def test_every_question_is_canonical_and_of_the_same_size() -> None:
    from pepcore.core.question import canonical

    of = corpus.corpus(1000, 10_000, 50)
    questions = list(corpus.distinct(of, 100))
    assert len(set(questions)) == 100
    assert all(canonical(q) == q and len(q) == corpus.QUESTION for q in questions)
    nonce_at = corpus.UNIQUE - corpus.HEADER
    assert {q[nonce_at : nonce_at + 16] for q in questions} == {b"%016x" % i for i in range(100)}


def test_a_candidate_that_was_asleep_in_every_round_is_never_taken_for_awake():
    rounds = Rounds()
    rounds.of = {"a": [{"p50": 50.0}, {"p50": 49.0}], "b": [{"p50": 10.0}, {"p50": 48.0}]}
    awake, asleep = rounds.awake("a", "b")
    assert awake is None
    assert asleep == Spread(49 / 48, 49 / 48, 49 / 48)
