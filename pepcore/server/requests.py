"""What the gate could not answer, one request at a time: into the enforcer, or a reply at once.

Promises: a fault is an error frame to whoever asked, and touches nobody else; a deadline counts from when the request
was read, however long it waited for its turn; only who administers reads statistics.
Never: decides; evaluates (misses.py does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.gate import Ask
from ..errors import BadRequest, Fault, NotAvailable, Refused, Stale
from ..flight import Partition
from ..settlement import read_question
from ..wire import Op, error, pack, read_many, reply
from .statistics import stats

if TYPE_CHECKING:
    from .connection import Connection
    from .service import Service


class Requests:
    """The ops of the wire, for a service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def take(self, connection: Connection, ask: Ask, now: int, wall_ms: int) -> None:
        """Do one request that has waited since `connection.asked_ns`."""
        deadline_ns = ask.deadline_ns
        waited = now - connection.asked_ns
        if waited:
            deadline_ns = max(0, self._service.enforcer.allowed_ns(deadline_ns) - waited)
        try:
            self._take(connection, ask, deadline_ns, now, wall_ms)
        except Fault as fault:
            self._service.refusals.raised(connection, ask.partition, fault)
            connection.waiting -= 1
            self._service.outbox.put(connection, error(ask.id, ask.local, fault))

    def _take(self, connection: Connection, ask: Ask, deadline_ns: int, now: int, wall_ms: int) -> None:
        service = self._service
        connection.waiting += 1
        if ask.op in (Op.CHECK, Op.EXPLAIN):
            partition = service.partitions[ask.partition]
            if service.peers.limited(partition.number):
                self._admitted(connection, partition, ask.question)
            explain = ask.op == Op.EXPLAIN
            service.enforcer.ask(
                partition, connection.explaining if explain else connection, ask.id, ask.local, ask.question, now,
                wall_ms, deadline_ns=deadline_ns, not_after=-1 if explain else ask.not_after, explain=explain,
                trace=ask.trace or b"",
            )  # fmt: skip
        elif ask.op == Op.CHECK_MANY:
            self._ask_many(connection, ask, deadline_ns, now, wall_ms)
        elif ask.op == Op.STATS:
            if ask.rest or ask.local:
                raise BadRequest("stats", "has no body and partition 0")
            if not connection.peer.administers:
                raise Refused("stats", "this peer may not read statistics: the config names who administers")
            connection.waiting -= 1
            service.outbox.put(connection, reply(ask.op, ask.id, ask.local, pack(stats(service))))
        elif ask.op == Op.LEASE:
            if service.peers.limited(ask.partition):
                self._admitted(connection, service.partitions[ask.partition], ask.question)
            service.leasing.ask(connection, ask, deadline_ns, now, wall_ms)
        elif ask.op in (Op.END_LEASE, Op.PING):
            if ask.op == Op.END_LEASE:
                service.leasing.give_up(connection, ask)
            connection.waiting -= 1
            service.outbox.put(connection, reply(ask.op, ask.id, ask.local, b""))
        elif ask.op in (Op.REVOKE, Op.BLOCK, Op.BLOCKS, Op.LEASES):
            raise Refused("op", f"`{Op(ask.op).name.lower()}` is taken on the administration socket only")
        elif ask.op == Op.MAP:
            raise NotAvailable("op", f"`{Op(ask.op).name.lower()}` is specified but not available yet")
        else:
            raise NotAvailable("op", f"`{ask.op}` is not known here: send 1 to 13")

    def _admitted(self, connection: Connection, partition: Partition, key: bytes) -> None:
        subject = read_question(key).subject
        if not self._service.peers.admits(partition.number, subject):
            self._service.refusals.subject(connection.peer.uid, partition, f"{subject.type}::{subject.id}")
            raise Refused("subject", "this peer may not ask for this subject: see `peers` in the config")

    def _ask_many(self, connection: Connection, ask: Ask, deadline_ns: int, now: int, wall_ms: int) -> None:
        service = self._service
        partition, page = service.partitions[ask.partition], service.page
        limits = service.config.limits
        semantic, items = read_many(ask.rest, limits.depth, limits.values)
        blocked: Fault | None = None
        if ask.min_boot == page.boot and ask.min_revision > page.revision:
            blocked = Stale("min_revision", "this daemon has not seen that revision yet")
        if service.peers.limited(partition.number):
            for i, item in enumerate(items):
                if isinstance(item, bytes):
                    try:
                        self._admitted(connection, partition, item)
                    except Refused as refused:
                        items[i] = refused
        service.enforcer.ask_many(
            partition, connection, ask.id, ask.local, semantic, items, now, wall_ms,
            deadline_ns=deadline_ns, not_after=ask.not_after, blocked=blocked, trace=ask.trace or b"",
        )  # fmt: skip
