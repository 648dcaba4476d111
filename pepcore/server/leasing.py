"""Leases on the wire: asked for, held by a connection, asked about again, ended and told.

Promises: a lease that ended is told to its holder in the same turn of the loop; a re-evaluation gets no longer than the
lease still has; a connection that goes leaves its leases to the grace of their holders.
Never: serves a lease from the cache; ends one because its own question waits behind others after a reload.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..core.gate import Ask
from ..core.page import SLOT_TIMED
from ..errors import BadRequest, Overloaded
from ..flight import Partition, Reply
from ..leases import Cause, Lease, Leases
from ..wire import Op, reply
from . import clock

if TYPE_CHECKING:
    from .connection import Connection
    from .service import Service

LOOK_NS = 1_000_000_000
"""At least so often the wall clock is looked at while leases are held."""
RECHECK_NS = 10_000_000_000
"""How long a re-evaluation may wait after a reload; never longer than the lease has."""
_END = struct.Struct("<QQQB7x")
_NUMBER = struct.Struct("<Q")
_TIMED = SLOT_TIMED.to_bytes(2, "little")


class Leaseholder:
    """Stands for a connection where it asks for a lease."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.asked: dict[int, tuple[Partition, bytes, int]] = {}


class Recheck:
    """Stands for a lease that is asked about again: nobody is sent what is decided."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease


class Leasing:
    """The leases of a service."""

    def __init__(self, service: Service, grace_ns: int, most: int, per_peer: int) -> None:
        self.leases = Leases(grace_ns, most)
        self._service, self._per_peer = service, per_peer
        self._of_owner: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._seen = service.page.revision

    # ---- asking ----

    def ask(self, connection: Connection, ask: Ask, deadline_ns: int, now: int, wall_ms: int) -> None:
        """A connection wants to hold a permit. Raises Overloaded or BadRequest."""
        service, owner, asked = self._service, connection.peer.owner, connection.leasing.asked
        if self.leases.full or self._of_owner.get(owner, 0) + len(asked) >= self._per_peer:
            raise Overloaded("lease", f"{len(self.leases)} leases are held: end some that are no longer needed")
        if ask.id in asked:
            raise BadRequest("request id", f"`{ask.id}` is asked for already on this connection")
        partition = service.partitions[ask.partition]
        asked[ask.id] = partition, ask.question, ask.not_after
        service.enforcer.ask(
            partition, connection.leasing, ask.id, ask.local, ask.question, now, wall_ms,
            deadline_ns=deadline_ns, not_after=ask.not_after, trace=ask.trace or b"",
        )  # fmt: skip

    def answered(self, r: Reply) -> bytes:
        """What a holder is sent that asked for a lease: the verdict, with the lease's number where it permits."""
        holder: Leaseholder = r.to
        partition, key, not_after = holder.asked.pop(r.request)
        assert r.verdict is not None, "a lease is a single question"
        body = r.body
        if r.verdict.permit:
            now, wall_ms = clock.now(), clock.wall_ms()
            lease = self.leases.hold(holder, r.request, r.local, partition, key, not_after, wall_ms)
            self._of_owner[partition.owner] = self._of_owner.get(partition.owner, 0) + 1
            self._renew(lease, r, now, wall_ms)
            body = body[:16] + _NUMBER.pack(lease.number) + body[24:]
            self._arm(now)
        return reply(Op.LEASE, r.request, r.local, body)

    def rechecked(self, r: Reply) -> None:
        """The PDP was asked about a lease again."""
        lease: Lease = r.to.lease
        assert r.verdict is not None, "a lease is a single question"
        now, wall_ms = clock.now(), clock.wall_ms()
        if not lease.held:
            return
        if r.verdict.permit:
            self._renew(lease, r, now, wall_ms)
        else:
            over = 0 <= lease.not_after <= wall_ms
            ended = self.leases.end(lease, self._service.page.revision)
            self.tell([ended], Cause.OVER if over else Cause.DENIED, r.verdict.error or r.verdict.reason)
        self._arm(now)

    def _renew(self, lease: Lease, r: Reply, now: int, wall_ms: int) -> None:
        assert r.verdict is not None
        until = r.verdict.expires_ns or now + self._service.enforcer.times.permit_ms * 1_000_000
        self.leases.renewed(lease, r.tags, r.verdict.policies, until, now, wall_ms)

    # ---- the end ----

    def tell(self, ended: Iterable[Lease], cause: Cause, reason: str) -> None:
        """Tell the holders why their leases ended, each connection at once."""
        boot = self._service.page.boot
        frames: dict[Connection, list[bytes]] = {}
        text = reason.encode("utf-8", "replace")[:1024]
        for lease in ended:
            self._count_down(lease)
            body = _END.pack(lease.number, boot, lease.revision, cause) + text
            if not lease.gone_ns:
                frames.setdefault(lease.to.connection, []).append(reply(Op.END_LEASE, lease.request, lease.local, body))
        for connection, told in frames.items():
            connection.send(b"".join(told))
        self._arm(clock.now())

    def give_up(self, connection: Connection, ask: Ask) -> None:
        """A holder has stopped, by itself or because it was told. Raises BadRequest."""
        lease = self.leases.given_up(number_in(ask), connection.leasing)
        if lease is not None:
            self._count_down(lease)

    def end_by_hand(self, ask: Ask) -> None:
        """An administrator ends one lease. Raises BadRequest where it is not held."""
        number = number_in(ask)
        lease = self.leases.get(number)
        if lease is None:
            raise BadRequest("lease", f"`{number}` is not held: `pepcore leases` lists those that are")
        self.tell([self.leases.end(lease, self._service.page.revision)], Cause.ENDED, "ended by an administrator")

    def gone(self, connection: Connection) -> None:
        """A connection has ended."""
        now = clock.now()
        self.leases.lost(connection.leasing, now)
        self._arm(now)

    def _count_down(self, lease: Lease) -> None:
        owner = lease.partition.owner
        self._of_owner[owner] -= 1
        if not self._of_owner[owner]:
            del self._of_owner[owner]

    # ---- time ----

    def recheck(self) -> None:
        """What every lease hangs on has changed."""
        now = clock.now()
        self._seen = self._service.page.revision
        self.leases.recheck(now)
        self._arm(now)

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
        self._timer = None
        service = self._service
        now, wall_ms = service.misses.clocks()
        if not service.page.untouched(_TIMED, self._seen):
            self.recheck()
        for stopped in self.leases.stopped(now):
            self._count_down(stopped)
        while (lease := self.leases.due(now)) is not None:
            left = max(1, min(lease.until_ns - now, RECHECK_NS))
            service.enforcer.ask(
                lease.partition, Recheck(lease), lease.number, 0, lease.key, now, wall_ms,
                deadline_ns=left, not_after=lease.not_after,
            )  # fmt: skip
        service.progress(now, wall_ms)
        self._arm(now)

    def shown(self) -> list[dict[str, object]]:
        """What administrators see of the leases that are held."""
        return [
            {
                "lease": lease.number, "subject": lease.principals[0], "chain": list(lease.principals[1:]),
                "action": lease.action, "resource": lease.resource, "point": lease.partition.point,
                "uid": lease.to.connection.peer.uid, "since": lease.since_ms, "lost": bool(lease.gone_ns),
            }
            for lease in self.leases.held()
        ]  # fmt: skip


def number_in(ask: Ask) -> int:
    """The lease that a request names. Raises BadRequest."""
    if len(ask.rest) != _NUMBER.size:
        raise BadRequest("lease", f"is `{len(ask.rest)}` bytes, not the 8 of a lease's number")
    return int(_NUMBER.unpack(ask.rest)[0])
