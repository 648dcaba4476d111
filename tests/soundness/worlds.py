"""Random worlds (policies, links, entities, perhaps the schema) and random questions, some hostile."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from cedarpy import validate_policies

from pepcore.model import Action, Entity, Question

from .expressions import (
    ACTIONS,
    ATTRS,
    COUNT,
    GROUPS,
    OPEN,
    PARENTS,
    PRINCIPALS,
    RESOURCES,
    SCHEMA,
    TAGGED,
    TAGS,
    Conditions,
    literal,
)  # fmt: skip

MIDNIGHT = 1_795_564_800_000  # 2026-11-25T00:00:00Z
HOUR = 3_600_000


@dataclass
class World:
    seed: int
    policies: list[str] = field(default_factory=list)  # policy n has @id("p<n>")
    effects: list[str] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    entities: list[dict[str, Any]] = field(default_factory=list)
    schema: str | None = None


@dataclass
class Case:
    question: Question
    wall_ms: int
    refused: bool  # carries something that must be a fault whatever the policies say


def uid(r: Random, type_: str, more: int = 0) -> dict[str, str]:
    return {"type": type_, "id": f"{type_[0].lower()}{r.randrange(COUNT[type_] + more)}"}


def value(r: Random, type_: str) -> Any:
    if type_ in ATTRS:
        return {"__entity": uid(r, type_, 1)}
    if type_ == "Meta":
        full = {
            "lvl": r.randrange(8),
            "aud": [{"__entity": uid(r, "Group")} for _ in range(r.randrange(3))],
            "by": {"__entity": uid(r, "User")},
        }
        return {k: v for k, v in full.items() if r.random() < 0.8}
    if type_ == "datetime":
        return {"__extn": {"fn": "datetime", "arg": f"2026-11-25T{r.randrange(24):02d}:00:00Z"}}
    return {"Long": r.randrange(8), "String": r.choice(("eng", "hr")), "Bool": r.random() < 0.5}[type_]


def attributes(r: Random, type_: str) -> dict[str, Any]:
    made = {a: value(r, v) for a, v in ATTRS[type_].items() if r.random() < 0.8}
    if type_ == "User" and r.random() < 0.03:
        made["lvl"] = "high"  # only without a schema; make() takes it out again
    return made


def make(seed: int) -> World:
    r = Random(seed)
    w = World(seed, schema=SCHEMA if r.random() < 0.45 else None)
    for type_, n in COUNT.items():
        if type_ in OPEN:
            continue
        for i in range(n):
            if r.random() < 0.08:
                continue  # named, but not there
            entity: dict[str, Any] = {"uid": {"type": type_, "id": f"{type_[0].lower()}{i}"}}
            entity["attrs"] = attributes(r, type_)
            if w.schema and entity["attrs"].get("lvl") == "high":
                del entity["attrs"]["lvl"]
            groups = [uid(r, g) for g in PARENTS[type_] for _ in range(r.randrange(3))]
            # A group only stands in groups of a lower number, so there is no cycle.
            entity["parents"] = [g for g in groups if g["type"] != type_ or g["id"] < entity["uid"]["id"]]
            if type_ in TAGGED and r.random() < 0.7:
                entity["tags"] = {t: {"__entity": uid(r, TAGGED[type_])} for t in TAGS if r.random() < 0.8}
            w.entities.append(entity)
    if not w.schema:
        for i, name in enumerate((*GROUPS, *ACTIONS)):
            above = [g for g in GROUPS[: min(i, 4)] if r.random() < 0.35]
            w.entities.append({"uid": {"type": "Action", "id": name}, "attrs": {}, "parents": _actions(above)})
    _policies(r, w)
    return w


def _actions(names: list[str]) -> list[dict[str, str]]:
    return [{"type": "Action", "id": n} for n in names]


def _policies(r: Random, w: World) -> None:
    wanted = r.randrange(4, 22)
    deep = 0.5 if r.random() < 0.12 else 0.0  # a body deeper than any tree makes its slices opaque
    templates: list[tuple[int, str, str]] = []
    while len(w.policies) < wanted:
        n = len(w.policies)
        effect = "permit" if r.random() < 0.68 else "forbid"
        slot = r.random() < 0.12
        principal, ptype = _side(r, "principal", PRINCIPALS, slot)
        resource, rtype = _side(r, "resource", RESOURCES, slot and r.random() < 0.5)
        text = f'@id("p{n}") {effect}({principal}, {_action(r)}, {resource})'
        for _ in range(r.choice((0, 1, 1, 1, 1, 2))):
            conditions = Conditions(r, ptype, rtype, w.schema is not None)
            body = conditions.condition()
            if r.random() < deep:
                body = " && ".join([f"({body})", *["1 < 2"] * 120])
            text += f" {'when' if r.random() < 0.8 else 'unless'} {{ {body} }}"
        text += ";"
        if w.schema and not validate_policies(text, w.schema).validation_passed:
            continue
        if slot:
            templates.append((n, ptype, rtype))
        w.policies.append(text)
        w.effects.append(effect)
    for n, ptype, rtype in templates:
        for i in range(r.randrange(3)):
            text = w.policies[n]
            values = {}
            for name, type_ in (("?principal", ptype), ("?resource", rtype)):
                if name in text:
                    inside = f"in {name}" in text
                    values[name] = uid(r, r.choice(PARENTS[type_]) if inside and r.random() < 0.8 else type_)
            w.links.append({"templateId": f"p{n}", "newId": f"p{n}-{i}", "values": values})


def _side(r: Random, who: str, types: tuple[str, ...], slot: bool) -> tuple[str, str]:
    t = r.choice(types)
    if slot:
        return r.choice((f"{who} == ?{who}", f"{who} in ?{who}", f"{who} is {t} in ?{who}")), t
    group = literal(r, r.choice(PARENTS[t]))
    one = f"{who} == {literal(r, t)}"
    kinds = (who, f"{who} is {t}", f"{who} is {t}", one, f"{who} in {group}", f"{who} is {t} in {group}")
    return r.choice(kinds), t


def _action(r: Random) -> str:
    one, two = (f'Action::"{r.choice(ACTIONS)}"' for _ in range(2))
    group = f'Action::"{r.choice(GROUPS)}"'
    return r.choice(
        (
            "action",
            f"action == {one}",
            f"action in {group}",
            f"action in {group}",
            f"action in [{one}, {two}]",
        )
    )


# ---- questions ----


def ask(r: Random, w: World) -> Case:
    typed = w.schema is not None
    subject = _entity(r, r.choice((*PRINCIPALS, "Job")), typed)
    resource = _entity(r, r.choice((*RESOURCES, "Order", "Order")), typed)
    action = Action(r.choice(ACTIONS), {"force": r.random() < 0.5} if r.random() < 0.2 else {})
    context: dict[str, Any] = {}
    if r.random() < 0.7:
        context["lvl"] = r.randrange(8)
    if r.random() < 0.5:
        context["mfa"] = r.random() < 0.5
    if r.random() < 0.2:
        context["note"] = {"text": r.choice(("x", None))}
    if typed and r.random() < 0.75:
        by = uid(r, "User", 2)
        context["by"] = by if r.random() < 0.4 else {"__entity": by}
    if typed and r.random() < 0.2:
        context["at"] = r.choice(("127.0.0.1", {"__extn": {"fn": "ip", "arg": "127.0.0.1"}}))
    chain = tuple(_entity(r, "User", typed) for _ in range(r.choice((0, 0, 0, 1, 2))))
    question = Question(subject, action, resource, context, chain)
    refused = False
    if r.random() < 0.2:
        question, refused = _hostile(r, question, typed)
    # Around the literals of the policies, to the millisecond.
    wall = MIDNIGHT + r.choice((0, 6, 12, 18, r.randrange(24))) * HOUR + r.choice((-1, 0, 1, 1_234_567))
    return Case(question, wall, refused)


def _entity(r: Random, type_: str, typed: bool) -> Entity:
    name = uid(r, type_, 0 if type_ in OPEN else 2)
    properties: dict[str, Any] = {}
    if r.random() < (0.8 if type_ in OPEN else 0.25):
        # For a stored type these are lies that must not count.
        properties = attributes(r, type_)
        if not typed:
            properties = {k: v for k, v in properties.items() if ATTRS[type_][k] in ("Long", "String", "Bool")}
        elif properties.get("lvl") == "high":
            del properties["lvl"]
    return Entity(name["type"], name["id"], properties)


def _hostile(r: Random, q: Question, typed: bool) -> tuple[Question, bool]:
    """A question by somebody who wants to be more than he is, and whether it must be a fault."""
    owner = {"__entity": {"type": q.subject.type, "id": q.subject.id}}
    bad: Any = r.choice(
        [owner, {"deep": [{"er": owner}]}, {"__extn": {"fn": "ip", "arg": "127.0.0.1"}},
         {"__expr": 'User::"u1"'}, 1.5, 2**63, [None]]
    )  # fmt: skip
    kind = r.randrange(5)
    extra = {"parents": [{"type": "Role", "id": "r0"}], "uid": {"type": "User", "id": "u0"}}
    plain = type(bad) in (float, int, list)
    if kind == 0:
        return Question(q.subject, q.action, q.resource, {**q.context, "lvl": bad}, q.chain), plain or not typed
    if kind == 1:
        resource = Entity(q.resource.type, q.resource.id, {**q.resource.properties, "dept": bad})
        return Question(q.subject, q.action, resource, q.context, q.chain), plain or not typed
    if kind == 2:
        subject = Entity(q.subject.type, q.subject.id, {**q.subject.properties, **extra})
        return Question(subject, q.action, q.resource, q.context, q.chain), False
    if kind == 3:
        key = r.choice(("now", "on_behalf_of", "action"))
        return Question(q.subject, q.action, q.resource, {**q.context, key: r.choice((1, {}, []))}, q.chain), True
    action = Action(q.action.name, {"force": bad})
    return Question(q.subject, action, q.resource, q.context, q.chain), plain or not typed
