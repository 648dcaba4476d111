"""What the record keeps of the texts of the PDP's faults."""

from __future__ import annotations

import pytest

import pepcore
from pepcore.audit.reasons import LEFT_OUT, raised, without_values

FORBIDS = """
@id("f1") forbid(principal, action == Action::"f1", resource) when { context.tok > 3 };
@id("f2") forbid(principal, action == Action::"f2", resource) when { decimal(context.tok).lessThan(decimal("1.0")) };
@id("f3") forbid(principal, action == Action::"f3", resource) when { ip(context.tok).isLoopback() };
@id("f4") forbid(principal, action == Action::"f4", resource) when { datetime(context.tok) > datetime("2024-01-01") };
@id("f5") forbid(principal, action == Action::"f5", resource) when { context.n + 1 > 3 };
@id("f6") forbid(principal, action == Action::"f6", resource) when { context.nothing > 3 };
@id("f7") forbid(principal, action == Action::"f7", resource) when { context.e.level > 3 };
@id("f8") forbid(principal, action == Action::"f8", resource) when { context.n * 4 > 3 };
@id("f9") forbid(principal, action == Action::"f9", resource) when { context.tok.contains(3) };
"""
SECRET, NUMBER = "SECRETVALUE9f3", 9223372036854775807
CONTEXT = {"tok": SECRET, "n": NUMBER, "e": {SECRET: 1}}


@pytest.mark.parametrize(
    ("action", "kept"),
    [
        ("f1", "type error: expected long, got string"),
        ("f2", "error while evaluating `decimal` extension function"),
        ("f3", "error while evaluating `ipaddr` extension function"),
        ("f4", "error while evaluating `datetime` extension function"),
        ("f5", "integer overflow"),
        ("f6", "record does not have the attribute `nothing`"),
        ("f7", "record does not have the attribute `level`"),
        ("f8", "integer overflow"),
        ("f9", "type error: expected set, got string"),
    ],
)
def test_of_what_the_engine_says_the_kind_is_kept_and_no_value(action: str, kept: str) -> None:
    pep = pepcore.embedded(FORBIDS)
    told = pep.check("User::ann", action, "Doc::1", CONTEXT)
    assert told.fault == pepcore.errors.PdpFault.code
    found = without_values(told.error)
    assert found.startswith(f"pdp: policy `{action}` (forbid) failed")
    assert found.endswith(kept)
    assert SECRET not in found
    assert str(NUMBER) not in found


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("no decision came", "no decision came"),
        ("pdp: the worker that evaluated this question ended", "pdp: the worker that evaluated this question ended"),
        ("this worker has no policies", "this worker has no policies"),
        (f"the PDP raised: ValueError('{SECRET}')", f"the PDP raised {LEFT_OUT}"),
        (f"properties: the engine refuses these as an entity: {SECRET}",
         f"properties: the engine refuses these as an entity {LEFT_OUT}"),
        (f"policy `p` (forbid) failed: something new about {SECRET}", f"policy `p` (forbid) failed {LEFT_OUT}"),
        (f"policy `p` (forbid) failed: `{SECRET}` does not have the attribute `x`",
         "policy `p` (forbid) failed: an entity does not have the attribute `x`"),
        (f"{SECRET}: 1", LEFT_OUT),
    ],
)  # fmt: skip
def test_a_text_that_is_not_known_ends_before_what_it_may_quote(text: str, kept: str) -> None:
    assert without_values(text) == kept


def test_of_what_a_notifier_raises_the_kind_is_kept() -> None:
    assert raised("obligation: n: `notify` failed: KeyError('SECRET')") == "obligation: n: `notify` failed: KeyError"
    assert raised("obligation: n: `notify` failed: <Refused SECRET>") == "obligation: n: `notify` failed: "
    assert raised("obligation: n: the notice cannot be written: no room") == (
        "obligation: n: the notice cannot be written: no room"
    )


def test_that_one_obligation_has_two_meanings_is_kept_since_policies_say_so() -> None:
    said = "pdp: the obligation id `o` has two meanings; give each its own id; policies `a`, `b`"
    assert without_values(said) == said
