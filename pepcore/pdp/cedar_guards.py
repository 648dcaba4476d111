"""Can a Cedar condition raise? A walk that knows which attributes and tags are there at each point.

Promises: `raising` names every place where evaluation can raise, given what was checked before it: `a &&
b`, `if a` and an earlier `when` make what `a` tests known. With a schema the validator has settled types
and optional attributes, so overflow, extension functions on data and unguarded tags remain; without, an
operator that wants a type must not get it from an attribute, which a question can choose. Never: knows
types, so without a schema it may report what cannot happen; or reports that an entity may be absent: a
question about one that nobody stored or brought is a fault by itself where a forbid reads a required
attribute.
"""

from __future__ import annotations

from collections.abc import Iterator

from cedarpy import pst

Known = frozenset[object]

_BOOLS = frozenset({"and", "or"})
_ANY = frozenset({"eq", "not_eq"})
_EXTENSION = frozenset({"datetime", "decimal", "duration", "ip"})
_ARITHMETIC = frozenset({"add", "sub", "mul"})


def truth(e: pst.Expr) -> bool | None:
    """The value of a condition that is the same whatever is asked; None: it depends."""
    match e:
        case pst.BoolLit(value):
            return value
        case pst.UnaryOp("not", arg):
            inner = truth(arg)
            return None if inner is None else not inner
        case pst.BinaryOp("and", left, right):
            one, two = truth(left), truth(right)
            return False if one is False or two is False else True if one and two else None
        case pst.BinaryOp("or", left, right):
            one, two = truth(left), truth(right)
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
    match e:
        case pst.GetAttr(base, attr):
            yield from _in(base, known, typed)
            if e not in known and not isinstance(base, pst.Record) and not _reserved(e) and not typed:
                yield f"`{show(e)}` is read without `{show(base)} has {attr}`"
        case pst.HasAttr(base, attrs):
            yield from _in(base, known, typed)
            # On a string or a set `has` raises; a path that is there may still not be a record.
            reached = len(attrs) > 1 or isinstance(base, pst.GetAttr)
            if not typed and reached and ("entity", base) not in known:
                yield f"`{show(base)}` may be no record or entity for `has {attrs[0]}`"
        case pst.UnaryOp(op, arg):
            yield from _in(arg, known, typed)
            if op in _EXTENSION and not isinstance(arg, pst.StringLit):
                yield f"`{op}({show(arg)})` raises on text of another form"
            elif not typed and not _is_typed(arg):
                yield f"`{show(arg)}` may have another type than `{op}` takes"
        case pst.BinaryOp("and" | "or" as op, left, right):
            yield from _in(left, known, typed)
            yield from _in(right, known | _proves(left, op == "and"), typed)
            for side in (left, right):
                if not typed and not _is_typed(side):
                    yield f"`{show(side)}` may be no boolean"
        case pst.BinaryOp(op, left, right):
            yield from _in(left, known, typed)
            yield from _in(right, known, typed)
            if op == "get_tag" and e not in known:
                yield f"`{show(e)}` is read without `hasTag`"
            elif op in _ARITHMETIC:
                yield f"`{show(e)}` can overflow"
            elif not typed and op not in _ANY:
                yield from _operands(op, (left,) if op in ("has_tag", "get_tag", "contains") else (left, right))
        case pst.Like(base, _):
            yield from _in(base, known, typed)
            if not typed and not _is_typed(base):
                yield f"`{show(base)}` may be no string for `like`"
        case pst.Is(base, _, in_expr):
            yield from _in(base, known, typed)
            if in_expr is not None:
                yield from _in(in_expr, known | {("entity", base)}, typed)
            if not typed and not _is_typed(base):
                yield f"`{show(base)}` may be no entity for `is`"
        case pst.IfThenElse(cond, then_expr, else_expr):
            yield from _in(cond, known, typed)
            yield from _in(then_expr, known | _proves(cond, True), typed)
            yield from _in(else_expr, known | _proves(cond, False), typed)
            if not typed and not _is_typed(cond):
                yield f"`{show(cond)}` may be no boolean"
        case pst.Set(elements):
            for element in elements:
                yield from _in(element, known, typed)
        case pst.Record(fields):
            for value in fields.values():
                yield from _in(value, known, typed)


def _operands(op: str, operands: tuple[pst.Expr, ...]) -> Iterator[str]:
    for operand in operands:
        if not _is_typed(operand):
            yield f"`{show(operand)}` may have another type than `{op}` takes"


def _reserved(e: pst.GetAttr) -> bool:
    """`context.now` is there, and a datetime, whenever a policy reads it."""
    return e == pst.GetAttr(pst.Var("context"), "now")


def _is_typed(e: pst.Expr) -> bool:
    """Is the type of this value out of the question's hands? Attributes and tags are not."""
    if isinstance(e, pst.GetAttr):
        return _reserved(e)
    if isinstance(e, pst.IfThenElse):
        return _is_typed(e.then_expr) and _is_typed(e.else_expr)
    if isinstance(e, pst.Set):
        return all(map(_is_typed, e.elements))
    return not (isinstance(e, pst.BinaryOp) and e.op == "get_tag")


def show(e: pst.Expr) -> str:
    """A short form of an expression for a message."""
    match e:
        case pst.Var(name):
            return name
        case pst.GetAttr(base, attr):
            return f"{show(base)}.{attr}"
        case pst.EntityLit(value):
            return str(value)
        case pst.BinaryOp("get_tag", left, right):
            return f"{show(left)}.getTag({show(right)})"
        case pst.StringLit(value):
            return f'"{value}"'
        case pst.LongLit(number):
            return str(number)
        case pst.BinaryOp(op, left, right):
            return f"{show(left)} {op} {show(right)}"
        case pst.UnaryOp(op, arg):
            return f"{op}({show(arg)})"
    return "..."
