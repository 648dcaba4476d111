"""Can a Cedar condition raise? A walk that knows which attributes and tags are there at each point.

Promises: `raising` names every place where evaluation can raise, given what was checked before it: `a &&
b`, `if a` and an earlier `when` make what `a` tests known. With a schema the validator has settled types
and optional attributes, so overflow, extension functions on data and unguarded tags remain; without, an
operator must get a type that it takes (`cedar_types`), and not from an attribute, which a question can
choose. What reads nothing is evaluated by the engine. Never: knows which type an attribute has, so without
a schema it may report what cannot happen; or reports that an entity may be absent: a question about one
that nobody stored or brought is a fault by itself where a forbid reads a required attribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cedarpy import pst

from .cedar_show import CALLED, show, sign
from .cedar_times import NOW
from .cedar_types import (
    BOOLEAN,
    COMPARISONS,
    ENTITIES,
    ENTITY,
    OBJECT,
    STRING,
    Kinds,
    compared,
    kind,
    misfits,
    operands,
    overflows,
    raised,
)

Known = frozenset[object]

_UNKNOWN_TYPES: Mapping[str, str] = {}
_BOOLS = frozenset({"and", "or"})


def truth(e: pst.Expr, types: Mapping[str, str] = _UNKNOWN_TYPES) -> bool | None:
    """The value of a condition that is the same whatever is asked; None: it depends.

    `types` are those that the scope gives to `principal` and `resource`.
    """
    match e:
        case pst.Is(pst.Var(name), type_, in_expr) if name in types:
            return False if types[name] != str(type_) else True if in_expr is None else None
        case pst.BoolLit(value):
            return value
        case pst.UnaryOp("not", arg):
            inner = truth(arg, types)
            return None if inner is None else not inner
        case pst.BinaryOp("and", left, right):
            one, two = truth(left, types), truth(right, types)
            return False if one is False or two is False else True if one and two else None
        case pst.BinaryOp("or", left, right):
            one, two = truth(left, types), truth(right, types)
            return True if one or two else False if one is False and two is False else None
        case pst.BinaryOp("eq" | "not_eq" as op, left, right):
            if isinstance(left, _LITERAL) and isinstance(right, _LITERAL):
                return (left == right) is (op == "eq")
    return None


_LITERAL = (pst.BoolLit, pst.LongLit, pst.StringLit, pst.EntityLit)


def raising(tree: pst.Template, typed: bool) -> Iterator[str]:
    """Name what can raise in a policy's conditions, in order."""
    known: Known = frozenset()
    for clause in tree.clauses:
        yield from _in(clause.expr, known, typed)
        if not typed:
            yield from _unfit(clause.expr, BOOLEAN, "when" if isinstance(clause, pst.When) else "unless")
        known |= _proves(clause.expr, isinstance(clause, pst.When))


def _proves(e: pst.Expr, holds: bool) -> Known:
    """What is known to be there, or of which type, once `e` is true (or false)."""
    match e:
        case pst.UnaryOp("not", arg):
            return _proves(arg, not holds)
        case pst.BinaryOp("and", left, right) if holds:
            return _proves(left, True) | _proves(right, True)
        case pst.BinaryOp("or", left, right) if not holds:
            return _proves(left, False) | _proves(right, False)
        case pst.HasAttr(base, attrs) if holds:
            found, at = set(), base
            for attr in attrs:
                at = pst.GetAttr(at, attr)
                found.add(at)
            return frozenset(found)
        case pst.BinaryOp("has_tag", left, right) if holds:
            return frozenset({pst.BinaryOp("get_tag", left, right)})
        case pst.Is(base) if holds:
            return frozenset({("entity", base)})
    return frozenset()


def _in(e: pst.Expr, known: Known, typed: bool) -> Iterator[str]:
    said = raised(e)
    if said is not None:
        if said:
            yield f"`{show(e)}` always does: {said}"
        return
    match e:
        case pst.GetAttr(base, attr):
            yield from _in(base, known, typed)
            if not typed and e not in known and e != NOW:
                yield from _attribute(base, attr)
        case pst.HasAttr(base, attrs):
            yield from _in(base, known, typed)
            # On a string or a set `has` raises; a path that is there may still not be a record.
            if not typed and ("entity", base) not in known:
                yield from _unfit(base, OBJECT, f"has {attrs[0]}")
            if not typed and len(attrs) > 1:
                yield f"`{show(base)}.{attrs[0]}` may be no record or entity for `has {attrs[1]}`"
        case pst.UnaryOp(op, arg):
            yield from _in(arg, known, typed)
            if op in CALLED:
                yield f"`{show(e)}` raises on text of another form"
            elif not typed:
                yield from _operator(e)
            if overflows(e):
                yield f"`{show(e)}` can overflow"
        case pst.BinaryOp(op, left, right):
            yield from _in(left, known, typed)
            yield from _in(right, known | _proves(left, op == "and") if op in _BOOLS else known, typed)
            if op == "get_tag" and e not in known:
                yield f"`{show(e)}` is read without `hasTag`"
            if not typed and e not in known:
                yield from _operator(e)
            if overflows(e):
                yield f"`{show(e)}` can overflow"
        case pst.Like(base, _):
            yield from _in(base, known, typed)
            if not typed:
                yield from _unfit(base, STRING, "like")
        case pst.Is(base, _, in_expr):
            yield from _in(base, known, typed)
            if not typed:
                yield from _unfit(base, ENTITY, "is")
            if in_expr is not None:
                yield from _in(in_expr, known | {("entity", base)}, typed)
                if not typed:
                    yield from _unfit(in_expr, ENTITIES, "in")
        case pst.IfThenElse(cond, then_expr, else_expr):
            yield from _in(cond, known, typed)
            yield from _in(then_expr, known | _proves(cond, True), typed)
            yield from _in(else_expr, known | _proves(cond, False), typed)
            if not typed:
                yield from _unfit(cond, BOOLEAN, "if")
        case pst.Set(elements):
            for element in elements:
                yield from _in(element, known, typed)
        case pst.Record(fields):
            for value in fields.values():
                yield from _in(value, known, typed)


def _attribute(base: pst.Expr, attr: str) -> Iterator[str]:
    found = kind(base)
    if found is not None and found not in OBJECT:
        yield f"`{show(base)}` is of type {found}, which has no attributes"
    elif not isinstance(base, pst.Record):
        yield f"`{show(base)}.{attr}` is read without `{show(base)} has {attr}`"
    elif attr not in base.fields:
        yield f"`{show(base)}` has no attribute `{attr}`"


def _operator(e: pst.UnaryOp | pst.BinaryOp) -> Iterator[str]:
    """What an operator may get that it does not take."""
    for operand, wanted in operands(e):
        yield from _unfit(operand, wanted, sign(e.op))
    if isinstance(e, pst.BinaryOp) and e.op in COMPARISONS and (mixed := compared(e)):
        yield f"`{show(e)}` compares {' with '.join(mixed)}: both must be of one type"


def _unfit(e: pst.Expr, wanted: Kinds, op: str) -> Iterator[str]:
    for part, found in misfits(e, wanted):
        is_ = "may have another type" if found is None else f"is of type {found}, another"
        yield f"`{show(part)}` {is_} than `{op}` takes ({' or '.join(wanted) or 'unknown'})"
