"""A question as Cedar reads it, and what of it may be trusted.

    principal, resource   Type::"id" of subject and resource action                Action::"name"; a name
    that is itself written `Ns::Action::"id"` is that action context               the question's context,
    and under reserved keys (a question that brings one is a fault):
      on_behalf_of        the principal chain as a set of entities, where there is one
      action              the action's properties, where there are any
      now                 the wall time as datetime, where a sliced policy reads it

Values: null member of a map = absent; null in a list, a float, an integer beyond 64 bits signed = a fault
naming the field. `__entity`, `__extn` and `__expr` are faults at any depth, unless a schema types that
place: then the engine, given the schema, checks the place itself. Properties make an entity only for open
types, only where the store holds no such entity, and without parents; elsewhere they are not looked at
(INVARIANT 25). Never: decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec

from ..errors import BadQuestion
from ..model import Entity, Question
from .cedar_entities import Store, is_action, references
from .cedar_policies import Uid

RESERVED = ("now", "on_behalf_of", "action")
_ESCAPES = frozenset({"__entity", "__extn", "__expr"})
_MAX, _MIN = 2**63 - 1, -(2**63)
_NAMESPACED = re.compile(r'((?:[A-Za-z_][A-Za-z0-9_]*::)*Action)::"([^"\\]*)"')
_encode = msgspec.json.Encoder().encode


class Trust:
    """Which properties of a question count."""

    __slots__ = ("_closed", "_open", "store", "typed")

    def __init__(self, store: Store, open_types: Collection[str] | None) -> None:
        self.store = store
        self.typed = store.schema is not None
        self._open = None if open_types is None else frozenset(open_types)
        self._closed = store.types

    def is_open(self, type_: str) -> bool:
        """May a question bring entities of this type? Never actions: their groups are the operator's."""
        if is_action(type_):
            return False
        return type_ not in self._closed if self._open is None else type_ in self._open

    def brings(self, entity: Entity) -> bool:
        """Do this entity's properties become an entity?"""
        if not entity.properties:
            return False
        return (entity.type, entity.id) not in self.store.entities and self.is_open(entity.type)


def action_uid(name: str) -> Uid:
    if name.endswith('"'):
        m = _NAMESPACED.fullmatch(name)
        if m is not None:
            return m[1], m[2]
    return "Action", name


def clean(value: Any, field: str, typed: bool) -> Any:
    """The value as Cedar takes it; the same object where nothing has to change. Raises BadQuestion."""
    kind = type(value)
    if kind is str or kind is bool:
        return value
    if kind is int:
        if _MIN <= value <= _MAX:
            return value
        raise BadQuestion(field, f"`{value}` is beyond 64 bits signed; send it as a string")
    if kind is dict:
        return _clean_map(value, field, typed)
    if kind is list or kind is tuple:
        made = [clean(v, f"{field}[{n}]", typed) for n, v in enumerate(value)]
        return value if all(a is b for a, b in zip(made, value, strict=True)) else made
    if value is None:
        raise BadQuestion(field, "null in a list means nothing to Cedar; leave it out")
    if kind is float:
        raise BadQuestion(field, f"`{value}` is a float, which Cedar has not; send an integer or a string")
    raise BadQuestion(field, f"a {kind.__name__} means nothing to Cedar")


def _clean_map(value: dict[Any, Any], field: str, typed: bool) -> dict[str, Any]:
    made: dict[str, Any] | None = None
    for key, v in value.items():
        if type(key) is not str:
            raise BadQuestion(field, f"the key `{key}` is not a string")
        if key in _ESCAPES and not typed:
            raise BadQuestion(f"{field}.{key}", "a question must not name the engine's entities")
        kind = type(v)
        if kind is str or kind is bool:
            continue
        if v is None:
            made = dict(value) if made is None else made
            del made[key]
            continue
        c = clean(v, f"{field}.{key}", typed)
        if c is not v:
            made = dict(value) if made is None else made
            made[key] = c
    return value if made is None else made


def context_of(question: Question, typed: bool) -> dict[str, Any]:
    """The context with chain and action properties, without `now`. The result is the caller's to change."""
    given = question.context
    for key in RESERVED:
        if key in given:
            raise BadQuestion(f"context.{key}", "this name is reserved; rename the member")
    context = clean(given, "context", typed)
    context = dict(context)
    if question.chain:
        context["on_behalf_of"] = [{"__entity": {"type": e.type, "id": e.id}} for e in question.chain]
    if question.action.properties:
        context["action"] = clean(question.action.properties, "action.properties", typed)
    return context


def brought(question: Question, trust: Trust) -> tuple[dict[Uid, dict[str, Any]], bool]:
    """The entities that the question brings (uid to attributes), and whether other properties went unused."""
    made: dict[Uid, dict[str, Any]] = {}
    unused = False
    rows = [("subject", question.subject), ("resource", question.resource)]
    rows += [(f"chain[{n}]", e) for n, e in enumerate(question.chain)]
    for field, entity in rows:
        if not entity.properties:
            continue
        attrs = clean(entity.properties, f"{field}.properties", trust.typed)
        if not trust.brings(entity):
            unused = True
            continue
        uid = (entity.type, entity.id)
        if attrs and made.setdefault(uid, attrs) != attrs:
            raise BadQuestion(f"{field}.properties", f'`{uid[0]}::"{uid[1]}"` stands twice, differently')
    return made, unused


def brought_json(made: dict[Uid, dict[str, Any]]) -> str:
    rows = [{"uid": {"type": t, "id": i}, "attrs": attrs, "parents": []} for (t, i), attrs in made.items()]
    return _encode(rows).decode()


def roots_of(question: Question, action: Uid, context: dict[str, Any], made: dict[Uid, dict[str, Any]]) -> list[Uid]:
    """Where policies can start to look: principal, action, resource, and all that the question names."""
    subject, resource = question.subject, question.resource
    named = references(list(made.values())) if made else ()
    return [(subject.type, subject.id), action, (resource.type, resource.id), *references(context), *named]
