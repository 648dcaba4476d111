"""Blocks: denies that stand in front of the PDP until they are lifted or over. The kill switch.

Promises: a block matches the subject and every member of its principal chain; while its list cannot be read, everything
is denied and says so; what is written out reads back as it was, and what says anything twice, or is not byte by byte
what was written, is not read.
Never: reads a clock or a file (the caller passes the wall time, and bytes); is looked at on a hit: who blocks a tag
revokes it too, so that nothing cached stands in front of the list.

INVARIANT: a tag is blocked once; a later block of it replaces the earlier. The list is in the order of its blocks,
whose numbers grow with it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from .errors import BadRequest
from .model import Entity, Question
from .wire import check_block, check_text, check_time

MOST = 10_000
FIXED = 128
"""Bytes of a block besides these, at most, where it is shown."""
PIECE = 64
"""Blocks that are encoded in one piece."""

read_question = msgspec.msgpack.Decoder(Question).decode


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is blocked, why, since and until when (Unix milliseconds; until 0: without end), and by whom."""

    tag: str
    reason: str
    since: int
    until: int
    by: str

    def over(self, wall_ms: int) -> bool:
        return 0 < self.until <= wall_ms


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    blocks: tuple[Block, ...]
    sha256: str


_SEAL = b',"sha256":"%s"}'
"""Ends what is kept: the digest of all that stands before it. A block that was lost to a flipped bit lifts itself."""
_write = msgspec.json.Encoder().encode


def written(blocks: Iterable[Block]) -> Iterator[bytes]:
    """The list as it is kept on disk, in pieces: whoever makes all of a long one at once stops every other thread."""
    digest = hashlib.sha256()
    for piece in _pieces(iter(blocks)):
        digest.update(piece)
        yield piece
    yield _SEAL % digest.hexdigest().encode()


def _pieces(left: Iterator[Block]) -> Iterator[bytes]:
    yield b'{"version":1,"blocks":['
    comma = b""
    while piece := list(itertools.islice(left, PIECE)):
        yield comma + _write(piece)[1:-1]
        comma = b","
    yield b"]"


def _read(data: bytes) -> _Written:
    """Raises ValueError, also for a member that is there twice: of two lists nobody knows which was meant."""
    sealed = len(data) - len(_SEAL % bytes(64))
    if data[max(0, sealed) :] != _SEAL % hashlib.sha256(data[: max(0, sealed)]).hexdigest().encode():
        raise ValueError("it is not what was written: its checksum is missing, or another")
    try:
        return msgspec.convert(json.loads(data.decode(), object_pairs_hook=_members), _Written)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it names a member twice")
    return found


class Blocks:
    """The list in force. `broken` says why everything is denied, "": nothing is."""

    def __init__(self) -> None:
        self.broken = ""
        self._by_tag: dict[str, Block] = {}
        self._numbers: dict[str, int] = {}
        self._next = itertools.count(1)

    def __bool__(self) -> bool:
        return bool(self._by_tag or self.broken)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._by_tag.values())

    def add(self, block: Block) -> None:
        self.lift(block.tag)
        self._by_tag[block.tag] = block
        self._numbers[block.tag] = next(self._next)

    def clear(self) -> None:
        self._by_tag.clear()
        self._numbers.clear()

    def lift(self, tag: str) -> bool:
        """Whether there was a block to lift."""
        self._numbers.pop(tag, None)
        return self._by_tag.pop(tag, None) is not None

    def full(self, tag: str) -> bool:
        """Whether there is no room for one more."""
        return tag not in self._by_tag and len(self._by_tag) >= MOST

    def active(self, wall_ms: int) -> list[Block]:
        """What is in force, oldest first; what is over is forgotten."""
        for block in [b for b in self._by_tag.values() if b.over(wall_ms)]:
            self.lift(block.tag)
        return list(self._by_tag.values())

    def page(self, after: int, wall_ms: int, most: int) -> tuple[list[Block], int, bool]:
        """Blocks in force behind a number, oldest first, of about so many bytes; the number of the last one, and
        whether there are more."""
        shown: list[Block] = []
        size = 0
        for tag, number in self._numbers.items():
            block = self._by_tag[tag]
            if number <= after or block.over(wall_ms):
                continue
            if size >= most:
                return shown, after, True
            shown.append(block)
            size += len(tag.encode()) + len(block.reason.encode()) + FIXED
            after = number
        return shown, after, False

    def count(self, wall_ms: int) -> int:
        """How many are in force."""
        return sum(not block.over(wall_ms) for block in self._by_tag.values())

    def match(self, key: bytes, wall_ms: int) -> Block | None:
        """The block that denies this canonical question, or None."""
        if self.broken:
            return Block("", f"the list of blocks cannot be read: {self.broken}", 0, 0, "")
        question = read_question(key)
        for entity in (question.subject, *question.chain):
            block = self._by_tag.get(tag_of(entity))
            if block is not None and not block.over(wall_ms):
                return block
        return None

    def read(self, data: bytes) -> None:
        """Take over what was kept. Raises ValueError where it cannot be read in every word."""
        kept = _read(data)
        if kept.version != 1:
            raise ValueError(f"version `{kept.version}` is not known here")
        if len(kept.blocks) > MOST:
            raise ValueError(f"it holds `{len(kept.blocks)}` blocks, more than {MOST}")
        for block in kept.blocks:
            _check(block)
        if len({b.tag for b in kept.blocks}) < len(kept.blocks):
            raise ValueError("it blocks a tag twice")
        self.clear()
        for block in kept.blocks:
            self.add(block)


def _check(block: Block) -> None:
    """Raises ValueError for what no administrator can have sent: it could not be listed, or passed on."""
    try:
        check_block(block.tag, block.reason, block.until)
        check_time("block.since", block.since)
        check_text("block.by", block.by)
    except BadRequest as fault:
        raise ValueError(str(fault)) from None


def tag_of(entity: Entity) -> str:
    """An entity as revokes and blocks name it."""
    return f"{entity.type}::{entity.id}"
