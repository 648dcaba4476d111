"""Vulnerable twins of the slicer: each leaves one thing out, and the generator must find it.

A twin takes a loaded `Cedar` and a monkeypatch-like `patch(object, name, value)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pepcore.pdp import cedar, cedar_entities, cedar_request
from pepcore.pdp.cedar import Cedar
from pepcore.pdp.cedar_entities import Store
from pepcore.pdp.cedar_reads import Reads
from pepcore.pdp.cedar_slices import Dimension, Slices

Patch = Callable[[Any, str, Any], None]
Twin = Callable[[Patch], None]


def _reads(**change: Any) -> Twin:
    """Forget something of what policies read."""

    def plant(patch: Patch) -> None:
        real = Slices._reads_of

        def reads_of(self: Slices, policy: Any) -> Reads:
            return replace(real(self, policy), **change)

        patch(Slices, "_reads_of", reads_of)

    return plant


def _fewer_hops(patch: Patch) -> None:
    real = Slices._reads_of

    def reads_of(self: Slices, policy: Any) -> Reads:
        found = real(self, policy)
        return replace(found, hops=max(0, found.hops - 1))

    patch(Slices, "_reads_of", reads_of)


def _no_groups(side: int) -> Twin:
    """Forget the ancestors of principal, action or resource."""

    def plant(patch: Patch) -> None:
        real = Store.mask

        def mask(self: Store, slices: Slices, at: int, uid: Any) -> int:
            if at != side:
                return real(self, slices, at, uid)
            return (slices.principal, slices.action, slices.resource)[side].mask(uid, ())

        patch(Store, "mask", mask)

    return plant


def _no_kind(name: str) -> Twin:
    """Forget a kind of scope: `is`, or `is ... in`."""

    def plant(patch: Patch) -> None:
        real = Dimension.mask

        def mask(self: Dimension, uid: Any, ancestors: Any) -> int:
            kept = getattr(self, name)
            setattr(self, name, {})
            found = real(self, uid, ancestors)
            setattr(self, name, kept)
            return found

        patch(Dimension, "mask", mask)

    return plant


def _no_links(patch: Patch) -> None:
    real = Slices.policies
    patch(Slices, "policies", lambda self, mask: [p for p in real(self, mask) if p.link_of < 0])


def _no_context_references(patch: Patch) -> None:
    real = cedar.roots_of
    patch(cedar, "roots_of", lambda q, action, context, made: real(q, action, {}, made))


def _no_references_of_the_brought(patch: Patch) -> None:
    real = cedar.roots_of
    patch(cedar, "roots_of", lambda q, action, context, made: real(q, action, context, {}))


def _no_action_root(patch: Patch) -> None:
    real = cedar.roots_of
    patch(cedar, "roots_of", lambda *a: [u for u in real(*a) if not cedar_entities.is_action(u[0])])


def _direct_parents_only(patch: Patch) -> None:
    real = Store._small

    def small(self: Store, roots: Any, reads: Reads) -> Any:
        held = self.entities
        bare = {uid: _without_parents(s) for uid, s in held.items()}
        self.entities = bare
        try:
            return real(self, roots, reads)
        finally:
            self.entities = held

    patch(Store, "_small", small)


def _without_parents(stored: Any) -> Any:
    import json

    row = json.loads(stored.json)
    row["parents"] = row["parents"][:1]
    return cedar_entities.Stored(json.dumps(row).encode(), stored.ancestors)


def _no_clock(patch: Patch) -> None:
    _reads(clock=None)(patch)


def _no_instants(patch: Patch) -> None:
    _reads(clock=frozenset())(patch)


def _coarse_without_groups(patch: Patch) -> None:
    patch(Dimension, "coarse", lambda self, type_: self.any | self.types.get(type_, 0))


def _errors_are_nothing(patch: Patch) -> None:
    real = cedar.read
    patch(cedar, "read", lambda result, slice_: real(result, slice_)._replace(errors=[]))


def _erring_policies_left_out(patch: Patch) -> None:
    """Slice by trying: a policy with an unguarded `context.lvl` cannot match where there is none."""
    real = Cedar.ask

    def ask(self: Cedar, question: Any, wall_ms: int, **more: Any) -> Any:
        asked = real(self, question, wall_ms, **more)
        if "lvl" in question.context:
            return asked
        mask, bit, kept = asked.mask, 1, 0
        for p in self.slices._deciding:
            if mask & bit and "context.lvl" not in p.statement.text:
                kept |= bit
            bit <<= 1
        return asked._replace(slice=self.slices.exact(kept))

    patch(Cedar, "ask", ask)


def _escapes_pass(patch: Patch) -> None:
    patch(cedar_request, "_ESCAPES", frozenset())


def _requests_win(patch: Patch) -> None:
    """The entities of a question count also where the store holds them."""
    patch(cedar_request.Trust, "brings", lambda self, entity: bool(entity.properties))
    real = Store.with_added

    def with_added(self: Store, slice_: Any, roots: Any, brought: str) -> Any:
        import json

        new = {(e["uid"]["type"], e["uid"]["id"]) for e in json.loads(brought)}
        held = self.entities
        self.entities = {u: s for u, s in held.items() if u not in new}
        self._bases.clear()
        try:
            return real(self, slice_, roots, brought)
        finally:
            self.entities = held
            self._bases.clear()

    patch(Store, "with_added", with_added)


def _every_type_open(patch: Patch) -> None:
    patch(cedar_request.Trust, "is_open", lambda self, type_: True)


def _requests_bring_parents(patch: Patch) -> None:
    real = cedar.brought_json

    def brought_json(made: Any) -> str:
        import json

        rows = json.loads(real(made))
        for row in rows:
            row["parents"] = row["attrs"].pop("parents", [])
            row["attrs"].pop("uid", None)
        return json.dumps(rows)

    patch(cedar, "brought_json", brought_json)


TWINS: dict[str, Twin] = {
    "action groups in the scope": _no_groups(1),
    "principal groups in the scope": _no_groups(0),
    "resource groups in the scope": _no_groups(2),
    "is": _no_kind("type"),
    "is in": _no_kind("isin"),
    "in": _no_kind("inside"),
    "==": _no_kind("eq"),
    "groups in the coarse slice": _coarse_without_groups,
    "links of templates": _no_links,
    "entity literals": _reads(literals=frozenset()),
    "attribute chains": _reads(hops=0),
    "the last step of a chain": _fewer_hops,
    "attribute names": _reads(names=frozenset()),
    "tags": _reads(tags=False),
    "opaque bodies": _reads(opaque=False),
    "context references": _no_context_references,
    "references in what the question brings": _no_references_of_the_brought,
    "far ancestors in a small set": _direct_parents_only,
    "context.now": _no_clock,
    "time literals": _no_instants,
    "errors": _errors_are_nothing,
    "erring policies": _erring_policies_left_out,
    "the ban on escapes": _escapes_pass,
    "the store before the question": _requests_win,
    "closed types": _every_type_open,
    "no parents from the question": _requests_bring_parents,
}
