"""The record of this daemon: what was decided, by whom asked, and everything that administrators did (DESIGN, D10).

Promises: every reply that carries a verdict, and every hit by count, becomes an entry; it is made after the reply went,
so that nobody waits for it, except where the point demands that a permit is on disk first: then it goes when the sync
is done, and becomes a deny where it cannot be. What cannot be written is counted, and the count is written. Of a pass
that the mode of its point gave, the entry has what would have been enforced.
Never: records the value of an attribute that the config does not name as plain; waits for a disk in the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..audit import entries
from ..audit.writer import Keep, Writer
from ..blocks import read_question
from ..core.verdict import body as body_of
from ..errors import NotAvailable
from ..flight import Batch, Flight, Partition, Reply, Waiter
from ..model import Decision
from ..recorded import Told, entry_of, opened, rehearsed
from ..version import VERSION
from . import clock, logs
from .hits import Hits
from .place import journal_of

if TYPE_CHECKING:
    from ..config import Record
    from .service import Service

PENDING = 65_536
AT_ONCE = 64


class _Counted(msgspec.Struct, frozen=True):
    """Hits whose decisions may still wait for their entries."""

    partition: Partition
    entry: entries.Hits


class Recording:
    """The open journal of a service, or none: `writer` is None where the config says `off`."""

    def __init__(self, service: Service, record: Record, state: Path) -> None:
        self._service, self._record = service, record
        self._pending: deque[Told | _Counted] = deque()
        self._flushing = False
        self.hits = Hits(service, self)
        self.writer: Writer | None = None
        self._unsigned = self._doubt = ""
        self._failing: OSError | None = None
        self._folder = journal_of(record.folder, state)
        self._keys = Path(record.keys) if record.keys else state / "keys"

    def open(self) -> None:
        """Open the journal. Raises ConfigError."""
        if self._record.keep == "off":
            return
        loop = asyncio.get_running_loop()
        self.writer, self._recorder = opened(self._folder, self._keys, self._record, lambda call: _in_loop(loop, call))
        self._service.cache.count_from(clock.now())

    def rehearse(self) -> None:
        """Test the journal while a predecessor still writes to it. Raises ConfigError where `open` would find it
        damaged: the predecessor, once it has let go of it, could not go on with it either."""
        if self._record.keep != "off":
            rehearsed(self._folder)

    def numbers(self) -> dict[str, int]:
        """What is seen of the journal: entries appended and lost, and whether it takes none, or no head, right now."""
        writer = self.writer
        if writer is None:
            return {"entries": 0, "lost": 0, "failing": 0, "unsigned": 0}
        return {
            "entries": writer.written, "lost": writer.lost, "failing": int(writer.error is not None),
            "unsigned": int(writer.unsigned != ""),
        }  # fmt: skip

    def missed(self, why: str, number: int) -> None:
        """So many entries could not be made."""
        if self.writer is not None and number:
            self.writer.missed(why, number)

    def look(self) -> None:
        """Say once when nothing can be written, or no head signed, and once when it can again; and once when a segment
        was changed."""
        failing = self.writer.error if self.writer is not None else None
        if failing is not None and self._failing is None:
            why = failing.strerror or str(failing)
            logs.error("the record cannot be written: what is not durable goes on, and is counted as lost", why=why)
        elif failing is None and self._failing is not None:
            logs.info("the record is written again", lost=self.numbers()["lost"])
        self._failing = failing
        unsigned = self.writer.unsigned if self.writer is not None else ""
        if unsigned and not self._unsigned:
            logs.error(
                "no head of the record can be signed: a cut cannot be found, and nothing is retired", why=unsigned
            )
        elif self._unsigned and not unsigned:
            logs.info("heads of the record are signed again")
        doubt = self.writer.doubt if self.writer is not None else ""
        if doubt and not self._doubt:
            logs.error("a segment of the record was changed: nothing is retired", why=doubt)
        self._unsigned, self._doubt = unsigned, doubt

    @property
    def taken(self) -> bool:
        """Whether the journal is not ours any more."""
        return self.writer is not None and self.writer.taken

    # ---- decisions ----

    def keeps(self, partition: Partition) -> bool:
        """Whether anything of this partition is recorded."""
        return self.writer is not None and partition.record != "off"

    def told(self, partition: Partition, key: bytes, body: bytes, asked_ns: int, trace: bytes = b"") -> None:
        """A verdict has been given. Its entry is made when the loop has time for it."""
        self._service.passes.told(partition, body)
        self.kept(partition, key, body, asked_ns, trace)

    def kept(self, partition: Partition, key: bytes, body: bytes, asked_ns: int, trace: bytes = b"") -> None:
        """As `told`, of a verdict that nobody was told: hits will name it."""
        if not self.keeps(partition):
            return
        if len(self._pending) >= PENDING:
            return self.missed("decisions came faster than their entries are made", 1)
        self._pending.append((partition, key, body, asked_ns, clock.now(), clock.wall_ms() * 1_000_000, trace))
        self._soon()

    def replied(self, r: Reply) -> None:
        """As `told`, for what the enforcer answered."""
        asked = r.asked
        if isinstance(asked, Waiter) and asked.partition is not None:
            self.told(asked.partition, asked.key, r.body, asked.asked_ns, asked.trace)
        elif isinstance(asked, Batch) and r.bodies is not None:
            for item, body in zip(asked.items, r.bodies, strict=False):
                if isinstance(item, bytes) and not body[2] & 1:  # one from the cache is counted there
                    self.told(asked.partition, item, body, asked.asked_ns, asked.trace)

    def demanded(self, r: Reply) -> bool:
        """Whether this reply may only go once its record is on disk."""
        asked = r.asked
        partition = getattr(asked, "partition", None)
        if not isinstance(partition, Partition) or not partition.durable or self.writer is None:
            return False
        return any(body[0] for body in ([r.body] if r.bodies is None else r.bodies) if body)

    def before(self, r: Reply, release: Callable[[Reply], None]) -> None:
        """Release a permit when its record is on disk, or a deny that says why it cannot be."""
        asked = r.asked
        assert self.writer is not None, "`demanded` was asked first"
        assert isinstance(asked, Waiter | Batch), "`demanded` was asked first"
        partition: Partition = asked.partition  # type: ignore[assignment]
        if isinstance(asked, Batch):
            assert r.bodies is not None, "a batch is answered with bodies"
            found = [(k, b) for k, b in zip(asked.items, r.bodies, strict=False) if isinstance(k, bytes)]
        else:
            found = [(asked.key, r.body)]
        left = len(found)
        failed = ""

        def done(_index: int, error: OSError | None) -> None:
            nonlocal left, failed
            left -= 1
            if error is not None:
                failed = error.strerror or str(error)
            if left == 0:
                for _, body in found if not failed else ():
                    self._service.passes.told(partition, body)
                release(self._denied(r, failed) if failed else r)

        now, wall_ns = clock.now(), clock.wall_ms() * 1_000_000
        for key, body in found:
            entry = entry_of(self._recorder, (partition, key, body, asked.asked_ns, now, wall_ns, asked.trace))
            if not self.writer.append(entry, Keep.durable, done):
                done(-1, OSError("the record takes nothing more"))

    def _denied(self, r: Reply, why: str) -> Reply:
        fault = NotAvailable("record", f"this point's permits must be on record first, and cannot be: {why}")
        verdict, encoded = self._service.enforcer.settlement.refusal(fault)
        body = body_of(verdict, encoded, clock.now())
        bodies = None if r.bodies is None else [body for _ in r.bodies]
        return msgspec.structs.replace(r, verdict=verdict, body=body if r.bodies is None else b"", bodies=bodies)

    def _soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self, most: int = AT_ONCE) -> None:
        """Make the entries of what was told, a slice in each turn of the loop."""
        self._flushing = False
        while self._pending and most > 0:
            most -= 1
            one = self._pending.popleft()
            if isinstance(one, _Counted):
                self.of(one.partition, one.entry)
            else:
                self.write(entry_of(self._recorder, one), _keep(one[0]))
        if self._pending:
            self._soon()

    # ---- hits, by count ----

    def served(self, partition: Partition, entry: entries.Hits) -> None:
        """Append hits, behind the entries of the decisions that they were served from."""
        if len(self._pending) >= 2 * PENDING:  # no more decisions than half of that
            self.missed("hits came faster than their entries are made", 1)
        elif self._pending:
            self._pending.append(_Counted(partition, entry))
        else:
            self.of(partition, entry)

    def start(self) -> None:
        """Begin to harvest hits; the daemon serves from now on."""
        if self.writer is not None:
            self.write(entries.Start(**entries.times(), boot=self._service.page.boot, version=VERSION, pid=os.getpid()))
            self.hits.start()

    # ---- everything else ----

    def of(self, partition: Partition, entry: entries.Entry) -> None:
        """Append an entry of this partition, as it keeps those that nobody waits for."""
        if self.keeps(partition):
            self.write(entry, _keep(partition))

    def write(self, entry: entries.Entry, keep: Keep = Keep.buffered) -> None:
        """Append an entry that nobody waits for."""
        if self.writer is not None and not self.writer.append(entry, keep):
            logs.limited("the record takes no more entries")

    def note(self, kind: type[entries.Rare], **members: Any) -> None:
        """Append one entry of this kind, with the times of now."""
        if self.writer is not None:
            self.write(kind(**entries.times(), **members))

    def different(self, flight: Flight, active: Decision, candidate: Decision, what: tuple[str, ...]) -> None:
        """A candidate policy set decides otherwise. In a flood these entries go first."""
        partition = flight.partition
        if self.keeps(partition):
            entry = self._recorder.difference(
                read_question(flight.key), active, candidate, what, uid=partition.uid, gid=partition.gid,
                point=partition.point, asked_ms=flight.asked_ms, **entries.times(),
            )  # fmt: skip
            self.write(entry, Keep.lossy)

    def on_disk(self, kind: type[entries.Rare], **members: Any) -> asyncio.Future[str]:
        """Append one entry of this kind, with the times of now; "" once it is on disk, or why it is not."""
        said: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def done(_index: int, error: OSError | None) -> None:
            if not said.done():
                said.set_result("" if error is None else error.strerror or str(error))

        if self.writer is None:
            said.set_result("")
        elif not self.writer.append(kind(**entries.times(), **members), Keep.durable, done):
            said.set_result("the record takes nothing more")
        return said

    def close(self) -> None:
        """Write what is left; the daemon ends."""
        self.hits.close()
        if self.writer is None:
            return
        self._service.refusals.close()
        self.hits.harvest()
        self._flush(len(self._pending))
        self.note(entries.Stop, boot=self._service.page.boot)
        if not self.writer.close():
            logs.error("the end of the record is not on disk", waiting=self.writer.waiting)


def _keep(of: Partition) -> Keep:
    """How an entry of this partition is kept that nobody waits for."""
    return Keep("buffered" if of.durable else of.record)


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(call)
