"""What is allowed in a Cedar policy set and still wrong: findings for `pepcore policies check`.

    error    can-raise     a forbid reads an attribute or tag without `has`, can overflow, or (without a schema)
                           needs a type that it does not get or that the question can choose: whoever makes
                           it raise makes a fault
    warning  empty         there is no policy: every question is denied
    warning  unreachable   the condition is false whatever is asked or tests another type than the scope's, the
                           list of actions is empty, or a forbid without condition covers the scope of a permit
    warning  no-id         no `@id`: the made one changes when lines move, and revocation tags with it
    warning  annotation    a name one letter, or its case, away from one that pepcore acts on
    warning  obligation    a type that pepcore does not discharge: a permit with it stands only where a point names
                           it, and a misspelt one nowhere
    info     open-type     questions may bring entities of this type, which policies or store refer to

Promises: reads policies as trees, sees guards through `&&`, `||`, `!`, `if` and earlier clauses. It reports
too much rather than too little.
Never: decides whether a set may load; that is for `load`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cedarpy import PolicySet, pst

from ..core.obligation import DENIED, ENFORCER, PAYLOAD, SERVER
from .cedar import Cedar
from .cedar_annotations import KNOWN
from .cedar_entities import is_action
from .cedar_guards import raising, truth
from .cedar_policies import Policy, Scope, Side

TYPES = sorted(PAYLOAD | ENFORCER | SERVER | DENIED)


@dataclass(frozen=True, slots=True)
class Finding:
    level: str
    rule: str
    file: str
    line: int
    policy: str
    message: str


def lint(cedar: Cedar) -> list[Finding]:
    """Return the findings of a loaded set, in the order of its policies."""
    found: list[Finding] = []
    if all(p.template for p in cedar.policies):
        linked = "; a template decides nothing without a link" if cedar.policies else ""
        found.append(Finding("warning", "empty", "", 0, "", f"no policies: every question is denied{linked}"))
    typed = cedar.store.schema is not None
    forbidden = [p for p in cedar.policies if _forbids_all_of_its_scope(p)]
    named: set[str] = set()
    for p in cedar.policies:
        named.update(_types_of(p.scope))
        if p.link_of >= 0:
            continue
        if not p.explicit_id:
            found.append(_finding("warning", "no-id", p, "has no @id; the made one changes when lines move"))
        found.extend(_annotations(p))
        found.extend(_obligations(p))
        tree = _tree(p)
        if tree is None:
            found.append(_finding("warning", "can-raise", p, "is too deep to be looked through; split it"))
            continue
        named.update(str(u.type) for u in pst.entity_uids(tree))
        if p.effect == "forbid":
            for what in dict.fromkeys(raising(tree, typed)):
                found.append(_finding("error", "can-raise", p, f"can raise, which is a fault: {what}"))
        types = _scope_types(p.scope)
        if not p.scope.actions:
            found.append(_finding("warning", "unreachable", p, "never applies: no action is in an empty list"))
        elif any(truth(c.expr, types) is isinstance(c, pst.Unless) for c in tree.clauses):
            found.append(_finding("warning", "unreachable", p, "never applies: its condition is always false"))
        if p.effect == "permit" and p.scope.actions:
            for f in forbidden:
                if _covers(f.scope, p.scope):
                    text = f"never decides: forbid `{f.id}` ({f.statement.file}:{f.statement.line}) covers it"
                    found.append(_finding("warning", "unreachable", p, text))
                    break
    found.extend(_open_types(cedar, named))
    return found


def _finding(level: str, rule: str, p: Policy, message: str) -> Finding:
    return Finding(level, rule, p.statement.file, p.statement.line, p.id, message)


def _tree(p: Policy) -> pst.Template | None:
    try:
        nodes = PolicySet.from_str(p.statement.text).to_pst()
    except ValueError:
        return None
    return next(iter({**nodes.static_policies, **nodes.templates}.values()))


def _annotations(p: Policy) -> Iterator[Finding]:
    for name in p.annotations:
        near = next((k for k in sorted(KNOWN) if name != k and _near(name.lower(), k)), None)
        if near and name not in KNOWN:
            yield _finding("warning", "annotation", p, f"@{name} is not read; did you mean @{near}?")


def _obligations(p: Policy) -> Iterator[Finding]:
    for type_ in dict.fromkeys(o.type for o in p.notes.obligations):
        if type_ not in TYPES:
            near = next((k for k in TYPES if _near(type_.lower(), k)), None)
            advice = f"did you mean `{near}`?" if near else "it denies where the caller does not name it in `handles`"
            yield _finding("warning", "obligation", p, f"obligation type `{type_}` is not built in; {advice}")


def _near(one: str, two: str) -> bool:
    """Equal, or one letter more, less or other."""
    if len(two) > len(one):
        one, two = two, one
    if len(one) - len(two) > 1:
        return False
    same = next((n for n in range(len(two)) if one[n] != two[n]), len(two))
    return one == two or one[same + 1 :] == two[same + (len(one) == len(two)) :]


def _forbids_all_of_its_scope(p: Policy) -> bool:
    if p.effect != "forbid" or p.template:
        return False
    tree = _tree(p)
    types = _scope_types(p.scope)
    return tree is not None and all(truth(c.expr, types) is isinstance(c, pst.When) for c in tree.clauses)


def _scope_types(scope: Scope) -> dict[str, str]:
    """The types of principal and resource, where the scope names them."""
    sides = {"principal": scope.principal, "resource": scope.resource}
    named = {name: type_ or (uid[0] if kind == "eq" and uid else "") for name, (kind, type_, uid) in sides.items()}
    return {name: type_ for name, type_ in named.items() if type_}


def _covers(outer: Scope, inner: Scope) -> bool:
    """Does the outer scope hold wherever the inner one does? No groups are looked up: False where unsure."""
    return (
        _side_covers(outer.principal, inner.principal)
        and _side_covers(outer.resource, inner.resource)
        and all(any(_side_covers(o, i) for o in outer.actions) for i in inner.actions)
    )


def _side_covers(outer: Side, inner: Side) -> bool:
    (kind, type_, uid), (inner_kind, inner_type, inner_uid) = outer, inner
    if kind == "any" or (outer == inner and (uid is not None or kind == "is")):
        return True
    if kind == "is":
        return inner_type == type_ or (inner_kind == "eq" and inner_uid is not None and inner_uid[0] == type_)
    return kind == "in" and uid is not None and inner_kind in ("eq", "isin") and inner_uid == uid


def _types_of(scope: Scope) -> Iterator[str]:
    for _, type_, uid in (scope.principal, scope.resource):
        if type_:
            yield type_
        if uid is not None:
            yield uid[0]


def _open_types(cedar: Cedar, named: set[str]) -> Iterator[Finding]:
    for stored in cedar.store.entities.values():
        named.update(t for t, _ in stored.ancestors)
        attributes, tags = stored.references()
        named.update(t for _, uids in attributes for t, _ in uids)
        named.update(t for t, _ in tags)
    for type_ in sorted(t for t in named if cedar.trust.is_open(t) and not is_action(t)):
        message = f"questions may bring entities of type `{type_}`; store one, or list the open types"
        yield Finding("info", "open-type", "", 0, "", message)
