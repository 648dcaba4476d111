"""From a decision to a verdict: lifetimes, windows, rates, notices, and PDPs that answer nonsense."""

import itertools
from typing import Any

import msgspec
import pytest

from pepcore.core.compose import compose
from pepcore.core.page import Page
from pepcore.core.verdict import Verdict
from pepcore.errors import Fault, ObligationFault, PdpFault
from pepcore.flight import Flight, Partition, Times
from pepcore.freshness import outlived
from pepcore.model import Decision, Obligation
from pepcore.settlement import Settlement, single_use, usable

MS = 10**6
TIMES = Times(permit_ms=1000, deny_ms=100)
NOON = 43_200_000
RATE = Obligation("r", "rate", {"count": 2, "per": "1s"})
NOTIFY = Obligation("n", "notify", {"to": "desk", "body": "read"})
REDACT = Obligation("o", "redact", {"fields": ["/a"]})
FOREIGN = Obligation("f", "unheard-of", {})


def window(*, until_ms: int | None = None, start: str = "", end: str = "") -> Obligation:
    properties: dict[str, Any] = {}
    if until_ms is not None:
        properties["not_after"] = f"1970-01-01T12:00:{until_ms // 1000:02}.{until_ms % 1000:03}Z"
    if start:
        properties["daily"] = {"start": start, "end": end}
    return Obligation("w", "window", properties)


class Place:
    """A settlement with its page and what was sent."""

    def __init__(self, notify: bool = True) -> None:
        self.page = Page(5)
        self.sent: list[tuple[int, str, str]] = []
        self.settlement = Settlement(self.page, TIMES, itertools.count(10), self.send if notify else None)
        partition = Partition(1, 1, handles=frozenset({"redact"}))
        self.flight = Flight(partition, compose("U::a", "read", "D::1"), {}, asked_ns=100 * MS, revision=3)

    def send(self, partition: Partition, question: Any, obligation: Obligation) -> None:
        self.sent.append((partition.number, question.subject.id, obligation.id))

    def shared(self, decision: Decision, now: int = 110 * MS, wall: int = NOON) -> Verdict:
        return self.settlement.shared(self.flight, decision, now, wall)[0]

    def once(self, decision: Decision, now: int = 110 * MS, wall: int = NOON) -> Verdict:
        return self.settlement.once(self.flight, decision, now, wall)[0]


@pytest.mark.parametrize(
    ("decision", "life"),
    [
        (Decision(True), 1000),
        (Decision(True, max_age_ms=20), 20),
        (Decision(True, max_age_ms=5000), 1000),
        (Decision(False), 100),
        (Decision(False, max_age_ms=5), 5),
        (
            Decision(True, obligations=(window(until_ms=30),)),
            40,
        ),  # 30 from now, 40 from the asking
        (Decision(True, obligations=(window(start="11:00", end="12:00"),)), 100),  # outside: a deny
    ],
)
def test_no_permit_outlives_its_lifetime_or_its_window(decision: Decision, life: int):
    v = Place().shared(decision)
    assert v.expires_ns == (100 + life) * MS
    assert (v.number, v.boot, v.revision) == (10, 5, 3)


def test_a_lifetime_of_0_is_not_to_be_kept():
    v = Place().shared(Decision(True, max_age_ms=0))
    assert (v.permit, v.expires_ns) == (True, 0)


def test_outside_its_window_a_permit_is_a_deny_that_says_so_and_inside_it_stands():
    place = Place()
    closed = place.shared(Decision(True, obligations=(window(start="13:00", end="14:00"),)))
    assert (closed.permit, closed.fault, closed.reason) == (False, 0, "outside the window of `w`")
    assert place.shared(Decision(True, obligations=(window(start="11:00", end="13:00"),))).permit
    assert not place.shared(Decision(True, obligations=(window(until_ms=30),)), wall=NOON + 30).permit
    assert place.shared(Decision(True, obligations=(window(until_ms=30),)), wall=NOON + 29).permit


def test_a_permit_whose_lifetime_ended_on_the_way_has_outlived_and_a_deny_never_does():
    flight = Place().flight
    assert not outlived(flight, Decision(True, max_age_ms=10), TIMES, 109 * MS)
    assert outlived(flight, Decision(True, max_age_ms=10), TIMES, 110 * MS)
    assert outlived(flight, Decision(True), TIMES, 1100 * MS)
    assert not outlived(flight, Decision(True, max_age_ms=0), TIMES, 1100 * MS)
    assert not outlived(flight, Decision(False, max_age_ms=10), TIMES, 1100 * MS)


def test_decisions_with_single_use_obligations_are_never_kept():
    place = Place()
    for obligation in (RATE, NOTIFY, Obligation("a", "approve", {}), Obligation("e", "end-session", {})):
        decision = Decision(True, obligations=(REDACT, obligation))
        assert single_use(decision)
        assert place.once(decision).expires_ns == 0
    assert not single_use(Decision(True, obligations=(REDACT, window(until_ms=30))))
    assert place.shared(Decision(True, obligations=(REDACT,))).expires_ns > 0


def test_a_rate_is_taken_once_for_each_request_and_over_it_is_a_deny():
    place, decision = Place(), Decision(True, obligations=(RATE,))
    assert [place.once(decision).permit for _ in range(4)] == [True, True, False, False]
    over = place.once(decision)
    assert (over.fault, over.reason) == (0, "over the rate of `r`")
    assert place.once(decision, now=2000 * MS).permit


@pytest.mark.parametrize(
    "bad",
    [
        Obligation("r", "rate", {"count": 0, "per": "1s"}),
        Obligation("r", "rate", {"count": "2", "per": "1s"}),
        Obligation("r", "rate", {}),
        Obligation("r", "rate", {"count": 2, "per": "1s", "more": 1}),
    ],
)
def test_a_malformed_rate_denies_and_takes_no_place(bad: Obligation):
    place = Place()
    v = place.once(Decision(True, obligations=(bad,)))
    assert (v.permit, v.fault) == (False, 9)
    assert len(place.settlement._rates) == 0
    assert place.once(Decision(True, obligations=(RATE,))).permit
    assert len(place.settlement._rates) == 1


@pytest.mark.parametrize("bad", [FOREIGN, Obligation("m", "mask", {}), Obligation("a", "approve", {})])
def test_an_unknown_obligation_denies_and_those_that_are_understood_still_run(bad: Obligation):
    place = Place()
    v = place.once(Decision(True, obligations=(NOTIFY, RATE, bad)))
    assert (v.permit, v.fault) == (False, 9)
    assert place.sent == [(1, "a", "n")]
    assert len(place.settlement._rates) == 1
    assert place.once(Decision(True, obligations=(NOTIFY, RATE))).permit
    assert len(place.sent) == 2


def test_those_understood_run_on_a_deny_too_and_it_stays_a_plain_deny():
    place = Place()
    v = place.once(Decision(False, reason="no", obligations=(NOTIFY, FOREIGN)))
    assert (v.permit, v.fault, v.reason, place.sent) == (False, 0, "no", [(1, "a", "n")])


@pytest.mark.parametrize("error", [ObligationFault("n", "full"), OSError("full"), RuntimeError(), KeyError("x")])
def test_whatever_a_notifier_raises_denies(error: Exception):
    place = Place()

    def fails(*args: Any) -> None:
        raise error

    place.settlement._notify = fails
    v = place.once(Decision(True, obligations=(NOTIFY,)))
    assert (v.permit, v.fault) == (False, 9)
    place.settlement._notify = place.send
    assert place.once(Decision(True, obligations=(NOTIFY,))).permit


def test_a_notice_that_has_no_place_to_go_denies_and_says_what_to_set():
    v = Place(notify=False).once(Decision(True, obligations=(NOTIFY,)))
    assert (v.permit, v.fault) == (False, 9)
    assert "notify.file" in v.error
    assert Place(notify=False).once(Decision(True, obligations=(RATE,))).permit


@pytest.mark.parametrize(
    "change",
    [
        {"permit": 1},
        {"permit": "true"},
        {"permit": None},
        {"reason": None},
        {"policies": ["p"]},
        {"policies": (1,)},
        {"obligations": None},
        {"obligations": [REDACT]},
        {"obligations": (("o", "redact", {}),)},
        {"max_age_ms": "5"},
        {"max_age_ms": -1},
        {"fault": "down"},
        {"fault": "\ud800"},
    ],
)
def test_a_decision_of_other_types_is_a_fault(change: dict[str, Any]):
    good = Decision(True, "", ("p",), "r", (REDACT,), 5)
    assert usable(good) is good
    bad = usable(msgspec.structs.replace(good, **change))
    assert isinstance(bad, PdpFault)
    verdict, encoded = Place().settlement.refusal(bad)
    assert (verdict.permit, verdict.fault) == (False, 8)
    assert encoded


@pytest.mark.parametrize("nothing", [None, True, {"permit": True}, "permit", Exception()])
def test_what_is_no_decision_at_all_is_a_fault(nothing: object):
    assert isinstance(usable(nothing), PdpFault)
    assert not isinstance(usable(Decision(True)), Fault)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_text_that_cannot_be_written_is_a_fault_and_no_crash(text: str):
    place = Place()
    for decision in (Decision(True, reason=text), Decision(False, policies=(text,))):
        v, encoded = place.settlement.shared(place.flight, decision, 0, 0)
        assert (v.permit, v.fault) == (False, 8)
        assert encoded
    assert place.shared(Decision(True, reason="é")).permit


def test_a_deny_with_properties_that_no_wire_carries_is_no_crash():
    place = Place()
    odd = Obligation("o", "redact", {"fields": {1, 2}})
    assert not place.shared(Decision(False, obligations=(odd,)))
    assert not place.shared(Decision(True, obligations=(odd,)))
    assert place.shared(Decision(True, obligations=(REDACT,))).permit


def test_faults_are_counted_by_code():
    place = Place()
    place.settlement.refusal(PdpFault("", "down"))
    place.shared(Decision(True, obligations=(FOREIGN,)))
    place.shared(Decision(False, obligations=(FOREIGN,)))
    assert place.settlement.faults == {8: 1, 9: 1}


# ---- previews ----


def told(decision: Decision) -> dict[str, Any]:
    """A decision as a PDP's explanation tells it."""
    return {
        "permit": decision.permit,
        "fault": decision.fault,
        "reason": decision.reason,
        "obligations": [{"id": o.id, "type": o.type, "properties": o.properties} for o in decision.obligations],
        "lifetime": {"ms": decision.max_age_ms, "why": "the PDP"},
    }


APPROVE = Obligation("a", "approve", {})


@pytest.mark.parametrize("notify", [True, False])
@pytest.mark.parametrize("max_age_ms", [None, 0, 20, 5000])
@pytest.mark.parametrize("permit", [True, False])
@pytest.mark.parametrize(
    "obligations",
    [
        (), (REDACT,), (RATE,), (NOTIFY,), (FOREIGN,), (APPROVE,), (REDACT, NOTIFY, FOREIGN),
        (Obligation("r", "rate", {}),), (Obligation("o", "redact", {"fields": {1}}),),
        (window(until_ms=30),), (window(start="13:00", end="14:00"),), (window(until_ms=30), RATE),
    ],
)  # fmt: skip
def test_a_preview_is_what_would_be_enforced(notify: bool, max_age_ms: int | None, permit: bool, obligations: Any):
    decision = Decision(permit, reason="why", obligations=obligations, max_age_ms=max_age_ms)
    place = Place(notify)
    preview = place.settlement.preview(msgspec.structs.replace(place.flight, asked_ms=NOON), told(decision))
    enforced = place.once(decision, now=place.flight.asked_ns)
    assert (preview["verdict"]["permit"], preview["verdict"]["error"]) == (enforced.permit, enforced.error)
    assert preview["verdict"]["reason"] == enforced.reason
    life_ms = max(0, enforced.expires_ns - place.flight.asked_ns) // MS
    assert preview["lifetime"]["ms"] == life_ms


def test_a_preview_takes_no_rate_sends_nothing_counts_nothing_and_uses_no_id():
    place = Place()
    for obligations in ((RATE, NOTIFY), (NOTIFY, FOREIGN)):
        for _ in range(5):
            place.settlement.preview(place.flight, told(Decision(True, obligations=obligations)))
    assert (place.sent, len(place.settlement._rates), place.settlement.faults) == ([], 0, {})
    assert place.once(Decision(True, obligations=(RATE, NOTIFY))).number == 10
    assert (place.sent, len(place.settlement._rates)) == ([(1, "a", "n")], 1)


@pytest.mark.parametrize(
    ("decision", "ms", "why"),
    [
        (Decision(True), 1000, "`cache.permit`"),
        (Decision(True, max_age_ms=20), 20, "the PDP"),
        (Decision(True, max_age_ms=0), 0, "the PDP"),
        (Decision(True, max_age_ms=20, obligations=(window(until_ms=10),)), 10, "the window of `w`"),
        (Decision(True, max_age_ms=20, obligations=(window(until_ms=30),)), 20, "the PDP"),
        (Decision(True, obligations=(window(start="13:00", end="14:00"),)), 100, "`cache.deny`"),
        (Decision(True, obligations=(window(until_ms=30), RATE)), 0, "`rate`"),
        (Decision(True, obligations=(APPROVE,)), 0, "fault"),
        (Decision(False), 100, "`cache.deny`"),
        (Decision(False, fault="down"), 0, "fault"),
    ],
)
def test_a_preview_says_what_ends_the_lifetime(decision: Decision, ms: int, why: str):
    place = Place()
    preview = place.settlement.preview(msgspec.structs.replace(place.flight, asked_ms=NOON), told(decision))
    assert preview["lifetime"]["ms"] == ms
    assert why in preview["lifetime"]["why"]


@pytest.mark.parametrize("odd", [{"permit": 1}, {"obligations": [{}]}, {"lifetime": {"ms": -1}}, {"reason": "\ud800"}])
def test_an_explanation_that_nobody_can_enforce_is_shown_as_a_fault(odd: dict[str, Any]):
    place = Place()
    good = told(Decision(True))
    assert place.settlement.preview(place.flight, good)["verdict"]["permit"]
    assert place.settlement.preview(place.flight, good | odd)["verdict"]["fault"] == "pdp"
