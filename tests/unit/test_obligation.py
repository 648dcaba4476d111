"""Several obligations together: what adds up, what clashes, what still runs; never by their order."""

import hmac

import pytest

from pepcore.core.obligation import MAX_OBLIGATIONS, PAYLOAD, Headers, compile, understood, unhandled
from pepcore.core.program import Program
from pepcore.model import Obligation
from tests.unit.obligation_cases import faults, fields, program

FIELDS = Headers([("Via", "a"), ("X-User", "eve"), ("x_user", "eve"), ("X.User", "eve"), ("via", "b")])
GOOD = {
    "redact": fields("/a"),
    "drop": fields("/a"),
    "keep": fields("/a"),
    "mask": {**fields("/a"), "style": "fixed"},
    "limit": {"rows": 1},
    "set-header": {"name": "a", "value": "b"},
    "remove-header": {"name": "a"},
}


def test_drop_is_stronger_than_redact_and_redact_than_mask():
    mask = ("mask", {**fields("/a", "/b", "/c"), "style": "fixed"})
    run = program(mask, ("redact", fields("/a", "/b")), ("drop", fields("/a"))).run
    assert run({"a": "1", "b": "2", "c": "3"}) == {"b": None, "c": "****"}


def test_positions_are_those_of_the_payload_as_it_came():
    run = program(("drop", fields("/0")), ("redact", fields("/1")), ("limit", {"rows": 3})).run
    assert run(["a", "b", "c", "d"]) == [None, "c"]


def test_two_keeps_leave_what_both_keep_and_two_limits_the_smaller():
    run = program(
        ("keep", fields("/*/a", "/*/b")),
        ("keep", fields("/*/b", "/*/c")),
        ("limit", {"rows": 5}),
        ("limit", {"rows": 1}),
    ).run
    assert run([{"a": 1, "b": 2, "c": 3}, {}]) == [{"b": 2}]


def test_nothing_below_a_redacted_place_is_looked_at():
    assert program(("redact", fields("/a")), ("mask", {**fields("/a/b"), "style": "fixed"})).run({"a": 5}) == {
        "a": None
    }
    faults("on the way", program(("mask", {**fields("/a/b"), "style": "fixed"})).run, {"a": 5})


CLASHES = [
    (
        ("set-header", {"name": "X-A", "value": "1"}),
        ("set-header", {"name": "x_a", "value": "2"}),
        "another value",
    ),
    (
        ("set-header", {"name": "X-A", "value": "1"}),
        ("remove-header", {"name": "x.a"}),
        "which another obligation removes",
    ),
    (
        ("mask", {**fields("/*/a"), "style": "fixed"}),
        ("mask", {**fields("/b/*"), "style": "last-4"}),
        "masks in another way",
    ),
    (
        ("mask", {**fields("/a"), "style": "hash", "salt": "1"}),
        ("mask", {**fields("/a"), "style": "hash", "salt": "2"}),
        "masks in another way",
    ),
]


@pytest.mark.parametrize(("one", "other", "reason"), CLASHES)
def test_two_that_cannot_both_hold_clash_in_either_order_and_neither_runs(one, other, reason):
    faults(reason, program, one, other)
    faults(reason, program, other, one)
    both = [Obligation("1", *one), Obligation("2", *other), Obligation("3", "limit", {"rows": 1})]
    assert [each.id for each in understood(both, PAYLOAD)] == ["3"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("set-header", {"name": "X-A", "value": "1"}), ("set-header", {"name": "x_a", "value": "1"})),
        (("set-header", {"name": "X-A", "value": "1"}), ("remove-header", {"name": "x.b"})),
        (("mask", {**fields("/*/a"), "style": "fixed"}), ("mask", {**fields("/*/b"), "style": "last-4"})),
        (("mask", {**fields("/a"), "style": "fixed"}), ("mask", {**fields("/a/*"), "style": "last-4"})),
        (("mask", {**fields("/*"), "style": "fixed"}), ("mask", {**fields("/a"), "style": "fixed"})),
    ],
)
def test_the_neighbours_of_a_clash_stand(one, other):
    assert program(one, other).run(FIELDS) == program(other, one).run(FIELDS)


def test_one_id_with_two_meanings_is_a_clash_and_one_said_twice_is_one():
    twice = [Obligation("1", "limit", {"rows": 1}), Obligation("1", "limit", {"rows": 1})]
    assert compile(twice).run([1, 2]) == [1]
    assert len(understood(twice, PAYLOAD)) == 1
    faults("two different", compile, [*twice, Obligation("1", "limit", {"rows": 2})])
    faults("two different", compile, [*twice, Obligation("1", "notify", {"to": "a", "body": "b"})])


def test_the_same_obligations_on_the_same_payload_give_the_same_bytes():
    obligations = [
        Obligation("1", "redact", fields("/*/a")),
        Obligation("2", "mask", {**fields("/*/b"), "style": "hash", "salt": "s"}),
        Obligation("3", "drop", fields("/*/c")),
        Obligation("4", "limit", {"rows": 2}),
    ]
    texts = [
        b'[{"b":"x","a":1,"c":2,"d":1.50},{"\\u00e9":1e2},3]',
        '[ {"d": 15e-1, "c": 2, "b": "x", "a": 1},\n {"é": 100.0}, 3 ]'.encode(),
    ]
    hashed = hmac.new(b"s", b"x", "sha256").hexdigest()[:32]
    wanted = f'[{{"a":null,"b":"sha256:{hashed}","d":1.5}},{{"é":100.0}}]'.encode()
    for order in (obligations, obligations[::-1]):
        for data in texts:
            assert compile(order).run_json(data) == wanted
    assert compile([]).run_json(b' { "b" : 1 , "a" : [ ] } ') == b'{"a":[],"b":1}'


def test_spelling_of_a_header_set_twice_does_not_depend_on_the_order():
    one, other = ("set-header", {"name": "x-a", "value": "1"}), ("set-header", {"name": "X_A", "value": "1"})
    assert program(one, other).run(Headers([])).items == program(other, one).run(Headers([])).items == (("X_A", "1"),)


# ---- the set ----------------------------------------------------------------------------------------------

LIMIT = Obligation("1", "limit", {"rows": 1})


def test_bounds_hold_for_the_whole_answer():
    many = [Obligation(str(i), "remove-header", {"name": f"h{i}"}) for i in range(MAX_OBLIGATIONS + 1)]
    compile(many[:-1])
    faults("at most 64", compile, many)
    assert understood(many, PAYLOAD) == ()
    assert len(understood(many[:-1], PAYLOAD)) == MAX_OBLIGATIONS
    half = [
        Obligation("a", "redact", fields(*[f"/{i}" for i in range(128)])),
        Obligation("b", "drop", fields(*[f"/{i}" for i in range(128)])),
    ]
    compile(half)
    one_more = [*half, Obligation("c", "keep", fields("/x")), LIMIT]
    faults("257 fields", compile, one_more)
    assert understood(one_more, PAYLOAD) == (LIMIT,)


def test_wildcards_that_multiply_are_refused_and_many_plain_paths_are_not():
    bits = [f"/{'/'.join('*' if i != n else 'a' for i in range(16))}" for n in range(16)]
    faults("states", compile, [Obligation("a", "drop", fields(*bits))])
    assert understood([Obligation("a", "drop", fields(*bits)), LIMIT], PAYLOAD) == (LIMIT,)
    compile([Obligation("a", "drop", fields(*bits[:8]))])
    compile([Obligation("a", "drop", fields(*["/" + f"{n}/" * 15 + "x" for n in range(250)]))])


def test_a_program_is_only_made_by_compile_and_is_not_pickled():
    with pytest.raises(TypeError):
        Program()
    with pytest.raises(TypeError):
        compile([]).__reduce__()
    assert type(compile([])) is Program


def test_an_unknown_malformed_or_failed_obligation_denies_and_those_understood_still_run():
    notify = Obligation("n", "notify", {"to": "soc", "body": "denied"})
    header = Obligation("h", "set-header", {"name": "WWW-Authenticate", "value": "Bearer"})
    fine = [header, notify]
    handles = frozenset(("set-header",))
    assert unhandled(fine, handles) == ""
    for bad in (
        Obligation("u", "watermark", {}),
        Obligation("u", "redact", fields("/a")),
        Obligation("u", "set-header", {"name": "a"}),
        Obligation("u", "approve", {}),
        Obligation("u", "end-session", {"subject": "User::ada"}),
        Obligation("", "notify", {"to": "a", "body": "b"}),
        Obligation("u", "", {}),
        Obligation("u", "set-header", None),
        Obligation("u", "set-header", {"name": "a", "value": "\ud800"}),
        Obligation("\ud800", "set-header", {"name": "a", "value": "b"}),
    ):
        for those in ([bad, *fine], [*fine, bad]):
            assert unhandled(those, handles) != ""
            assert understood(those, handles) == tuple(fine)
    compile(understood(fine, handles)).run(Headers([]))
    failing = [*fine, Obligation("l", "limit", {"rows": 1})]
    both = compile(failing)
    faults("limit", both.run, {"no": "list"})
    assert both.run(Headers([])).items == (("WWW-Authenticate", "Bearer"),)


def test_a_type_stands_only_where_somebody_discharges_it():
    own = Obligation("o", "watermark", {"text": "x"})
    assert unhandled([own], {"watermark"}) == ""
    assert unhandled([own], set()) == "obligations.o: `watermark` is not among the types that this point handles"
    assert unhandled([Obligation("o", "watermark", {"x": object()})], {"watermark"}) != ""
    for kind, properties in (("window", {"not_after": 1}), ("rate", {"count": 1, "per": "1s"})):
        assert unhandled([Obligation("o", kind, properties)], set()) == ""
    for kind in PAYLOAD:
        good = GOOD[kind]
        assert unhandled([Obligation("o", kind, good)], {kind}) == ""
        assert "handles" in unhandled([Obligation("o", kind, good)], PAYLOAD - {kind})
    assert unhandled([Obligation("o", "approve", {})], {"approve"}) != ""
    assert unhandled([], set()) == ""


def test_an_error_text_stays_short_plain_and_on_one_line():
    reason = unhandled([Obligation("i\nd`" + "x" * 500, "t\r\n" + "é" * 500, {})], set())
    assert len(reason) < 220
    assert reason.isascii()
    assert reason.isprintable()
    assert reason.count("`") == 2
