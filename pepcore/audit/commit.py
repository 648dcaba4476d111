"""What the journal's thread does with a group of entries: write, sync, tell; and what it does when the disk fails.

Promises: entries that could not be written are refused at once with the disk's own error and counted as dropped; on a
full disk the room that was set aside takes denies, revokes and faults still, and the count of what was dropped waits
until there is room again, or for the end; after a failed sync the segment is given up and everything unsynced is
appended again, at the same indices, before anything else.
Never: waits between tries: while the disk fails, every group is one try (at most one in RETRY seconds), and those who
come in between are refused with the last error.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, unexpected
from . import entries
from .disk import Disk
from .frames import frame
from .growing import Growing, HalfMade
from .heads import Signer
from .intake import GROUP_BYTES, Intake
from .retention import delete, due, sound
from .segments import Seal, numbers, seals
from .waiting import Deadlines, Item

if TYPE_CHECKING:
    from .writer import Plan

_log = logging.getLogger("pepcore")
RETRY = 0.1
PIECE = 32
"""Entries that are hashed between two chances for other threads: 0.1 ms, not the interpreter's 5."""
UNSYNCED = 4096
"""Entries that are held for a sync that fails; more force one."""


class Commit:
    def __init__(
        self,
        folder: Path,
        plan: Plan,
        disk: Disk,
        segment: Growing,
        intake: Intake,
        deadlines: Deadlines,
        signer: Signer | None,
    ) -> None:
        self._folder, self._plan, self._disk = folder, plan, disk
        self._segment: Growing = segment
        self._intake, self._deadlines, self._signer = intake, deadlines, signer
        self._given_up = self._full = False
        self._unsynced: list[Item] = []
        """Written since the last sync, or to be appended again, in their order."""
        self._seals = seals(folder)
        self._sealed: tuple[int, Seal] | None = None
        """Where the seal of a try that failed stands, and what it says: the segment may have grown since."""
        self._oldest = 0.0
        self._retry = 0.0
        self._next_head = 0.0
        self._headed = signer.last.size if signer and signer.last else 0
        self._first = numbers(folder)[0]
        """The oldest segment."""
        self._retiring: set[int] = set()
        """Segments of which an entry says that they go, and that may be there still."""
        self.written = 0
        """Entries that were appended."""
        self.error: OSError | None = None
        self.doubt = ""
        """Why no segment is deleted any more: one that is due is not what was sealed."""
        self.unsigned = ""
        """Why the last head could not be signed."""

    def patience(self) -> float:
        """How long to wait for entries before there is something else to do."""
        if self._unsynced:
            return RETRY if self._given_up else max(0.0, self._oldest + self._plan.sync_s - time.monotonic())
        return max(0.05, min(1.0, self._plan.heads_s))

    def group(self, items: list[Item]) -> None:
        """Write these, and do whatever else is due."""
        now = time.monotonic()
        if self._given_up and not (now >= self._retry and self._renew()):
            self.refuse(items, self.error)
            return
        notes = self._counted() if self._has_room() else []
        if notes or items:
            self._write(notes + items)
        waiting = any(item.durable for item in self._unsynced)
        overdue = bool(self._unsynced) and now >= self._oldest + self._plan.sync_s
        if waiting or overdue or len(self._unsynced) >= UNSYNCED:
            self._sync()
        if not self._given_up:
            if self._segment.end >= self._plan.segment:
                self._roll()
            elif self._signer and now >= self._next_head:
                self._sign()

    def close(self) -> None:
        if not self._given_up and (notes := self._counted()):
            for note in notes:
                note.essential = True  # the last chance to say so, and one of each kind
            self._write(notes)
        if self._unsynced and not self._given_up:
            self._sync()
        if self._unsynced and self._given_up:
            self._renew()
        if not self._given_up:
            self._sign()
        else:
            self.refuse(self._unsynced, self.error)
        self._segment.close()

    def forget(self) -> None:
        """In a forked child: the file is the parent's."""
        self._segment.forget()

    def _has_room(self) -> bool:
        """Whether what was lost may be written down: on a disk that was full, once a whole group would fit."""
        if self._full:
            with contextlib.suppress(OSError):  # the next write meets it, too
                self._full = not self._segment.room(GROUP_BYTES)
        return not self._full

    def _counted(self) -> list[Item]:
        """What was lost since the last time, as entries. One that cannot be made does not end the thread."""
        notes = []
        for why, number in self._intake.take_dropped().items():
            try:
                notes.append(self._dropped(why, number))
            except Exception as error:
                fields = {"why": unexpected(error), "count": number}
                _log.error("what the record has lost cannot be written down", extra={"fields": fields})
        return notes

    def _dropped(self, why: str, number: int) -> Item:
        note = self._note(entries.Dropped(**entries.times(), count=number, why=why))
        note.dropped = (why, number)
        return note

    def _note(self, entry: entries.Entry) -> Item:
        return Item(entries.pack(entry), False, entries.essential(entry))

    def _write(self, items: list[Item]) -> None:
        """Write what fits. Refuse the rest."""
        segment = self._segment
        length = sum(len(item.body) + 8 for item in items)
        full: OSError | None = None
        try:
            if not segment.room(length):
                full = OSError(errno.ENOSPC, "the disk is full")
                self._full = True
                kept: list[Item] = []
                room = 0
                for item in items:
                    if item.essential and segment.fits_in_what_is_kept(room + len(item.body) + 8):
                        kept.append(item)
                        room += len(item.body) + 8
                if len(kept) < len(items):
                    chosen = set(map(id, kept))
                    self.refuse([item for item in items if id(item) not in chosen], full)
                items = kept
            if items:
                self._append(segment, items)
            self.error = full
        except OSError as error:
            self.error = error
            self.refuse(items, error)

    def _append(self, segment: Growing, items: list[Item]) -> None:
        clean = segment.synced == segment.end
        framed = []
        for item in items:
            framed.append(frame(item.body, clean))
            clean = False
        segment.write(framed)
        if not self._unsynced:
            self._oldest = time.monotonic()
        for i, (item, each) in enumerate(zip(items, framed, strict=True)):
            item.index = segment.grow(each)
            if i % PIECE == PIECE - 1:
                time.sleep(0)  # lets go of the interpreter: whoever answers hits waits for it
        self.written += len(items)
        self._unsynced += items
        self._deadlines.settle([item for item in items if not item.durable], None)

    def refuse(self, items: list[Item], error: OSError | None) -> None:
        """Tell all who wait for these, and count them."""
        error = self.error = error or OSError(errno.EIO, "the record cannot be written")
        why = error.strerror or "the disk fails"
        for item in items:  # a count that could not be written is counted on
            self._intake.count(*(item.dropped or (why, 1)), again=item.dropped is not None)
        self._deadlines.settle(items, error)

    def _sync(self) -> None:
        try:
            self._segment.sync()
        except OSError as error:
            self._give_up(error)
            return
        done, self._unsynced = self._unsynced, []
        late = self._deadlines.settle(done, None)
        if late:
            denied = tuple(item.index for item in late)
            self._write([self._note(entries.Fault(**entries.times(), what="late", denied=denied))])

    def _give_up(self, error: OSError) -> None:
        """A failed sync: what it covered may be on disk or not, and a second sync would say that it is."""
        self.error = error
        again = self._unsynced
        denied = tuple(item.index for item in again if item.durable)
        self._deadlines.settle([item for item in again if item.durable], error)
        self._segment.close()
        self._given_up = True
        fault = self._failed(self._segment, error, denied)
        self._unsynced = [Item(item.body, False, True, index=item.index) for item in again] + [fault]
        self._retry = 0.0
        self._renew()

    def _failed(self, segment: Growing, error: OSError, denied: tuple[int, ...] = ()) -> Item:
        reason, number = error.strerror or str(error), segment.header.segment
        return self._note(entries.Fault(**entries.times(), what="sync", segment=number, reason=reason, denied=denied))

    def _renew(self) -> bool:
        """Go on in a new segment, with what the old one may have lost."""
        again = self._unsynced
        try:
            self._change(self._segment)
            self._unsynced = []
            self._append(self._segment, again)
            self._segment.sync()
        except OSError as error:
            if not self._given_up:  # the new one failed, too: it is given up in the same way
                self._given_up = True
                if not self._segment.close():
                    again = [*again, self._failed(self._segment, error)]
            self._unsynced = again
            self.error, self._retry = error, time.monotonic() + RETRY
            return False
        self._unsynced = []
        self.error = None
        return True

    def _change(self, old: Growing) -> None:
        """Seal a segment and begin the next. Raises OSError; it can be tried again then."""
        seal = old.seal()
        if self._sealed is None or self._sealed[1] != seal:
            if self._sealed is not None:
                self._seals.take_back(self._sealed[0])
                self._sealed = None
            self._sealed = self._seals.append(self._disk, seal), seal
        self._segment = old.successor(self._folder)
        self._sealed = None
        self._given_up = False

    def _roll(self) -> None:
        """Close a full segment and begin the next; delete what is kept no longer."""
        if self._unsynced:
            self._sync()
        old = self._segment
        if self._given_up or old.end < self._plan.segment:  # a sync that failed has begun another one already
            return
        try:
            self._change(old)
            if not old.close():
                self._write([self._failed(old, OSError(errno.EIO, "its end could not be cut"))])
            key = self._signer.key if self._signer else ""
            growing = self._segment.header.segment
            gone = self._sound(due(self._folder, self._plan.retention, growing, self._plan.segment, key))
            told = [seal for seal in gone if seal.segment not in self._retiring]
            if told:
                self._write([self._retired(seal) for seal in told])
                if self.error is None:  # else none of them is written
                    self._retiring.update(seal.segment for seal in told)
                self._sync()
            if self._sign() and gone and not self._given_up and self.error is None:
                try:
                    delete(self._folder, self._disk, gone)
                finally:
                    self._first = numbers(self._folder)[0]
        except HalfMade as error:
            old.close()
            self._given_up, self.error, self._retry = True, error, time.monotonic() + RETRY
        except OSError as error:  # the old one goes on growing
            self.error = error

    def _sound(self, gone: list[Seal]) -> list[Seal]:
        """Those that are what was sealed; of the first that is not, an entry says so, once."""
        gone, doubt = sound(self._folder, gone, self._first)
        if doubt is not None and not self.doubt:
            number = int(doubt.file.stem)
            self._write([self._note(entries.Fault(**entries.times(), what="kept", segment=number, reason=str(doubt)))])
        self.doubt = "" if doubt is None else str(doubt)
        return gone

    def _retired(self, seal: Seal) -> Item:
        return self._note(entries.Retired(**entries.times(), segment=seal.segment, size=seal.size, root=seal.root))

    def _sign(self) -> bool:
        """A head, where there is something new to sign. False: it could not be."""
        self._next_head = time.monotonic() + self._plan.heads_s
        segment = self._segment
        if self._signer is None or segment.synced_size == self._headed:
            return True
        try:
            self._signer.sign(
                self._disk, segment.header.journal, segment.synced_size, segment.synced_root, time.time_ns()
            )
        except (OSError, ConfigError) as error:
            self.unsigned = str(error)
            return False
        self._headed, self.unsigned = segment.synced_size, ""
        return True
