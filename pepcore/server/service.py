"""The daemon: one process per host that every point asks.

Promises: it listens only when its policies are loaded; a reload that fails keeps what was active and says why; a
SIGTERM answers what is in flight before it leaves; only the socket, the workers and the timers are touched here, the
pipeline itself is `enforcer.py`.
Never: serves an answer of an older policy set after a reload was announced; lets one peer's frame stop another's.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets

from ..config import Config, milliseconds
from ..core.cache import Cache
from ..core.gate import Ask, Gate, Stream
from ..core.page import Page
from ..enforcer import Enforcer
from ..errors import ConfigError, Fault, NotAvailable, Overloaded, Refused, Stale
from ..flight import Flight, Partition
from ..model import Decision
from ..settlement import read_question
from ..wire import MAX_MANY, Op, Welcome, error, pack, read_hello, read_many, reply
from . import clock, logs
from .changes import keep_fixed, times
from .connection import Connection
from .misses import Misses
from .notices import Notices
from .peer import Peer, Peers
from .processes import Process
from .replies import Explaining, frame_of
from .statistics import SERVER, stats
from .workers import Workers

INLINE_MS = 20.0
"""A set that takes longer to build is never evaluated on the loop (D11)."""


class Service:
    """Everything that one daemon holds."""

    def __init__(self, config: Config, listener: str) -> None:
        self.config = config
        self._set_times(config)
        self.started_ns = clock.now()
        self.page = Page(secrets.randbits(64) | 1)
        keep = config.cache
        self.cache = Cache(slots=keep.slots, slab=keep.slab_mib << 20, seed=secrets.randbits(64), quota=keep.quota)
        self.gate = Gate(self.cache, self.page, self._hello, frame_limit=config.limits.frame, depth=config.limits.depth)
        self.notices = Notices(config.notify.file)
        self.enforcer = Enforcer(
            self.cache,
            self.page,
            times(config),
            numbers=itertools.count(secrets.randbits(62)),
            notify=self.notices,
        )
        self.misses = Misses(self.enforcer)
        self._partition_numbers = itertools.count(1)
        self._listener = listener
        self.peers = Peers(config.peers, listener, self._partition_numbers)
        self.connections: dict[Connection, int] = {}
        self._of_owner: dict[int, int] = {}
        self.partitions: dict[int, Partition] = {}
        self._gone: set[object] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self.reloads = self.failed_reloads = 0

    def _set_times(self, config: Config) -> None:
        self.partial_s = milliseconds(config.limits.partial) / 1000
        self.unread_s = milliseconds(config.limits.unread) / 1000

    # ---- connections ----

    def admit(self, pid: int, uid: int, gid: int) -> Peer:
        """Who has connected, if there is room for him. Raises Refused or Overloaded."""
        peer = self.peers.identify(pid, uid, gid)
        limits = self.config.limits
        if len(self.connections) >= limits.connections:
            raise Overloaded("connections", f"{limits.connections} are open already")
        if self._of_owner.get(peer.owner, 0) >= limits.connections_per_peer:
            raise Overloaded("connections", f"uid `{uid}` has {limits.connections_per_peer} open already")
        return peer

    def connected(self, connection: Connection) -> None:
        owner = connection.peer.owner
        self.connections[connection] = owner
        self._of_owner[owner] = self._of_owner.get(owner, 0) + 1

    def gone(self, connection: Connection) -> None:
        owner = self.connections.pop(connection, None)
        if owner is not None:
            self._of_owner[owner] -= 1
            if connection.waiting:
                if not self._gone:
                    asyncio.get_running_loop().call_soon(self._forget_gone)
                self._gone |= {connection, connection.explaining}

    def _forget_gone(self) -> None:
        """Take the requests of those who went out of the enforcer: one look at its flights for all of them."""
        gone, self._gone = self._gone, set()
        if gone:
            self.enforcer.gone(*gone)

    def _hello(self, stream: Stream, local: int, body: bytes) -> tuple[int, bytes]:
        partition = self.peers.partition(stream.peer, read_hello(body))
        self.partitions[partition.number] = partition
        limits = self.config.limits
        told = {"depth": limits.depth, "frame": limits.frame, "many": MAX_MANY}
        return partition.number, pack(Welcome(self.page.boot, told, local, self.page.revision, SERVER, 1))

    # ---- requests that the gate could not answer ----

    def ask(self, connection: Connection, asks: list[Ask], now: int, wall_ms: int) -> None:
        if len(asks) == 1 and self._at_once(connection, asks[0], now, wall_ms):
            return
        faults = []
        for ask in asks:
            try:
                connection.waiting += 1
                self._ask(connection, ask, now, wall_ms)
            except Fault as fault:
                connection.waiting -= 1
                faults.append(error(ask.id, ask.local, fault))
        if faults:
            connection.send(b"".join(faults))
        self.progress(now, wall_ms)

    def _at_once(self, connection: Connection, ask: Ask, now: int, wall_ms: int) -> bool:
        """The short way for a miss that is alone: no flight that others could join, no alarm."""
        if ask.op != Op.CHECK or self.peers.limited(ask.partition):
            return False
        body = self.misses.at_once(self.partitions[ask.partition], ask, now, wall_ms)
        if body is None:
            return False
        connection.send(reply(Op.CHECK, ask.id, ask.local, body))
        return True

    def _ask(self, connection: Connection, ask: Ask, now: int, wall_ms: int) -> None:
        if ask.op in (Op.CHECK, Op.EXPLAIN):
            partition = self.partitions[ask.partition]
            if self.peers.limited(partition.number):
                self._admitted(partition, ask.question)
            if ask.op == Op.CHECK:
                self.enforcer.ask(
                    partition, connection, ask.id, ask.local, ask.question, now, wall_ms,
                    deadline_ns=ask.deadline_ns, not_after=ask.not_after,
                )  # fmt: skip
            else:
                self.enforcer.ask(
                    partition, connection.explaining, ask.id, ask.local, ask.question, now, wall_ms,
                    deadline_ns=ask.deadline_ns, explain=True,
                )  # fmt: skip
        elif ask.op == Op.CHECK_MANY:
            self._ask_many(connection, ask, now, wall_ms)
        elif ask.op == Op.STATS:
            if not connection.peer.administers:
                raise Refused("stats", "this peer may not read statistics: the config names who administers")
            connection.waiting -= 1
            connection.send(reply(ask.op, ask.id, ask.local, pack(stats(self))))
        elif ask.op in (Op.LEASE, Op.END_LEASE, Op.REVOKE, Op.BLOCK, Op.MAP):
            raise NotAvailable("op", f"`{Op(ask.op).name.lower()}` is specified but not available yet")
        else:
            raise NotAvailable("op", f"`{ask.op}` is not known here: send 1 to 10")

    def _admitted(self, partition: Partition, key: bytes) -> None:
        subject = read_question(key).subject
        if not self.peers.admits(partition.number, subject):
            raise Refused("subject", "this peer may not ask for this subject: see `peers` in the config")

    def _ask_many(self, connection: Connection, ask: Ask, now: int, wall_ms: int) -> None:
        partition = self.partitions[ask.partition]
        semantic, items = read_many(ask.rest, self.config.limits.depth)
        blocked: Fault | None = None
        if ask.min_boot == self.page.boot and ask.min_revision > self.page.revision:
            blocked = Stale("min_revision", "this daemon has not seen that revision yet")
        if self.peers.limited(partition.number):
            for i, item in enumerate(items):
                if isinstance(item, bytes):
                    try:
                        self._admitted(partition, item)
                    except Refused as refused:
                        items[i] = refused
        self.enforcer.ask_many(
            partition, connection, ask.id, ask.local, semantic, items, now, wall_ms,
            deadline_ns=ask.deadline_ns, not_after=ask.not_after, blocked=blocked,
        )  # fmt: skip

    # ---- progress ----

    def progress(self, now: int, wall_ms: int) -> None:
        """Evaluate what can be evaluated, send what can be sent, set the next alarm."""
        self.misses.pump(now, wall_ms)
        self._send()
        self._arm()

    def came(self, flight: Flight, said: Decision | dict[str, object]) -> None:
        """A worker has decided. Nothing is applied for those who went meanwhile."""
        self._forget_gone()
        self.misses.arrived(flight, said)

    def idle(self) -> None:
        """A worker has room again."""
        self.progress(clock.now(), clock.wall_ms())

    def _send(self) -> None:
        out: dict[Connection, list[bytes]] = {}
        for r in self.enforcer.take_replies():
            to: Connection = r.to.connection if isinstance(r.to, Explaining) else r.to
            to.waiting -= 1
            if not to.closed:
                out.setdefault(to, []).append(frame_of(r))
        for connection, frames in out.items():
            connection.send(frames[0] if len(frames) == 1 else b"".join(frames))

    def _arm(self) -> None:
        due = self.enforcer.next_deadline()
        if due is None or (self._timer is not None and self._timer_ns <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = due
        delay = max(0, due - clock.now()) / 1e9
        self._timer = asyncio.get_running_loop().call_later(delay, self._alarm)

    def _alarm(self) -> None:
        self._timer = None
        now, wall_ms = clock.now(), clock.wall_ms()
        self.enforcer.tick(now, wall_ms)
        self.progress(now, wall_ms)

    # ---- policy sets ----

    async def activate(
        self, workers: Workers, started: list[Process] | None = None, config: Config | None = None
    ) -> str:
        """Load a policy set in its workers, then swap to it and its config. Returns "", or why the old one stays.

        What the old workers still have is asked again of the new ones: it was asked before the revision went up.
        """
        from ..core.obligation import check
        from ..pdp.cedar_source import build

        loaded = await workers.start(started)
        if loaded.error:
            workers.close()
            return f"{loaded.file}:{loaded.line}: {loaded.error}" if loaded.file else loaded.error
        inline = None
        if loaded.ms < INLINE_MS:  # in a thread: what took a worker so long may take longer here
            inline = await asyncio.get_running_loop().run_in_executor(None, build, workers.source, check)
        if config is not None:
            try:
                self._apply(config)
            except ConfigError as error:
                workers.close()
                return str(error)
        old, self.misses.workers, self.misses.inline = self.misses.workers, workers, inline
        self.page.bump()
        if old is not None:
            old.close()
        self.loaded = loaded
        self.idle()
        return ""

    def _apply(self, config: Config) -> None:
        """Apply new peer rules, limits and lifetimes. Where the rules changed, everybody connects again.

        Raises ConfigError, and has changed nothing then, where a user or the file of notices does not exist.
        """
        changed = config.peers != self.config.peers
        config, kept = keep_fixed(self.config, config)
        peers = Peers(config.peers, self._listener, self._partition_numbers, self.peers.owners)
        self.notices.reopen(config.notify.file)
        if kept:
            logs.warning("a change in the config needs a restart and is ignored until then", keys=kept)
        self.config = config
        self._set_times(config)
        self.enforcer.set_times(times(config))
        if changed:
            self.peers = peers
            for connection in list(self.connections):
                connection.drop()
