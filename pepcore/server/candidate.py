"""A candidate policy set beside the active one: what would it decide of the questions that are asked now?

Promises: each decision of the PDP (no hit) is decided once more by the candidate, as of the same wall time, and where
decision, obligations or errors differ that is counted and recorded; a set that does not load is logged and changes
nothing; a candidate that hangs, dies or is slow costs the active set nothing: it is asked afterwards, in a process of
its own with a low priority, its queue is bounded, and what does not fit is counted and dropped.
Never: tells anybody what the candidate decided but the record and who administers; evaluates in this process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from ..config import Config
from ..errors import ConfigError
from ..flight import Flight
from ..model import Decision
from ..pdp.cedar_source import Source, read_source
from . import logs
from .building import apart
from .messages import Loaded
from .run import files_state
from .workers import ENDED, Workers

if TYPE_CHECKING:
    from .service import Service

QUEUED = 1024
QUEUED_BYTES = 4 << 20
"""Questions that wait for the candidate, and their bytes. In a flood it is some way behind, then some are left out."""
NICE = 10
_packed = msgspec.msgpack.Encoder(order="sorted").encode


class Candidate:
    """The candidate of a service; none until `want` was called with a config that names one, and it has loaded."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._workers: Workers | None = None
        self._loading: Workers | None = None
        self._source: Source | None = None
        self._loaded = Loaded(0.0)
        self._queue: deque[tuple[Flight, Decision]] = deque()
        self._bytes = 0
        self._given: dict[Flight, Decision] = {}
        self._pumping = self._closed = False
        self._wanted: Config | None = None
        self._task: asyncio.Task[None] | None = None
        self.seen: tuple[object, ...] = ()
        """State of the files that were last tried."""
        self.compared = self.different = self.skipped = self.failed = 0
        self._by: dict[str, int] = {}

    # ---- loading ----

    def want(self, config: Config) -> None:
        """Have the candidate that this config names, read anew, or none; one after the other, nobody waits for it."""
        self._wanted, self.seen = config, state(config)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._load_wanted())

    async def _load_wanted(self) -> None:
        while self._wanted is not None and not self._closed:
            config, self._wanted = self._wanted, None
            try:
                await self._load(config)
            except ConfigError as error:
                logs.error("the candidate policies are not loaded", reason=str(error))
            except Exception as error:  # a defect here must not end what serves
                logs.unexpected("the candidate policies are not loaded", error)

    async def _load(self, config: Config) -> None:
        if not config.shadow.policies:
            return self._swap(None, None, Loaded(0.0))
        source = await apart(lambda: source_of(config))
        if source == self._source:
            return
        workers = self._loading = Workers(source, 1, self._came, self._soon, nice=NICE)
        loaded = await workers.start()
        if loaded.error or self._closed:
            workers.close()
            raise ConfigError(f"{loaded.file}:{loaded.line}: {loaded.error}" if loaded.file else loaded.error)
        self._swap(workers, source, loaded)
        logs.info("candidate policies are compared", policies=loaded.policies, entities=loaded.entities)

    def _swap(self, workers: Workers | None, source: Source | None, loaded: Loaded) -> None:
        old, self._workers, self._source, self._loaded = self._workers, workers, source, loaded
        self.skipped += len(self._queue) + len(self._given)
        self._queue.clear()
        self._given.clear()
        self._bytes = 0
        self._service.misses.decided = None if workers is None else self.decided
        if old is not None:
            old.close()

    # ---- comparing ----

    def decided(self, flight: Flight, active: Decision) -> None:
        """The active set has decided. The candidate is asked when the loop has time for it."""
        if flight.explain or active.fault == ENDED:
            return  # nobody decided
        if len(self._queue) >= QUEUED or self._bytes + len(flight.key) > QUEUED_BYTES:
            self.skipped += 1
            return
        asked = Flight(flight.partition, flight.key, {}, taken=True, asked_ns=flight.asked_ns, asked_ms=flight.asked_ms)
        self._queue.append((asked, active))
        self._bytes += len(flight.key)
        self._soon()

    def _soon(self) -> None:
        if self._queue and not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        workers = self._workers
        while workers is not None and self._queue and workers.takes(self._queue[0][0]):
            flight, active = self._queue.popleft()
            self._bytes -= len(flight.key)
            self._given[flight] = active
            workers.give(flight)

    def _came(self, flight: Flight, said: Decision | dict[str, Any], took_ns: int) -> None:
        active = self._given.pop(flight, None)
        if active is None:
            return  # given to a candidate before this one
        if not isinstance(said, Decision) or said.fault == ENDED:
            self.failed += 1
            return
        self.compared += 1
        what = differences(active, said)
        if what:
            self.different += 1
            for word in what:
                self._by[word] = self._by.get(word, 0) + 1
            self._service.recording.different(flight, active, said, what)

    # ---- what is seen of it ----

    def numbers(self) -> dict[str, int]:
        """What was compared since the start."""
        return {
            "compared": self.compared, "different": self.different, "skipped": self.skipped, "failed": self.failed,
        }  # fmt: skip

    def shown(self) -> dict[str, object]:
        """What administrators see; nothing where there is no candidate and never was one."""
        if self._workers is None and not (self.compared or self.skipped or self.failed):
            return {}
        return {
            "policies": self._loaded.policies, "workers": self._workers.pids() if self._workers else [],
            "waiting": len(self._queue) + len(self._given), "different_in": dict(self._by), **self.numbers(),
        }  # fmt: skip

    def close(self) -> None:
        """End its processes; what still waits for it is not compared."""
        self._closed = True
        self._service.misses.decided = None
        self.skipped += len(self._queue) + len(self._given)
        if self._workers is not None:
            counts = {"compared": self.compared, "different": self.different, "skipped": self.skipped}
            logs.info("candidate policies were compared", failed=self.failed, **counts)
        for workers in (self._loading, self._workers):
            if workers is not None:
                workers.close()
        if self._task is not None:
            self._task.cancel()


def source_of(config: Config) -> Source:
    """The candidate's texts. Entities and schema that it does not name are the active ones. Raises PolicyError."""
    shadow, active = config.shadow, config.policies
    return read_source(
        shadow.policies, shadow.entities or active.entities, shadow.schema or active.schema, active.open_types
    )


def state(config: Config) -> tuple[object, ...]:
    """What tells one state of the candidate's files from another; of those that it shares, the active set's tells."""
    shadow = config.shadow
    return files_state(shadow.policies, shadow.entities, shadow.schema) if shadow.policies else ()


def differences(active: Decision, candidate: Decision) -> tuple[str, ...]:
    """In what two decisions differ: `decision`, `obligations`, `errors`. Ids, reasons and lifetimes may."""
    found: list[str] = []
    if active.permit != candidate.permit and not (active.fault or candidate.fault):
        found.append("decision")
    if active.fault != candidate.fault:
        found.append("errors")
    elif duties(active) != duties(candidate):
        found.append("obligations")
    return tuple(found)


def duties(decision: Decision) -> list[bytes]:
    return sorted(_packed((o.type, o.properties)) for o in decision.obligations)
