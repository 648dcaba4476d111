"""What a mode makes of a verdict: what it opens, what it never opens, and for how long a pass is kept."""

from __future__ import annotations

import itertools

import pytest

from pepcore.blocks import Block
from pepcore.core.compose import compose
from pepcore.core.page import Page
from pepcore.errors import FAULTS, DeadlinePassed, Fault
from pepcore.flight import Batch, Flight, Partition, Passed, Said, Times
from pepcore.model import Decision, Obligation
from pepcore.modes import OPENED, Modes
from pepcore.revocation import Revocation
from pepcore.settlement import Settlement
from pepcore.wire import Semantic

MS = 10**6
KEY = compose("U::a", "read", "D::1")
REDACT = Obligation("o", "redact", {"fields": ["/a"]})
NOTIFY = Obligation("n", "notify", {"to": "desk", "body": "read"})


class Place:
    def __init__(self, mode: str) -> None:
        self.sent: list[str] = []
        self.page = Page(5)
        self.revocation = Revocation(self.page)
        self.settlement = Settlement(
            self.page, Times(permit_ms=1000, deny_ms=100), itertools.count(10), lambda p, q, o: self.sent.append(o.id)
        )
        self.modes = Modes(self.settlement, self.revocation)
        self.partition = Partition(1, 1, "p", frozenset({"redact"}), keeps=False, mode=mode)
        self.flight = Flight(self.partition, KEY, {}, asked_ns=100 * MS, revision=3)

    def block(self) -> None:
        self.revocation.block(Block("U::a", "stolen", 0, 0, "uid 0"))


@pytest.mark.parametrize(
    ("decision", "life"),
    [
        (Decision(True, max_age_ms=20), 20), (Decision(True), 1000), (Decision(False), 0),
        (Decision(True, "", (), "", (NOTIFY,)), 0),
    ],
    ids=str,
)  # fmt: skip
def test_a_pass_is_kept_no_longer_than_the_real_decision_and_a_would_be_deny_not_at_all(decision: Decision, life: int):
    place = Place("shadow")
    told = place.modes.once(place.flight, decision, 110 * MS, 0)
    assert (told.verdict.permit, told.verdict.expires_ns) == (True, (100 + life) * MS if life else 0)
    assert told.verdict.kept_ns == 0
    real = Place("enforce").modes.once(place.flight, decision, 110 * MS, 0)
    assert told.verdict.expires_ns <= real.verdict.expires_ns
    assert told.verdict.number == 10


def test_obligations_are_in_the_record_and_not_demanded_and_no_notice_is_sent():
    decision = Decision(True, obligations=(REDACT, NOTIFY))
    for mode, sent in (("shadow", []), ("enforce", ["n"])):
        place = Place(mode)
        told = place.modes.once(place.flight, decision, 110 * MS, 0)
        assert told.verdict.permit
        assert place.sent == sent
        assert len(told.verdict.obligations) == (0 if mode == "shadow" else 2)
        body = told.body(110 * MS)
        real = body.real if isinstance(body, Passed) else body
        assert b"redact" in real
        assert (b"redact" in body) == (mode == "enforce")


@pytest.mark.parametrize("code", FAULTS)
def test_only_faults_of_the_decision_are_opened_and_in_no_mode_but_the_named(code: int):
    fault = FAULTS[code]("x", "y")
    for mode in ("enforce", "shadow", "off"):
        place = Place(mode)
        told = place.modes.refusal(place.partition, KEY, fault, 0, 0)
        assert told.verdict.permit == (mode != "enforce" and code in OPENED)
        assert told.verdict.expires_ns == 0
        if told.verdict.permit and mode == "shadow":
            assert (told.real[0], told.real[1]) == (0, code)
    assert {6, 7, 8, 9, 11, 12} == OPENED  # not: who may not ask (4), a record that cannot be (5), an ended token (13)


@pytest.mark.parametrize("mode", ["enforce", "shadow", "off"])
def test_whoever_is_blocked_is_denied_also_where_a_fault_would_pass(mode: str):
    place = Place(mode)
    fault: Fault = DeadlinePassed("deadline", "late")
    assert place.modes.refusal(place.partition, KEY, fault, 0, 0).verdict.permit == (mode != "enforce")
    place.block()
    assert not place.modes.refusal(place.partition, KEY, fault, 0, 0).verdict.permit
    known = place.modes.unasked(place.partition, KEY, 0)
    assert known is not None
    assert (known[0].mode, known[1].permit) == ("enforce", False)
    assert place.modes.refusal(place.partition, compose("U::b", "read", "D::1"), fault, 0, 0).verdict.permit == (
        mode != "enforce"
    )


def test_an_item_that_failed_in_shadow_is_settled_when_its_batch_is_released_and_not_before():
    for mode in ("enforce", "shadow"):
        place = Place(mode)
        batch = Batch(place.partition, 0, 1, 1, Semantic.execute_all, [KEY], 0, -1, [None])
        known = place.modes.of_item(batch, 0, DeadlinePassed("deadline", "late"), 0, 0)
        assert isinstance(known, Said if mode == "shadow" else bytes)
