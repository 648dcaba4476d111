"""Hits by count: what was served from the cache, here and in clients, becomes entries of the record (DESIGN, D10).

Promises: what was served is in an entry within about a second, or is counted as dropped; also the last hits of a client
that went, of one whose connection this daemon ended, and of a partition that was forgotten meanwhile. It stands behind
the entries of those decisions. One entry holds the hits of many, which costs a hundredth.
Never: costs a hit more than the increment of a counter.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..audit.intake import MOST
from ..errors import Overloaded
from ..flight import Partition
from ..recorded import hits_of
from . import clock
from .sharing import make_counts

if TYPE_CHECKING:
    from ..core.counts import Counts
    from .connection import Connection
    from .recording import Recording
    from .service import Service

EVERY_S = 1.0
SLICE = 1024
"""Decisions whose hits are written down in one turn of the loop, about."""
ENDED = 64
"""Most of those that we count on for whose connections we ended."""
UNCOUNTED = "hits that found no room to be counted in"
TAKEN = "the journal's lock file was removed, another process may write it: this daemon ends"


class Hits:
    """Who counts, and what was counted since the last harvest."""

    def __init__(self, service: Service, recording: Recording) -> None:
        self._service, self._recording = service, recording
        self._counting: dict[Connection, Partition] = {}
        self._ended: dict[Counts, tuple[Partition, int]] = {}
        """Of clients that do not know yet that they have no connection, until nothing that they keep can stand."""
        self._left: list[tuple[Counts, Partition]] = []
        self._forgotten: list[int] = []
        self._sets = 0
        self._next: asyncio.TimerHandle | None = None
        self._by_clients = self._before = 0
        self._since, self._rate = clock.now(), 0.0

    def numbers(self) -> dict[str, float]:
        """What clients have counted that they served by themselves, and how much that was a second at the last
        harvest: who asks twice within one would see nothing."""
        return {"hits": self._by_clients, "per_second": round(self._rate, 1)}

    def start(self) -> None:
        """Harvest from now on."""
        now = clock.now()
        self._rate = (self._by_clients - self._before) * 1e9 / max(1, now - self._since)
        self._before, self._since = self._by_clients, now
        self._next = asyncio.get_running_loop().call_later(EVERY_S, self._turn)

    def _turn(self) -> None:
        """A slice in a turn of the loop, until all is written down that was served by now."""
        if self._recording.taken:
            self._service.fall(TAKEN)
            return
        self._recording.look()
        self._begin()
        self._go_on()

    def _go_on(self) -> None:
        if self._slice():
            self._next = asyncio.get_running_loop().call_later(0, self._go_on)
        else:
            self.start()

    def close(self) -> None:
        """Harvest no more."""
        if self._next is not None:
            self._next.cancel()

    def harvest(self) -> None:
        """Write down all that was served since the last time, now."""
        self._begin()
        while self._slice():
            pass

    def _begin(self) -> None:
        now = clock.now()
        self._left = [(connection.counts, of) for connection, of in self._counting.items() if connection.counts]
        self._left += [(counts, of) for counts, (of, _) in self._ended.items()]
        self._ended = {counts: until for counts, until in self._ended.items() if until[1] > now}
        self._sets, self._forgotten = self._service.cache.unharvested, list(self._service.peers.forgotten)

    def _slice(self) -> bool:
        """Write down some of it; False: that was all."""
        written = 0
        while self._left and written < SLICE:
            written += self._fetch(*self._left.pop())
        if self._left:
            return True
        peers, cache = self._service.peers, self._service.cache
        before = cache.unharvested
        found, lost = cache.harvest(clock.now(), SLICE)
        self._recording.missed(UNCOUNTED, lost)
        of_each: dict[int, list[tuple[int, int, int, int]]] = {}
        for number, partition, count, first, last in found:
            of_each.setdefault(partition, []).append((number, count, first, last))
        for partition, rows in of_each.items():
            of = peers.partitions.get(partition) or peers.forgotten.get(partition)
            if of is not None:
                self._service.passes.served(of, sum(row[1] for row in rows))
                served = [(number, count) for number, count, _, _ in rows]
                self._write(of, served, min(row[2] for row in rows), max(row[3] for row in rows))
        self._sets -= before - cache.unharvested  # those that are hit again meanwhile wait for the next time
        if self._sets > 0:
            return True
        for number in self._forgotten:
            peers.forgotten.pop(number, None)
        return False

    def counts_for(self, connection: Connection, partition: Partition) -> int:
        """A descriptor of memory in which this client counts its own hits; -1: not recorded, or counted already.

        Raises Overloaded where there is none to be had: a client that cannot count keeps nothing.
        """
        if not self._recording.keeps(partition) or connection.counts is not None:
            return -1
        try:
            connection.counts, fd = make_counts(self._service.page.boot)
        except OSError as error:
            raise Overloaded("hello", f"no memory to count hits in: {error.strerror}") from None
        self._counting[connection] = partition
        return fd

    def gone(self, connection: Connection) -> None:
        """A connection has ended: what its client had counted is fetched, and where the client did not end it, what it
        goes on to count."""
        partition, counts = self._counting.pop(connection, None), connection.counts
        if partition is None or counts is None:
            return
        self._fetch(counts, partition)
        if not connection.hung_up:
            while len(self._ended) >= ENDED:
                oldest = next(iter(self._ended))
                self._fetch(oldest, self._ended.pop(oldest)[0])
            self._ended[counts] = partition, clock.now() + self._service.gate.keep_ms * 1_000_000

    def _fetch(self, counts: Counts, partition: Partition) -> int:
        found, lost = counts.harvest()
        self._recording.missed(UNCOUNTED, lost)
        self._by_clients = min(MOST, self._by_clients + sum(count for _, count in found))  # a client can misstate it
        now = clock.now()
        self._write(partition, found, now - int(EVERY_S * 1e9), now, in_process=True)
        return len(found)

    def _write(
        self, of: Partition, served: list[tuple[int, int]], first_ns: int, last_ns: int, in_process: bool = False
    ) -> None:
        for entry in hits_of(served, of, first_ns=first_ns, last_ns=last_ns, in_process=in_process):
            self._recording.served(of, entry)
