"""Each rule of the linter with a finding and with a clean neighbour."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pepcore.pdp.cedar import load
from pepcore.pdp.cedar_lint import TYPES, lint

SCHEMA = """entity User {lvl?: Long, name: String} tags String; entity Doc {owner?: User};
action read appliesTo {principal: User, resource: Doc, context: {n?: Long, s: String}};"""


def found(text: str, rule: str, *more: Any, **named: Any) -> list[str]:
    return [f.policy or f.message for f in lint(load(text, *more, **named)) if f.rule == rule]


def forbid(condition: str) -> str:
    return f'@id("f") forbid(principal, action, resource) when {{ {condition} }};'


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("context.frozen == true", "context has frozen && context.frozen == true"),
        ("principal.boss == resource", "principal has boss && principal.boss == resource"),
        ("principal.a.b == 1", "principal has a && principal.a == {b: 1}"),
        ('principal.getTag("t") == "x"', 'principal.hasTag("t") && principal.getTag("t") == "x"'),
        ("!(context has x) && context.x == 1", "!(context has x) || context.x == 1"),
        ("if context has x then true else context.x == 1", "if context has x then context.x == 1 else true"),
        ('context has p && context.p like "/etc/*"', 'context has p && context.p == "/etc/passwd"'),
        ("context has n && context.n > 3", "context has n && context.n == 3"),
        ("principal has a.b && principal.a.b", "principal has a && principal.a == true"),
        ("context has flag && context.flag", "context has flag && context.flag == true"),
        ("context has x && context.x in resource", "principal in resource"),
        ('ip("10.0.0.1").isInRange(ip(context.net))', 'ip("10.0.0.1").isLoopback()'),
        ("1 + 9223372036854775807 == 2", 'context.now > datetime("2026-01-01")'),
    ],
)
def test_a_forbid_that_can_raise_is_found_without_a_schema(bad: str, good: str) -> None:
    assert set(found(forbid(bad), "can-raise")) == {"f"}
    assert found(forbid(good), "can-raise") == []
    assert found(forbid(bad).replace("forbid(", "permit("), "can-raise") == []


@pytest.mark.parametrize(
    ("bad", "says", "good"),
    [
        ('context.now > "2026-01-01"', "type string", 'context.now < datetime("2000-01-01")'),
        ('context.now > datetime("2026-13-01")', "invalid date", 'context.now > datetime("2026-12-01")'),
        ('context.now.toTime() > duration("8:00")', "duration", 'context.now.toTime() > duration("8h")'),
        ("context.now.toTime() < context.now", "datetime with duration", "context.now.toTime() == context.now"),
        ('ip("x").isIpv4()', "invalid IP", 'ip("10.0.0.1").isInRange(ip("10.0.0.0/8"))'),
        ('decimal("1.23456").lessThan(decimal("2.0"))', "digits", 'decimal("1.2345").lessThan(decimal("2.0"))'),
        ('"a" < 3', "expected long", "2 < 3"),
        ("1", "type long", "1 == 1"),
        ("{a: context.now}.a", "type datetime", "{a: true}.a"),
        ("if principal == resource then true else context", "type record",
         "if principal == resource then true else false"),
        ("principal && true", "type entity", "principal == resource && true"),
        ("context || true", "type record", "true || context == {}"),
        ("{a:1}.b == 1", "attribute `b`", "{a:1}.a == 1"),
        ("{a: principal}.b == 1", "no attribute `b`", "{a: principal}.a == principal"),
        ("context.now.year == 2026", "no attributes", "context.now == context.now"),
        ("context.now has year", "type datetime", "context has year"),
        ("!principal", "type entity", "!(principal == resource)"),
        ("principal in context.now", "type datetime", 'principal in [Role::"r", resource]'),
        ("principal in [resource, 1]", "type long", "[resource, 1].contains(principal)"),
        ("principal is User in context", "type record", "principal is User in resource"),
        ("principal.hasTag(resource)", "type entity", 'principal.hasTag("t")'),
        ("principal.contains(1)", "type entity", "[1].contains(principal)"),
        ("if principal then true else false", "type entity", "if principal == resource then true else false"),
        ('(if principal == resource then 1 else "a") < 3', "type string",
         "(if principal == resource then 1 else 2) < 3"),
        ("(if principal == resource then 1 else context.now) < 3", "datetime with long", "(if true then 1 else 2) < 3"),
        ('ip(context.now) == ip("::1")', "another form", 'context has n && context.n == ip("::1")'),
        ("-(-9223372036854775808) == 1", "negate", "-(9223372036854775807) == 1"),
        ('context.now like "2026*"', "type datetime", '"2026" like "2026*"'),
        ('context.now.offset(duration("9223372036854775807ms")) == context.now', "overflow",
         'context.now.offset(duration("-90d")) < datetime("2026-01-01")'),
        ('context.now.durationSince("2026-01-01") > duration("1h")', "type string",
         'context.now.durationSince(datetime("2026-01-01")) > duration("1h")'),
        ("1 + 9223372036854775807 == 2", "overflow", "1 + 2 == 3"),
        ('true && "a" < 3', "expected long", 'false && "a" < 3'),
        ('context has x && "a" < 3', "expected long", 'context has x && {a: 1} has a && {a: 1}.a < 3'),
        ("context.now.toDate().toHours() == 1", "type datetime", "context.now.toDate() == context.now"),
    ],
)  # fmt: skip
def test_what_raises_whatever_is_asked_is_found(bad: str, says: str, good: str) -> None:
    text = "\n".join([forbid("true"), forbid(bad).replace('"f"', '"g"', 1)])
    (finding, *_) = [f for f in lint(load(text)) if f.rule == "can-raise"]
    assert (finding.level, finding.file, finding.line, finding.policy) == ("error", "<text>", 2, "g")
    assert says in finding.message
    assert found(forbid(good), "can-raise") == []


MOMENTS = """entity User; entity Doc;
action read appliesTo {principal: User, resource: Doc,
context: {n: Long, d: datetime, e: datetime, u: duration, now: datetime}};"""


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("-(context.n) > 3", "context.n > -3"),
        ('context.d.offset(context.u) > datetime("2026-01-01")', 'context.d > datetime("2026-01-01")'),
        ('context.d.durationSince(context.e) > duration("1h")', 'context.u > duration("1h")'),
        ("context.d.toDate() == context.e", 'context.d.toTime() == duration("1h")'),
        ('context.now.durationSince(context.d) > duration("1h")',
         'context.now.durationSince(datetime("2026-01-01")) > duration("1h")'),
        ('context.now.offset(duration("9223372036854775807ms")) > context.d',
         'context.now.offset(duration("1h")).toDate() > context.d'),
        ('datetime("2026-01-01").offset(duration("9223372036854775807ms")) > context.d',
         'datetime("2026-01-01").offset(duration("1h")) > context.d'),
    ],
)  # fmt: skip
def test_an_overflow_is_found_with_a_schema_and_without(bad: str, good: str) -> None:
    guards = "context has n && context has d && context has e && context has u && "
    assert found(forbid(bad), "can-raise", None, MOMENTS) == ["f"]
    assert found(forbid(good), "can-raise", None, MOMENTS) == []
    assert any("overflow" in f.message for f in lint(load(forbid(guards + bad))))
    assert not any("overflow" in f.message for f in lint(load(forbid(guards + good))))


def test_a_guard_in_an_earlier_clause_counts() -> None:
    text = '@id("f") forbid(principal, action, resource) when { context has x } when { context.x == 1 };'
    assert found(text, "can-raise") == []
    assert found(text.replace("when { context has", "unless { context has"), "can-raise") == ["f"]


def test_with_a_schema_only_what_types_cannot_rule_out_can_raise() -> None:
    clean = forbid('context.s like "a*" && principal.name == "x" && principal has lvl && principal.lvl > 3')
    assert found(clean, "can-raise", None, SCHEMA) == []
    assert found(forbid("context has n && context.n + 1 > 3"), "can-raise", None, SCHEMA) == ["f"]


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("when { false }", "when { true }"),
        ("unless { true }", "unless { false }"),
        ("when { 1 == 2 }", "when { 1 == 1 }"),
        ("when { context has a && false }", "when { context has a || false }"),
        ("when { context has a } unless { true || context has b }", "when { context has a }"),
    ],
)
def test_a_policy_that_can_never_apply_is_found(bad: str, good: str) -> None:
    head = '@id("p") permit(principal, action, resource) '
    assert found(f"{head}{bad};", "unreachable") == ["p"]
    assert found(f"{head}{good};", "unreachable") == []


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("principal, action in [], resource", 'principal, action in [Action::"x"], resource'),
        ("principal is User, action, resource) when { principal is Dog }",
         "principal is User, action, resource) when { resource is Dog }"),
        ('principal is User in Role::"r", action, resource) when { principal is Dog in resource }',
         'principal is User in Role::"r", action, resource) when { principal is User in resource }'),
        ('principal, action, resource == Doc::"d") when { context has a && resource is Dog }',
         'principal, action, resource == Doc::"d") when { context has a || resource is Dog }'),
        ("principal is User, action, resource) unless { principal is User }",
         'principal in User::"u", action, resource) unless { principal is User }'),
    ],
)  # fmt: skip
def test_a_scope_that_leaves_nothing_is_found(bad: str, good: str) -> None:
    for effect in ("permit", "forbid"):
        for scope, says in ((bad, ["p"]), (good, [])):
            assert found(f'@id("p") {effect}({scope}{"" if ")" in scope else ")"};', "unreachable") == says


def test_a_set_without_policies_is_found() -> None:
    template = '@id("t") permit(principal == ?principal, action, resource);'
    assert found("", "empty") == ["no policies: every question is denied"]
    assert "without a link" in found(template, "empty")[0]
    link = {"templateId": "t", "newId": "l", "values": {"?principal": {"type": "User", "id": "a"}}}
    assert found(template, "empty", links=[link]) == []
    assert found('@id("p") permit(principal, action, resource);', "empty") == []


IN = 'principal in Role::"r", action, resource'
IS_IN = 'principal is User in Role::"r", action, resource'
IS = "principal is User, action, resource"
ONE = 'principal == User::"u", action, resource'


@pytest.mark.parametrize(
    ("outer", "hidden", "seen"),
    [
        ("principal, action, resource", ONE, None),
        (IS, ONE, "principal, action, resource"),
        (IS, IS_IN, IN),
        (IN, IS_IN, IS),
        (
            'principal, action == Action::"x", resource',
            'principal, action == Action::"x", resource is Doc',
            'principal, action in [Action::"x", Action::"y"], resource',
        ),
    ],
)
def test_a_permit_that_a_forbid_covers_is_found(outer: str, hidden: str, seen: str | None) -> None:
    text = f'@id("f") forbid({outer});\n@id("p") permit(SCOPE);'
    assert found(text.replace("SCOPE", hidden), "unreachable") == ["p"]
    if seen:
        assert found(text.replace("SCOPE", seen), "unreachable") == []
    conditional = text.replace(f"({outer})", f"({outer}) when {{ context has a }}", 1)
    assert found(conditional.replace("SCOPE", hidden), "unreachable") == []


def test_a_missing_id_is_found() -> None:
    assert found("permit(principal, action, resource);", "no-id") == ["text:1"]
    assert found('@id("p") permit(principal, action, resource);', "no-id") == []


def test_an_annotation_that_is_nearly_one_of_ours_is_found() -> None:
    for name in ("obligations", "TTL", "reson", "tags", "tah"):
        assert found(f'@id("p") @{name}("x") permit(principal, action, resource);', "annotation") == ["p"]
    assert found('@id("p") @owner("x") @ticket("y") permit(principal, action, resource);', "annotation") == []


def test_an_obligation_type_that_is_not_built_in_is_found() -> None:
    def messages(*types: str) -> list[str]:
        rows = json.dumps([{"type": type_, "properties": {}} for type_ in types])
        text = f'@id("p") @obligation({json.dumps(rows)}) permit(principal, action, resource);'
        return [f.message for f in lint(load(text)) if (f.rule, f.level) == ("obligation", "warning")]

    assert messages(*TYPES) == []
    (near,) = messages("redactt", "redact", "redactt")
    assert near == "obligation type `redactt` is not built in; did you mean `redact`?"
    (own,) = messages("watermark")
    assert own.startswith("obligation type `watermark` is not built in; it denies where the caller does not name it")


def test_types_open_to_requests_are_found() -> None:
    user = {"uid": {"type": "User", "id": "u"}, "attrs": {}, "parents": [{"type": "Role", "id": "r"}]}
    text = '@id("p") permit(principal is User, action, resource is Order) when { Config::"c" has x };'
    messages = found(text, "open-type", [user])
    assert [m.split("`")[1] for m in messages] == ["Config", "Order", "Role"]
    assert found(text, "open-type", [user], open_types=frozenset()) == []
