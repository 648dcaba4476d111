"""Leases on the wire: asked for, held by a connection, asked about again, ended and told.

Promises: holders are told in the same turn of the loop, but where very many leases end at once: those are told in
slices, while others are served, and no faster than each holder reads; a connection that goes leaves its leases to the
grace of their holders.
Never: decides when a lease ends (`tenure.py` does).
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING

from ..audit import entries
from ..core.gate import Ask
from ..core.page import SLOT_TIMED
from ..errors import BadRequest
from ..flight import Partition, Reply
from ..lease import Cause, Lease
from ..leases import Leases
from ..tenure import Tenure
from ..wire import Op, reply
from . import clock, logs
from .handover import HeldBefore

if TYPE_CHECKING:
    from .connection import Connection
    from .service import Service

LOOK_NS = 1_000_000_000
"""At least so often the wall clock is looked at while leases are held."""
SLICE = 128
"""Leases that are told, or forgotten, in one turn of the loop."""
UNREAD = 16_384
"""Bytes that wait for a holder, above which he is told of no more leases before he has read. What he is told at once is
twice as much: together they stay below the least that `limits.queued` may be, above which his connection would end."""
SLOWLY_S = 0.005
"""Until those are looked at again who read slowly."""
SHOWN = 500
"""Leases that are listed in one reply."""
LONGEST = 1024
_END = struct.Struct("<QQQB7x")
_NUMBER = struct.Struct("<Q")
_TIMED = SLOT_TIMED.to_bytes(2, "little")


class Leasing:
    """The leases of a service."""

    def __init__(self, service: Service, grace_ns: int, most: int, per_peer: int) -> None:
        # a number that an administrator has from a daemon before this one is not to end another lease here
        self.leases = Leases(grace_ns, most, per_peer, count(secrets.randbits(40)))
        self.leases.on_end = self._ended
        self.tenure = Tenure(service.enforcer, self.leases)
        self._service = service
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.Handle | None = None
        self._slow: dict[Connection, deque[Lease]] = {}
        self._by: dict[int, int] = {}
        """Who ends them, where that is an administrator, until it is on record."""
        self._on_record: set[int] = set()
        """Those that have a start in the record, and no end yet."""
        self._seen = service.page.revision

    # ---- asking ----

    def ask(self, connection: Connection, ask: Ask, deadline_ns: int, now: int, wall_ms: int) -> None:
        """A connection wants to hold a permit. Raises Overloaded or BadRequest."""
        partition = self._service.partitions[ask.partition]
        self.tenure.ask(
            connection.leasing, partition, ask.id, ask.local, ask.question, deadline_ns, ask.not_after, now, wall_ms,
            ask.trace or b"",
        )  # fmt: skip

    def answered(self, r: Reply) -> bytes | None:
        """What a holder is sent that asked for a lease: the verdict, with the lease's number where it permits. None:
        nothing yet."""
        now = clock.now()
        lease = self.tenure.answered(r, now, clock.wall_ms())
        if lease is True:
            asyncio.get_running_loop().call_soon(self._service.idle)
            return None
        body = r.body
        if lease:
            of, decision = lease.partition, int.from_bytes(body[16:24], "little")
            if self._service.recording.keeps(of):
                self._on_record.add(lease.number)
                self._service.recording.note(
                    entries.LeaseStart, lease=lease.number, decision=decision, uid=of.uid, point=of.point
                )
            body = body[:16] + _NUMBER.pack(lease.number) + body[24:]
            self._arm(now)
        return reply(Op.LEASE, r.request, r.local, body)

    def rechecked(self, r: Reply) -> None:
        """The PDP was asked about a lease again."""
        self.tenure.rechecked(r, clock.now(), clock.wall_ms())
        self.tell()

    # ---- the end ----

    def tell(self) -> None:
        """Tell the holders why their leases ended; the timer is set anew."""
        if self._telling is None:
            self._tell()
        self._arm(clock.now())

    def _tell(self) -> None:
        """Tell a slice, each connection at once."""
        self._telling = None
        for lease in self.leases.to_tell(SLICE):
            self._slow.setdefault(lease.to.connection, deque()).append(lease)
        left = SLICE
        for connection in list(self._slow):
            if left <= 0:
                break
            if connection.closed:
                del self._slow[connection]
            elif connection.queued <= UNREAD:
                left -= self._tell_one(connection, min(left, SLICE))
        if self.leases.telling or any(connection.queued <= UNREAD for connection in self._slow):
            self._telling = asyncio.get_running_loop().call_soon(self._tell)
        elif self._slow:
            self._telling = asyncio.get_running_loop().call_later(SLOWLY_S, self._tell)

    def _tell_one(self, connection: Connection, most: int) -> int:
        """Tell one holder of so many leases; returns of how many it was."""
        boot, waiting = self._service.page.boot, self._slow.pop(connection)
        told: list[bytes] = []
        size = 0
        while waiting and len(told) < most and size < 2 * UNREAD:
            lease = waiting.popleft()
            told.append(end_of(lease, boot))
            size += len(told[-1])
        if waiting:
            self._slow[connection] = waiting  # as the last: the others come first
        connection.send(b"".join(told))
        return len(told)

    def give_up(self, connection: Connection, ask: Ask) -> None:
        """A holder has stopped, by itself or because it was told. Raises BadRequest."""
        self.leases.given_up(number_in(ask), connection.leasing)
        self.tell()

    def end_by_hand(self, connection: Connection, ask: Ask) -> None:
        """An administrator ends one lease. Raises BadRequest where it is not held.

        One that he holds himself, on this connection, he gives up, as everywhere.
        """
        number = number_in(ask)
        lease = self.leases.get(number)
        if lease is None or lease.to is connection.leasing:
            if not self.leases.given_up(number, connection.leasing):
                raise BadRequest("lease", f"`{number}` is not held: `pepcore leases` lists those that are")
            return self.tell()
        uid = connection.peer.uid
        if number in self._on_record:
            self._by[number] = uid
        logs.info("a lease was ended", uid=uid, lease=number)
        self.leases.end(lease, self._service.page.revision, Cause.ENDED, "ended by an administrator")
        self.tell()

    def gone(self, connection: Connection) -> None:
        """A connection has ended."""
        now = clock.now()
        self.tenure.gone(connection.leasing, now)
        self._arm(now)

    def _ended(self, lease: Lease) -> None:
        self._record_end(lease, lease.cause.name.lower())

    def _record_end(self, lease: Lease, cause: str) -> None:
        """One end for each start that is on record: those that were adopted have none."""
        if lease.number in self._on_record:
            self._on_record.remove(lease.number)
            by = self._by.pop(lease.number, -1)
            self._service.recording.note(entries.LeaseEnd, lease=lease.number, cause=cause, by=by)

    async def leave(self, cause: str) -> None:
        """This daemon ends, and no holder is connected: the record says how each of its leases ended here."""
        while self.leases.telling:
            self.leases.to_tell(SLICE)
            await asyncio.sleep(0)
        for n, lease in enumerate(self.leases.held()):
            self._record_end(lease, cause)
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    # ---- from one daemon to the next ----

    def passed_on(self, now: int) -> list[HeldBefore]:
        """The leases of holders who stop by themselves now that this daemon ends, also of those who have not said that
        they stopped when they were told, or were not told yet."""
        return [
            HeldBefore(
                lease.principals, lease.action, lease.resource, tuple(lease.tags), lease.partition.point,
                lease.partition.uid, lease.since_ms, self.leases.grace_ns // 1_000_000, not lease.held,
            )
            for lease in self.leases.unstopped()
        ]  # fmt: skip

    def adopt(self, before: Iterable[HeldBefore]) -> None:
        """Leases of a predecessor: they can be revoked, and are forgotten when their holders have stopped. Those that
        he ended are still to be told, whatever revision is asked for."""
        now = clock.now()
        for held in before:
            self.leases.adopt(
                Partition(0, 0, held.point, uid=held.uid), held.principals, held.action, held.resource,
                frozenset(held.tags), held.since_ms, now + held.left_ms * 1_000_000, held.ended,
            )  # fmt: skip
        self._arm(now)

    # ---- time ----

    def recheck(self) -> None:
        """What every lease hangs on has changed."""
        self._seen = self._service.page.revision
        self.leases.recheck()
        self._arm(clock.now())

    def _arm(self, now: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.leases.next_due()
        if len(self.leases):
            at = min(now + LOOK_NS if due is None else due, now + LOOK_NS)
            self._timer = asyncio.get_running_loop().call_later(max(0, at - now) / 1e9, self._look)

    def _look(self) -> None:
        """Ask about what is due; forget who has stopped; see whether the wall clock was set."""
        # a defect below ends no supervision: what is due is looked at again, if not so soon
        self._timer = asyncio.get_running_loop().call_later(LOOK_NS / 1e9, self._look)
        service = self._service
        now, wall_ms = service.misses.clocks()
        if not service.page.untouched(_TIMED, self._seen):
            self.recheck()
        self.leases.stopped(now, SLICE)
        self.tenure.look(now, wall_ms)
        service.progress(now, wall_ms)
        self.tell()

    def shown(self, after: int) -> tuple[list[dict[str, object]], bool]:
        """What administrators see of the leases that are held, those behind a number; and whether there are more."""
        held = self.leases.held(after, SHOWN + 1)
        shown: list[dict[str, object]] = [
            {
                "lease": lease.number, "subject": lease.principals[0], "chain": list(lease.principals[1:]),
                "action": lease.action, "resource": lease.resource, "point": lease.partition.point,
                "uid": lease.partition.uid, "since": lease.since_ms, "lost": lease.lost,
            }
            for lease in held[:SHOWN]
        ]  # fmt: skip
        return shown, len(held) > SHOWN


def end_of(lease: Lease, boot: int) -> bytes:
    """The frame that tells of an end."""
    reason = lease.reason.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").encode()
    body = _END.pack(lease.number, boot, lease.revision, lease.cause) + reason
    return reply(Op.END_LEASE, lease.request, lease.local, body)


def number_in(ask: Ask) -> int:
    """The lease that a request names. Raises BadRequest."""
    if len(ask.rest) != _NUMBER.size:
        raise BadRequest("lease", f"is `{len(ask.rest)}` bytes, not the 8 of a lease's number")
    return int(_NUMBER.unpack(ask.rest)[0])
