"""Which segments are kept.

Promises: whole old segments are deleted, oldest first, the growing one never; the seal of each stays, so that the
tree is still proved over what is left. That one is deleted is an entry, which is on disk and signed before the segment
goes: a segment that somebody else deleted lacks it, and `verify` says so. What a file says of itself (its length, its
times) counts for nothing: whoever can write it, and has no key, must not have its evidence deleted by us. Segments are
counted, and their age is that of the first head of our key behind them. Before a segment goes it is read: one that is
not what was sealed is evidence, and stays, with all that follow.
Never: deletes a segment whose seal is not on disk.
"""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct

from . import entries
from .disk import Disk
from .frames import Broken, end, leaf
from .heads import genuine, heads
from .reader import read
from .segments import Damaged, Seal, held, numbers, path_of, seals

BUDGET_S = 0.1
"""How long segments are read when one is closed: the others have time when the next one is."""
LEAST = 2
"""As many are read whatever that takes: more than come."""
PIECE = 1 << 18
HASHED = 32
"""Entries that are hashed between two chances for other threads."""


class Rules(Struct, frozen=True):
    """0: no such limit. Seals and heads are never deleted: about 1 KiB a segment, 600 bytes a head."""

    segments: int = 256
    bytes: int = 0
    seconds: int = 0

    def most(self, segment: int) -> int:
        """Segments of so many bytes that are kept, the growing one included; 0: no limit."""
        by_bytes = max(1, self.bytes // segment) if self.bytes else 0
        return min((limit for limit in (self.segments, by_bytes) if limit), default=0)


def due(folder: Path, rules: Rules, growing: int, segment: int, key: str) -> list[Seal]:
    """The seals of the segments that the rules no longer keep, oldest first. `growing` is the number of the one that
    grows, `segment` the bytes of each, `key` the id of ours, "": there is none. Raises OSError."""
    most = rules.most(segment)
    old = covered(folder, time.time_ns() - rules.seconds * 10**9, key) if rules.seconds and key else 0
    there = {number for number in numbers(folder) if number < growing}
    gone = []
    for _, seal in seals(folder).read()[0]:
        if seal.segment not in there:
            continue
        if not ((most and seal.segment <= growing - most) or seal.size <= old):
            break
        gone.append(seal)
    return gone


def covered(folder: Path, before_ns: int, key: str) -> int:
    """Entries that were there at that time for sure: the newest head of this key from then or before counts them."""
    file = heads(folder)
    try:
        data = file.path.read_bytes()
    except FileNotFoundError:
        return 0
    low, high = 0, len(data)  # a line that begins below `low` is old enough, one that begins at `high` is not
    found = None
    while low < high:
        start = data.rfind(b"\n", 0, (low + high) // 2) + 1
        stop = data.find(b"\n", start)
        try:
            head = file.parse(data[start:stop]) if stop >= 0 else None
        except ValueError:
            head = None
        if head is not None and head.wall_ns <= before_ns:
            found, low = head, stop + 1
        elif start <= low:
            break
        else:
            high = start
    return found.size if found is not None and found.key == key and genuine(found) else 0


def sound(folder: Path, gone: list[Seal], first: int) -> tuple[list[Seal], Damaged | None]:
    """Those of them that are what was sealed, and have been read in time; and what is wrong with the next. `first` is
    the oldest that the writer has left there."""
    until = time.monotonic() + BUDGET_S
    if gone and gone[0].segment > first:
        return [], Damaged(path_of(folder, first), 0, "the file is missing")
    found: list[Seal] = []
    for seal in gone:
        if len(found) >= LEAST and time.monotonic() > until:
            break
        try:
            _as_sealed(folder, seal)
        except Damaged as damaged:
            return found, damaged
        found.append(seal)
    return found, None


def _as_sealed(folder: Path, seal: Seal) -> None:
    """Read a closed segment. Raises Damaged where it is not what was sealed, to the last byte."""
    path = path_of(folder, seal.segment)
    try:
        each = held(path, seal.segment)
        tree, at, behind = each.header.frontier(), each.start, b""
        with path.open("rb") as file:
            file.seek(at)
            while tree.size < seal.size:
                piece = file.read(PIECE)
                data, start = behind + piece, 0
                while tree.size < seal.size:
                    try:
                        stop = end(data, start)
                    except Broken as broken:
                        if broken.short and piece:
                            break
                        raise Damaged(path, at + start, broken.reason) from None
                    tree.append(leaf(data[start:stop]))
                    start = stop
                    if tree.size % HASHED == 0:
                        time.sleep(0)
                at, behind = at + start, data[start:]
            behind = behind or file.read(1)
    except OSError as error:
        raise Damaged(path, 0, f"it cannot be read: {error.strerror}") from None
    if (each.header.size, tree.root()) != (seal.first, seal.root):
        raise Damaged(path, at, "it is not what its seal says")
    if behind and not _given_up(folder, seal):
        raise Damaged(path, at, "something stands behind its last entry")


def _given_up(folder: Path, seal: Seal) -> bool:
    """Whether the record says that a segment's sync failed: what stands behind its end does not count, then. The next
    segment that has entries says so."""
    place = 0
    for recorded in read(folder, seal.size):
        place = place or recorded.segment
        if recorded.segment != place:
            break
        if isinstance(recorded.entry, entries.Fault) and recorded.entry.given_up == seal.segment:
            return True
    return False


def delete(folder: Path, disk: Disk, gone: list[Seal]) -> None:
    """Raises OSError; what is left of them goes the next time."""
    for seal in gone:
        disk.remove(path_of(folder, seal.segment))
    disk.sync_folder(folder)
