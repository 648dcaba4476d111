"""What the body of a Cedar policy can look at: entities by literal, attribute chains, tags, `context.now`.

Promises: over-states, never under-states. `hops` is how many attribute or tag steps can lead from
principal, action, resource, a reference in the context or a literal to an entity whose attributes, tags or
ancestors are read; `names` are the only attributes along which such steps can go. `clock` is None if the
policy cannot notice whether `context.now` is there; a use of `context` as a whole notices. A node that this
unit does not know makes the policy opaque: everything may be read. Never: evaluates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cedarpy import PolicySet, pst

from .cedar_policies import Uid
from .cedar_times import UNKNOWN, Instant, compared


@dataclass(frozen=True, slots=True)
class Reads:
    """What one policy, or a slice of them, can read. `opaque`: everything."""

    hops: int = 0
    names: frozenset[str] = frozenset()
    tags: bool = False
    literals: frozenset[Uid] = frozenset()
    clock: frozenset[Instant] | None = None
    opaque: bool = False


NOTHING = Reads()
OPAQUE = Reads(clock=frozenset({UNKNOWN}), opaque=True)


def union(many: Iterable[Reads]) -> Reads:
    """What a slice of these can read."""
    hops, tags, opaque = 0, False, False
    names: set[str] = set()
    literals: set[Uid] = set()
    clock: set[Instant] | None = None
    for r in many:
        hops, tags, opaque = max(hops, r.hops), tags or r.tags, opaque or r.opaque
        names |= r.names
        literals |= r.literals
        if r.clock is not None:
            clock = r.clock | (clock or set())  # type: ignore[assignment]
    return Reads(hops, frozenset(names), tags, frozenset(literals), None if clock is None else frozenset(clock), opaque)


def reads_of(text: str) -> Reads:
    """Analyse one policy or template."""
    try:
        nodes = PolicySet.from_str(text).to_pst()
    except ValueError:  # too deep, or newer than the library: nobody knows what it reads
        return OPAQUE
    walk = _Walk()
    for tree in (*nodes.static_policies.values(), *nodes.templates.values()):
        for clause in tree.clauses:
            walk.level(clause.expr)
    if walk.opaque:
        return OPAQUE
    clock = frozenset(walk.instants) if walk.clock else None
    return Reads(walk.hops, frozenset(walk.names), walk.tags, frozenset(walk.literals), clock)


class _Walk:
    def __init__(self) -> None:
        self.hops = 0
        self.names: set[str] = set()
        self.literals: set[Uid] = set()
        self.instants: set[Instant] = set()
        self.tags = self.clock = self.opaque = False

    def level(self, e: pst.Expr) -> int:
        """How many steps away from a root the entities in the value of `e` can be."""
        match e:
            case pst.BoolLit() | pst.LongLit() | pst.StringLit() | pst.Slot():
                return 0
            case pst.Var(name):
                if name == "context":
                    self.clock = True
                    self.instants.add(UNKNOWN)
                return 0
            case pst.EntityLit(value):
                self.literals.add((str(value.type), value.id))
                return 0
            case pst.GetAttr(pst.Var("context"), attr):
                self.names.add(attr)
                if attr == "now":
                    self.clock = True
                    self.instants.add(UNKNOWN)
                return 1
            case pst.GetAttr(base, attr):
                self.names.add(attr)
                return self._needed(self.level(base)) + 1
            case pst.HasAttr(pst.Var("context"), attrs):
                self.names.update(attrs)
                if attrs[0] == "now":
                    self.clock = True
                    if len(attrs) > 1:
                        self.instants.add(UNKNOWN)
                self._needed(len(attrs) - 1)
                return 0
            case pst.HasAttr(base, attrs):
                self.names.update(attrs)
                self._needed(self.level(base) + len(attrs) - 1)
                return 0
            case pst.UnaryOp(_, arg):
                return self.level(arg)
            case pst.BinaryOp(op, left, right):
                return self._binary(e, op, left, right)
            case pst.Like(base, _):
                return self.level(base)
            case pst.Is(base, _, in_expr):
                at = self.level(base)
                if in_expr is not None:
                    self.level(in_expr)
                    self._needed(at)
                return 0
            case pst.IfThenElse(cond, then_expr, else_expr):
                self.level(cond)
                return max(self.level(then_expr), self.level(else_expr))
            case pst.Set(elements):
                return max(map(self.level, elements), default=0)
            case pst.Record(fields):
                self.names.update(fields)
                return max(map(self.level, fields.values()), default=0)
            case _:
                self.opaque = True
                return 0

    def _binary(self, e: pst.BinaryOp, op: str, left: pst.Expr, right: pst.Expr) -> int:
        instant = compared(e)
        if instant is not None:
            self.clock = True
            self.instants.add(instant)
            return 0
        one, two = self.level(left), self.level(right)
        if op in ("in", "has_tag", "get_tag"):
            self._needed(one)
        if op in ("has_tag", "get_tag"):
            self.tags = True
        return one + 1 if op == "get_tag" else max(one, two)

    def _needed(self, level: int) -> int:
        self.hops = max(self.hops, level)
        return level
