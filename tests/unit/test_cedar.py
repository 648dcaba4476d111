"""Embedded Cedar, end to end through `load` and `decide`: one sentence per test."""

from __future__ import annotations

from typing import Any

from pepcore.model import Action, Decision, Entity, Question
from pepcore.pdp.cedar import Cedar, load

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
    assert ask(cedar, "User::v") == Decision(False, tags=('User::"v"', 'Doc::"d"'))


def test_a_forbid_trumps_a_permit() -> None:
    text = '@id("p") permit(principal, action, resource);\n@id("f") forbid(principal, action == Action::"x", resource);'
    cedar = load(text)
    assert ask(cedar).policies == ("p",)
    denied = ask(cedar, action="x")
    assert not denied.permit
    assert denied.policies == ("f",)
