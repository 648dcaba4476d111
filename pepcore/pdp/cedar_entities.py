"""The entity store of embedded Cedar: one handle of the whole, and small sets where a question brings more.

Promises: ancestors, attributes and tags come from what the engine itself holds (its own rendering of the
handle, with references written out), so that slicing sees what is evaluated. A question that brings nothing
uses the whole store's handle. Else a small set is built: the closure from the question's roots and the
slice's literals over attributes and tags, as far as the sliced policies can look, each entity with all its
ancestors; and the question's own entities are added to it, under the schema. Small sets without the
question's entities are kept, per slice, in bounded number.
Never: takes anything from a question for an entity that it holds (INVARIANT 25).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from cedarpy import Entities, Schema

from ..errors import PolicyError
from .cedar_policies import Uid
from .cedar_reads import Reads
from .cedar_shape import located
from .cedar_slices import Slice, Slices
from .cedar_statements import read_text

BASES = 1024


class _Name(msgspec.Struct):
    type: str
    id: str


class _Row(msgspec.Struct):
    uid: _Name
    parents: list[_Name]


class _Content(msgspec.Struct):
    attrs: dict[str, Any]
    tags: dict[str, Any] = {}


_rows = msgspec.json.Decoder(list[msgspec.Raw])
_row = msgspec.json.Decoder(_Row)
_content = msgspec.json.Decoder(_Content)


class Stored:
    """An entity of the store. Masks, references and tags are filled in when first asked for."""

    __slots__ = ("ancestors", "json", "masks", "refs", "tags")

    def __init__(self, json: bytes, ancestors: tuple[Uid, ...]) -> None:
        self.json = json
        self.ancestors = ancestors
        self.masks: list[int | None] = [None, None, None]
        self.refs: tuple[list[tuple[str, tuple[Uid, ...]]], tuple[Uid, ...]] | None = None
        self.tags: tuple[str, ...] | None = None

    def references(self) -> tuple[list[tuple[str, tuple[Uid, ...]]], tuple[Uid, ...]]:
        """(attribute, entities that it names) pairs, and the entities that the tags name."""
        if self.refs is None:
            content = _content.decode(self.json)
            named = [(name, found) for name, value in content.attrs.items() if (found := references(value))]
            self.refs = (named, references(content.tags))
        return self.refs


def references(value: Any) -> tuple[Uid, ...]:
    """Every entity named in a JSON value: under `__entity` or, where a schema allows it, as type and id."""
    found: list[Uid] = []
    stack = [value]
    while stack:
        v = stack.pop()
        if isinstance(v, dict):
            type_, ident = v.get("type"), v.get("id")
            if isinstance(type_, str) and isinstance(ident, str):
                found.append((type_, ident))
            stack.extend(v.values())
        elif isinstance(v, list):
            stack.extend(v)
    return tuple(found)


class Store:
    """All entities of one load, immutable."""

    def __init__(
        self, source: Path | str | tuple[str, str] | list[dict[str, Any]] | None, schema: Schema | None
    ) -> None:
        file, text = _read(source)
        given = source if isinstance(source, list) else None
        try:
            self.handle = Entities.from_json_str(text, schema)
        except ValueError as e:
            raise located(file, text, given, schema, str(e)) from None
        self.schema = schema
        self._bases: dict[tuple[Slice, tuple[Uid, ...]], Entities] = {}
        self._masks: dict[int, int] = {}  # many entities share a mask, which may be long
        self.entities: dict[Uid, Stored] = {}
        try:
            for raw in _rows.decode(str(self.handle)):
                row = _row.decode(raw)
                ancestors = tuple((p.type, p.id) for p in row.parents)
                self.entities[row.uid.type, row.uid.id] = Stored(bytes(raw), ancestors)
        except (msgspec.MsgspecError, ValueError) as e:
            reason = f"the engine cannot write these entities out: {e}"
            raise located(file, text, given, schema, reason, accepted=True) from None
        if len(self.entities) != len(self.handle):
            raise PolicyError(file, 1, "the engine holds other entities than it writes out")
        self.types = frozenset(type_ for type_, _ in self.entities)

    def mask(self, slices: Slices, side: int, uid: Uid) -> int:
        """The policies whose scope `uid` satisfies on a side (0 principal, 1 action, 2 resource)."""
        dimension = (slices.principal, slices.action, slices.resource)[side]
        stored = self.entities.get(uid)
        if stored is None:
            return dimension.mask(uid, ())
        mask = stored.masks[side]
        if mask is None:
            mask = dimension.mask(uid, stored.ancestors)
            mask = stored.masks[side] = self._masks.setdefault(mask, mask)
        return mask

    def tags(self, uid: Uid) -> tuple[str, ...]:
        """An entity's ancestors, as a revoke names them: revoking a role drops what its members were permitted."""
        stored = self.entities.get(uid)
        if stored is None:
            return ()
        if stored.tags is None:
            stored.tags = tuple(f"{t}::{i}" for t, i in stored.ancestors)
        return stored.tags

    def with_added(self, slice_: Slice, roots: Iterable[Uid], brought: str) -> Entities:
        """A set for one question: what the slice can see from the roots, and what it brings (JSON)."""
        if slice_.reads.opaque:
            return self.handle.with_added_json_str(brought, self.schema)
        held = sorted(uid for uid in {*roots, *slice_.reads.literals} if uid in self.entities)
        key = (slice_, tuple(held))
        base = self._bases.get(key)
        if base is None:
            while len(self._bases) >= BASES:
                del self._bases[next(iter(self._bases))]
            base = self._bases[key] = self._small(held, slice_.reads)
        return base.with_added_json_str(brought, self.schema)

    def _small(self, roots: Iterable[Uid], reads: Reads) -> Entities:
        chosen = self.closure(roots, reads)
        # With a schema the engine itself adds all actions.
        rows = [s.json for uid, s in chosen.items() if self.schema is None or not is_action(uid[0])]
        return Entities.from_json_str((b"[" + b",".join(rows) + b"]").decode(), self.schema)

    def closure(self, roots: Iterable[Uid], reads: Reads) -> dict[Uid, Stored]:
        """The entities that policies which read no more than `reads` can look at, from these roots."""
        chosen: dict[Uid, Stored] = {}
        level = list(roots)
        for _ in range(reads.hops + 1):
            following: list[Uid] = []
            for uid in level:
                stored = self.entities.get(uid)
                if stored is None or uid in chosen:
                    continue
                chosen[uid] = stored
                named, tagged = stored.references()
                for name, found in named:
                    if name in reads.names:
                        following.extend(found)
                if reads.tags:
                    following.extend(tagged)
            level = following
        return chosen


def is_action(type_: str) -> bool:
    return type_ == "Action" or type_.endswith("::Action")


def _read(source: Path | str | tuple[str, str] | list[dict[str, Any]] | None) -> tuple[str, str]:
    if isinstance(source, tuple):
        return source
    if source is None:
        return "<entities>", "[]"
    if isinstance(source, list):
        try:
            return "<entities>", msgspec.json.encode(source).decode()
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as e:
            raise PolicyError("<entities>", 1, f"not JSON: {e}") from None
    return str(source), read_text(source)
