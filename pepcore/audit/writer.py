"""The one thread that writes the journal, and how entries are handed to it.

Promises: `append` never waits for the disk. Lossy and buffered entries are on disk a moment later, or counted as
dropped; `done` of a durable one is called with its index only after the sync, and with an OSError within the deadline
whatever the disk does: full, failing, hanging. Many entries share one sync. A sync that failed ends its segment: its
unsynced entries are appended again to a new one, and a `fault` entry says which of them were not acknowledged.
Entries of one caller keep their order. Where the lock file was removed another process may write the journal: nothing
more is written then, and everything is refused. An entry that cannot be packed is refused and counted; where the thread
ends before it should, the log says why.
Never: runs in a forked child; releases anything by itself: whoever gets an error, or False, denies.
"""

from __future__ import annotations

import enum
import errno
import logging
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from ..errors import ConfigError, unexpected
from ..lockfile import in_place, is_taken, take
from . import entries
from .commit import Commit
from .disk import Disk
from .frames import LONGEST
from .growing import Growing
from .heads import Signer
from .intake import Intake
from .recovery import UNHEADED, Found, recover
from .retention import Rules
from .waiting import Deadlines, Done, Item

LOCK = "lock"
_log = logging.getLogger("pepcore")


class Keep(enum.Enum):
    """What a point wants of its record (`record = "..."` in the config)."""

    lossy = "lossy"
    buffered = "buffered"
    durable = "durable"


class Plan(Struct, frozen=True):
    """How a journal is written."""

    segment: int = 4 << 20
    """Bytes of a segment, about. The last one is read whole when the journal is opened: 30 ms a MiB."""
    retention: Rules = Rules()
    queue: int = 65536
    queue_bytes: int = 32 << 20
    sync_s: float = 1.0
    """How long a buffered entry may wait for the disk."""
    deadline_s: float = 0.5
    """How long a durable one may."""
    heads_s: float = 60.0
    """Between signed heads."""
    key: Path | None = None
    """Of the signatures; None: no heads."""
    syslog: bool = False
    whole: bool = True
    """Read every segment when the journal is opened, not only the last: 12 ms a MiB more. A daemon that must start
    soon leaves that to `verify`, beside its work."""


def _at_once(call: Callable[[], None]) -> None:
    call()


class Writer:
    """An open journal. One process at a time."""

    def __init__(
        self,
        folder: Path,
        plan: Plan | None = None,
        *,
        deliver: Callable[[Callable[[], None]], None] = _at_once,
        disk: Disk | None = None,
    ) -> None:
        """`deliver` runs a group's callbacks: as they are, or in a loop (`loop.call_soon_threadsafe`).

        Raises ConfigError where the folder or the key cannot be used, Damaged where the record cannot be appended to.
        """
        self.folder, self.plan = folder, plan or Plan()
        disk = disk or Disk()
        self._lock = _hold(folder)
        try:
            found = recover(folder, disk, self.plan.whole)
            signer = Signer(folder, self.plan.key, found.head, syslog=self.plan.syslog) if self.plan.key else None
            segment = _open(disk, folder, found)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(f"journal `{folder}` cannot be opened: {error.strerror}") from None
        except BaseException:
            os.close(self._lock)
            raise
        self._deadlines = Deadlines(self.plan.deadline_s, deliver)
        self._intake = Intake(self.plan.queue, self.plan.queue_bytes)
        self._commit = Commit(folder, self.plan, disk, segment, self._intake, self._deadlines, signer)
        if found.cut is not None and found.last is not None:
            offset, length, why = found.cut
            self.append(
                entries.Cut(**entries.times(), segment=found.last.header.segment, offset=offset, bytes=length, why=why),
                Keep.buffered,
            )
        for number in found.behind:
            why = "its end was given up by a process that ended before it could say so"
            self.append(entries.Fault(**entries.times(), what="sync", segment=number, reason=why), Keep.buffered)
        if signer is not None and found.head is None and found.tree.size:
            # what is signed from here on covers them: without this entry, deleted heads would look like none
            why = f"no head is there that signs the {found.tree.size} entries before this one"
            _log.error("the record has no signed head: it was deleted, or none was ever signed: %s", why)
            self.append(entries.Fault(**entries.times(), what=UNHEADED, reason=why), Keep.buffered)
        self.taken = False
        """Whether the lock file was removed: this process writes nothing more, and another one may."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        _open_here.add(self)
        self._deadlines.start()
        self._thread.start()

    def append(self, entry: entries.Entry, keep: Keep, done: Done | None = None) -> bool:
        """Hand an entry over. False: it was not taken, `done` is never called, and a permit must not be released."""
        try:
            body = entries.pack(entry)
        except Exception as error:  # one entry is lost by that, not the record
            _log.error("an entry of the record cannot be packed", extra={"fields": {"why": unexpected(error)}})
            self.missed("an entry cannot be packed", 1)
            return False
        if len(body) > LONGEST:
            raise ValueError(f"a record entry of {len(body)} bytes does not fit: make decisions with `Recorder`")
        item = Item(body, keep is Keep.durable, entries.essential(entry), done)
        if not self._intake.put(item, keep is Keep.lossy):
            return False
        if done is not None:
            self._deadlines.add(item)
        return True

    def missed(self, why: str, number: int) -> None:
        """So many entries could not even be handed over: they are lost, and an entry says so."""
        self._intake.count(why, number)

    @property
    def written(self) -> int:
        """Entries that were appended since the start."""
        return self._commit.written

    @property
    def error(self) -> OSError | None:
        """Why nothing can be written at the moment; None: it can."""
        return self._commit.error

    @property
    def unsigned(self) -> str:
        """Why no head can be signed at the moment; empty: it can. Entries are written all the same."""
        return self._commit.unsigned

    @property
    def doubt(self) -> str:
        """Why no segment is deleted any more, since one is not what was sealed; empty: they are."""
        return self._commit.doubt

    @property
    def lost(self) -> int:
        """Entries that did not get into the record since the start."""
        return self._intake.lost

    @property
    def waiting(self) -> int:
        return self._intake.length

    def close(self, seconds: float = 5.0) -> bool:
        """Write what is queued, sync, sign a last head. False: the disk did not let us in time."""
        self._intake.close()
        if self._thread.is_alive():
            self._thread.join(seconds)
        ended = not self._thread.is_alive()
        if ended:
            self._deadlines.end()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1
        _open_here.discard(self)
        return ended

    def _run(self) -> None:
        commit, intake = self._commit, self._intake
        items: list[Item] = []
        lost: OSError | None = None
        try:
            while True:
                items = intake.take(commit.patience())
                if not in_place(self._lock, self.folder / LOCK):
                    lost = OSError(errno.ENOLCK, "its lock file was removed, so another process may write the journal")
                    self.taken = True
                    raise lost
                commit.group(items)
                if intake.closed and not intake.length:  # looked at last: some may have come since `take`
                    break
            commit.close()
        except Exception as error:  # a mistake of ours: nobody may wait for a thread that is gone, or be let in
            intake.close()
            what = lost.strerror if lost else unexpected(error)
            _log.error("the record ends: nothing more is written", extra={"fields": {"why": what}})
            why = lost or OSError(errno.EIO, f"the journal's thread has failed: {error!r}")
            while items or intake.length:
                commit.refuse(items, why)
                items = intake.take(0)
            if lost:
                commit.forget()

    def _forget(self) -> None:
        """In a forked child: the thread is not here, and the record is the parent's."""
        self._intake = Intake(0, 0)
        self._intake.closed = True
        self._deadlines = Deadlines(self.plan.deadline_s, _at_once)
        os.close(self._lock)  # the lock is the parent's as long as that has its own descriptor, and no longer
        self._lock = -1
        self._commit.forget()


_open_here: weakref.WeakSet[Writer] = weakref.WeakSet()


def _after_fork() -> None:
    for writer in list(_open_here):
        writer._forget()


os.register_at_fork(after_in_child=_after_fork)


def _hold(folder: Path) -> int:
    """The journal's lock, for life."""
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        return take(folder / LOCK)
    except BlockingIOError:
        raise ConfigError(
            f"journal `{folder}` is written by another process, or by another PEP of this one: name another folder"
        ) from None
    except OSError as error:
        raise ConfigError(f"journal `{folder}` cannot be opened: {error.strerror}") from None


def is_written(folder: Path) -> bool:
    """Whether a process writes this journal now."""
    return is_taken(folder / LOCK)


def _open(disk: Disk, folder: Path, found: Found) -> Growing:
    if found.last is None:
        return Growing.create(disk, folder, found.journal, 1, found.tree)
    file = disk.open(found.last.path)
    disk.sync(file)  # what an earlier process wrote and never synced counts from here on
    return Growing(disk, found.last.path, file, found.last.header, found.end, found.tree, found.span)
