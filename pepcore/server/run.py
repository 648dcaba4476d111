"""Start, serve, reload, drain: the life of the daemon around `service.py`.

Promises: workers are started before anything else is imported that they do not need; the socket exists only once
the policies are active; SIGTERM and SIGINT drain, SIGHUP and a changed file reload; every process that was started
is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from ..config import Config, milliseconds
from ..errors import ConfigError
from ..pdp.cedar_source import Source, read_source
from . import clock, logs, systemd
from .place import Place, default_path
from .workers import Workers, spawn

WATCH_S = 0.25


def run(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. `reread` gives the configuration anew on SIGHUP. Raises ConfigError."""
    logs.start()
    if not config.policies.policies:
        raise ConfigError("no policies: pass `--policies FILE_OR_DIR`, or set `policies.policies` in the config")
    source = source_of(config)
    path = Path(config.daemon.socket) if config.daemon.socket else default_path()
    passed = systemd.passed_socket()
    if passed is not None:
        path = Path(passed.getsockname())
    place = Place(path)
    begun = [spawn(source) for _ in range(workers_of(config))]
    try:
        import uvloop

        raise_limits(config.limits.connections)
        return uvloop.run(serve(config, reread or (lambda: config), source, place, passed, begun))
    finally:
        for process, sock in begun:
            sock.close()
            with contextlib.suppress(Exception):
                process.wait(5)
        place.close()


def workers_of(config: Config) -> int:
    return config.daemon.workers if config.daemon.workers > 0 else max(1, (os.cpu_count() or 2) - 1)


def source_of(config: Config) -> Source:
    p = config.policies
    return read_source(p.policies, p.entities, p.schema, p.open_types)


def raise_limits(connections: int) -> None:
    """Let this process hold as many descriptors as it admits connections, and leave no core dump with keys in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


async def serve(
    config: Config,
    reread: Callable[[], Config],
    source: Source,
    place: Place,
    passed: socket.socket | None,
    begun: list[tuple[subprocess.Popen[bytes], socket.socket]],
) -> int:
    from .connection import Connection
    from .service import Service

    loop = asyncio.get_running_loop()
    service = Service(config, str(place.path))
    workers = Workers(source, len(begun), service.misses.arrived, service.idle)
    why = await service.activate(workers, begun)
    if why:
        raise ConfigError(why)
    listener = passed or place.listen()
    server = await loop.create_unix_server(lambda: Connection(service), sock=listener, backlog=1024)
    stop, reload = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    tasks = [asyncio.create_task(keep_current(service, reread, reload))]
    if config.daemon.watch:
        tasks.append(asyncio.create_task(watch(service, reload)))
    if systemd.watchdog_seconds():
        tasks.append(asyncio.create_task(feed_watchdog()))
    systemd.notify("READY=1", f"STATUS=serving {service.loaded.policies} policies")
    logs.info(
        "ready",
        socket=str(place.path),
        pid=os.getpid(),
        policies=service.loaded.policies,
        entities=service.loaded.entities,
        workers=service.misses.workers.pids() if service.misses.workers else [],
    )
    await stop.wait()
    systemd.notify("STOPPING=1")
    logs.info("draining", waiting=service.enforcer.waiting)
    place.leave()
    server.close()
    service.enforcer.draining = True
    until = clock.now() + milliseconds(service.config.daemon.drain) * 1_000_000
    while service.enforcer.waiting and clock.now() < until:
        await asyncio.sleep(0.01)
    for connection in list(service.connections):
        connection.transport.close()
    for task in tasks:
        task.cancel()
    if service.misses.workers is not None:
        service.misses.workers.close()
    await asyncio.sleep(0.02)
    logs.info("stopped", pid=os.getpid())
    return 0


async def keep_current(service: object, reread: Callable[[], Config], reload: asyncio.Event) -> None:
    """Reload whenever asked to. A set that cannot be used leaves the active one as it is."""
    from .service import Service

    assert isinstance(service, Service)
    loop = asyncio.get_running_loop()
    while True:
        await reload.wait()
        reload.clear()
        try:
            config = await loop.run_in_executor(None, reread)
            source = await loop.run_in_executor(None, source_of, config)
        except ConfigError as error:
            why = str(error)
        else:
            workers = Workers(source, workers_of(config), service.misses.arrived, service.idle)
            why = await service.activate(workers)
            if not why:
                service.admit_by(config)
        if why:
            service.failed_reloads += 1
            logs.error("reload failed, the active policies stay", reason=why)
        else:
            service.reloads += 1
            systemd.notify(f"STATUS=serving {service.loaded.policies} policies")
            logs.info("reloaded", policies=service.loaded.policies, entities=service.loaded.entities)


async def watch(service: object, reload: asyncio.Event) -> None:
    """Ask for a reload when a file has changed and then stayed the same for one more look."""
    from .service import Service

    assert isinstance(service, Service)
    loop = asyncio.get_running_loop()
    seen = before = await loop.run_in_executor(None, signature, service.config)
    while True:
        await asyncio.sleep(WATCH_S)
        now = await loop.run_in_executor(None, signature, service.config)
        if now == before and now != seen:
            seen = now
            reload.set()
        before = now


def signature(config: Config) -> tuple[object, ...]:
    """What tells one state of the policy files from another."""
    p = config.policies
    folder = Path(p.policies)
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder, *folder.parent.glob(f"{folder.stem}.links.json")]
    found: list[object] = []
    for file in [*files, *(Path(f) for f in (p.entities, p.schema) if f)]:
        try:
            info = file.stat()
            found.append((str(file), info.st_mtime_ns, info.st_size, info.st_ino))
        except OSError:
            found.append((str(file), None))
    return tuple(found)


async def feed_watchdog() -> None:
    while True:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(systemd.watchdog_seconds())
