"""A block that comes while a question is on its way to the PDP: what the races found, one step at a time."""

from __future__ import annotations

from pepclient.questions import canonical

from pepcore.blocks import Block
from pepcore.core.cache import Cache
from pepcore.core.page import Page
from pepcore.enforcer import Enforcer
from pepcore.flight import Partition
from pepcore.model import Decision

ANN = canonical("User::ann", "read", "Document::1", None, ())
BOB = canonical("User::bob", "read", "Document::1", None, ())
WHO = Partition(1, 1)
BLOCK = Block("User::ann", "gone", 0, 0, "uid 0")


def enforcer() -> Enforcer:
    return Enforcer(Cache(slots=64, slab=1 << 16, seed=1), Page(1))


def answers(e: Enforcer) -> list[tuple[int, bool]]:
    """Request and permit of what is to be sent."""
    return [(r.request, bool(r.verdict)) for r in e.take_replies()]


def test_a_block_denies_what_waits_to_be_asked_already() -> None:
    e = enforcer()
    e.ask(WHO, "peer", 1, 1, ANN, 0, 0)
    e.ask(WHO, "peer", 2, 1, BOB, 0, 0)
    e.revocation.block(BLOCK)  # acknowledged from here on
    while (flight := e.next_flight(1, 1)) is not None:
        e.answer(flight, Decision(True), 2, 2)
    assert sorted(answers(e)) == [(1, False), (2, True)]
    kept = e.cache.get(WHO.number, ANN, 3, e.page)
    assert kept is None or not kept.permit, "and everybody who asks from now on would be permitted by it"


def test_a_block_that_crosses_an_answer_denies_those_who_wait_and_breaks_nothing() -> None:
    e = enforcer()
    e.ask(WHO, "peer", 1, 1, ANN, 0, 0)
    flight = e.next_flight(0, 0)
    assert flight is not None
    e.revocation.block(BLOCK)
    e.answer(flight, Decision(True), 1, 1)
    assert answers(e) == [(1, False)]
