"""Verdicts: the one permit, obligations, and the body on the wire."""

import pytest

from pepcore.core.cache import Stored
from pepcore.core.verdict import Verdict, body, deny, payload, read, settle, stored_body
from pepcore.errors import FAULTS, BadRequest, Denied, Fault, PdpFault
from pepcore.model import Obligation
from tests.vectors.frames import BOOT, DECISION, REVISION, pack, text, verdict

REDACT = Obligation("o1", "redact", {"fields": ["/a"]})
MASK = Obligation("o2", "mask", {"fields": ["/b"], "style": "fixed"})
OWN = Obligation("o3", "my-audit", {"note": 1})
BROKEN = Obligation("o4", "redact", {"fields": "not a list"})
WINDOW = Obligation("o5", "window", {"not_after": "2099-01-01T00:00:00Z"})
HANDLES = ("redact", "mask")


def test_a_verdict_made_by_itself_is_a_deny():
    v = Verdict()
    assert (bool(v), v.permit, v.fault, v.error, v.reason, v.policies, v.obligations) == (
        False,
        False,
        0,
        "",
        "",
        (),
        (),
    )
    assert (v.id, v.expires, v.cached) == ("0" * 16, 0.0, False)


@pytest.mark.parametrize("decision", [1, "true", "True", None, [True], 1.0, object(), b"\x01"])
def test_a_decision_that_is_no_boolean_is_a_fault(decision: object):
    v = settle(decision, "", (), (), ())
    assert (v.permit, v.fault, v.expires_ns) == (False, 8, 0)
    assert settle(True, "", (), (), ()).permit
    assert (settle(False, "", (), (), ()).permit, settle(False, "", (), (), ()).fault) == (False, 0)


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_every_fault_denies(code: int):
    v = deny(FAULTS[code]("place", "is broken"), number=3, boot=4, revision=5)
    assert (bool(v), v.fault, v.expires_ns, v.number, v.boot, v.revision) == (False, code, 0, 3, 4, 5)
    assert v.error.endswith("place: is broken")
    again = read(body(v, payload(v), 0), (), 0)
    assert (bool(again), again.fault, again.error) == (False, code, v.error)
    with pytest.raises(Denied):
        v.apply({})


def test_a_field_that_is_called_as_its_fault_is_named_once():
    assert deny(FAULTS[7]("deadline", "no answer came in time")).error == "deadline: no answer came in time"
    assert deny(FAULTS[7]("point", "is slow")).error == "deadline: point: is slow"
    assert deny(FAULTS[7]("", "it is late")).error == "deadline: it is late"
    assert settle(True, "", (), (), ()).error == ""


def test_a_fault_that_is_no_text_is_still_a_deny():
    v = deny(PdpFault("pdp", "lone \ud800 surrogate"))
    assert read(body(v, payload(v), 0), (), 0).fault == 8


@pytest.mark.parametrize("bad", [OWN, BROKEN, Obligation("o6", "approve", {}), Obligation("", "redact", {})])
def test_an_unknown_or_malformed_obligation_denies_and_those_that_are_understood_still_run(bad: Obligation):
    v = settle(True, "", (), (REDACT, bad), HANDLES, expires_ns=9)
    assert (v.permit, v.fault, v.expires_ns) == (False, 9, 0)
    assert v.understood == (REDACT,)
    with pytest.raises(Denied):
        v.apply({"a": 1})
    good = settle(True, "", (), (REDACT, MASK), HANDLES)
    assert good.apply({"a": 1, "b": "x", "c": 2}) == {"a": None, "b": "****", "c": 2}


def test_an_obligation_that_fails_on_the_payload_denies_and_its_neighbour_permits():
    rows = Obligation("o7", "limit", {"rows": 1})
    v = settle(True, "", (), (rows,), ("limit",), number=6)
    with pytest.raises(Denied) as error:
        v.apply({"a": 1})
    assert (error.value.verdict.fault, error.value.verdict.number, error.value.verdict.permit) == (9, 6, False)
    assert settle(True, "", (), (), ()).apply({"a": 1}) == {"a": 1}


def test_a_deny_with_obligations_that_nobody_handles_is_a_plain_deny():
    v = settle(False, "no", ("p",), (REDACT, OWN, BROKEN), HANDLES, expires_ns=9)
    assert (v.permit, v.fault, v.error, v.reason, v.expires_ns) == (False, 0, "", "no", 9)
    assert v.understood == (REDACT,)


def test_those_understood_run_on_a_deny_and_nothing_of_the_payload_leaves():
    v = settle(False, "no", (), (REDACT,), HANDLES)
    given = {"a": "secret"}
    with pytest.raises(Denied) as error:
        v.apply(given)
    assert error.value.verdict is v
    assert error.value.args == ("no",)
    assert given == {"a": "secret"}
    assert error.value.__cause__ is None
    with pytest.raises(Denied) as error:  # one that cannot even run there is still this deny
        settle(False, "no", (), (Obligation("o7", "limit", {"rows": 1}),), ("limit",)).apply({"a": "secret"})
    assert error.value.verdict.fault == 0
    assert isinstance(error.value.__cause__, Fault)


def test_apply_without_obligations_gives_the_payload_itself():
    payload_ = {"a": [1]}
    assert settle(True, "", (), (), ()).apply(payload_) is payload_
    assert settle(True, "", (), (WINDOW,), ()).apply(payload_) == payload_


def test_a_body_says_what_the_verdict_is_and_how_long_it_lives():
    v = settle(
        True, "yes", ("p",), (MASK,), HANDLES, number=DECISION, boot=BOOT, revision=REVISION, expires_ns=9_999_999
    )
    data = body(v, payload(v), 1_000_000)
    content = {
        "obligations": [["o2", "mask", {"fields": ["/b"], "style": "fixed"}]],
        "policies": ["p"],
        "reason": "yes",
    }
    assert data == verdict(1, content, lifetime=8)
    assert body(v, payload(v), 1_000_000, 3) == verdict(1, content, lifetime=3)
    assert body(v, payload(v), 1_000_000, 100) == data
    assert body(v, payload(v), 9_999_999)[4:8] == bytes(4)
    assert body(v, payload(v), 0, 0)[4:8] == bytes(4)


def test_nothing_to_say_is_no_payload():
    v = settle(True, "", (), (), ())
    assert payload(v) == b""
    assert len(body(v, b"", 0)) == 40


@pytest.mark.parametrize(
    ("expires", "limit", "left"), [(5_000_000, -1, 5), (5_000_000, 2, 2), (5_000_000, 0, 0), (0, -1, 0)]
)
def test_a_stored_body_tells_no_more_than_is_left(expires: int, limit: int, left: int):
    data = stored_body(Stored(True, 3, expires, 2, b"", b"", False), now=0 if expires else 10, boot=1, limit_ms=limit)
    assert int.from_bytes(data[4:8], "little") == left
    assert data[:4] == b"\x01\x00\x01\x00"


def test_a_lifetime_of_weeks_is_read_as_it_was_written():
    v = read(verdict(1, lifetime=0xFFFFFFFF), (), 7)
    assert v.expires_ns == 7 + 0xFFFFFFFF * 1_000_000
    assert read(verdict(1), (), 7).expires_ns == 0
    assert v.expires == v.expires_ns / 1e9


@pytest.mark.parametrize(
    "data",
    [
        verdict(1, {"reason": ""}),
        verdict(1, {"policies": []}),
        verdict(1, {"obligations": [["o", "redact", {"n": 1}, 2]]}),
        verdict(1, {"reason": 1}),
        verdict(1, pack({"reason": "a"}) + pack({})),
        verdict(1, b"\x81" + text(b"policies") + b"\xdc\x00\x01" + text(b"p")),
        verdict(1, lifetime=5, keep=6),
        verdict(0, fault=14),
        verdict(0, fault=255),
        verdict(1, fault=1),
        verdict(3),
        verdict(1, flags=3),
    ],
)
def test_a_body_in_any_other_form_is_refused(data: bytes):
    with pytest.raises(BadRequest):
        read(data, HANDLES, 0)
    assert read(verdict(1, {"reason": "a"}, stamps=[65535]), HANDLES, 0).permit


def test_every_mutation_of_a_permit_is_refused_or_says_what_its_bytes_say():
    whole = verdict(1, {"obligations": [["o1", "redact", {"fields": ["/a"]}]], "reason": "r"}, lifetime=5, stamps=[1])
    for i in range(len(whole)):
        for value in range(256):
            data = whole[:i] + bytes([value]) + whole[i + 1 :]
            try:
                v = read(data, ("redact",), 0)
            except BadRequest:
                continue
            if v.permit:
                assert data[0] == 1
                assert data[1] == 0
                assert [o.type for o in v.obligations] == ["redact"]
    for i in range(len(whole)):
        with pytest.raises(BadRequest):
            read(whole[:i], ("redact",), 0)


def test_a_client_checks_itself_what_it_handles():
    data = verdict(1, {"obligations": [["o1", "redact", {"fields": ["/a"]}]]})
    assert read(data, ("redact",), 0).permit
    assert (read(data, (), 0).permit, read(data, (), 0).fault) == (False, 9)


def test_a_verdict_shows_itself():
    assert repr(settle(True, "yes", (), (), (), number=10)) == "<Verdict permit 000000000000000a yes>"
    assert repr(settle(False, "", ("p", "q"), (), ())) == f"<Verdict deny {'0' * 16} p, q>"


def test_what_a_caller_does_to_the_obligations_of_a_verdict_changes_no_verdict():
    shared = (Obligation("o", "redact", {"fields": ["/a"]}),)
    verdict = settle(True, "", (), shared, {"redact"})
    for seen in (verdict.obligations, verdict.understood):
        assert seen == shared
        seen[0].properties["fields"].append("/b")
        seen[0].properties.clear()
    assert verdict.obligations == verdict.understood == shared == (Obligation("o", "redact", {"fields": ["/a"]}),)
    assert verdict.apply({"a": 1, "b": 2}) == {"a": None, "b": 2}
