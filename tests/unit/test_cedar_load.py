"""Loading Cedar: every error names file, line and reason; ids and annotations are what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pepcore.errors import ObligationFault, PolicyError
from pepcore.pdp.cedar import load
from pepcore.pdp.cedar_statements import PolicyFile, statements

SCOPE = "permit(principal, action, resource)"


def refused(text: str, *more: Any, **named: Any) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        load(text, *more, **named)
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        (f"{SCOPE};\n\n{SCOPE} when {{ foo }};", 3, "foo"),
        (f"// a comment; with a semicolon\n{SCOPE};\npermit(principal);\n", 3, "missing"),
        (f"{SCOPE};\n{SCOPE}", 2, "no end"),
        (f'{SCOPE};\n{SCOPE} when {{\n context.a == "open }};', 3, "string has no end"),
        (f"{SCOPE};\n@id(\"a\") @id(\"b\") {SCOPE};", 2, "duplicate annotation"),
        (f'@id("a") {SCOPE};\n@id("a") {SCOPE};', 2, "taken by <text>:1"),
        (f'{SCOPE};\n@id("") {SCOPE};', 2, "@id must not be empty"),
        (f'{SCOPE};\n@ttl("30") {SCOPE};', 2, "@ttl `30` is not a duration"),
        (f'@ttl("9999h") {SCOPE};', 1, "too long"),
        (f'@tag("a") {SCOPE};', 1, "@tag is not JSON"),
        (f'@tag("[1]") {SCOPE};', 1, "non-empty strings"),
        (f'@obligation("{{}}") {SCOPE};', 1, "must be a JSON list"),
        (f'@obligation("[{{}}]") {SCOPE};', 1, "`type` must be"),
        (r'@obligation("[{\"type\":\"a\",\"type\":\"b\"}]") ' + SCOPE + ";", 1, "a key stands twice"),
        (r'@obligation("[{\"type\":\"a\",\"properties\":{\"n\":NaN}}]") ' + SCOPE + ";", 1, "NaN"),
        (r'@obligation("[{\"type\":\"a\",\"prop\":{}}]") ' + SCOPE + ";", 1, "unknown member `prop`"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_read_is_an_error_with_its_line(text: str, line: int, word: str) -> None:
    error = refused(text)
    assert (error.file, error.line) == ("<text>", line)
    assert word in error.reason


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{SCOPE};\nforbid(\n  principal,\n  action,\n  resource\n) when {{\n  context.a ==\n  foo bar\n}};", 8),
        (f'{SCOPE} when {{\n  context.a == "x\n\ny" && // foo\n  context.b ==\n  "z" bar }};', 6),
        (f'{SCOPE} when {{\n  context.a == "x" #\n}};', 2),
        (f"{SCOPE} when {{\n  context.a == 1 }} }};", 2),
        (f"{SCOPE} when {{\n  true\n}} {SCOPE};", 3),
        (f'@id("foo")\n{SCOPE} when {{ true &&\n  foo == 1 }};', 3),
        (f"{SCOPE} when {{ true &&\n  context.when.foo(1) }};", 2),
        (f"{SCOPE}\nwehn {{ true }};", 2),
        ("\nfrobid(\nprincipal, action, resource);", 2),
        ("permit(\nprincipal,\nresource)\nwhen { principal.action == 1 };", 3),
        ("permit(\nprincipal)\nwhen { principal.action == 1 };", 2),  # the scope ends there
        ("permit(\nprincipal, action, resource)\nwhen { 1 like\n principal.like };", 1),  # nobody knows where
        (f"{SCOPE} when {{\n  context.a == 1 +\n;", 3),
        (f"{SCOPE} when {{\n  [1,\n 2 3,\n 4] }};", 3),
        (f'@id("a")\n// @ttl\n@ttl("30")\n{SCOPE};', 3),
        (f'@id("a")\n@reason("@tag")\n@tag("a")\n{SCOPE};', 3),
    ],
)
def test_an_error_names_its_own_line_and_not_its_statements(text: str, line: int) -> None:
    assert refused(text).line == line


def test_the_line_of_an_error_is_found_in_a_long_statement_too() -> None:
    members = [f'  User::"u{n}",' for n in range(5000)]
    text = "permit(principal, action, resource) when { principal in [\n" + "\n".join(members) + '\n  User::"u"] };'
    assert load(text)
    members[3210] = '  User::"u" User::"v",'
    text = "permit(principal, action, resource) when { principal in [\n" + "\n".join(members) + '\n  User::"u"] };'
    assert refused(text).line == 3212


def test_every_error_of_a_set_is_told_at_once_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(f'{SCOPE};\nforbid();\n@ttl("30")\n{SCOPE};\n{SCOPE} when {{ true }}')
    (tmp_path / "b.cedar").write_text(f'@id("x") {SCOPE};\n@id("x") {SCOPE};\nforbid(principal,;\n')
    (tmp_path / "c.cedar").write_text(f'@id("y") {SCOPE};')
    error = refused(str(tmp_path))
    assert [(Path(file).name, line) for file, line, _ in error.each] == [
        ("a.cedar", 2), ("a.cedar", 3), ("a.cedar", 5), ("b.cedar", 2), ("b.cedar", 3)
    ]  # fmt: skip
    rows = str(error).split("\n")
    assert rows == [f"{file}:{line}: {reason}" for file, line, reason in error.each]
    assert (error.file, error.line) == (str(tmp_path / "a.cedar"), 2)
    assert str(error) == f"{error.file}:{error.line}: {error.reason}"
    assert load(tmp_path / "c.cedar")


def test_every_wrong_annotation_and_obligation_of_a_policy_is_told_at_once() -> None:
    from pepcore.core.properties import check

    rows = [
        {"type": "notify"},
        {"type": "limit", "properties": {"rows": 1}},
        {"type": "redact"},
        {"type": "end-session"},
    ]
    text = f'@ttl("soon")\n@tag("x")\n@obligation({json.dumps(json.dumps(rows))})\n{SCOPE};'
    error = refused(text, check_obligation=check)
    assert [line for _, line, _ in error.each] == [1, 2, 3, 3, 3]
    told = [reason for _, line, reason in error.each if line == 3]
    assert [reason.split(":")[0] for reason in told] == [
        "@obligation 1 `notify`", "@obligation 3 `redact`", "@obligation 4 `end-session`"
    ]  # fmt: skip


def test_a_message_tells_twenty_errors_and_how_many_more_there_are() -> None:
    error = refused("\n".join(["forbid();"] * 50))
    assert len(error.each) == 50
    assert str(error).split("\n")[19:] == [f"<text>:20: {error.each[19][2]}", "and 30 more: mend these first"]
    assert "more" not in str(refused("\n".join(["forbid();"] * 20))).split("\n")[-1].partition("<text>")[0]


def test_well_formed_neighbours_load() -> None:
    text = (
        f'@id("a") @ttl("0s") @tag("[]") @obligation("[]") @other("x") {SCOPE}; // end; of it\n'
        f'@id("b") {SCOPE} when {{ context.a == "; // \\" ;" }};\n\n'
    )
    assert [(p.id, p.statement.line) for p in load(text).policies] == [("a", 1), ("b", 2)]


def test_made_ids_come_from_file_and_line_and_are_unique(tmp_path: Path) -> None:
    (tmp_path / "b.cedar").write_text(f"\n{SCOPE}; {SCOPE};\n{SCOPE};")
    (tmp_path / "a.cedar").write_text(f"{SCOPE};")
    (tmp_path / "notes.txt").write_text("not Cedar")
    assert [p.id for p in load(tmp_path).policies] == ["a.cedar:1", "b.cedar:2", "b.cedar:2#2", "b.cedar:3"]
    assert [p.id for p in load(tmp_path / "a.cedar").policies] == ["a.cedar:1"]
    assert [p.id for p in load(str(tmp_path / "a.cedar")).policies] == ["a.cedar:1"]


def test_an_error_in_a_folder_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(f"{SCOPE};")
    (tmp_path / "b.cedar").write_text(f"{SCOPE};\nforbid();")
    with pytest.raises(PolicyError) as caught:
        load(tmp_path)
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "b.cedar"), 2)


def test_a_file_that_is_not_there_or_not_utf8_is_an_error(tmp_path: Path) -> None:
    absent, empty = refused(str(tmp_path / "none.cedar")), refused(str(tmp_path))
    assert str(absent).startswith(f"{tmp_path / 'none.cedar'}: cannot read: No such file")
    assert str(empty).startswith(f"{tmp_path}: the folder has no *.cedar file")
    assert (absent.line, empty.line) == (0, 0)
    for entities, schema in ((tmp_path / "none", None), (None, tmp_path / "none")):
        assert str(refused(f"{SCOPE};", entities, schema)).startswith(f"{tmp_path / 'none'}: cannot read")
    (tmp_path / "y").write_bytes(b"[\n\xff]")
    for entities, schema in ((tmp_path / "y", None), (None, tmp_path / "y")):
        assert refused(f"{SCOPE};", entities, schema).line == 2
    (tmp_path / "x.cedar").write_bytes(SCOPE.encode() + b";\n// \xff\n")
    error = refused(str(tmp_path / "x.cedar"))
    assert (error.line, "UTF-8" in error.reason) == (2, True)


def test_statements_keep_their_heads_apart_from_conditions() -> None:
    text = f'@a("when {{") {SCOPE} when {{ true }};{SCOPE} // ) when\n when {{ true }}; {SCOPE};'
    heads = [s.head for s in statements(PolicyFile("f", "f", text))]
    assert heads == [f'@a("when {{") {SCOPE};', f"{SCOPE} // ) when\n when {{ true }};", f"{SCOPE};"]
    assert len(load(text).policies) == 3


def test_a_comment_that_looks_like_the_end_of_a_scope_changes_no_scope() -> None:
    text = f'permit(principal == User::"u", action, resource) when // ) when\n {{ true }};\n@id("f") {SCOPE};'
    scopes = [p.scope.principal for p in load(text).policies]
    assert scopes == [("eq", "", ("User", "u")), ("any", "", None)]


def test_obligation_properties_are_checked_where_a_check_is_given() -> None:
    def check(kind: str, properties: dict[str, Any]) -> None:
        if kind == "limit" and "rows" not in properties:
            raise ObligationFault("rows", "is missing")

    good = r'@obligation("[{\"type\":\"limit\",\"properties\":{\"rows\":1}}]") ' + SCOPE + ";"
    bad = r'@obligation("[{\"type\":\"limit\"}]") ' + SCOPE + ";"
    assert load(good, check_obligation=check).policies[0].notes.obligations[0].type == "limit"
    assert "@obligation 1 `limit`: rows: is missing" in refused(bad, check_obligation=check).reason
    assert load(bad)


def test_entities_that_cannot_be_read_are_an_error_with_their_line(tmp_path: Path) -> None:
    rows = [{"uid": {"type": "User", "id": f"u{n}"}, "attrs": {}, "parents": []} for n in range(3)]
    path = tmp_path / "entities.json"
    path.write_text(json.dumps(rows, indent=1))
    assert len(load(f"{SCOPE};", path).store.entities) == 3
    rows[1]["attrs"] = {"x": None}
    path.write_text(json.dumps(rows, indent=1))
    with pytest.raises(PolicyError) as caught:
        load(f"{SCOPE};", path)
    assert caught.value.file == str(path)
    assert path.read_text().splitlines()[caught.value.line - 1].strip() == "{"
    assert "entity 1" in caught.value.reason
    path.write_text("[{]")
    with pytest.raises(PolicyError, match=r"entities\.json:1:"):
        load(f"{SCOPE};", path)


OK = '{"uid": {"type": "User", "id": "a"}, "attrs": {}, "parents": []}'


@pytest.mark.parametrize(
    ("entity", "says"),
    [
        (OK.replace(', "id": "a"', ""), "uid.id: is missing"),
        (OK.replace('"a"', "5"), "uid.id: must be a string, not `5`"),
        (OK.replace('"type": "User", ', ""), "uid.type: is missing"),
        (OK.replace("User", "a b"), "uid.type: `a b` is no name of a type"),
        (OK.replace('{"type": "User", "id": "a"}', '"x"'), "uid: must be an object"),
        ("5", "must be an object with `uid`"),
        (OK.replace('"attrs": {}, ', ""), "attrs: is missing"),
        (OK.replace("[]", '[{"type": "User"}]'), "parents.0.id: is missing"),
        (OK.replace("[]", "{}"), "parents: must be a list"),
        (OK.replace("{}", '{"x": 1, "x": 1}'), "has the key `x` twice"),
        (OK.replace("{}", '{"r": {"x": 1, "x": 2}}'), "has the key `x` twice"),
        (OK.replace("{}", '{"x": null}'), "attrs.x: is null"),
        (OK.replace("{}", '{"x": [1.5]}'), "attrs.x.0: `1.5` is no whole number"),
        (OK.replace("{}", '{"x": 9223372036854775808}'), "attrs.x: `9223372036854775808` does not fit"),
        (OK.replace("{}", '{"x": {"__entity": {"type": "User"}}}'), "attrs.x.id: is missing"),
        (OK.replace("{}", '{"x": {"__extn": {"fn": "ip", "arg": "z"}}}'), "attrs.x: error while evaluating"),
        (OK.replace("{}", "NaN"), "`NaN` is no number of JSON"),
        (OK.replace("{}", '{"NaN": -Infinity}'), "`-Infinity` is no number of JSON"),
        (OK[:-1], "must be a JSON list of entities: expecting"),
        (OK.replace(":", "", 1), "must be a JSON list of entities: expecting ':' delimiter at column 8"),
        (OK.replace("a", "\\ud800"), "must be a JSON list of entities"),
    ],
)
def test_an_entity_of_a_wrong_shape_is_told_with_reason_and_line(entity: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "entities.json"
    other = OK.replace('"a"', '"b"')
    path.write_text(f"[{other},\n\n{entity}]\n")
    with pytest.raises(PolicyError) as caught:
        load(f"{SCOPE};", path)
    assert says in caught.value.reason
    assert (caught.value.file, caught.value.line) == (str(path), 3)
    path.write_text(f"[{other},\n\n{OK}]\n")
    assert len(load(f"{SCOPE};", path).store.entities) == 2


def test_entities_that_are_cut_off_are_told_with_their_last_line(tmp_path: Path) -> None:
    path = tmp_path / "entities.json"
    for end in ("", "\n"):
        path.write_text(f'[{OK},\n{{"uid": {end}')
        with pytest.raises(PolicyError) as caught:
            load(f"{SCOPE};", path)
        assert caught.value.line == 2


def test_a_number_that_is_none_in_a_list_of_entities_is_told_as_it_was_given() -> None:
    for value, says in ((float("nan"), "`nan`"), (float("inf"), "`inf`"), (None, "is null")):
        with pytest.raises(PolicyError, match=f"entity 0: attrs.x: {says}"):
            load(f"{SCOPE};", [{**json.loads(OK), "attrs": {"x": value}}])
    assert load(f"{SCOPE};", [{**json.loads(OK), "attrs": {"x": 1}}])


def test_a_set_that_the_schema_does_not_allow_is_an_error_with_its_line() -> None:
    schema = "entity User {lvl: Long}; entity Doc; action read appliesTo {principal: User, resource: Doc};"
    good = f"{SCOPE} when {{ principal.lvl > 1 }};"
    assert load(good, None, schema)
    error = refused(f"{good}\n{SCOPE} when {{ principal.level > 1 }};", None, schema)
    assert error.line == 2
    assert "level" in error.reason
    user = {"uid": {"type": "User", "id": "u"}, "attrs": {"lvl": 1}, "parents": []}
    assert load(good, [user], schema)
    assert "schema" in refused(good, [{**user, "attrs": {"lvl": "1"}}], schema).reason
    assert refused(good, None, "entity {").file == "<schema>"


def test_what_the_schema_does_not_allow_is_told_at_once_each_with_its_line() -> None:
    schema = "entity User {lvl: Long};\nentity Doc;\naction read appliesTo {principal: User, resource: Doc};"
    text = f"{SCOPE} when {{\n principal.level > 1 }};\n{SCOPE};\nforbid(principal,\n action,\n resource is Dok);"
    error = refused(text, None, schema)
    assert [line for _, line, _ in error.each][:1] == [2]
    assert {line for _, line, _ in error.each} >= {2, 6}
    assert "policy0" not in str(error)
    assert load(f"{SCOPE} when {{ principal.lvl > 1 }};", None, schema)


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ("entity User;\nentity Doc {\n a: };\n", 3),
        ("entity User;\nentity Doc {\n a: Lon };\n", 3),
        ("entity User;\nentity Doc;\nentity User;\n", 3),
        ("entity User;\nentity Doc {\n a: Long,", 3),
        ('{"":\n{"x": 1}}', 2),
    ],
)
def test_an_error_in_the_schema_names_its_line(schema: str, line: int) -> None:
    assert refused(f"{SCOPE};", None, schema).line == line


def test_a_schema_may_be_json() -> None:
    schema = {"": {"entityTypes": {"User": {}, "Doc": {}}, "actions": {"read": {"appliesTo": {
        "principalTypes": ["User"], "resourceTypes": ["Doc"]}}}}}  # fmt: skip
    assert load(f"{SCOPE};", None, json.dumps(schema)).store.schema is not None


def test_links_are_read_from_the_file_beside_the_policies(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text('@id("t") permit(principal == ?principal, action, resource);')
    links = tmp_path / "a.links.json"
    row = {
        "templateId": "t",
        "newId": "l",
        "values": {"?principal": {"__entity": {"type": "User", "id": "u"}}},
    }
    links.write_text(json.dumps([row]))
    for path in (tmp_path, tmp_path / "a.cedar"):
        assert [p.id for p in load(path).policies] == ["t", "l"]
    for change, word in (
        ({"templateId": "x"}, "no template has the id `x`"),
        ({"newId": "t"}, "taken"),
        ({"values": {}}, "link `l`"),
        ({"values": {"?action": {}}}, "only `?principal`"),
        ({"values": {"?principal": "u"}}, "must be"),
    ):
        links.write_text(json.dumps([row | change]))
        error = refused(str(tmp_path))
        assert error.file == str(links)
        assert word in error.reason


def test_a_thousand_policies_give_a_thousand_bits() -> None:
    text = "\n".join(f'@id("p{n}") permit(principal == User::"u{n}", action, resource);' for n in range(1000))
    cedar = load(text)
    assert cedar.slices.everything.bit_length() == 1000
    assert cedar.slices.principal.mask(("User", "u999"), ()) == 1 << 999
