"""What can be said of an expression before a question comes: its type, what its operator wants, whether it raises.

Promises: `kind` is the type where no question can choose it, else None; `misfits` names the parts of an operand that
have, or may have, a type that the operator does not take; `raised` asks the engine itself about an expression that
reads nothing, so that literals of dates, addresses and decimals are what it takes them for. Never: knows a schema, or
an overflow that only some numbers make: `overflows` says that it is possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cedarpy import Entities, PolicySet, pst

from .cedar_engine import evaluate
from .cedar_times import NOW

Kinds = tuple[str, ...]

_LITERALS = {pst.BoolLit: "boolean", pst.LongLit: "long", pst.StringLit: "string", pst.EntityLit: "entity"}
ORDERED: Kinds = ("long", "datetime", "duration")
BOOLEAN: Kinds = ("boolean",)
STRING: Kinds = ("string",)
ENTITY: Kinds = ("entity",)
ENTITIES: Kinds = ("entity", "set")
OBJECT: Kinds = ("entity", "record")
_LONG: Kinds = ("long",)
_SET: Kinds = ("set",)

COMPARISONS = frozenset({"less", "less_eq", "greater", "greater_eq"})
# What each operator takes, operand by operand, and what it gives; `eq` takes anything.
_RULES: dict[str, tuple[tuple[Kinds | None, ...], str | None]] = {
    "not": ((BOOLEAN,), "boolean"),
    "neg": ((_LONG,), "long"),
    "is_empty": ((_SET,), "boolean"),
    **{op: ((STRING,), op) for op in ("datetime", "decimal", "duration", "ip")},
    **{op: ((("ip",),), "boolean") for op in ("is_ipv4", "is_ipv6", "is_loopback", "is_multicast")},
    "to_date": ((("datetime",),), "datetime"),
    "to_time": ((("datetime",),), "duration"),
    **{f"to_{unit}": ((("duration",),), "long") for unit in ("milliseconds", "seconds", "minutes", "hours", "days")},
    **{op: ((None, None), "boolean") for op in ("eq", "not_eq")},
    **{op: ((BOOLEAN, BOOLEAN), "boolean") for op in ("and", "or")},
    **{op: ((ORDERED, ORDERED), "boolean") for op in COMPARISONS},
    **{op: ((_LONG, _LONG), "long") for op in ("add", "sub", "mul")},
    "in": ((ENTITY, ENTITIES), "boolean"),
    "contains": ((_SET, None), "boolean"),
    **{op: ((_SET, _SET), "boolean") for op in ("contains_all", "contains_any")},
    "has_tag": ((ENTITY, STRING), "boolean"),
    "get_tag": ((ENTITY, STRING), None),
    "is_in_range": ((("ip",), ("ip",)), "boolean"),
    "offset": ((("datetime",), ("duration",)), "datetime"),
    "duration_since": ((("datetime",), ("datetime",)), "duration"),
    **{
        f"decimal_{op}": ((("decimal",), ("decimal",)), "boolean")
        for op in ("less_than", "less_eq", "greater", "greater_eq")
    },
}
_MOMENTS = frozenset({"offset", "duration_since", "to_date"})
_OVERFLOWING = frozenset({"add", "sub", "mul", "neg"}) | _MOMENTS
_FIRST = pst.UnaryOp("datetime", pst.StringLit("0001-01-01T00:00:00.000Z"))  # the bounds of `context.now`
_LAST = pst.UnaryOp("datetime", pst.StringLit("9999-12-31T23:59:59.999Z"))


def kind(e: pst.Expr) -> str | None:
    """The type of a value, where no question chooses it."""
    if type(e) in _LITERALS:
        return _LITERALS[type(e)]
    match e:
        case pst.Var(name):
            return "record" if name == "context" else "entity"
        case pst.UnaryOp(op) | pst.BinaryOp(op):
            return _RULES[op][1] if op in _RULES else None
        case pst.GetAttr(pst.Record(fields), attr):
            return kind(fields[attr]) if attr in fields else None
        case pst.GetAttr():
            return "datetime" if e == NOW else None
        case pst.IfThenElse(_, one, other):
            return kind(one) if kind(one) == kind(other) else None
        case pst.HasAttr() | pst.Like() | pst.Is():
            return "boolean"
        case pst.Set():
            return "set"
        case pst.Record():
            return "record"
    return None


def operands(e: pst.UnaryOp | pst.BinaryOp) -> Iterator[tuple[pst.Expr, Kinds]]:
    """The operands of an operator that takes not just anything, with what it takes."""
    parts = (e.arg,) if isinstance(e, pst.UnaryOp) else (e.left, e.right)
    # An operator of a later engine: what it takes nobody knows here, so no operand of it passes unseen.
    rule = _RULES[e.op][0] if e.op in _RULES else ((),) * len(parts)
    for part, wanted in zip(parts, rule, strict=True):
        if wanted is not None:
            yield part, wanted


def misfits(e: pst.Expr, wanted: Kinds) -> Iterator[tuple[pst.Expr, str | None]]:
    """The values that `e` may come to and that are not, or (None) may not be, of a wanted type."""
    if isinstance(e, pst.IfThenElse):
        yield from misfits(e.then_expr, wanted)
        yield from misfits(e.else_expr, wanted)
        return
    found = kind(e)
    if found is None or found not in wanted:
        yield e, found
    elif isinstance(e, pst.Set) and wanted is ENTITIES:
        for element in e.elements:
            yield from misfits(element, ENTITY)


def compared(e: pst.BinaryOp) -> list[str]:
    """The types that a comparison brings together, where it takes each of them, but not with one another."""
    found = {kind(leaf) for side in (e.left, e.right) for leaf in _leaves(side)}
    return sorted(k for k in found if k) if len(found) > 1 and found <= set(ORDERED) else []


def _leaves(e: pst.Expr) -> Iterator[pst.Expr]:
    if isinstance(e, pst.IfThenElse):
        yield from _leaves(e.then_expr)
        yield from _leaves(e.else_expr)
    else:
        yield e


def overflows(e: pst.UnaryOp | pst.BinaryOp) -> bool:
    """Can the result be too large for 64 bits, whatever types say? Not within the years that `context.now` can name."""
    if e.op not in _OVERFLOWING:
        return False
    # Moments move with `context.now` in one direction, so that its two ends stand for all between.
    return not _moves_with_now(e) or any(raised(_at(e, end)) for end in (_FIRST, _LAST))


def _moves_with_now(e: pst.Expr) -> bool:
    match e:
        case pst.UnaryOp(op, arg) if op in _MOMENTS:
            return _moves_with_now(arg)
        case pst.BinaryOp(op, left, right) if op in _MOMENTS:
            return _moves_with_now(left) and _moves_with_now(right)
    return e == NOW or _closed(e)


def _at(e: pst.Expr, now: pst.Expr) -> pst.Expr:
    match e:
        case pst.UnaryOp(op, arg) if op in _MOMENTS:
            return replace(e, arg=_at(arg, now))
        case pst.BinaryOp(op, left, right) if op in _MOMENTS:
            return replace(e, left=_at(left, now), right=_at(right, now))
    return now if e == NOW else e


def raised(e: pst.Expr) -> str | None:
    """What the engine says of an expression that reads nothing, "" where it can be evaluated; None: it reads."""
    if type(e) in _LITERALS:
        return ""
    if not _closed(e):
        return None
    condition = pst.When(pst.UnaryOp("is_empty", pst.Set((e,))))
    any_ = pst.ScopeAny()
    policy = pst.Template("policy0", "permit", any_, any_, any_, (condition,), pst.FrozenMap())
    try:
        policies = PolicySet.from_pst(pst.PolicySet(pst.FrozenMap(), pst.FrozenMap({"policy0": policy}), ()))
        said = evaluate(_REQUEST, policies, _nothing(), None)
    except ValueError:
        return None
    return "; ".join(text.partition(": ")[2] for text in said.diagnostics.errors)


_SOMEBODY = {"type": "User", "id": ""}
_REQUEST = {"principal": _SOMEBODY, "action": {"type": "Action", "id": ""}, "resource": _SOMEBODY}


def _nothing() -> Entities:
    return Entities.from_json_str("[]")


def _closed(e: pst.Expr) -> bool:
    """Does it read nothing of a question or of the store?"""
    match e:
        case pst.BoolLit() | pst.LongLit() | pst.StringLit():
            return True
        case pst.UnaryOp(_, arg):
            return _closed(arg)
        case pst.BinaryOp(_, left, right):
            return _closed(left) and _closed(right)
        case pst.GetAttr(base) | pst.HasAttr(base) | pst.Like(base):
            return _closed(base)
        case pst.IfThenElse(cond, one, other):
            return _closed(cond) and _closed(one) and _closed(other)
        case pst.Set(elements):
            return all(map(_closed, elements))
        case pst.Record(fields):
            return all(map(_closed, fields.values()))
    return False
