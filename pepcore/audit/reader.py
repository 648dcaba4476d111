"""The record as others read it, also while it is written.

Promises: entries in their order with their index, segment and offset, up to the last good one; where the record is
damaged, everything before that is read first, then Damaged says where, also where only its end is wanted. Memory is
one piece of a segment.
Never: writes, takes the journal's lock, or trusts a length before it is tested. An entry that is half there at the end
of the last segment is being written, or was torn: it is left for the next look.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from . import entries
from .frames import HEAD, Broken, end
from .segments import Damaged, Held, held, numbers, path_of

PIECE = 1 << 20


class Recorded(Struct, frozen=True):
    """One entry of the record, and where it stands."""

    index: int
    entry: entries.Entry | entries.Unknown
    segment: int
    offset: int


class Cursor:
    """A place in the record. `more` reads on from there."""

    def __init__(self, folder: Path, first: int = 0, last: int | None = None) -> None:
        """From entry `first` on, or from so many before the end. Raises Damaged, FileNotFoundError."""
        self._folder = folder
        there = numbers(folder)
        if not there:
            raise FileNotFoundError(f"`{folder}` has no journal: name the folder that holds `0000000001.seg`")
        self._held: Held | None = None
        self._offset = self.index = 0
        self._skip = first
        if first or last:
            self._seek(there, first, last)
        if self._held is None:
            self._enter(held(path_of(folder, there[0]), there[0]))

    def _seek(self, there: list[int], first: int, last: int | None) -> None:
        """Go to the segment that holds it, by the headers alone."""
        wanted = first
        for number in reversed(there):
            try:
                each = held(path_of(self._folder, number), number)
            except Damaged:
                self._held = None  # read from the beginning, and say so where it is met
                return
            if self._held is None and last is not None:
                self._enter(each)
                try:
                    while self.more():  # the end is known only once it was read
                        pass
                except Damaged:  # the good ones end here, and who reads up to here meets it again
                    pass
                wanted = self._skip = max(first, self.index - last)
            self._enter(each)
            if each.header.size <= wanted:
                return

    def _enter(self, each: Held) -> None:
        self._held, self._offset, self.index = each, each.start, each.header.size

    def more(self) -> list[Recorded]:
        """What comes next, at most one piece; empty: nothing is there yet. Raises Damaged."""
        assert self._held is not None
        while True:
            following = damage = None
            try:
                following = self._following()
            except Damaged as damaged:
                damage = damaged  # what stands before it is told first
            until = following.header.size if following else None
            found, read = self._piece(self._held, until)
            if found:
                return found
            if read:
                continue  # all of it came before the first that is wanted
            if damage is not None:
                raise damage
            if following is None:
                return []
            if self.index < following.header.size and self._held.path.exists():  # else retention passed us
                missing = following.header.size - self.index
                raise Damaged(self._held.path, self._offset, f"{missing} entries are missing at its end")
            self._enter(following)

    def _following(self) -> Held | None:
        assert self._held is not None
        number = self._held.header.segment + 1
        path = path_of(self._folder, number)
        if path.exists():
            return held(path, number)
        there = numbers(self._folder)
        if there and there[-1] > number:
            if self._held.path.exists():
                raise Damaged(path, 0, "the file is missing")
            return held(path_of(self._folder, there[0]), there[0])
        return None

    def _piece(self, each: Held, until: int | None) -> tuple[list[Recorded], bool]:
        try:
            with each.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(PIECE)
        except FileNotFoundError:  # retention
            return [], False
        found: list[Recorded] = []
        at = 0
        while at < len(data) and (until is None or self.index < until):
            try:
                stop = end(data, at)
            except Broken as broken:
                if broken.short and (len(data) == PIECE or until is None):
                    break
                if found:
                    break  # tell what is good first
                raise Damaged(each.path, self._offset + at, broken.reason) from None
            if self.index >= self._skip:
                try:
                    found.append(self._recorded(each, data[at + HEAD : stop], self._offset + at))
                except Damaged:
                    if found:
                        break  # as above
                    raise
            self.index += 1
            at = stop
        self._offset += at
        return found, at > 0

    def _recorded(self, each: Held, body: bytes, offset: int) -> Recorded:
        try:
            entry = entries.read(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Damaged(each.path, offset, f"the entry is not understood: {error}") from None
        return Recorded(self.index, entry, each.header.segment, offset)


def read(folder: Path, first: int = 0) -> Iterator[Recorded]:
    """Every entry that is there now, from this index on. Raises Damaged behind the last good one."""
    cursor = Cursor(folder, first)
    while found := cursor.more():
        yield from found


def tail(folder: Path, last: int) -> tuple[list[Recorded], Cursor | None, Damaged | None]:
    """The last so many entries and a cursor that goes on behind them; or those before the damage that was met, and
    that. What is wrong further up is not looked at. Raises FileNotFoundError."""
    found: list[Recorded] = []
    first: int | None = None
    while True:
        cursor = None
        try:
            cursor = Cursor(folder, last=last) if first is None else Cursor(folder, first)
            found = []
            while more := cursor.more():
                found = [*found, *more][-last:] if last else []
            return found, cursor, None
        except Damaged as damage:
            before = max(0, cursor.index - last) if cursor else 0
            if cursor is None or len(found) == last or (first is not None and before >= first):
                return found, cursor, damage
            first = before  # fewer than are wanted stand before it: begin so many before that place
