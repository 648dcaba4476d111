"""Expressions of Cedar in a short form, for messages.

Promises: what a reader finds again in the policy: operators and methods as they are written there. Never: shows a whole
record, set or condition; is parsed again.
"""

from __future__ import annotations

from cedarpy import pst

CALLED = frozenset({"datetime", "decimal", "duration", "ip"})
_SIGNS = {
    "eq": "==", "not_eq": "!=", "less": "<", "less_eq": "<=", "greater": ">", "greater_eq": ">=", "and": "&&",
    "or": "||", "add": "+", "sub": "-", "mul": "*", "in": "in", "not": "!", "neg": "-",
}  # fmt: skip
_DECIMAL = {"decimal_less_eq": "lessThanOrEqual", "decimal_greater_eq": "greaterThanOrEqual"}


def sign(op: str) -> str:
    """An operator, function or method as policies write it."""
    if op in _SIGNS:
        return _SIGNS[op]
    first, *more = _DECIMAL.get(op, op.removeprefix("decimal_")).split("_")
    return first + "".join(word.capitalize() for word in more)


def show(e: pst.Expr) -> str:
    """A short form of an expression for a message."""
    match e:
        case pst.Var(name):
            return name
        case pst.GetAttr(base, attr):
            return f"{show(base)}.{attr}"
        case pst.EntityLit(value):
            return str(value)
        case pst.StringLit(value):
            return f'"{value}"'
        case pst.BoolLit(value):
            return str(value).lower()
        case pst.LongLit(number):
            return str(number)
        case pst.Record(fields):
            return f"{{{', '.join(f'{name}: ...' for name in fields)}}}"
        case pst.Set(elements):
            return "[...]" if elements else "[]"
        case pst.BinaryOp(op, left, right):
            if op in _SIGNS:
                return f"{show(left)} {sign(op)} {show(right)}"
            return f"{show(left)}.{sign(op)}({show(right)})"
        case pst.UnaryOp(op, arg):
            if op in _SIGNS or op in CALLED:
                return f"{sign(op)}({show(arg)})"
            return f"{show(arg)}.{sign(op)}()"
    return "..."
