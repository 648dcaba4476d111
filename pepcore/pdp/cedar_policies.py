"""Cedar policies as they were written: statements with file and line, ids, annotations, links of templates.

Promises: every statement is found by a scanner that knows strings and comments, and is one policy or
template for Cedar too; every error names file and line; ids are explicit (`@id`) or made from file name and
line (`acl.cedar:12`, a second statement on that line `acl.cedar:12#2`), and unique; an annotation that
pepcore understands but cannot read is an error, never a shrug. A template decides nothing until a link
fills its slots; a link inherits the template's annotations, except that its id is its own `newId`. Never:
evaluates, or guesses at a policy that it does not understand (`scope` is then None: it may always apply).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cedarpy import PolicySet, policies_to_json_str, pst

from ..errors import PolicyError
from .cedar_annotations import CheckObligation, Notes, read_notes
from .cedar_statements import Statement

Uid = tuple[str, str]
# (kind, type, uid): any, eq uid, in uid, is type, isin type+uid
Side = tuple[str, str, Uid | None]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a policy can apply to. `actions` is None for any action; `exact` says `==` instead of `in`."""

    principal: Side
    actions: tuple[Uid, ...] | None
    exact: bool
    resource: Side


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, template or link. In the full set Cedar calls it `policy<number>`."""

    number: int
    id: str
    effect: str
    statement: Statement
    scope: Scope | None
    notes: Notes
    annotations: dict[str, str]
    explicit_id: bool = True
    template: bool = False
    link_of: int = -1
    values: dict[str, Uid] = field(default_factory=dict)

    def error(self, reason: str) -> PolicyError:
        return PolicyError(self.statement.file, self.statement.line, reason)


def parse(found: Sequence[Statement], check: CheckObligation | None) -> tuple[list[Policy], PolicySet]:
    """Return all policies and the full set. All are parsed in one call; only an error looks at each alone."""
    text = "\n".join(s.text for s in found)
    try:
        full = PolicySet.from_str(text)
    except ValueError as e:
        raise _locate(found, str(e)) from None
    if len(full) + len(full.templates()) != len(found):
        raise _locate(found, "the statements of this set cannot be told apart")
    try:
        nodes = full.to_pst()
        trees = {**nodes.static_policies, **nodes.templates}
        rows = [_from_tree(trees[f"policy{n}"]) for n in range(len(found))]
        slotted = [f"policy{n}" in nodes.templates for n in range(len(found))]
    except ValueError:
        rows, slotted = _each_tree(found)
    ids: dict[str, Statement] = {}
    policies: list[Policy] = []
    for n, (statement, (effect, scope, given)) in enumerate(zip(found, rows, strict=True)):
        ident = given["id"] if "id" in given else _made_id(statement, ids)
        notes = read_notes(statement.file, statement.line, ident, given, check)
        other = ids.setdefault(ident, statement)
        if other is not statement:
            raise PolicyError(statement.file, statement.line, taken(ident, other))
        explicit = "id" in given
        policies.append(Policy(n, ident, effect, statement, scope, notes, given, explicit, slotted[n]))
    return policies, full


def _made_id(statement: Statement, ids: dict[str, Statement]) -> str:
    made = base = f"{statement.name}:{statement.line}"
    n = 1
    while made in ids and ids[made].line == statement.line and ids[made].file == statement.file:
        n += 1
        made = f"{base}#{n}"
    return made


def taken(ident: str, other: Statement) -> str:
    return f"the id `{ident}` is taken by {other.file}:{other.line}; give this policy its own"


def _locate(found: Sequence[Statement], otherwise: str) -> PolicyError:
    for s in found:
        try:
            alone = PolicySet.from_str(s.text)
        except ValueError as e:
            return PolicyError(s.file, s.line, str(e))
        if len(alone) + len(alone.templates()) != 1:
            return PolicyError(s.file, s.line, "this is not exactly one policy; end each with `;`")
    first = found[0] if found else Statement("<text>", "text", 1, 1, "")
    return PolicyError(first.file, first.line, otherwise)


Row = tuple[str, Scope | None, dict[str, str]]


def _from_tree(tree: pst.Template) -> Row:
    return tree.effect, _scope(tree), dict(tree.annotations)


def _each_tree(found: Sequence[Statement]) -> tuple[list[Row], list[bool]]:
    """One by one, when the set as a whole has no tree (over 100 levels deep, or newer than the library)."""
    rows, slotted = [], []
    for s in found:
        try:
            nodes = PolicySet.from_str(s.text).to_pst()
            rows.append(_from_tree(next(iter({**nodes.static_policies, **nodes.templates}.values()))))
            slotted.append(bool(nodes.templates))
        except ValueError:
            try:
                form = json.loads(policies_to_json_str(s.text))
            except ValueError as e:
                raise PolicyError(s.file, s.line, str(e)) from None
            body = next(iter({**form["staticPolicies"], **form["templates"]}.values()))
            notes = {k: v or "" for k, v in body.get("annotations", {}).items()}
            rows.append((body["effect"], None, notes))
            slotted.append(bool(form["templates"]))
    return rows, slotted


def uid_of(node: pst.EntityUid) -> Uid:
    return (str(node.type), node.id)


def _scope(tree: pst.Template) -> Scope | None:
    """The scope, a slot as a side without uid. None: a construct nobody knows."""
    a = tree.action
    actions: tuple[Uid, ...] | None
    if isinstance(a, pst.ActionEq):
        actions = (uid_of(a.entity),)
    elif isinstance(a, pst.ActionIn):
        actions = tuple(map(uid_of, a.entities))
    elif isinstance(a, pst.ScopeAny):
        actions = None
    else:
        return None
    principal, resource = _side(tree.principal), _side(tree.resource)
    if principal is None or resource is None:
        return None
    return Scope(principal, actions, isinstance(a, pst.ActionEq), resource)


def _side(node: Any) -> Side | None:
    if isinstance(node, pst.ScopeAny):
        return ("any", "", None)
    if isinstance(node, pst.ScopeIs):
        return ("is", str(node.entity_type), None)
    if isinstance(node, (pst.ScopeEq, pst.ScopeIn, pst.ScopeIsIn)):
        kind = "eq" if isinstance(node, pst.ScopeEq) else "in"
        type_ = ""
        if isinstance(node, pst.ScopeIsIn):
            kind, type_ = "isin", str(node.entity_type)
        return (kind, type_, None if isinstance(node.entity, pst.Slot) else uid_of(node.entity))
    return None
