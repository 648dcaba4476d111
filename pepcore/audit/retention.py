"""Which segments are kept.

Promises: whole old segments are deleted, oldest first, the growing one never; the seal of each stays, so that the
tree is still proved over what is left; that it was deleted is itself an entry.
Never: deletes a segment whose seal is not on disk.
"""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct

from .disk import Disk
from .segments import Seal, numbers, path_of, seals


class Rules(Struct, frozen=True):
    """0: no such limit."""

    segments: int = 64
    bytes: int = 0
    seconds: int = 0


def retire(folder: Path, disk: Disk, rules: Rules) -> list[Seal]:
    """Delete what the rules no longer keep, and return the seals of it. Raises OSError."""
    there = numbers(folder)
    abouts = {number: path_of(folder, number).stat() for number in there}
    total = sum(about.st_size for about in abouts.values())
    sealed = {seal.segment: seal for _, seal in seals(folder).read()[0]}
    now = time.time()
    gone = []
    for i, number in enumerate(there[:-1]):
        about = abouts[number]
        many = rules.segments and len(there) - i > rules.segments
        large = rules.bytes and total > rules.bytes
        old = rules.seconds and now - about.st_mtime > rules.seconds
        if not (many or large or old) or number not in sealed:
            break
        disk.remove(path_of(folder, number))
        total -= about.st_size
        gone.append(sealed[number])
    if gone:
        disk.sync_folder(folder)
    return gone
