"""What a writer finds when it opens a journal, and where it goes on.

Promises: a torn tail of the last segment is cut at the last good entry, and how much that was is told, so that the
writer records it; whatever else is wrong (a hole in what had been synced, a missing or broken older segment, a seal
or a head that does not fit, entries gone that a signed head counts) raises Damaged with file, offset and reason, and
nothing is changed.
Never: loses an entry that was acknowledged as durable without saying so.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from itertools import pairwise
from pathlib import Path

import msgspec
from msgspec import Struct

from . import entries
from .disk import Disk
from .frames import HEAD, SYNCED, Broken, frames, leaf, synced_behind
from .heads import Head, heads
from .segments import Damaged, Held, content, lead, numbers, seals, survey, walk
from .tree import Frontier, Span

TRIES = 4
AGAIN_S = 0.1
UNHEADED = "heads"
"""What a `fault` entry is about that says that no head was there. Its writer has a key, so there should be one."""


class Found(Struct, frozen=True):
    """Where the record ends. `last` is None in a new journal; `cut` is (offset, bytes, why) of a torn tail."""

    journal: bytes
    last: Held | None
    end: int
    tree: Frontier
    span: Span
    cut: tuple[int, int, str] | None
    head: Head | None
    behind: tuple[int, ...] = ()
    """Segments that were given up, with something behind their end, by a process that ended before it could say so."""


def recover(folder: Path, disk: Disk, whole: bool = True) -> Found:
    """Test the journal and cut what a crash left half written. Without `whole`, only the last segment is read to its
    end; the rest is left to `verify`. The caller holds the journal's lock. Raises Damaged, OSError."""
    for draft in folder.glob(".*.new"):
        disk.remove(draft)
    found = _tested(folder, whole)
    if found.last is not None:
        _cut_lines(folder, disk, found.last.header.segment)
        if found.cut is not None:
            disk.cut_file(found.last.path, found.end)
    return found


def rehearse(folder: Path, written: bool) -> None:
    """Whether `recover` will find a journal to go on with, or none yet; nothing is changed, and no lock is needed.
    `written`: somebody writes it now, who would not leave a torn tail. Raises Damaged."""
    for left in reversed(range(TRIES)):
        try:
            found = _tested(folder, False)
            if found.cut is None or found.last is None or not written:
                return
            raise Damaged(found.last.path, found.cut[0], f"{found.cut[2]}, in what its writer had written whole")
        except OSError:  # there is none yet; anything else is said by whoever opens it, in better words
            return
        except Damaged:
            if not left:
                raise
            time.sleep(AGAIN_S)  # it may have been written between two looks: damage stays


def _tested(folder: Path, whole: bool) -> Found:
    """What there is, with everything that is wrong raised as Damaged, and nothing changed."""
    if not numbers(folder):
        return _fresh(folder)
    each = survey(folder)
    sealed = lead(folder, each[0].header)
    for one, following in pairwise(each) if whole else ():
        _closed(one, following.header.size)
    last = each[-1]
    for one, seal in zip(each[:-1], sealed[each[0].header.segment - 1 :], strict=False):
        after = each[one.header.segment - each[0].header.segment + 1].header
        if (seal.size, seal.root) != (after.size, after.root):
            raise Damaged(seals(folder).path, 0, f"the seal of segment {seal.segment} is not that of its successor")
    missing = last.header.segment - 1 - len(sealed)
    if missing > 0:
        raise Damaged(seals(folder).path, 0, f"the seals of the last {missing} closed segments are missing")
    data = content(last.path)
    tree, span = last.header.frontier(), Span(last.header.size)
    end, cut = last.start, None
    places, broken = _readable(data, last)
    for start, stop in places:
        hash_ = leaf(data[start:stop])
        tree.append(hash_)
        span.append(hash_)
        end = stop
    if broken is not None:
        later = synced_behind(data, broken.offset)
        if later >= 0:
            reason = f"{broken.reason}, and it was on disk already when the entry at byte {later} was written"
            raise Damaged(last.path, broken.offset, reason)
        cut = (end, len(data) - end, broken.reason)
    head = _last_head(folder, tree, last, end, f"{broken.reason}, and " if broken is not None else "")
    return Found(last.header.journal, last, end, tree, span, cut, head, _given_up(each, data, places))


def _fresh(folder: Path) -> Found:
    for file in (seals(folder).path, heads(folder).path):
        if file.exists():
            raise Damaged(file, 0, "it is there, and no segment is: the record was deleted")
    return Found(secrets.token_bytes(16), None, 0, Frontier(), Span(0), None, None)


def _closed(one: Held, until: int) -> None:
    try:
        walk(content(one.path), one, until)
    except Broken as broken:
        raise Damaged(one.path, broken.offset, broken.reason) from None


def _readable(data: bytes, last: Held) -> tuple[list[tuple[int, int]], Broken | None]:
    found: list[tuple[int, int]] = []
    try:
        for place in frames(data, last.start):
            found.append(place)
    except Broken as broken:
        return found, broken
    return found, None


def _given_up(each: list[Held], data: bytes, places: list[tuple[int, int]]) -> tuple[int, ...]:
    """See `Found.behind`. What was written to the last segment after its first sync says that all before is said."""
    if sum(bool(int.from_bytes(data[start : start + 4], "little") & SYNCED) for start, _ in places) > 1:
        return ()
    known = {fault.given_up for start, stop in places if (fault := fault_of(data[start:stop]))}
    found: list[int] = []
    for one, after in reversed(list(pairwise(each))):
        with contextlib.suppress(Damaged, Broken):  # what is wrong with it is for `verify`
            whole = content(one.path)
            counted = walk(whole, one, after.header.size)
            if (counted[-1][1] if counted else one.start) < len(whole):
                found.append(one.header.segment)
        if after.header.size > one.header.size:
            break
    return tuple(number for number in found if number not in known)


def fault_of(framed: bytes) -> entries.Fault | None:
    """The fault that an entry is which is not read yet: most are none."""
    if b"fault" in framed:
        with contextlib.suppress(msgspec.DecodeError):
            entry = entries.read(framed[HEAD:])
            return entry if isinstance(entry, entries.Fault) else None
    return None


def _last_head(folder: Path, tree: Frontier, last: Held, end: int, cut: str) -> Head | None:
    """Raises Damaged where a signed head counts entries that are gone, or names another root for all of them."""
    file = heads(folder)
    offset, head, broken = file.last()
    if broken is not None and not broken.short:
        raise Damaged(file.path, broken.offset, broken.reason)
    if head is None:
        return None
    if head.size > tree.size:
        gone = head.size - tree.size
        raise Damaged(last.path, end, f"{cut}{gone} entries are gone that a signed head counts")
    if head.journal != last.header.journal.hex() or (head.size == tree.size and head.root != tree.root().hex()):
        raise Damaged(file.path, offset, "the last head is not one of this record")
    return head


def _cut_lines(folder: Path, disk: Disk, last: int) -> None:
    """Half a line of seals or heads goes, and the seal of a segment whose successor was never made."""
    signed, sealed = heads(folder), seals(folder)
    broken = signed.last()[2]
    if broken is not None:
        disk.cut_file(signed.path, broken.offset)
    lines, broken = sealed.read()
    if len(lines) >= last:
        disk.cut_file(sealed.path, lines[last - 1][0])
    elif broken is not None:
        disk.cut_file(sealed.path, broken.offset)
