"""Keeping policies and configuration current: SIGHUP, changed files, one reload after the other.

Promises: a set or a configuration that cannot be used leaves everything as it is and says why; a change that comes
while a reload is under way is taken by the next one; nothing that goes wrong here ends the watching.
Never: blocks the loop (files are read in a thread, sets are built by workers).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from ..audit import entries
from ..config import Config
from ..errors import ConfigError
from . import candidate, logs, systemd
from .run import signature, source_of, workers_of
from .service import Service
from .workers import Workers

WATCH_S = 0.25


class Reloader:
    """Set `wanted` to have everything read anew. `seen`: the state of the files that the active set came from."""

    def __init__(self, service: Service, reread: Callable[[], Config], seen: tuple[object, ...]) -> None:
        self.service, self.reread, self.seen = service, reread, seen
        self.config = service.config  # the last that was tried
        self.wanted = asyncio.Event()

    async def run(self) -> None:
        """Reload whenever it is wanted."""
        service = self.service
        while True:
            await self.wanted.wait()
            self.wanted.clear()
            try:
                await self._reload()
            except ConfigError as error:
                why = str(error)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
            else:
                service.reloads += 1
                service.recording.note(
                    entries.Reload, ok=True, policies=service.loaded.policies, entities=service.loaded.entities,
                    revision=service.page.revision,
                )  # fmt: skip
                systemd.notify(f"STATUS=serving {service.loaded.policies} policies")
                logs.info("reloaded", policies=service.loaded.policies, entities=service.loaded.entities)
                continue
            service.failed_reloads += 1
            service.recording.note(entries.Reload, ok=False, reason=why)
            logs.error("reload failed, the active policies stay", reason=why)

    async def _reload(self) -> None:
        loop, service = asyncio.get_running_loop(), self.service
        config = await loop.run_in_executor(None, self.reread)
        self.seen, self.config = await loop.run_in_executor(None, signature, config), config
        source = await loop.run_in_executor(None, source_of, config)
        workers = Workers(source, workers_of(config), service.came, service.idle)
        why = await service.activate(workers, config=config)
        if why:
            raise ConfigError(why)
        service.candidate.want(service.config)

    async def watch(self) -> None:
        """Ask for a reload when a file has changed and then stayed the same for one more look.

        A thread does it, since a timer that waits in the loop costs every hit 0.8 us (`benchmarks/README.md`).
        """
        ended = threading.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, args=(loop, ended), name="watch", daemon=True).start()
        try:
            await loop.create_future()
        finally:
            ended.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
        before = self.seen, self.service.candidate.seen
        while not ended.wait(WATCH_S):
            try:
                now = signature(self.config), candidate.state(self.service.config)
            except (OSError, RuntimeError) as error:
                logs.limited("the policy files cannot be watched", reason=str(error))
                continue
            if now == before and now != (self.seen, self.service.candidate.seen):
                with contextlib.suppress(RuntimeError):  # the loop has just ended
                    loop.call_soon_threadsafe(self._changed, *now)
            before = now

    def _changed(self, now: tuple[object, ...], candidate: tuple[object, ...]) -> None:
        """The active set is read anew and the candidate after it, or the candidate alone: that drops no answer."""
        if now != self.seen:
            self.seen = now
            self.wanted.set()
        elif candidate != self.service.candidate.seen:
            self.service.candidate.want(self.service.config)
