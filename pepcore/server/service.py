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
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import Config, milliseconds
from ..core.cache import Cache
from ..core.gate import Ask, Gate, Stream
from ..core.page import LEASE_NS
from ..denials import Denials
from ..enforcer import Enforcer
from ..errors import ConfigError, Overloaded, Refused
from ..flight import Flight, Partition
from ..model import Decision
from ..pointconfig import unrecorded
from ..wire import MAX_MANY, Op, Welcome, pack, read_hello, reply
from . import clock, logs
from .administration import Administration
from .blockfile import BlockFile
from .building import built
from .candidate import Candidate
from .changes import keep_fixed, times
from .connection import Connection
from .leasing import Leasing
from .messages import Loaded
from .misses import AT_ONCE, Misses
from .notices import Notices
from .outbox import Outbox
from .passes import Passes, warn
from .peer import Peer, Peers, credentials, other_groups
from .processes import Process
from .recording import Recording
from .refusals import Refusals
from .renewal import Renewal
from .requests import Requests
from .sharing import make
from .statistics import SERVER
from .turns import Turns
from .workers import Workers

INLINE_MS = 20.0
"""A reload that takes longer is not built in this process, where it would pause the loop (D11)."""
DUE_AT_ONCE = 64
"""Requests that are denied in one turn of the loop because their deadline has passed."""


class Service:
    """Everything that one daemon holds."""

    def __init__(self, config: Config, listener: str, state: Path, taken_ns: int) -> None:
        """`state` is the folder of what outlives us, `taken_ns` when the lock of the run directory was taken."""
        self.config = config
        self._set_times(config)
        self.started_ns = clock.now()
        self.page, self.page_fd, why = make()
        if why:
            logs.warning("the page cannot be shared: clients keep no answers", reason=why)
        self.renewal = Renewal(self.page)
        keep, limits = config.cache, config.limits
        self.cache = Cache(slots=keep.slots, slab=keep.slab_mib << 20, seed=secrets.randbits(64), quota=keep.quota)
        self.gate = Gate(
            self.cache, self.page, self._hello, frame_limit=limits.frame, depth=limits.depth, values=limits.values,
            keep_ms=times(config).keep_ms,
        )  # fmt: skip
        self.notices = Notices(config.notify.file)
        self.enforcer = Enforcer(
            self.cache,
            self.page,
            times(config),
            numbers=itertools.count(secrets.randbits(62)),
            notify=self.notices,
        )
        self.denials = Denials()
        self.enforcer.settlement.on_deny = self.denials.add
        self.turns, self.refusals = Turns(Requests(self).take, self.progress), Refusals(self)
        self.misses = Misses(self.enforcer, self.turns.served)
        self.candidate = Candidate(self)
        kept = BlockFile(state, self.enforcer.revocation.blocks)
        grace = milliseconds(config.leases.grace)
        self.leasing = Leasing(self, grace * 1_000_000, config.leases.held, config.leases.held_per_peer)
        self.administration = Administration(self, kept, taken_ns + 2 * LEASE_NS)
        self._partition_numbers = itertools.count(1)
        self._listener = listener
        self.peers = Peers(config.peers, listener, self._partition_numbers, None, config.record_of, config.mode_of)
        self.passes = Passes()
        self.recording = Recording(self, config.record, state)
        self.enforcer.modes.on_untold = self.recording.kept
        self.connections: dict[Connection, int] = {}
        self._of_owner: dict[int, int] = {}
        self._gone: set[object] = set()
        self.outbox = Outbox(self)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._releasing = False
        self.reloads = self.failed_reloads = 0
        self.leaving = self.decides_on = False
        """Whether connections end once they are answered; and whether what they have sent is still decided."""
        self.successor: Any = None
        self.stop: Callable[[], None] = lambda: None
        self.holds: Callable[[], bool] = lambda: True
        self.fall: Callable[[str], None] = lambda why: None
        self.loaded = Loaded(0.0)
        self.endpoint: Any = None
        self.listening = False

    def _set_times(self, config: Config) -> None:
        self.partial_s = milliseconds(config.limits.partial) / 1000
        self.unread_s = milliseconds(config.limits.unread) / 1000

    # ---- connections ----

    def admit(self, sock: socket.socket, administrator: bool) -> Peer:
        """Who has connected, if there is room for him. Raises Refused or Overloaded."""
        pid, uid, gid = credentials(sock)
        peer = self.peers.identify(pid, uid, gid, other_groups(sock) if self.peers.by_group else frozenset())
        if administrator and not peer.administers:
            raise Refused("peer", f"uid `{uid}` does not administer this daemon: the config names who does")
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
        self.turns.served.contested = len(self._of_owner) > 1

    def gone(self, connection: Connection) -> None:
        owner = self.connections.pop(connection, None)
        if owner is not None:
            self._of_owner[owner] -= 1
            if not self._of_owner[owner]:
                del self._of_owner[owner]
                self.turns.served.contested = len(self._of_owner) > 1
            for partition in connection.partitions:
                self.peers.let_go(partition)
            if connection.waiting:
                if not self._gone:
                    asyncio.get_running_loop().call_soon(self._forget_gone)
                self._gone |= {connection, connection.explaining, connection.leasing}
            self.leasing.gone(connection)
            self.recording.hits.gone(connection)

    def _forget_gone(self) -> None:
        """Take the requests of those who went out of the enforcer: one look at its flights for all of them."""
        gone, self._gone = self._gone, set()
        if gone:
            self.enforcer.gone(*gone)

    @property
    def partitions(self) -> dict[int, Partition]:
        """Those that can be asked in, by number."""
        return self.peers.partitions

    def _hello(self, stream: Stream, local: int, body: bytes) -> tuple[int, bytes]:
        connection: Connection = stream.peer
        hello = read_hello(body)
        partition = self.peers.partition(connection.peer, hello)
        connection.partitions.append(partition)
        limits = self.config.limits
        told = {"depth": limits.depth, "frame": limits.frame, "many": MAX_MANY, "values": limits.values}
        told["grace"] = milliseconds(self.config.leases.grace)
        shares = hello.page and partition.keeps and self.page_fd >= 0
        if shares:
            connection.give(self.page_fd, self.recording.hits.counts_for(connection, partition))
        welcome = Welcome(self.page.boot, told, clock.now(), shares, local, self.page.revision, SERVER, 1)
        return partition.number, pack(welcome)

    # ---- requests that the gate could not answer ----

    def ask(self, connection: Connection, asks: list[Ask], now: int, wall_ms: int) -> None:
        """Take what a connection asks, at once or in its turn; what administrators want, before all else."""
        if connection.administrator:
            asks = [ask for ask in asks if not self.administration.take(connection, ask, wall_ms)]
            if not asks:
                return
        if len(asks) == 1 and not self.turns.waiting and self._at_once(connection, asks[0], now, wall_ms):
            return
        connection.asks.extend(asks)
        connection.asked_ns = now
        self.turns.ask(connection, now, wall_ms)

    def _at_once(self, connection: Connection, ask: Ask, now: int, wall_ms: int) -> bool:
        """The short way for a miss that is alone: no flight that others could join, no alarm."""
        if ask.op != Op.CHECK or self.peers.limited(ask.partition):
            return False
        partition = self.partitions[ask.partition]
        if partition.durable:
            return False
        body = self.misses.at_once(partition, ask, now, wall_ms)
        if body is None:
            return False
        connection.send(reply(Op.CHECK, ask.id, ask.local, body))
        self.recording.told(partition, ask.question, body, now, ask.trace or b"")
        return True

    # ---- progress ----

    def progress(self, now: int, wall_ms: int) -> None:
        """Evaluate what can be evaluated, send what can be sent, set the next alarm."""
        self.misses.pump(now, wall_ms)
        if self.enforcer.releasing and not self._releasing:
            self._releasing = True
            asyncio.get_running_loop().call_soon(self._release)
        self.outbox.send()
        self._arm()

    def _release(self) -> None:
        """Go on with those who wait for what is decided, in this turn of the loop too."""
        self._releasing = False
        now, wall_ms = self.misses.clocks()
        self.enforcer.release(now, wall_ms, AT_ONCE)
        self.progress(now, wall_ms)

    def came(self, flight: Flight, said: Decision | dict[str, object], took_ns: int) -> None:
        """A worker has decided. Nothing is applied for those who went meanwhile."""
        self.enforcer.charge(flight, took_ns)
        self._forget_gone()
        self.misses.arrived(flight, said)

    def idle(self) -> None:
        """A worker has room again."""
        self.progress(*self.misses.clocks())

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
        now, wall_ms = self.misses.clocks()
        self.enforcer.tick(now, wall_ms, DUE_AT_ONCE)
        self.progress(now, wall_ms)

    # ---- policy sets ----

    async def activate(
        self, workers: Workers, started: list[Process] | None = None, config: Config | None = None
    ) -> str:
        """Load a policy set in its workers, then swap to it and its config. Returns "", or why the old one stays.

        What the old workers still have is asked again of the new ones: it was asked before the revision went up.
        """
        building = None
        if self.misses.workers is None:  # nobody is served yet, whom it could hold
            building = built(workers.source)
        loaded = await workers.start(started)
        if loaded.error:
            workers.close()
            return f"{loaded.file}:{loaded.line}: {loaded.error}" if loaded.file else loaded.error
        if building is None and loaded.ms < INLINE_MS:
            building = built(workers.source)
        inline = None if building is None else await building
        if config is not None:
            try:
                self._apply(config)
            except ConfigError as error:
                workers.close()
                return str(error)
        old = self.misses.swap(workers, inline)
        self.page.bump()
        if old is not None:
            old.close()
        self.loaded = loaded
        self.leasing.recheck()
        warn(self.config)
        self.idle()
        return ""

    def _apply(self, config: Config) -> None:
        """Apply new peer rules, limits and lifetimes. Where the rules changed, everybody connects again.

        Raises ConfigError, and has changed nothing then, where a user or the file of notices does not exist, or a point
        would let pass without a record.
        """
        changed = (config.peers, config.points) != (self.config.peers, self.config.points)
        config, kept = keep_fixed(self.config, config)
        if why := unrecorded(config.points, config.record.keep):  # what is fixed may be the record
            raise ConfigError(why)
        peers = Peers(
            config.peers, self._listener, self._partition_numbers, self.peers.owners, config.record_of, config.mode_of
        )
        self.notices.reopen(config.notify.file)
        if kept:
            logs.warning("a change in the config needs a restart and is ignored until then", keys=kept)
        self.config = config
        self._set_times(config)
        self.enforcer.set_times(times(config))
        self.gate.keep_ms = times(config).keep_ms
        if changed:
            self.recording.hits.harvest()  # while the partitions are known in which there were hits
            self.peers = peers
            for connection in list(self.connections):
                connection.drop()
