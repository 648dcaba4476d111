"""Revokes and blocks: what comes on the administration socket, done at once, acknowledged when it holds (DESIGN, D4).

Promises: the effect comes first, then what has to be on disk, then the acknowledgement; nothing is acknowledged while
the page of a predecessor may still be believed (2 leases after the lock was taken, by whoever took it first where it
was handed over since), or once the lock is lost. Whoever sends it was let in by the config, or is the daemon's own
user.
Never: waits behind questions; evaluates anything.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from ..audit import entries
from ..blocks import Block
from ..config import LONGEST_GRACE_MS
from ..core.gate import Ask
from ..errors import BadRequest, Fault, NotAvailable, Overloaded, Refused
from ..wire import Acknowledged, Op, error, pack, read_block, read_blocks, read_leases, read_revoke, reply
from . import clock, logs
from .handover import Handed, HeldBefore, Successor

if TYPE_CHECKING:
    from .blockfile import BlockFile
    from .connection import Connection
    from .service import Service

SHOWN = 32_768
"""Bytes of blocks in one reply, and one block more: below the least that `limits.queued` may be."""


class Administration:
    """What administrators do to a service. `fence_ns`: nothing is acknowledged before. `before_ns`: until then holders
    of leases of a daemon before this one may not have stopped."""

    def __init__(self, service: Service, file: BlockFile, fence_ns: int) -> None:
        self._service, self._file, self.fence_ns = service, file, fence_ns
        self.before_ns = service.started_ns + LONGEST_GRACE_MS * 1_000_000
        self._tasks: set[asyncio.Task[None]] = set()
        self.revokes = self.blocks_set = 0

    def take(self, connection: Connection, ask: Ask, wall_ms: int) -> bool:
        """Do one request, if it is one of these. Answers by itself, now or later."""
        try:
            if ask.op == Op.REVOKE:
                self._revoke(connection, ask)
            elif ask.op == Op.BLOCK:
                self._block(connection, ask, wall_ms)
            elif ask.op == Op.BLOCKS:
                self._list(connection, ask, wall_ms)
            elif ask.op == Op.LEASES:
                self._leases(connection, ask)
            elif ask.op == Op.TAKEOVER:
                self._take_over(connection, ask)
            elif ask.op == Op.END_LEASE:
                self._service.leasing.end_by_hand(connection, ask)
                connection.send(reply(ask.op, ask.id, ask.local, b""))
            else:
                return False
        except Fault as fault:
            connection.send(error(ask.id, ask.local, fault))
        return True

    def _revoke(self, connection: Connection, ask: Ask) -> None:
        wanted = read_revoke(ask.rest)
        leasing = self._service.leasing
        if wanted.all:
            revision = leasing.tenure.revoke_all(wanted.reason)
        else:
            revision = leasing.tenure.revoke(wanted.tags, wanted.reason)
        leasing.tell()
        self.revokes += 1
        uid = connection.peer.uid
        recorded = self._service.recording.on_disk(
            entries.Revoke, uid=uid, tags=wanted.tags, all=wanted.all, revision=revision, reason=wanted.reason
        )
        self._settle(connection, ask, revision, recorded)
        logs.info(
            "revoked", uid=uid, everything=wanted.all, tags=list(wanted.tags), reason=wanted.reason, revision=revision
        )

    def _block(self, connection: Connection, ask: Ask, wall_ms: int) -> None:
        wanted = read_block(ask.rest)
        revocation = self._service.enforcer.revocation
        if revocation.blocks.broken:  # saving would put a short list in the place of one that nobody has read
            raise NotAvailable("block", f"everything is denied: the list cannot be read: {revocation.blocks.broken}")
        if wanted.lift:
            revision = revocation.lift(wanted.tag)
        else:
            if wanted.until and wanted.until <= wall_ms:
                raise BadRequest("block.until", f"`{wanted.until}` has passed already")
            if revocation.blocks.full(wanted.tag):
                raise Overloaded("block", "the list of blocks is full: lift some that are no longer needed")
            by = f"uid {connection.peer.uid}"
            revision = revocation.block(Block(wanted.tag, wanted.reason, wall_ms, wanted.until, by))
            self._service.leasing.tenure.blocked(wanted.tag, revision, wanted.reason)
            self._service.leasing.tell()
        self.blocks_set += not wanted.lift
        what = {"uid": connection.peer.uid, "tag": wanted.tag, "reason": wanted.reason, "revision": revision}
        on_disk = self._service.recording.on_disk
        if wanted.lift:
            recorded = on_disk(entries.Unblock, **what)
        else:
            recorded = on_disk(entries.Block, until_ns=wanted.until * 1_000_000, **what)
        self._settle(connection, ask, revision, recorded, self._file)
        logs.info("unblocked" if wanted.lift else "blocked", **what)

    def _list(self, connection: Connection, ask: Ask, wall_ms: int) -> None:
        wanted = read_blocks(ask.rest)
        blocks = self._service.enforcer.revocation.blocks
        if blocks.broken:
            raise NotAvailable("blocks", f"everything is denied: the list cannot be read: {blocks.broken}")
        shown, after, more = blocks.page(wanted.after, wall_ms, SHOWN)
        connection.send(reply(ask.op, ask.id, ask.local, pack({"after": after, "blocks": shown, "more": more})))

    def _leases(self, connection: Connection, ask: Ask) -> None:
        wanted, leasing = read_leases(ask.rest), self._service.leasing
        shown, more = leasing.shown(wanted.after) if wanted.list else ([], False)
        untold = leasing.leases.untold(wanted.revision)
        body = {"before": self._before(), "leases": shown, "more": more, "untold": untold}
        connection.send(reply(ask.op, ask.id, ask.local, pack(body)))

    def _take_over(self, connection: Connection, ask: Ask) -> None:
        """A successor is ready: this daemon ends, and gives it everything."""
        service, uid = self._service, connection.peer.uid
        if uid != os.geteuid():
            raise Refused("takeover", f"uid `{uid}` is not the one that this daemon runs as")
        if service.successor is not None:
            raise Overloaded("takeover", "another daemon takes over already")
        try:  # while the connection is there, its process is the one that the kernel named
            process = os.pidfd_open(connection.peer.pid)
        except OSError:  # it has gone, or is of another pid namespace
            process = -1
        service.successor = Successor(connection, ask.id, process)
        service.stop()

    def open(self) -> None:
        """Take the state folder and the blocks that are kept there. Raises ConfigError."""
        self._file.open()

    async def succeeds(self, handed: Handed, state: int) -> None:
        """A predecessor hands over: no page of it is believed, and its leases and blocks are among ours. What it waited
        for in those before it, we wait for, too. `state` is the lock of its state folder. Raises ConfigError."""
        now = clock.now()
        self.fence_ns, self.before_ns = now + handed.fence_ns, now + handed.before_ns
        await self._file.succeed(state, handed.blocks, handed.broken)

    def passed_on(self, leases: tuple[HeldBefore, ...]) -> tuple[Handed, int]:
        """What `succeeds` wants, for a successor."""
        now, blocks = clock.now(), self._file.blocks
        in_force = tuple(blocks.active(clock.wall_ms()))
        handed = Handed(leases, in_force, blocks.broken, max(0, self.fence_ns - now), max(0, self.before_ns - now))
        return handed, self._file.lock

    async def settled(self) -> None:
        """Until nothing of what was taken is on its way to the disk: it could undo what a successor writes."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._file.settled()

    def go_on(self) -> None:
        """There is no successor, after all: write again what could not be written."""
        self._file.go_on()

    def _before(self) -> bool:
        """Whether holders of leases of a daemon before this one may not have stopped yet."""
        return clock.now() < self.before_ns

    def _settle(
        self,
        connection: Connection,
        ask: Ask,
        revision: int,
        recorded: asyncio.Future[str],
        file: BlockFile | None = None,
    ) -> None:
        """The effect is there: now what has to be on disk, then say so, as soon as it holds everywhere on this host."""
        if file is None and recorded.done() and clock.now() >= self.fence_ns:
            self._acknowledge(connection, ask, revision, recorded.result())
        else:
            self._later(connection, self._on_disk(connection, ask, revision, recorded, file))

    async def _on_disk(
        self, connection: Connection, ask: Ask, revision: int, recorded: asyncio.Future[str], file: BlockFile | None
    ) -> None:
        why = await file.save() if file is not None else ""
        why = why or await recorded
        while (left := self.fence_ns - clock.now()) > 0:
            await asyncio.sleep(left / 1e9)
        self._acknowledge(connection, ask, revision, why)

    def _acknowledge(self, connection: Connection, ask: Ask, revision: int, why: str) -> None:
        if not self._service.holds():  # it holds here, and another daemon may serve what it ends
            return
        untold = self._service.leasing.leases.untold(revision)
        said = Acknowledged(self._service.page.boot, not why, untold, revision, self._before(), why)
        connection.send(reply(ask.op, ask.id, ask.local, pack(said)))

    def _later(self, connection: Connection, work: Coroutine[None, None, None]) -> None:
        """Do it in a task. The connection owes a reply until then: a hand-over closes it behind that."""

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            connection.waiting -= 1
            connection.go_on()

        connection.waiting += 1
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)
