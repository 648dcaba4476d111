"""The record of an embedded PEP: the journal that a daemon writes, by a thread of this process.

The folder is the caller's; the keys that sign heads and digest values lie beside it, in FOLDER.keys: whoever copies
the record does not copy them. What is kept, and for how long, is what a daemon without a config keeps.

Promises: a decision is put into a queue without waiting, also within a signal handler, and is an entry a moment later;
hits are entries by count, about every second and at the end; what cannot be written is counted in `lost`, and the
count is written where it can be. At the end (`close`, the end of the process, or nobody has the PEP any more) what is
left is written first.
Never: costs a hit more than the increment of a counter; writes in a forked child, or appends to a damaged journal;
records the value of an attribute (only its keyed digest).
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from pepclient.trace import current

from ..audit import entries
from ..audit.waiting import Done
from ..audit.writer import Keep
from ..core import forks
from ..core.counts import COUNTS_BYTES, Counts
from ..errors import ConfigError
from ..flight import Partition
from ..pdp.cedar import Cedar
from ..recordconfig import Record
from ..recorded import Told, entry_of, hits_of, opened
from ..version import VERSION
from ..wire import Revoke

if TYPE_CHECKING:
    from .deciding import Deciding

PENDING = 65_536
"""Entries that wait for the thread; more are dropped, and counted."""
EVERY_S = 1.0
PATIENCE_S = 10.0
"""How long somebody waits for a disk that hangs."""
FORKED = "a forked child cannot write its parent's record: make a new PEP in it, with a folder of its own"
CLOSED = "this PEP was closed, and its record with it: make a new one"
_log = logging.getLogger("pepcore")


class _Entry(Struct, frozen=True):
    """What is no decision. `done`: somebody waits until it is on disk."""

    entry: entries.Entry
    done: Done | None = None


class Recording:
    """The open journal of one PEP, in one life of this process."""

    def __init__(self, pep: Deciding, given: Any) -> None:
        """Raises ConfigError where the folder or a key cannot be used."""
        folder = _folder(given)
        self._queue: SimpleQueue[Told | _Entry | None] = SimpleQueue()  # `put` never waits, and may interrupt itself
        self._lock, self._cache, self._of = pep._lock, pep._enforcer.cache, pep._partition
        self._boot, self._life = pep._page.boot, forks.number()
        self.counts = Counts(bytearray(COUNTS_BYTES), self._boot, made=True)
        self.over = False
        """Nothing is taken any more."""
        self._going = True
        self._dropped = self._said = 0
        self._harvested = _now()
        keys = folder.with_name(f"{folder.name}.keys")
        self._writer, self._recorder = opened(folder, keys, Record(), lambda call: call())
        self._pep = weakref.ref(pep)
        weakref.finalize(pep, self.let_go).atexit = False  # of a PEP that nobody closed; the end of all is `_at_exit`
        self._cache.count_from(self._harvested)
        pep._enforcer.modes.on_untold = self.told  # hits will name what came too late for who asked
        self.note(entries.Start, boot=self._boot, version=VERSION, pid=os.getpid())
        self._thread = threading.Thread(target=self._run, name="pepcore-record", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._writer.close()
            raise
        _open.add(self)

    @property
    def lost(self) -> int:
        """Entries that are not in the record and should be."""
        return self._dropped - self._said + self._writer.lost

    def silent(self) -> str:
        """Why nothing can be recorded any more, "": it can. The number of its life differs in a child, whoever forked
        it."""
        return FORKED if forks.number() != self._life else CLOSED if self.over else ""

    # ---- what callers hand over ----

    def told(self, partition: Partition, key: bytes, body: bytes, asked_ns: int) -> None:
        """A verdict is given."""
        if self._queue.qsize() >= PENDING:
            self._dropped += 1
        elif not self.silent():
            self._queue.put((partition, key, body, asked_ns, _now(), time.time_ns(), current()))

    def note(self, kind: type[entries.Rare], **members: Any) -> None:
        """One entry of this kind, with the times of now."""
        if not self.silent():
            self._queue.put(_Entry(kind(**entries.times(), **members)))

    def reloaded(self, pdp: Cedar, revision: int) -> None:
        self.note(
            entries.Reload, ok=True, policies=len(pdp.policies), entities=len(pdp.store.entities), revision=revision
        )

    def not_reloaded(self, error: Exception) -> None:
        self.note(entries.Reload, ok=False, reason=str(error))

    def revoked(self, wanted: Revoke, revision: int) -> Callable[[], str]:
        """Something was revoked: what is returned waits for the disk, and says why it is not there, or ""."""
        if why := self.silent():
            return lambda: why
        said: list[str] = []
        known = threading.Event()

        def done(_index: int, error: OSError | None) -> None:
            said.append("" if error is None else error.strerror or str(error))
            known.set()

        entry = entries.Revoke(
            **entries.times(), uid=self._of.uid, tags=wanted.tags, all=wanted.all, revision=revision,
            reason=wanted.reason,
        )  # fmt: skip
        self._queue.put(_Entry(entry, done))
        return lambda: said[0] if known.wait(PATIENCE_S) else "the record does not answer"

    def let_go(self) -> None:
        """Let the thread write what is left, and end. Waits for nobody."""
        self.over = True
        self._queue.put(None)

    def close(self) -> None:
        """Write what is left: nothing comes any more."""
        if self.silent() == FORKED:
            return
        self.let_go()
        if threading.current_thread() is not self._thread:  # else a finalizer that runs here closes it
            self._thread.join(PATIENCE_S)
            if self._thread.is_alive():
                _log.error("the end of the record is not on disk")

    def at_exit(self) -> None:
        """The process ends: nothing is decided or served any more that could not be recorded."""
        pep = None if self.silent() else self._pep()
        if pep is not None:
            pep._end()
        self.close()

    # ---- the thread ----

    def _run(self) -> None:
        due = time.monotonic() + EVERY_S
        while self._going:
            left = due - time.monotonic()
            if left <= 0:
                self._guarded(self._harvest)
                due = time.monotonic() + EVERY_S
                continue
            try:
                self._take(self._queue.get(timeout=left))
            except Empty:
                continue
        self._take_all()
        self._guarded(self._harvest)
        self._guarded(self._append, entries.Stop(**entries.times(), boot=self._boot))
        if not self._writer.close():
            _log.error("the end of the record is not on disk")

    def _take_all(self) -> None:
        """Write what waits now; what comes meanwhile has its turn."""
        for _ in range(self._queue.qsize()):
            self._take(self._queue.get())

    def _take(self, item: Told | _Entry | None) -> None:
        """Write one; None is the end."""
        self._going = self._going and item is not None
        if isinstance(item, _Entry):
            self._guarded(self._append, item.entry, item.done)
        elif item is not None:
            self._guarded(self._decision, item)

    def _decision(self, told: Told) -> None:
        self._append(entry_of(self._recorder, told))

    def _guarded(self, work: Any, *what: Any) -> None:
        """The thread goes on, whatever one entry does to it."""
        try:
            work(*what)
        except Exception:
            self._dropped += 1
            _log.exception("an entry of the record could not be made")

    def _append(self, entry: entries.Entry, done: Done | None = None) -> bool:
        taken = self._writer.append(entry, Keep.buffered if done is None else Keep.durable, done)
        if not taken and done is not None:
            done(-1, OSError("the record takes nothing more"))
        return taken

    def _harvest(self) -> None:
        """Write down what was served since the last time, and how much of it nobody will find."""
        now = _now()
        with self._lock:
            found, lost = self._cache.harvest(now)
        mine, left = self.counts.harvest()
        self._take_all()  # the decisions that these were served from
        since, self._harvested = self._harvested, now
        served = [(number, many) for number, _partition, many, _first, _last in found]
        first, last = min((each[3] for each in found), default=since), max((each[4] for each in found), default=now)
        self._hits(served, first, last)
        self._hits(mine, since, now, in_process=True)
        self._dropped += lost + left
        if missing := self._dropped - self._said:
            self._said += missing
            self._writer.missed("too many at one time", missing)

    def _hits(self, served: list[tuple[int, int]], first: int, last: int, in_process: bool = False) -> None:
        for entry in hits_of(served, self._of, first_ns=first, last_ns=last, in_process=in_process):
            self._append(entry)


def _folder(given: Any) -> Path:
    """The journal's folder, absolute: the process may go elsewhere. Raises ConfigError."""
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise ConfigError(f"record: must be the path of a folder, not `{given!r}`")
    folder = Path(os.path.abspath(os.fsdecode(given)))
    if "\0" in folder.name:
        raise ConfigError(f"record: `{folder!r}` has a NUL character: no folder can")
    if not folder.name:
        raise ConfigError(f"record: `{folder}` has no room beside it for the keys: name a folder below")
    return folder


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


_open: weakref.WeakSet[Recording] = weakref.WeakSet()


def _at_exit() -> None:
    for one in list(_open):
        one.at_exit()


atexit.register(_at_exit)
