"""Policy slices: the policies whose scope can hold for one question, as a ready handle of the engine.

Every policy that can decide has a bit. For principal, action and resource a mask of the policies whose
scope that entity satisfies is looked up (any, ==, in, is, is in); the AND of the three is the slice, and
the key of its handle in an LRU.

Promises: a slice is a superset of the policies whose scope is true, and a policy whose scope is false gives
neither a match nor an error, so decision, reasons and errors equal those of the full set (INVARIANT 24). A
mask that is new is answered by a coarser slice (by action and the two types), and gets its own handle when
it comes again, so a flood of new masks builds nothing. A policy that is not understood is in every slice.
Never: parses on the way of a warm question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cedarpy import PolicySet

from .cedar_links import link_call
from .cedar_policies import Policy, Side, Uid
from .cedar_reads import Reads, reads_of, union

HANDLES = 1024
SEEN = 8192


class Slice:
    """Some policies, ready to evaluate. `members[n]` is what the engine calls `policy<n>` here."""

    __slots__ = ("handle", "members", "reads")

    def __init__(self, handle: PolicySet, members: Sequence[Policy], reads: Reads) -> None:
        self.handle = handle
        self.members = members
        self.reads = reads


class Dimension:
    """Masks of one side of the scope."""

    __slots__ = ("any", "eq", "group_types", "inside", "isin", "type", "types")

    def __init__(self) -> None:
        self.any = 0
        self.eq: dict[Uid, int] = {}
        self.inside: dict[Uid, int] = {}
        self.type: dict[str, int] = {}
        self.isin: dict[tuple[str, Uid], int] = {}
        self.types: dict[str, int] = {}
        self.group_types = 0

    def add(self, side: Side, bit: int) -> None:
        kind, type_, uid = side
        if kind == "any":
            self.any |= bit
        elif kind == "is":
            self.type[type_] = self.type.get(type_, 0) | bit
            self.types[type_] = self.types.get(type_, 0) | bit
        elif uid is None:  # a slot that nothing fills: cannot happen for a policy that decides
            self.any |= bit
        elif kind == "eq":
            self.eq[uid] = self.eq.get(uid, 0) | bit
            self.types[uid[0]] = self.types.get(uid[0], 0) | bit
        elif kind == "in":
            self.inside[uid] = self.inside.get(uid, 0) | bit
            self.group_types |= bit
        else:
            self.isin[type_, uid] = self.isin.get((type_, uid), 0) | bit
            self.types[type_] = self.types.get(type_, 0) | bit

    def mask(self, uid: Uid, ancestors: Iterable[Uid]) -> int:
        """The policies whose scope this entity satisfies on this side."""
        type_ = uid[0]
        inside, isin = self.inside, self.isin
        mask = self.any | self.eq.get(uid, 0) | self.type.get(type_, 0)
        mask |= inside.get(uid, 0) | isin.get((type_, uid), 0)
        for a in ancestors:
            mask |= inside.get(a, 0) | isin.get((type_, a), 0)
        return mask

    def coarse(self, type_: str) -> int:
        """The policies whose scope some entity of this type could satisfy."""
        return self.any | self.types.get(type_, 0) | self.group_types


class Slices:
    """All slices of one policy set. `full` is the handle of the whole set, numbered like `policies`."""

    def __init__(self, policies: Sequence[Policy], full: PolicySet, handles: int = HANDLES) -> None:
        self.principal, self.action, self.resource = Dimension(), Dimension(), Dimension()
        self._policies = policies
        self._deciding = [p for p in policies if not p.template]
        self._full = full
        self._handles: dict[int, Slice] = {}
        self._most = handles
        self._seen: dict[int, None] = {}
        self._reads: dict[int, Reads] = {}
        for n, p in enumerate(self._deciding):
            self.principal.add(p.scope.principal, 1 << n)
            self.resource.add(p.scope.resource, 1 << n)
            for side in p.scope.actions:
                self.action.add(side, 1 << n)
        self.everything = (1 << len(self._deciding)) - 1

    def get(self, mask: int, action: int, principal_type: str, resource_type: str) -> Slice:
        """The slice for `mask`; where that is new, a ready or cheap superset of it."""
        handles = self._handles
        found = handles.get(mask)
        if found is not None:
            if len(handles) > self._most >> 1:  # the order only matters when something may be dropped
                handles[mask] = handles.pop(mask)
            return found
        if mask in self._seen:
            return self.exact(mask)
        if len(self._seen) >= SEEN:
            self._seen.clear()
        self._seen[mask] = None
        coarse = action & self.principal.coarse(principal_type) & self.resource.coarse(resource_type)
        return self.exact(coarse)

    def exact(self, mask: int) -> Slice:
        """The slice of exactly these policies."""
        found = self._handles.get(mask)
        if found is None:
            found = self._build(mask)
            while len(self._handles) >= self._most:
                del self._handles[next(iter(self._handles))]
            self._handles[mask] = found
        return found

    def policies(self, mask: int) -> list[Policy]:
        members = []
        while mask:
            low = mask & -mask
            members.append(self._deciding[low.bit_length() - 1])
            mask ^= low
        return members

    def _build(self, mask: int) -> Slice:
        deciding = self.policies(mask)
        reads = union(map(self._reads_of, deciding))
        if mask == self.everything:
            return Slice(self._full, self._policies, reads)
        statics = [p for p in deciding if p.link_of < 0]
        links = [p for p in deciding if p.link_of >= 0]
        templates = {n: self._policies[n] for n in sorted({p.link_of for p in links})}
        members = [*statics, *templates.values(), *links]
        place = {p.number: n for n, p in enumerate(members)}
        texts = [p.statement.text for p in members if p.link_of < 0]
        handle = PolicySet.from_str("\n".join(texts))
        if len(handle) + len(handle.templates()) != len(texts):
            # The engine sees other statements than we do: trust only the whole.
            return self.exact(self.everything)
        if links:
            handle = handle.with_linked_batch([link_call(p, place[p.link_of], place[p.number]) for p in links])
        return Slice(handle, members, reads)

    def _reads_of(self, policy: Policy) -> Reads:
        number = policy.link_of if policy.link_of >= 0 else policy.number
        found = self._reads.get(number)
        if found is None:
            found = self._reads[number] = reads_of(policy.statement.text)
        return found
