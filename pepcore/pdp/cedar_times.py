"""When the answer of a policy that reads `context.now` may next change.

Promises: for comparisons of `context.now` with a `datetime("...")` literal (also moved by
`.offset(duration("..."))`), and of `context.now.toTime()` with a `duration("...")` literal, the
milliseconds until the nearest instant after `wall_ms` at which one of them can change; for every other use
of `context.now`, at most 1 s (DESIGN, D7). The instant just after a literal counts too, since `<=`, `>` and
`==` change there. Too early is allowed, too late is not. Never: reads a clock; or evaluates the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cedarpy import pst

# ("at", Unix ms) · ("daily", ms after midnight UTC) · UNKNOWN
Instant = tuple[str, int]
UNKNOWN: Instant = ("unknown", 0)
UNKNOWN_MS = 1000
DAY = 86_400_000

_COMPARE = frozenset({"less", "less_eq", "greater", "greater_eq", "eq", "not_eq"})
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:\.(\d{3}))?(?:Z|([+-])(\d\d)(\d\d)))?", re.ASCII)
_DURATION = re.compile(r"(-?)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = pst.GetAttr(pst.Var("context"), "now")
_TIME_OF_NOW = pst.UnaryOp("to_time", NOW)


def compared(node: pst.BinaryOp) -> Instant | None:
    """The instant at which this comparison of `context.now` changes; None if it is no such comparison."""
    if node.op not in _COMPARE:
        return None
    for one, other in ((node.left, node.right), (node.right, node.left)):
        if one == NOW:
            at = _datetime(other)
            if at is not None:
                return ("at", at)
        elif one == _TIME_OF_NOW:
            after = _duration(other)
            if after is not None:
                return ("daily", after)
    return None


def _datetime(node: pst.Expr) -> int | None:
    if isinstance(node, pst.BinaryOp) and node.op == "offset":
        base, by = _datetime(node.left), _duration(node.right)
        return None if base is None or by is None else base + by
    if not (isinstance(node, pst.UnaryOp) and node.op == "datetime" and isinstance(node.arg, pst.StringLit)):
        return None
    m = _DATE.fullmatch(node.arg.value)
    if m is None:
        return None
    try:
        year, month, day, hour, minute, second, ms = (int(m[n] or 0) for n in range(1, 8))
        east = timedelta(hours=int(m[9]), minutes=int(m[10])) if m[8] else timedelta(0)
        when = datetime(year, month, day, hour, minute, second, ms * 1000, UTC)
    except ValueError:
        return None
    return (when - (-east if m[8] == "-" else east) - _EPOCH) // timedelta(milliseconds=1)


def _duration(node: pst.Expr) -> int | None:
    if not (isinstance(node, pst.UnaryOp) and node.op == "duration" and isinstance(node.arg, pst.StringLit)):
        return None
    m = _DURATION.fullmatch(node.arg.value)
    if m is None or not any(m.groups()[1:]):
        return None
    d, h, mi, s, ms = (int(g or 0) for g in m.groups()[1:])
    return ((((d * 24 + h) * 60 + mi) * 60 + s) * 1000 + ms) * (-1 if m[1] else 1)


def until_next(instants: Iterable[Instant], wall_ms: int) -> int | None:
    """Milliseconds until the answer may change; None: never."""
    nearest: int | None = None
    for kind, value in instants:
        if kind == "at":
            left = value - wall_ms if value > wall_ms else 1 if value == wall_ms else None
        elif kind == "daily":
            into = wall_ms % DAY
            left = min(x - into for x in (value, value + 1, DAY, DAY + 1) if x > into)
        else:
            left = UNKNOWN_MS
        if left is not None and (nearest is None or left < nearest):
            nearest = left
    return nearest


def as_text(wall_ms: int) -> str:
    """`wall_ms` as Cedar's datetime reads it. Raises OverflowError outside the years 1 to 9999."""
    when = _EPOCH + timedelta(milliseconds=wall_ms)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z".rjust(24, "0")
