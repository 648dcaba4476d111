"""A process that asks all the time, and writes down every permit that it got: `race_asker.py SOCKET OUT KIND SEED`.

KIND is `shared` (threads that share a client, and one with its own), `one` (one thread), `async`, or `settled` (one
thread that asks one question only, so that it meets a new daemon no earlier than that question is asked anew). It stops
when its standard input ends, which it does with whoever started it; a line `fork` there makes it fork in the middle of
its work.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pepclient.aio import AsyncClient
from pepclient.client import Client
from race_record import Log
from race_world import QUESTIONS

from pepcore.core.verdict import Verdict

DEADLINE = 1.0
FORKED_S = 0.4
now = time.monotonic_ns
asks = threading.local()


class Watched(Client):
    """Tells whether an answer came from the table of this process."""

    def _miss(self, *question: Any) -> Verdict:
        asks.missed = True
        return super()._miss(*question)


class WatchedAsync(AsyncClient):
    """The same, told apart by task."""

    missed: set[Any] = set()  # noqa: RUF012

    async def _miss(self, *question: Any) -> Verdict:
        self.missed.add(asyncio.current_task())
        return await super()._miss(*question)


def take(log: Log, question: int, local: bool, v: Verdict, start: int) -> None:
    log.counts["checks"] += 1
    if v.permit:
        log.counts["permits"] += 1
        log.counts["asked anew" if not v.cached else "in process" if local else "from the daemon's cache"] += 1
        log.add(question, local, v.boot, v.number, v.revision, start, now())
    elif v.fault:
        log.counts["faults"] += 1
        log.counts[f"fault: {v.error[:60]}"] += 1
    else:
        log.counts["denies"] += 1


class Run:
    """Everything of one process."""

    def __init__(self, socket: str, out: str, kind: str, seed: int) -> None:
        self.socket, self.out, self.kind, self.seed = socket, Path(out), kind, seed
        self.over = False
        self.logs: list[Log] = []
        self.clients: list[Watched] = []
        self.forks = 0

    def threads(self) -> list[threading.Thread]:
        if self.kind == "async":
            return [threading.Thread(target=lambda: asyncio.run(self.ask_async()))]
        self.clients = [Watched(self.socket, deadline=DEADLINE)]
        if self.kind == "shared":
            self.clients += [self.clients[0], self.clients[0], Watched(self.socket, deadline=DEADLINE)]
        return [
            threading.Thread(target=self.ask, args=(c, random.Random(self.seed * 100 + n)))
            for n, c in enumerate(self.clients)
        ]

    def ask(self, client: Watched, rng: random.Random, seconds: float = 1e9) -> None:
        log = Log()
        self.logs.append(log)
        until = time.monotonic() + seconds
        while not self.over and time.monotonic() < until:
            if self.kind != "settled" and rng.random() < 0.02:
                self.ask_many(client, log)
            n = 0 if self.kind == "settled" else rng.randrange(len(QUESTIONS))
            q = QUESTIONS[n]
            for _ in range(rng.randrange(1, 40)):
                asks.missed = False
                start = now()
                v = client.check(q.subject, q.action, q.resource, on_behalf_of=q.chain)
                take(log, n, not asks.missed, v, start)
                if asks.missed and rng.random() < 0.2:
                    time.sleep(rng.random() * 0.002)  # the other threads and processes get on

    def ask_many(self, client: Watched, log: Log) -> None:
        some = [(n, q) for n, q in enumerate(QUESTIONS) if not q.chain]
        start = now()
        answers = client.check_many([(q.subject, q.action, q.resource) for _, q in some])
        for (n, _), v in zip(some, answers, strict=True):
            take(log, n, False, v, start)

    async def ask_async(self) -> None:
        client = WatchedAsync(self.socket, deadline=DEADLINE)
        async with client:
            await asyncio.gather(*(self.ask_task(client, random.Random(self.seed * 100 + n)) for n in range(6)))

    async def ask_task(self, client: WatchedAsync, rng: random.Random) -> None:
        log = Log()
        self.logs.append(log)
        task = asyncio.current_task()
        while not self.over:
            n = rng.randrange(len(QUESTIONS))
            q = QUESTIONS[n]
            for _ in range(rng.randrange(1, 40)):
                client.missed.discard(task)
                start = now()
                v = await client.check(q.subject, q.action, q.resource, on_behalf_of=q.chain)
                take(log, n, task not in client.missed, v, start)
            await asyncio.sleep(rng.random() * 0.002)

    def fork(self) -> None:
        """A child goes on with the same clients. It may get nothing in process before it has asked for it itself."""
        self.forks += 1
        if os.fork():
            return
        status = 1
        try:
            self.over, self.logs = False, []
            self.out = self.out.with_name(f"{self.out.name}.{self.forks}")
            self.forks = 0  # the parent's are counted by itself
            first = Log()
            for n, q in enumerate(QUESTIONS) if self.clients else ():
                asks.missed = False
                start = now()
                v = self.clients[0].check(q.subject, q.action, q.resource, on_behalf_of=q.chain)
                first.counts["inherited"] += not asks.missed
                take(first, n, not asks.missed, v, start)
            self.logs.append(first)
            if self.clients:
                self.ask(self.clients[0], random.Random(os.getpid()), FORKED_S)
            self.write()
            status = 0
        finally:
            os._exit(status)

    def write(self) -> None:
        self.out.with_name(self.out.name + ".permits").write_bytes(b"".join(log.bytes() for log in self.logs))
        counts = sum((log.counts for log in self.logs), start=type(self.logs[0].counts)()) if self.logs else {}
        self.out.with_name(self.out.name + ".counts").write_text(json.dumps({**counts, "forks": self.forks}))


def main() -> None:
    run = Run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    sys.setswitchinterval(0.0005)
    threads = run.threads()
    for thread in threads:
        thread.start()
    while select.select([0], [], [])[0] and (data := os.read(0, 64)):
        for _ in data.split():
            run.fork()
    run.over = True
    for thread in threads:
        thread.join()
    for _ in range(run.forks):
        os.wait()
    run.write()


if __name__ == "__main__":
    main()
