"""The worker processes of one policy set, seen from the daemon.

Promises: a question given to a worker comes back as a decision, an explanation, or a fault when the worker dies; a
worker that dies is replaced; at most WINDOW questions wait in a worker, so that what is queued stays in the
enforcer, where it is fair over peers.
Never: blocks the loop; gives a question to a worker whose set is not loaded.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

from ..flight import Flight
from ..model import Decision
from ..pdp.cedar_source import Source
from . import logs
from .messages import Answer, Ask, Frames, Load, Loaded, frame, to_daemon

WINDOW = 8
RESTART_S = 0.2

Came = Callable[[Flight, Decision | dict[str, Any]], None]


def spawn(source: Source) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a worker process and send it its policies. Needs no loop, so that a start can begin with it."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-I", "-m", "pepcore.server.worker", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603
    theirs.close()
    ours.setblocking(True)
    ours.settimeout(10.0)
    ours.sendall(frame(Load(source)))
    ours.setblocking(False)
    return process, ours


class Worker(asyncio.Protocol):
    """One process and what it was given."""

    def __init__(self, pool: Workers, process: subprocess.Popen[bytes]) -> None:
        self.pool, self.process = pool, process
        self.given: dict[int, Flight] = {}
        self.ready = False
        self._frames = Frames()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's do not inherit

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            message = to_daemon.decode(body)
            if isinstance(message, Loaded):
                self.ready = not message.error
                self.pool.on_loaded(message)
            else:
                flight = self.given.pop(message.number, None)
                if flight is not None:
                    said = message.decision if isinstance(message, Answer) else message.explanation
                    self.pool.came(flight, said)
        self.pool.idle()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ready = False
        self.pool.lost(self)
        for flight in self.given.values():
            self.pool.came(flight, Decision(False, "the worker that evaluated this question ended"))
        self.given.clear()

    def give(self, number: int, flight: Flight) -> None:
        assert self._transport is not None
        self.given[number] = flight
        self._transport.write(frame(Ask(number, flight.asked_ms, flight.explain, flight.key)))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Workers:
    """The pool that serves one policy set. `came` takes what a flight brought, `idle` says that there is room."""

    def __init__(self, source: Source, count: int, came: Came, idle: Callable[[], None]) -> None:
        self.source, self.count = source, count
        self.came, self.idle = came, idle
        self.loaded: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._workers: list[Worker] = []
        self._numbers = itertools.count(1)
        self._closed = False

    async def start(self, started: list[tuple[subprocess.Popen[bytes], socket.socket]] | None = None) -> Loaded:
        """Start the processes and wait until the first has the set (or says why not), then go on with the rest."""
        loop = asyncio.get_running_loop()
        begun = started or []
        while len(begun) < self.count:
            begun.append(await loop.run_in_executor(None, spawn, self.source))
        for process, sock in begun:
            await self._adopt(process, sock)
        return await self.loaded

    async def _adopt(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        worker = Worker(self, process)
        self._workers.append(worker)
        await asyncio.get_running_loop().create_connection(lambda: worker, sock=sock)

    def on_loaded(self, message: Loaded) -> None:
        if not self.loaded.done():
            self.loaded.set_result(message)

    @property
    def busy(self) -> bool:
        """Whether a question is with a worker."""
        return any(w.given for w in self._workers)

    def room(self) -> Worker | None:
        """The least loaded worker with room, or None."""
        fit = [w for w in self._workers if w.ready and len(w.given) < WINDOW]
        return min(fit, key=lambda w: len(w.given), default=None)

    def give(self, worker: Worker, flight: Flight) -> None:
        worker.give(next(self._numbers), flight)

    def lost(self, worker: Worker) -> None:
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        asyncio.get_running_loop().run_in_executor(None, worker.process.wait)
        if self._closed:
            return
        if not self.loaded.done():
            self.loaded.set_result(Loaded(0.0, error="the worker process ended before it had loaded the policies"))
            return
        logs.error("a worker ended and is replaced", pid=worker.process.pid)
        asyncio.get_running_loop().call_later(RESTART_S, lambda: asyncio.ensure_future(self._replace()))

    async def _replace(self) -> None:
        if not self._closed:
            process, sock = await asyncio.get_running_loop().run_in_executor(None, spawn, self.source)
            if self._closed:
                sock.close()
                return
            await self._adopt(process, sock)

    def pids(self) -> list[int]:
        return [w.process.pid for w in self._workers]

    def close(self) -> None:
        """End the processes: their end of the socket pair closes."""
        self._closed = True
        for worker in list(self._workers):
            worker.close()
