"""Embedded Cedar, end to end through `load` and `decide`: one sentence per test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pepcore.model import Action, Decision, Entity, Question
from pepcore.pdp import cedar_entities
from pepcore.pdp.cedar import Cedar, load

PERMIT = '@id("all") permit(principal, action, resource);\n'
NOON = 1_795_608_000_000  # 2026-11-25T12:00:00Z


def ask(
    cedar: Cedar,
    subject: str | Entity = "User::u",
    action: str | Action = "read",
    resource: str | Entity = "Doc::d",
    context: dict[str, Any] | None = None,
    chain: tuple[Entity, ...] = (),
    wall_ms: int = NOON,
) -> Decision:
    question = Question(
        entity(subject),
        action if isinstance(action, Action) else Action(action),
        entity(resource),
        context or {},
        chain,
    )
    return cedar.decide([question], wall_ms)[0]


def entity(value: str | Entity) -> Entity:
    return value if isinstance(value, Entity) else Entity(*value.split("::", 1))


def stored(uid: str, attrs: dict[str, Any] | None = None, *parents: str, **more: Any) -> dict[str, Any]:
    name = dict(zip(("type", "id"), uid.split("::", 1), strict=True))
    rows = [dict(zip(("type", "id"), p.split("::", 1), strict=True)) for p in parents]
    return {"uid": name, "attrs": attrs or {}, "parents": rows, **more}


def ref(uid: str) -> dict[str, Any]:
    return {"__entity": dict(zip(("type", "id"), uid.split("::", 1), strict=True))}


def test_what_no_policy_permits_is_denied_without_a_fault() -> None:
    cedar = load('permit(principal == User::"u", action, resource);')
    assert ask(cedar).permit
    assert ask(cedar, "User::v") == Decision(False)


def test_a_forbid_trumps_a_permit() -> None:
    cedar = load(PERMIT + '@id("f") forbid(principal, action == Action::"x", resource);')
    assert ask(cedar).policies == ("all",)
    denied = ask(cedar, action="x")
    assert not denied.permit
    assert denied.policies == ("f",)


# ---- errors (D5) ----


def test_an_error_in_a_forbid_is_a_fault() -> None:
    cedar = load(PERMIT + '@id("f") forbid(principal, action, resource) when { context.path like "/etc/*" };')
    assert ask(cedar, context={"path": "/home"}).permit
    assert not ask(cedar, context={"path": "/etc/x"}).permit
    for hostile in ({"path": ["/etc/x"]}, {}):
        decision = ask(cedar, context=hostile)
        assert not decision.permit
        assert "`f` (forbid) failed" in decision.fault


def test_an_error_in_a_permit_only_takes_that_permit_away() -> None:
    text = "permit(principal, action, resource) when { context.n > 1 };"
    assert ask(load(text)) == Decision(False)
    assert ask(load(PERMIT + text)).policies == ("all",)


def test_a_question_that_the_engine_cannot_read_is_a_fault_and_its_neighbours_are_answered() -> None:
    cedar = load(PERMIT)
    good = Question(Entity("User", "u"), Action("read"), Entity("Doc", "d"))
    bad = Question(Entity("User ", "u"), Action("read"), Entity("Doc", "d"))
    surrogate = Question(Entity("User", "\ud800"), Action("read"), Entity("Doc", "d"), {"x": "\ud800"})
    found = cedar.decide([good, bad, surrogate, good], NOON)
    assert [d.permit for d in found] == [True, False, False, True]
    assert [bool(d.fault) for d in found] == [False, True, True, False]


# ---- what a question may say (D8, invariant 25) ----

LEVEL = '@id("l") permit(principal, action, resource) when { principal has lvl && principal.lvl > 3 };'
OWNER = '@id("o") permit(principal, action, resource) when { resource has owner && resource.owner == "u" };'
GROUP = '@id("g") permit(principal in Role::"admin", action, resource);'


# fmt: off
def test_request_data_becomes_entities_only_for_open_types_never_brings_parents_never_changes_a_stored_entity() -> None:
    # fmt: on
    cedar = load(LEVEL + OWNER + GROUP, [stored("User::u", {"lvl": 1}), stored("User::v", {"lvl": 9})])
    assert ask(cedar, "User::v").policies == ("l",)
    assert not ask(cedar, Entity("User", "u", {"lvl": 9})).permit  # stored: unchanged
    assert not ask(cedar, Entity("User", "new", {"lvl": 9})).permit  # a type that the store holds: closed
    assert ask(cedar, Entity("Job", "j", {"lvl": 9})).policies == ("l",)  # open
    assert ask(cedar, resource=Entity("Order", "o", {"owner": "u"})).policies == ("o",)
    parents = {"lvl": 1, "parents": [{"type": "Role", "id": "admin"}]}
    assert not ask(cedar, Entity("Job", "j", parents)).permit


def test_open_types_can_be_named() -> None:
    entities = [stored("User::u", {"lvl": 9})]
    cedar = load(LEVEL, entities, open_types=frozenset({"User"}))
    assert ask(cedar, Entity("User", "new", {"lvl": 9})).permit
    assert not ask(cedar, Entity("User", "u", {"lvl": 0}), resource="Doc::d").fault
    assert ask(cedar, Entity("User", "u", {"lvl": 0})).permit  # the stored one still counts
    assert not ask(cedar, Entity("Job", "j", {"lvl": 9})).permit


def test_escapes_in_request_data_are_faults_at_any_depth() -> None:
    cedar = load(PERMIT)
    assert ask(cedar, context={"a": {"b": [{"c": "User::u"}]}}).permit
    for key in ("__entity", "__extn", "__expr"):
        bad = {"a": {"b": [{key: {"type": "User", "id": "u"}}]}}
        for decision in (
            ask(cedar, context=bad),
            ask(cedar, Entity("Job", "j", bad)),
            ask(cedar, resource=Entity("Order", "o", bad)),
            ask(cedar, action=Action("read", bad)),
            ask(cedar, chain=(Entity("User", "b", bad),)),
        ):
            assert not decision.permit
            assert key in decision.fault


def test_a_schema_lets_entities_stand_where_it_types_them_and_nowhere_else() -> None:
    schema = """entity User, Doc;
        action read appliesTo {principal: User, resource: Doc, context: {by?: User, s?: String}};"""
    text = '@id("by") permit(principal, action, resource) when { context has by && context.by == User::"b" };'
    cedar = load(text, None, schema)
    assert ask(cedar, context={"by": ref("User::b")}).permit
    assert ask(cedar, context={"by": {"type": "User", "id": "b"}}).permit
    assert ask(cedar, context={"s": "x"}) == Decision(False)
    assert ask(cedar, context={"s": ref("User::b")}).fault


def test_values_that_cedar_has_not_are_mapped_or_faults_naming_the_field() -> None:
    cedar = load("permit(principal, action, resource) when { !(context.a has gone) };")
    assert ask(cedar, context={"a": {"gone": None, "n": -(2**63)}}).permit
    assert not ask(cedar, context={"a": {"gone": 1}}).permit
    for value, word in ((1.5, "float"), (2**63, "64 bits"), (-(2**63) - 1, "64 bits"), ([None], "null")):
        decision = ask(cedar, context={"a": {"deep": value}})
        assert not decision.permit
        assert "context.a.deep" in decision.fault
        assert word in decision.fault


def test_reserved_context_keys_are_faults() -> None:
    cedar = load(PERMIT)
    assert ask(cedar, context={"nowhere": 1}).permit
    for key in ("now", "on_behalf_of", "action"):
        decision = ask(cedar, context={key: 1})
        assert not decision.permit
        assert f"context.{key}" in decision.fault


def test_the_chain_and_the_actions_properties_reach_the_context() -> None:
    text = """
        @id("c") permit(principal, action, resource)
          when { context has on_behalf_of && context.on_behalf_of.contains(User::"boss") };
        @id("a") permit(principal, action, resource) when { context has action && context.action.force };"""
    cedar = load(text)
    assert ask(cedar).policies == ()
    assert ask(cedar, chain=(Entity("User", "boss"),)).policies == ("c",)
    assert ask(cedar, chain=(Entity("User", "x"),)).policies == ()
    assert ask(cedar, action=Action("read", {"force": True})).policies == ("a",)


def test_one_entity_with_two_contents_is_a_fault() -> None:
    cedar = load(PERMIT)
    one, two = Entity("Job", "j", {"n": 1}), Entity("Job", "j", {"n": 2})
    assert ask(cedar, one, resource=one).permit
    assert "twice" in ask(cedar, one, resource=two).fault


def test_an_action_may_be_named_with_its_namespace() -> None:
    cedar = load('permit(principal, action == Ns::Action::"read", resource);')
    assert ask(cedar, action='Ns::Action::"read"').permit
    assert not ask(cedar, action="read").permit
    assert not ask(cedar, action='Ns::Other::"read"').permit


# ---- annotations, lifetime, tags (D7) ----


def test_notes_of_the_determining_policies_are_joined_in_the_order_of_their_ids() -> None:
    text = r"""
        @id("b") @ttl("5m") @tag("[\"t2\",\"t1\"]") @reason("second") @obligation("[{\"type\":\"notify\"}]")
        permit(principal, action, resource);
        @id("a") @ttl("30s") @tag("[\"t1\"]") @reason("first")
        @obligation("[{\"id\":\"o\",\"type\":\"limit\",\"properties\":{\"rows\":5}}]")
        permit(principal, action, resource);
        @id("c") @ttl("1ms") permit(principal, action == Action::"other", resource);"""
    decision = ask(load(text))
    assert decision.policies == ("a", "b")
    assert decision.reason == "first; second"
    assert decision.max_age_ms == 30_000
    assert [(o.id, o.type) for o in decision.obligations] == [("o", "limit"), ("b#1", "notify")]
    assert decision.tags[:2] == ("t1", "t2")


def test_one_obligation_id_with_two_meanings_is_a_fault() -> None:
    text = r"""@id("{0}")
        @obligation("[{{\"id\":\"o\",\"type\":\"limit\",\"properties\":{{\"rows\":{1}}}}}]") {2}"""
    scope = "permit(principal, action, resource);"
    same = ask(load(text.format("a", 1, scope) + text.format("b", 1, scope)))
    assert same.permit
    assert len(same.obligations) == 1
    other = ask(load(text.format("a", 1, scope) + text.format("b", 2, scope)))
    assert not other.permit
    assert "`o` has two meanings" in other.fault


def test_a_deny_carries_what_its_forbids_say() -> None:
    text = (
        PERMIT
        + r"""@id("f") @reason("frozen") @obligation("[{\"type\":\"notify\"}]") @ttl("2s")
        forbid(principal, action, resource) when { context.frozen };"""
    )
    cedar = load(text)
    assert ask(cedar, context={"frozen": False}).reason == ""
    denied = ask(cedar, context={"frozen": True})
    assert (denied.permit, denied.reason, denied.max_age_ms) == (False, "frozen", 2000)
    assert [o.id for o in denied.obligations] == ["f#1"]


def test_the_lifetime_ends_at_the_nearest_time_literal_of_any_policy_that_could_apply() -> None:
    text = PERMIT + 'forbid(principal, action == Action::"{0}", resource) when {{ {1} }};'
    six = 'context.now >= datetime("2026-11-25T18:00:00Z")'
    cedar = load(text.format("read", six))
    assert ask(cedar).max_age_ms == 6 * 3_600_000
    assert not ask(cedar, wall_ms=NOON + 6 * 3_600_000).permit
    assert ask(cedar, action="write").max_age_ms is None
    unknown = load(text.format("read", 'context.now.durationSince(datetime("2026-11-25")) > duration("13h")'))
    assert ask(unknown).max_age_ms == 1000


def test_now_is_only_supplied_when_a_sliced_policy_reads_it() -> None:
    text = (
        PERMIT
        + 'forbid(principal, action == Action::"x", resource) when { context.now < datetime("2020-01-01") };'
    )
    cedar = load(text)
    question = Question(Entity("User", "u"), Action("read"), Entity("Doc", "d"))
    assert "context" not in cedar.ask(question, NOON).request
    assert (
        '"now"'
        in cedar.ask(Question(question.subject, Action("x"), question.resource), NOON).request["context"]
    )


def test_now_is_given_to_a_schema_that_requires_it_and_kept_from_one_that_has_it_not() -> None:
    schema = """entity User, Doc;
        action timed appliesTo {principal: User, resource: Doc, context: {now: datetime}};
        action plain appliesTo {principal: User, resource: Doc};"""
    text = """@id("n") permit(principal, action, resource)
        unless { context has now && context.now < datetime("2020-01-01") };"""
    cedar = load(text, None, schema)
    assert ask(cedar, action="timed").policies == ("n",)
    assert ask(cedar, action="plain").policies == ("n",)


def test_tags_name_the_ancestors_of_subject_and_resource() -> None:
    entities = [
        stored("User::u", None, "Role::r"),
        stored("Role::r", None, "Role::top"),
        stored("Doc::d", None, "Folder::f"),
    ]
    tags = ask(load(PERMIT, entities)).tags
    assert set(tags) == {"Role::r", "Role::top", "Folder::f"}


# ---- slices, templates, groups (D8) ----


def test_action_groups_count_from_entities_and_from_the_schema() -> None:
    text = PERMIT + '@id("no") forbid(principal, action in Action::"danger", resource);'
    assert ask(load(text), action="call").permit
    by_entity = load(text, [stored("Action::call", None, "Action::danger")])
    schema = (
        "entity User, Doc; action danger; action call in [danger] appliesTo {principal: User, resource: Doc};"
    )
    for cedar in (by_entity, load(text, None, schema)):
        assert ask(cedar, action="call").policies == ("no",)


def test_a_linked_template_decides_under_its_own_id() -> None:
    text = '@id("t") @ttl("9s") permit(principal == ?principal, action, resource);'
    links = [{"templateId": "t", "newId": "t-u", "values": {"?principal": {"type": "User", "id": "u"}}}]
    cedar = load(text + '@id("x") forbid(principal, action == Action::"x", resource);', links=links)
    decision = ask(cedar)
    assert (decision.policies, decision.max_age_ms) == (("t-u",), 9000)
    assert not ask(cedar, "User::v").permit
    assert not ask(load(text)).permit  # without a link a template says nothing


def test_a_policy_too_deep_to_be_looked_through_still_decides() -> None:
    deep = " && ".join(['resource.owner.boss == User::"b"', *["1 < 2"] * 150])
    entities = [stored("User::o", {"boss": ref("User::b")}), stored("Doc::d", {"owner": ref("User::o")})]
    cedar = load(f'@id("deep") permit(principal, action, resource) when {{ {deep} }};', entities)
    assert ask(cedar, Entity("Job", "j", {"n": 1})).policies == ("deep",)
    assert ask(cedar, Entity("Job", "j", {"n": 1}), resource="Doc::e").policies == ()


def test_a_new_mask_is_answered_by_a_coarser_slice_with_the_same_result() -> None:
    text = "".join(f'@id("p{n}") permit(principal == User::"u{n}", action, resource);' for n in range(20))
    cedar = load(text)
    question = Question(Entity("User", "u7"), Action("read"), Entity("Doc", "d"))
    first, second = cedar.ask(question, NOON), cedar.ask(question, NOON)
    assert len(first.slice.members) == 20
    assert [p.id for p in second.slice.members] == ["p7"]
    assert ask(cedar, "User::u7").policies == ("p7",)
    assert ask(load(text), "User::u7").policies == ("p7",)


def test_handles_are_bounded() -> None:
    text = "".join(f'@id("p{n}") permit(principal == User::"u{n}", action, resource);' for n in range(40))
    cedar = load(text)
    cedar.slices._most = 8
    for _ in range(2):
        for n in range(40):
            assert ask(cedar, f"User::u{n}").policies == (f"p{n}",)
    assert len(cedar.slices._handles) <= 8


def test_small_entity_sets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar_entities, "BASES", 4)
    cedar = load(OWNER, [stored(f"User::u{n}", {"lvl": n}) for n in range(20)])
    for n in range(20):
        assert ask(cedar, f"User::u{n}", resource=Entity("Order", "o", {"owner": "u"})).permit
    assert len(cedar.store._bases) == 4


# ---- explain ----


def test_explain_names_policies_with_lines_source_lifetime_and_errors(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(
        '// who\n@id("a") @ttl("30s")\npermit(principal, action, resource);\n'
        '@id("b") permit(principal, action, resource)\n  when { context.missing };\n'
    )
    told = load(tmp_path).explain(Question(Entity("User", "u"), Action("read"), Entity("Doc", "d")), NOON)
    assert told["permit"]
    [policy] = told["policies"]
    assert (policy["id"], policy["lines"]) == ("a", [2, 3])
    assert policy["file"].endswith("a.cedar")
    assert policy["source"].startswith("@id")
    assert told["lifetime"] == {"ms": 30_000, "why": "@ttl of policy `a`"}
    assert [e["id"] for e in told["errors"]] == ["b"]
    assert told["slice"] == {"policies": 2, "of": 2}


def test_explain_tells_a_fault() -> None:
    told = load(PERMIT).explain(
        Question(Entity("User", "u"), Action("r"), Entity("Doc", "d"), {"x": 1.5}), NOON
    )
    assert not told["permit"]
    assert "context.x" in told["fault"]
