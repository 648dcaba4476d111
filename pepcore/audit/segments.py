"""The files of a journal, as they lie on disk: `NNNNNNNNNN.seg` and, for each that is closed, a seal.

A segment begins with a frame that is no entry, its header: which journal, which segment, and size, root and frontier
of the tree before it. A seal (`sealed.jsonl`) has the span of a closed segment, so that the tree can be led over it
when retention has deleted it.

Promises: what is read here is tested: names without gaps, headers that fit one another, roots that fit their
frontiers; anything else is `Damaged`, which names file and offset.
Never: writes. Where a segment's successor begins earlier than it ends, the rest of it is no part of the record: its
sync failed, and the successor says so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ..errors import Fault
from .frames import Broken, end, frame, frames
from .lines import Lines
from .tree import Frontier, Span

MAGIC = b"pepcore journal 1\n"
LARGEST = 1 << 30
"""A segment file that is larger is none of ours: it is not read."""
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Level = Annotated[int, Meta(ge=0, le=62)]
_NAME = re.compile(r"([0-9]{10})\.seg")
_encode = msgspec.msgpack.Encoder().encode


class Damaged(Fault):
    """The record cannot be used from this place on. Nothing is appended to it any more."""

    def __init__(self, file: Path, offset: int, reason: str) -> None:
        self.file, self.offset = file, offset
        super().__init__(f"journal `{file}` at byte {offset}", reason)


class Header(Struct, frozen=True):
    journal: bytes
    segment: Count
    size: Count
    """Entries before it, which is the index of its first."""
    root: bytes
    peaks: tuple[bytes, ...]

    def framed(self) -> bytes:
        return frame(MAGIC + _encode(self))

    def frontier(self) -> Frontier:
        return Frontier(self.size, self.peaks)


_read_header = msgspec.msgpack.Decoder(Header).decode


class Seal(Struct, frozen=True):
    """Of a closed segment: `span` leads from the tree before its first entry to that of `size` entries."""

    segment: Count
    first: Count
    size: Count
    root: bytes
    span: tuple[tuple[Level, bytes], ...]


class Held(Struct, frozen=True):
    """A segment that is there. `start`: where its entries begin."""

    path: Path
    header: Header
    start: int


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{number:010}.seg"


def seals(folder: Path) -> Lines[Seal]:
    return Lines(folder / "sealed.jsonl", Seal)


def numbers(folder: Path) -> list[int]:
    """Of the segments that are there. Raises OSError."""
    return sorted(int(found[1]) for each in folder.iterdir() if (found := _NAME.fullmatch(each.name)))


def content(path: Path) -> bytes:
    """Raises Damaged, OSError."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Damaged(path, LARGEST, f"the file has more than {LARGEST} bytes")
    return data


def held(path: Path, number: int) -> Held:
    """Raises Damaged where the header is not exactly one of ours, OSError."""
    with path.open("rb") as file:
        data = file.read(4096)  # a header has at most 64 peaks
    try:
        start = end(data, 0)
    except Broken as broken:
        raise Damaged(path, 0, f"the header is broken: {broken.reason}") from None
    body = data[8:start]
    if not body.startswith(MAGIC):
        raise Damaged(path, 0, "this is no journal of version 1")
    try:
        header = _read_header(body[len(MAGIC) :])
        fits = header.framed() == data[:start] and header.frontier().root() == header.root
    except (msgspec.DecodeError, ValueError):
        fits = False
    if not fits:
        raise Damaged(path, 0, "the header does not fit itself")
    if header.segment != number:
        raise Damaged(path, 0, f"the header is that of segment {header.segment}: files were exchanged")
    return Held(path, header, start)


def survey(folder: Path) -> list[Held]:
    """Every segment, in order. Raises Damaged where one is missing or does not follow from the one before it."""
    found: list[Held] = []
    for number in numbers(folder):
        each = held(path_of(folder, number), number)
        if found:
            before = found[-1].header
            if number != before.segment + 1:
                raise Damaged(path_of(folder, before.segment + 1), 0, "the file is missing")
            if each.header.journal != before.journal:
                raise Damaged(each.path, 0, "the segment is of another journal")
            if each.header.size < before.size:
                raise Damaged(each.path, 0, f"it begins at entry {each.header.size}, before its predecessor")
        found.append(each)
    return found


def walk(data: bytes, each: Held, until: int | None) -> list[tuple[int, int]]:
    """Beginning and end of each entry, up to entry `until`, where the next segment begins. Raises Broken, Damaged."""
    found: list[tuple[int, int]] = []
    wanted = None if until is None else until - each.header.size
    if wanted != 0:
        for place in frames(data, each.start):
            found.append(place)
            if len(found) == wanted:
                break
    if wanted is not None and len(found) < wanted:
        raise Damaged(each.path, len(data), f"{wanted - len(found)} entries are missing at its end")
    return found


def lead(folder: Path, first: Header) -> list[Seal]:
    """The seals, after a test that those of deleted segments lead to the first that is there. Raises Damaged."""
    file = seals(folder)
    lines, broken = file.read()
    if broken is not None and not broken.short:
        raise Damaged(file.path, broken.offset, broken.reason)
    tree = Frontier()
    for i, (offset, seal) in enumerate(lines):
        if seal.segment != i + 1:
            raise Damaged(file.path, offset, f"the seal of segment {i + 1} is missing")
        if seal.segment >= first.segment:
            break
        follow(tree, seal, file.path, offset)
    if tree.size != first.size or tree.root() != first.root:
        raise Damaged(path_of(folder, first.segment), 0, f"the seals lead to entry {tree.size}, not to its beginning")
    return [seal for _, seal in lines]


def follow(tree: Frontier, seal: Seal, path: Path, offset: int) -> None:
    """Lead the tree over a sealed segment. Raises Damaged where the seal does not fit."""
    try:
        Span(seal.first, seal.span).carry(tree)
    except (ValueError, OverflowError) as error:
        raise Damaged(path, offset, f"the seal does not fit: {error}") from None
    if (tree.size, tree.root()) != (seal.size, seal.root):
        raise Damaged(path, offset, "the seal does not fit: its span leads to another tree")
