"""Cedar policies as values: ids, scopes, annotations.

Promises: every statement is one policy or template for Cedar too, else the error names its file and line;
ids are explicit (`@id`) or made from file name and line (`acl.cedar:12`, a second statement on that line
`acl.cedar:12#2`), and unique. The whole set is parsed in one call; scopes and annotations are read from
Cedar's own JSON form of the statements' heads, so that a body that no tree can hold (over 100 levels) still
has a scope. A template decides nothing until a link fills its slots (`cedar_links`). Never: evaluates, or
guesses: a side of a scope that is not understood may always hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from cedarpy import PolicySet, policies_to_json_str

from ..errors import PolicyError
from .cedar_annotations import CheckObligation, Notes, read_notes
from .cedar_places import line_in_policy, together
from .cedar_statements import Statement

Uid = tuple[str, str]
# (kind, type, uid): any, eq uid, in uid, is type, isin type+uid
Side = tuple[str, str, Uid | None]


class Scope(NamedTuple):
    """Whom a policy can apply to. It applies if one of `actions` holds."""

    principal: Side
    actions: tuple[Side, ...]
    resource: Side


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, template or link. In the full set Cedar calls it `policy<number>`."""

    number: int
    id: str
    effect: str
    statement: Statement
    scope: Scope
    notes: Notes
    annotations: dict[str, str]
    explicit_id: bool = True
    template: bool = False
    link_of: int = -1
    values: dict[str, Uid] = field(default_factory=dict)

    def error(self, reason: str, lines_on: int = 0) -> PolicyError:
        return PolicyError(self.statement.file, self.statement.line + lines_on, reason)


class _Name(msgspec.Struct):
    type: str
    id: str


class _In(msgspec.Struct):
    entity: _Name | None = None


class _Side(msgspec.Struct):
    op: str
    entity: _Name | None = None
    entities: list[_Name] | None = None
    entity_type: str = ""
    inside: _In | None = msgspec.field(default=None, name="in")


class _Form(msgspec.Struct):
    effect: str
    principal: _Side
    action: _Side
    resource: _Side
    annotations: dict[str, str | None] = {}


class _Forms(msgspec.Struct):
    templates: dict[str, _Form]
    staticPolicies: dict[str, _Form]


_forms = msgspec.json.Decoder(_Forms)


def parse(found: Sequence[Statement], check: CheckObligation | None) -> tuple[list[Policy], PolicySet]:
    """Return all policies and templates, and the full set in which Cedar calls them `policy<number>`.

    Raises PolicyError for every statement that is wrong.
    """
    try:
        full = PolicySet.from_str("\n".join(s.text for s in found))
    except ValueError as e:
        raise _located(found, str(e), check) from None
    if len(full) + len(full.templates()) != len(found):
        raise _located(found, "the statements of this set cannot be told apart", check)
    forms = _heads(found)
    ids: dict[str, Statement] = {}
    policies: list[Policy] = []
    errors: list[PolicyError] = []
    for n, statement in enumerate(found):
        name = f"policy{n}"
        form = forms.staticPolicies.get(name) or forms.templates[name]
        given = {k: v or "" for k, v in form.annotations.items()}
        ident = given["id"] if "id" in given else _made_id(statement, ids)
        try:
            notes = read_notes(statement.file, statement.line, ident, given, check, statement.text)
            other = ids.setdefault(ident, statement)
            if other is not statement:
                raise PolicyError(statement.file, statement.line, taken(ident, other))
        except PolicyError as e:
            errors.append(e)
            continue
        scope = Scope(_side(form.principal), _actions(form.action), _side(form.resource))
        explicit, template = "id" in given, name in forms.templates
        policies.append(Policy(n, ident, form.effect, statement, scope, notes, given, explicit, template))
    if errors:
        raise together(errors)
    return policies, full


def _heads(found: Sequence[Statement]) -> _Forms:
    for text in ("\n".join(s.head for s in found), "\n".join(s.text for s in found)):
        try:
            forms = _forms.decode(policies_to_json_str(text))
        except (ValueError, msgspec.MsgspecError):
            continue
        if len(forms.staticPolicies) + len(forms.templates) == len(found):
            return forms
    raise _located(found, "the engine cannot write this set out", None)


def _made_id(statement: Statement, ids: dict[str, Statement]) -> str:
    made = base = f"{statement.name}:{statement.line}"
    n = 1
    while made in ids and ids[made].line == statement.line and ids[made].file == statement.file:
        n += 1
        made = f"{base}#{n}"
    return made


def taken(ident: str, other: Statement) -> str:
    return f"the id `{ident}` is taken by {other.file}:{other.line}; give this policy its own"


def _located(found: Sequence[Statement], otherwise: str, check: CheckObligation | None) -> PolicyError:
    """What is wrong with each statement by itself, and with the notes of those that are not wrong."""
    errors: list[PolicyError] = []
    whole: list[Statement] = []
    for s in found:
        try:
            alone = PolicySet.from_str(s.text)
        except ValueError as e:
            line = s.line + line_in_policy(s.text, str(e))
            errors.append(PolicyError(s.file, line, str(e)))
            continue
        if len(alone) + len(alone.templates()) == 1:
            whole.append(s)
        else:
            errors.append(PolicyError(s.file, s.line, "this is not exactly one policy; end each with `;`"))
    if not errors:
        first = found[0] if found else Statement("<text>", "text", 1, 1, "", "")
        return PolicyError(first.file, first.line, otherwise)
    try:
        parse(whole, check)
    except PolicyError as e:
        errors.append(e)
    return together(errors)


def _side(form: _Side) -> Side:
    """One side of the scope; a slot is a side without uid, and what nobody knows is `any`."""
    uid = (form.entity.type, form.entity.id) if form.entity else None
    if form.op == "==":
        return ("eq", "", uid)
    if form.op == "in":
        return ("in", "", uid)
    if form.op == "is":
        if form.inside is None:
            return ("is", form.entity_type, None)
        inside = form.inside.entity
        return ("isin", form.entity_type, (inside.type, inside.id) if inside else None)
    return ("any", "", None)


def _actions(form: _Side) -> tuple[Side, ...]:
    if form.op == "in" and form.entities is not None:
        return tuple(("in", "", (e.type, e.id)) for e in form.entities)
    return (_side(form),)
