"""The worker processes of one policy set, seen from the daemon.

Promises: a question given to a worker comes back as a decision, an explanation, or a fault when the worker dies; a
worker that dies, or is silent for too long over a question or while it loads, is ended and replaced; at most WINDOW
questions wait in a worker, and two of one owner (six where they are quick), so that what is queued stays in the
enforcer, where it is fair over peers.
Never: blocks the loop; gives a question to a worker whose set is not loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable
from typing import Any, cast

from ..flight import Flight
from ..model import Decision
from ..pdp.cedar_source import Source
from . import clock, logs
from .messages import Answer, Ask, Frames, Loaded, frame, to_daemon
from .processes import Process, spawned

WINDOW = 8
OF_ONE_OWNER = 2
"""In one worker: one that is evaluated, one for when it is done. Those of others would only wait behind more."""
QUICK_OF_ONE_OWNER = 6
"""Of an owner whose questions are small and whose last was quick: a worker that waits for each costs a flood half."""
QUICK_NS = 1_000_000
SMALL = 2048
"""Bytes of a question: what an evaluation takes grows with them, and a peer chooses them. Several times what points
ask; of 64 KiB, values by the byte, it was 200 ms."""
RESTART_S = 0.2
LOAD_S = 60.0
"""How long a worker may load the policies, also one that replaces another."""
LATE = f"no worker process had the policies within {LOAD_S:.0f} s"
ENDED = "the worker that evaluated this question ended"
SILENT_S = 10.0
"""How long a worker may be silent while it has a question."""

Came = Callable[[Flight, Decision | dict[str, Any], int], None]
"""Takes what a flight brought, and the nanoseconds that it took."""


class Worker(asyncio.Protocol):
    """One process and what it was given."""

    def __init__(self, pool: Workers, process: Process) -> None:
        self.pool, self.process = pool, process
        self.given: dict[int, Flight] = {}
        self.ready = False
        self.heard_ns = clock.now()
        self.loading: asyncio.TimerHandle | None = None
        self._frames = Frames()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's do not inherit

    def data_received(self, data: bytes) -> None:
        self.heard_ns = clock.now()
        for body in self._frames.feed(data):
            message = to_daemon.decode(body)
            if isinstance(message, Loaded):
                self.ready = not message.error
                self.pool.on_loaded(self, message)
            else:
                flight = self.given.pop(message.number, None)
                if flight is not None:
                    said = message.decision if isinstance(message, Answer) else message.explanation
                    self.pool.took(flight, message.took_ns)
                    self.pool.came(flight, said, message.took_ns)
        self.pool.idle()

    def stop_loading(self) -> None:
        if self.loading is not None:  # a timer that waits costs every hit 0.8 us
            self.loading.cancel()
            self.loading = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.ready = False
        self.stop_loading()
        self.pool.lost(self)
        given, self.given = self.given, {}
        for flight in given.values():
            self.pool.came(flight, Decision(False, ENDED), 0)
        self.pool.idle()

    def room(self, owner: int, most: int) -> bool:
        """Whether one more question of this owner may wait here, where there may be so many."""
        if not self.ready or len(self.given) >= WINDOW:
            return False
        return sum(f.partition.owner == owner for f in self.given.values()) < most

    def give(self, number: int, flight: Flight) -> None:
        assert self._transport is not None
        if not self.given:
            self.heard_ns = clock.now()
        self.given[number] = flight
        self._transport.write(frame(Ask(number, flight.asked_ms, flight.explain, flight.key)))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Workers:
    """The pool that serves one policy set. `came` takes what a flight brought, `idle` says that there is room.

    `nice`: so much less than the daemon its processes get where there is not enough for both."""

    def __init__(self, source: Source, count: int, came: Came, idle: Callable[[], None], nice: int = 0) -> None:
        self.source, self.count, self.nice = source, count, nice
        self.came, self.idle = came, idle
        self.loaded: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._workers: list[Worker] = []
        self._quick: set[int] = set()
        self._numbers = itertools.count(1)
        self._closed = self._looking = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, started: list[Process] | None = None) -> Loaded:
        """Start the processes and wait until the first has the set (or says why not)."""
        try:
            for process in started or []:
                await self._adopt(process)
            while len(self._workers) < self.count and not self.loaded.done():
                await self._adopt(await spawned(self.source, LOAD_S))
            loaded = await asyncio.wait_for(asyncio.shield(self.loaded), LOAD_S)
        except TimeoutError:  # first: it is an OSError, too
            return Loaded(0.0, error=LATE)
        except OSError as error:
            return Loaded(0.0, error=f"no worker process can be started: {error.strerror or error}")
        for _ in range(self.count - len(self._workers)):
            self._replace_later(0.0)
        return loaded

    async def _adopt(self, process: Process) -> None:
        if self.nice:
            with contextlib.suppress(OSError):  # it ended already
                os.setpriority(os.PRIO_PROCESS, process.pid, self.nice)
        worker = Worker(self, process)
        self._workers.append(worker)
        await asyncio.get_running_loop().create_connection(lambda: worker, sock=process.sock)
        if self._closed:
            worker.close()
        elif worker in self._workers and not worker.ready:
            worker.loading = asyncio.get_running_loop().call_later(LOAD_S, self._give_up, worker)

    def _give_up(self, worker: Worker) -> None:
        """End a worker that hangs while it loads: nothing else would, since it has no question yet."""
        logs.error("a worker did not load the policies in time and is ended", pid=worker.process.pid, seconds=LOAD_S)
        if not self.loaded.done():
            self.loaded.set_result(Loaded(0.0, error=LATE))
        worker.process.end_soon(0.0)
        worker.close()

    def on_loaded(self, worker: Worker, message: Loaded) -> None:
        worker.stop_loading()
        if not self.loaded.done():
            self.loaded.set_result(message)
        elif message.error:
            logs.error("a worker cannot load the active policies", pid=worker.process.pid, reason=message.error)
            worker.close()

    @property
    def busy(self) -> bool:
        """Whether a question is with a worker."""
        return any(w.given for w in self._workers)

    @property
    def room(self) -> bool:
        """Whether there is room for a question, of whomever it may be."""
        return any(w.ready and len(w.given) < WINDOW for w in self._workers)

    def takes(self, flight: Flight) -> bool:
        """Whether there is room for this question."""
        return self._place(flight) is not None

    def _place(self, flight: Flight) -> Worker | None:
        """The least loaded worker with room for this question, or None."""
        owner = flight.partition.owner
        quick = owner in self._quick and len(flight.key) <= SMALL
        most = QUICK_OF_ONE_OWNER if quick else OF_ONE_OWNER
        return min((w for w in self._workers if w.room(owner, most)), key=lambda w: len(w.given), default=None)

    def took(self, flight: Flight, ns: int) -> None:
        """What a question took tells how many more of its owner may wait in a worker."""
        (self._quick.add if ns <= QUICK_NS else self._quick.discard)(flight.partition.owner)

    def give(self, flight: Flight) -> None:
        """Hand on a question that `takes` has found room for."""
        worker = self._place(flight)
        assert worker is not None
        worker.give(next(self._numbers), flight)
        if not self._looking:
            self._look()

    def _look(self) -> None:
        """End the workers that hang: their questions were denied at their deadlines, but they would keep the room.

        Only while something is with a worker: a timer that waits costs every hit 0.8 us (`benchmarks/README.md`).
        """
        self._looking = not self._closed and self.busy
        if not self._looking:
            return
        silent = clock.now() - int(SILENT_S * 1e9)
        for worker in list(self._workers):
            if worker.given and worker.heard_ns < silent:
                logs.error("a worker was silent for too long and is ended", pid=worker.process.pid)
                worker.process.end_soon(0.0)
                worker.close()
        asyncio.get_running_loop().call_later(1.0, self._look)

    def lost(self, worker: Worker) -> None:
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        worker.process.end_soon()
        if self._closed:
            return
        if not self.loaded.done():
            self.loaded.set_result(Loaded(0.0, error="the worker process ended before it had loaded the policies"))
            return
        logs.error("a worker ended and is replaced", pid=worker.process.pid)
        self._replace_later(RESTART_S)

    def _replace_later(self, delay: float) -> None:
        task = asyncio.get_running_loop().create_task(self._replace(delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, delay: float) -> None:
        """Start one more worker, as often as it takes: descriptors or memory may be short for a while."""
        while True:
            await asyncio.sleep(delay)
            if self._closed:
                return
            try:
                process = await spawned(self.source, LOAD_S)
            except OSError as error:
                logs.limited("a worker process cannot be started", reason=str(error))
                delay = 1.0
                continue
            return await self._adopt(process)

    @property
    def ready(self) -> int:
        """How many have the policies."""
        return sum(w.ready for w in self._workers)

    def pids(self) -> list[int]:
        return [w.process.pid for w in self._workers]

    def close(self) -> None:
        """End the processes: their end of the socket pair closes."""
        self._closed = True
        for worker in list(self._workers):
            worker.close()
