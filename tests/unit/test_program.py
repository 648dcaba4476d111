"""Each payload obligation on each kind of payload: what exactly comes out, and what is impossible."""

import hashlib
import hmac
from datetime import date
from decimal import Decimal

import pytest

from pepcore.core.obligation import Headers, Rows
from tests.unit.obligation_cases import faults, fields, program

# ---- each type on JSON values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "properties", "payload", "wanted"),
    [
        ("redact", fields("/ssn"), {"ssn": "1", "a": 2}, {"ssn": None, "a": 2}),
        ("redact", fields("/a/b"), {"a": {"b": [1], "c": 1}}, {"a": {"b": None, "c": 1}}),
        ("redact", fields("/*/ssn"), [{"ssn": 1}, {"x": 1}], [{"ssn": None}, {"x": 1}]),
        ("redact", fields("/a/1"), {"a": [1, 2, 3]}, {"a": [1, None, 3]}),
        ("redact", fields(""), {"a": 1}, None),
        (
            "redact",
            fields("/a~1b", "/c~0d", "/"),
            {"a/b": 1, "c~d": 1, "": 1},
            {"a/b": None, "c~d": None, "": None},
        ),
        ("redact", fields("/~01"), {"~1": 1, "/": 2}, {"~1": None, "/": 2}),
        ("redact", fields("/none", "/a/7", "/n/x"), {"a": [1], "n": None}, {"a": [1], "n": None}),
        ("redact", fields("/*"), {"*": 1, "b": 2}, {"*": None, "b": None}),
        ("drop", fields("/a", "/b/0"), {"a": 1, "b": [1, 2], "c": 3}, {"b": [2], "c": 3}),
        ("drop", fields("/0", "/2"), [0, 1, 2, 3], [1, 3]),
        ("drop", fields("/*/a"), {"x": {"a": 1}, "y": {"b": 1}}, {"x": {}, "y": {"b": 1}}),
        ("keep", fields("/a/b"), {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1}}),
        ("keep", fields("/*/id", "/*/n/0"), [{"id": 1, "n": [1, 2], "x": 0}], [{"id": 1, "n": [1]}]),
        ("keep", fields("/a/b", "/a"), {"a": {"c": 2}, "d": 1}, {"a": {"c": 2}}),
        ("keep", fields("/a/b"), {"a": None, "b": 1}, {"a": None}),
        ("keep", fields("/none"), {"a": 1}, {}),
        ("mask", {**fields("/a"), "style": "fixed"}, {"a": "secret"}, {"a": "****"}),
        ("mask", {**fields("/a"), "style": "fixed"}, {"a": None}, {"a": None}),
        ("mask", {**fields(""), "style": "last-4"}, "4111111111111111", "****1111"),
        (
            "mask",
            {**fields("/*"), "style": "last-4"},
            ["", "1234", "1234567", "12345678"],
            ["****"] * 3 + ["****5678"],
        ),
        (
            "mask",
            {**fields("/*"), "style": "last-4"},
            [12345678, -1234567, 1234567],
            ["****5678", "****4567", "****"],
        ),
        ("limit", {"rows": 2}, [1, 2, 3], [1, 2]),
        ("limit", {"rows": 0}, [1, 2, 3], []),
        ("limit", {"rows": 9}, [1, 2, 3], [1, 2, 3]),
    ],
)
def test_each_type_on_a_json_value_gives_exactly(kind, properties, payload, wanted):
    before = repr(payload)
    assert program((kind, properties)).run(payload) == wanted
    assert repr(payload) == before


def test_a_hash_is_keyed_by_the_salt_and_a_number_is_hashed_as_its_text():
    wanted = "sha256:" + hmac.new("sält".encode(), "é1".encode(), hashlib.sha256).hexdigest()[:32]
    run = program(("mask", {**fields("/*"), "style": "hash", "salt": "sält"})).run
    assert run(["é1", 7, "7"])[0] == wanted
    assert run([7]) == run(["7"])
    assert run(["é1"]) != program(("mask", {**fields("/*"), "style": "hash", "salt": "other"})).run(["é1"])


# ---- rows and headers -------------------------------------------------------------------------------------

TABLE = Rows(["id", "ssn", "doc"], [(1, "123-45-6789", {"a": 1, "b": 2}), [2, None, None], (3, "x", {})])


@pytest.mark.parametrize(
    ("kind", "properties", "columns", "rows"),
    [
        (
            "redact",
            fields("/ssn", "/doc/a"),
            3,
            [(1, None, {"a": None, "b": 2}), (2, None, None), (3, None, {})],
        ),
        ("drop", fields("/ssn", "/doc/b"), 2, [(1, {"a": 1}), (2, None), (3, {})]),
        ("keep", fields("/id", "/doc/b"), 2, [(1, {"b": 2}), (2, None), (3, {})]),
        ("keep", fields("/none"), 0, [(), (), ()]),
        ("redact", fields("/*"), 3, [(None, None, None)] * 3),
        ("limit", {"rows": 1}, 3, [(1, "123-45-6789", {"a": 1, "b": 2})]),
    ],
)
def test_each_type_on_rows_gives_exactly(kind, properties, columns, rows):
    out = program((kind, properties)).run(TABLE)
    assert len(out.columns) == columns
    assert out.rows == rows
    assert TABLE.rows[0] == (1, "123-45-6789", {"a": 1, "b": 2})


def test_a_masked_column_is_masked_in_each_row_and_in_each_column_of_that_name():
    run = program(("mask", {**fields("/n"), "style": "last-4"})).run
    assert run(Rows(("n", "n"), [("12345678", 5)])) == Rows(("n", "n"), [("****5678", "****")])


def test_a_cell_that_is_no_json_value_stays_or_goes_but_is_never_masked_or_entered():
    table = Rows(["day", "sum"], [(date(2026, 1, 1), Decimal(5))])
    assert program(("redact", fields("/day"))).run(table).rows == [(None, Decimal(5))]
    assert program(("drop", fields("/day"))).run(table).rows == [(Decimal(5),)]
    faults("has no mask", program(("mask", {**fields("/day"), "style": "fixed"})).run, table)
    faults("on the way", program(("redact", fields("/day/x"))).run, table)


@pytest.mark.parametrize(
    "table",
    [Rows(["a"], [(1, 2)]), Rows(["a"], ["x"]), Rows([1], [(1,)]), Rows("a", []), Rows(["a"], iter([]))],
)
def test_a_table_that_is_not_one_faults(table):
    faults("is a table", program(("redact", fields("/a"))).run, table)


def test_the_empty_path_names_no_column_but_a_column_can_have_the_empty_name():
    for kind, more in (("redact", {}), ("mask", {"style": "fixed"})):
        faults("name its columns", program((kind, {**fields("", "/id"), **more})).run, TABLE)
    assert program(("redact", fields("/"))).run(Rows([""], [(1,)])).rows == [(None,)]


FIELDS = Headers([("Via", "a"), ("X-User", "eve"), ("x_user", "eve"), ("X.User", "eve"), ("via", "b")])


def test_a_set_header_replaces_all_spellings_of_it_and_the_order_of_others_stays():
    out = program(("set-header", {"name": "X-User", "value": "ada"}), ("set-header", {"name": "A", "value": ""}))
    assert out.run(FIELDS).items == (("Via", "a"), ("via", "b"), ("A", ""), ("X-User", "ada"))
    assert FIELDS.items[1] == ("X-User", "eve")


def test_a_removed_header_is_gone_in_all_its_spellings():
    assert program(("remove-header", {"name": "x.user"})).run(FIELDS).items == (("Via", "a"), ("via", "b"))


@pytest.mark.parametrize(
    "items",
    [
        [("X-User ", "v")],
        [("", "v")],
        [("é", "v")],
        [("A", "v\r\nB: w")],
        [("A", "\0")],
        [("A", 1)],
        [(1, "v")],
        [("A",)],
        ["AB"],
        7,
    ],
)
def test_headers_in_which_a_name_could_hide_fault(items):
    run = program(("remove-header", {"name": "X-User"})).run
    faults("are headers", run, Headers(items))
    assert run(Headers([("A", "v\tw é")])).items == (("A", "v\tw é"),)


def test_each_kind_of_payload_gets_the_obligations_for_it_and_no_others():
    both = program(("redact", fields("/a")), ("remove-header", {"name": "via"}))
    assert (both.data, both.headers) == (True, True)
    assert both.run({"a": 1}) == {"a": None}
    assert both.run(Headers([("via", "x"), ("a", "y")])).items == (("a", "y"),)
    only_headers = program(("remove-header", {"name": "via"}))
    assert (only_headers.data, only_headers.headers) == (False, True)
    anything = object()
    assert only_headers.run(anything) is anything
    faults("payload", both.run, anything)


PAIRS = [("Authorization", "secret"), ["Via", "a"]]


class Pairs(list):
    pass


@pytest.mark.parametrize("bad", [PAIRS, tuple(PAIRS), Pairs(PAIRS), [("Authorization", 1)]])
@pytest.mark.parametrize(
    "header", [("remove-header", {"name": "authorization"}), ("set-header", {"name": "A", "value": "b"})]
)
def test_a_header_list_that_is_not_wrapped_faults_instead_of_passing_untouched(header, bad):
    for run in (program(header).run, program(header, ("redact", fields("/a"))).run):
        assert "secret" not in str(faults("pepcore.Headers", run, bad))
    assert program(header).run(Headers(PAIRS)).items
    assert program(("redact", fields("/0"))).run([["Authorization", "secret"]]) == [None]


@pytest.mark.parametrize(
    "good",
    [
        [],
        (),
        [["a", "b"], 1],
        [["a", "b", "c"]],
        [[1, "a"]],
        ["ab"],
        [["a", "b"], []],
        {"a": "b"},
        Rows(["a", "b"], PAIRS),
    ],
)
def test_what_is_no_header_list_passes_a_program_of_header_obligations(good):
    assert program(("remove-header", {"name": "a"})).run(good) is good


def test_json_text_is_a_body_even_where_it_looks_like_a_header_list():
    assert program(("remove-header", {"name": "a"})).run_json(b'[["a","b"]]') == b'[["a","b"]]'


# ---- what cannot be done as written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "properties", "bad", "good"),
    [
        ("redact", fields("/a/b"), {"a": "text with b"}, {"a": {"b": 1}}),
        ("redact", fields("/a/b"), {"a": [{"b": 1}]}, {"a": {"c": 1}}),
        ("redact", fields("/a/01"), {"a": [1, 2]}, {"a": {"01": 1}}),
        ("redact", fields("/a/-"), {"a": [1, 2]}, {"a": {}}),
        ("redact", fields("/a/*"), {"a": False}, {"a": None}),
        ("drop", fields("/*/a"), [{"a": 1}, 5], [{"a": 1}, None]),
        ("keep", fields("/a/b"), {"a": 5}, {"b": 5}),
        ("limit", {"rows": 1}, {"rows": [1]}, [[1]]),
        ("limit", {"rows": 1}, "text", ["text"]),
        ("limit", {"rows": 1}, None, []),
        ("mask", {**fields("/a"), "style": "fixed"}, {"a": True}, {"a": "True"}),
        ("mask", {**fields("/a"), "style": "fixed"}, {"a": 1.5}, {"a": 15}),
        ("mask", {**fields("/a"), "style": "fixed"}, {"a": ["x"]}, {"a": "x"}),
        ("mask", {**fields("/a"), "style": "last-4"}, {"a": 2**64}, {"a": 2**64 - 1}),
        ("mask", {**fields("/a"), "style": "hash", "salt": "s"}, {"a": "\ud800"}, {"a": "\ud7ff"}),
    ],
)
def test_what_is_impossible_on_a_payload_faults_beside_what_is_possible(kind, properties, bad, good):
    run = program((kind, properties)).run
    faults("payload", run, bad)
    run(good)


def test_a_fault_says_nothing_of_what_the_payload_holds():
    held = "Ada Lovelace"
    run = program(("redact", fields("/*/a/b"))).run
    for payload in ({held: {"a": held}}, {held: {"a": {"c": float("nan")}}}, {held: {"a": [held]}}):
        assert held not in str(faults("payload", run, payload))
    assert held not in str(faults("salt", program, ("mask", {**fields("/a"), "style": "fixed", "salt": held})))
    assert held not in repr(Rows([held], [])) + repr(Headers([(held, held)]))
