"""Which segments are kept.

Promises: whole old segments are deleted, oldest first, the growing one never; the seal of each stays, so that the
tree is still proved over what is left. That one is deleted is an entry, which is on disk and signed before the segment
goes: a segment that somebody else deleted lacks it, and `verify` says so. What a file says of itself (its length, its
times) counts for nothing: whoever can write it, and has no key, must not have its evidence deleted by us. Segments are
counted, and their age is that of the first head of our key behind them.
Never: deletes a segment whose seal is not on disk.
"""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct

from .disk import Disk
from .heads import genuine, heads
from .segments import Seal, numbers, path_of, seals


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


def delete(folder: Path, disk: Disk, gone: list[Seal]) -> None:
    """Raises OSError; what is left of them goes the next time."""
    for seal in gone:
        disk.remove(path_of(folder, seal.segment))
    disk.sync_folder(folder)
