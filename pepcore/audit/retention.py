"""Which segments are kept.

Promises: whole old segments are deleted, oldest first, the growing one never; the seal of each stays, so that the
tree is still proved over what is left. That one is deleted is an entry, which is on disk and signed before the segment
goes: a segment that somebody else deleted lacks it, and `verify` says so.
Never: deletes a segment whose seal is not on disk.
"""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct

from .disk import Disk
from .segments import Seal, numbers, path_of, seals


class Rules(Struct, frozen=True):
    """0: no such limit. Seals and heads are never deleted: about 1 KiB a segment, 600 bytes a head."""

    segments: int = 256
    bytes: int = 0
    seconds: int = 0


def due(folder: Path, rules: Rules) -> list[Seal]:
    """The seals of the segments that the rules no longer keep, oldest first. Raises OSError."""
    there = numbers(folder)
    abouts = {number: path_of(folder, number).stat() for number in there}
    total = sum(about.st_size for about in abouts.values())
    now = time.time()
    gone = []
    for i, number in enumerate(there[:-1]):
        about = abouts[number]
        many = rules.segments and len(there) - i > rules.segments
        large = rules.bytes and total > rules.bytes
        old = rules.seconds and now - about.st_mtime > rules.seconds
        if not (many or large or old):
            break
        total -= about.st_size
        gone.append(number)
    if not gone:
        return []
    return [seal for _, seal in seals(folder).read()[0] if seal.segment in gone]


def delete(folder: Path, disk: Disk, gone: list[Seal]) -> None:
    """Raises OSError; what is left of them goes the next time."""
    for seal in gone:
        disk.remove(path_of(folder, seal.segment))
    disk.sync_folder(folder)
