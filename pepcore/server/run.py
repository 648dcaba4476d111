"""Start, serve, drain: the life of the daemon around `service.py`.

Promises: workers are started before anything else is imported that they do not need; the socket exists only once
the policies are active; SIGTERM and SIGINT drain; every process that was started is ended, however it ends itself.
Never: leaves a socket file behind that nobody answers, or removes one that somebody else made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config, milliseconds
from ..errors import ConfigError
from ..pdp.cedar_source import Source, read_source
from . import clock, logs, systemd
from .place import Place, default_path, state_of
from .processes import Process, end_all, spawn
from .workers import Workers

if TYPE_CHECKING:
    from .reload import Reloader
    from .service import Service


def run(config: Config, reread: Callable[[], Config] | None = None, takeover: bool = False) -> int:
    """Serve until SIGTERM or SIGINT. `reread` gives the configuration anew on SIGHUP. Raises ConfigError.

    `takeover`: get sockets and lock from the daemon that runs now, if there is one.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # one that comes before there is something to reload must not end us
    logs.start()
    if not config.policies.policies:
        raise ConfigError("no policies: pass `--policies FILE_OR_DIR`, or set `policies.policies` in the config")
    passed = systemd.passed_socket()
    if passed is not None:
        path = Path(passed.getsockname())
    else:
        path = Path(config.daemon.socket) if config.daemon.socket else default_path()
    place = Place(path, locked=not (takeover and Place.is_served(path)))
    try:
        seen = signature(config)  # before the files are read: what changes from here on is a change
        source = source_of(config)
        raise_limits(config.limits.connections)
        try:
            begun = [spawn(source) for _ in range(workers_of(config))]
        except OSError as error:
            raise ConfigError(f"no worker process can be started: {error.strerror or error}") from None
        import uvloop

        return uvloop.run(serve(config, reread or (lambda: config), source, place, passed, begun, seen))
    finally:
        end_all()
        place.close()
        logs.stop()


def workers_of(config: Config) -> int:
    return config.daemon.workers if config.daemon.workers > 0 else max(1, (os.cpu_count() or 2) - 1)


def source_of(config: Config) -> Source:
    p = config.policies
    return read_source(p.policies, p.entities, p.schema, p.open_types)


def signature(config: Config) -> tuple[object, ...]:
    """What tells one state of the policy files from another."""
    return files_state(config.policies.policies, config.policies.entities, config.policies.schema)


def files_state(policies: str, *others: str) -> tuple[object, ...]:
    """What tells one state of these policies and of what belongs to them from another."""
    folder = Path(policies)
    try:
        files = sorted(folder.iterdir()) if folder.is_dir() else [folder, folder.with_name(f"{folder.stem}.links.json")]
    except OSError:
        files = [folder]
    found: list[object] = []
    for file in [*files, *(Path(f) for f in others if f)]:
        try:
            info = file.stat()
            found.append((str(file), info.st_mtime_ns, info.st_size, info.st_ino))
        except OSError:
            found.append((str(file), None))
    return tuple(found)


def raise_limits(connections: int) -> None:
    """Let this process hold as many descriptors as it admits connections, and leave no core dump with keys in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
        if hard < wanted:
            logs.warning("fewer descriptors than `limits.connections` needs", allowed=hard, wanted=wanted)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


async def serve(
    config: Config,
    reread: Callable[[], Config],
    source: Source,
    place: Place,
    passed: socket.socket | None,
    begun: list[Process],
    seen: tuple[object, ...],
) -> int:
    from .reload import Reloader
    from .service import Service

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(unexpected)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        state = state_of(config.daemon.state, place.path, bool(config.daemon.socket) and passed is None)
        service = Service(config, str(place.path), state, place.taken_ns)
    except MemoryError:
        raise ConfigError("`cache.slots` and `cache.slab_mib` ask for more memory than there is") from None
    reloader = Reloader(service, reread, seen)
    loop.add_signal_handler(signal.SIGHUP, reloader.wanted.set)
    try:
        return await live(service, reloader, source, place, passed, begun, stop)
    finally:
        if service.endpoint is not None:
            service.endpoint.close()


async def live(
    service: Service,
    reloader: Reloader,
    source: Source,
    place: Place,
    passed: socket.socket | None,
    begun: list[Process],
    stop: asyncio.Event,
) -> int:
    """Load, serve until told to stop, drain or hand over."""
    from .fence import Fence
    from .handover import hand_over, observe, take
    from .listener import Listener

    if service.config.observe.listen:  # now: what it imports would pause the loop later
        from . import endpoint  # noqa: F401
    if place.lock >= 0:
        service.administration.open()
        observe(service, place)
    activated = asyncio.create_task(service.activate(Workers(source, len(begun), service.came, service.idle), begun))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([activated, stopped], return_when=asyncio.FIRST_COMPLETED)
    if not activated.done():
        activated.cancel()
        logs.info("stopped before the policies were loaded", pid=os.getpid())
        return 0
    if why := activated.result():
        raise ConfigError(why)
    taken = await take(service, place) if place.lock < 0 else None
    if taken is None:
        service.recording.open()
    taking = asyncio.Event()
    service.stop = taking.set
    administrators = Listener(
        service, taken.administrators if taken else place.listen(place.admin), administrators=True
    )
    accepting = Listener(service, taken.accepting if taken else passed or place.listen(place.path))
    fence = Fence(service, place, (accepting, administrators), stop.set)
    fence.start()
    service.recording.start()
    service.listening = True
    service.candidate.want(service.config)
    tasks = [asyncio.create_task(reloader.run())]
    if service.config.daemon.watch:
        tasks.append(asyncio.create_task(reloader.watch()))
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
    handed = False
    while not handed:
        wanted = asyncio.create_task(taking.wait())
        await asyncio.wait([stopped, wanted], return_when=asyncio.FIRST_COMPLETED)
        wanted.cancel()
        taking.clear()
        if service.successor is None or not fence.holds():
            break
        handed = await hand_over(service, place, administrators, accepting)
        if not handed:
            fence.start()  # its lease was given up
    systemd.notify("STOPPING=1")
    service.candidate.close()
    if not handed:
        if fence.holds():
            logs.info("draining", waiting=service.enforcer.waiting)
            place.leave()
            administrators.close()
            accepting.close()
            await drain(service)
        await service.leasing.leave("stopped")
        service.recording.close()
    for task in tasks:
        task.cancel()
    if service.misses.workers is not None:
        service.misses.workers.close()
    logs.info("stopped", pid=os.getpid())
    return 3 if fence.fallen else 0


async def drain(service: Service) -> None:
    """Answer what is in flight and what was sent, and let every peer take its replies; all within `daemon.drain`."""
    service.enforcer.draining = service.leaving = True
    until = clock.now() + milliseconds(service.config.daemon.drain) * 1_000_000
    while service.enforcer.waiting and clock.now() < until:
        await asyncio.sleep(0.01)
    service.renewal.stop()  # before they go: what clients answer by themselves afterwards, nobody would count
    for connection in list(service.connections):
        connection.drain()
    while service.connections and clock.now() < until:
        await asyncio.sleep(0.01)
    for connection in list(service.connections):
        connection.drop()
    await asyncio.sleep(0)


def unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A defect, in one line of the log: the connection or task that met it ends, the daemon goes on."""
    error = context.get("exception")
    if isinstance(error, OSError):
        logs.limited("a connection failed", reason=error.strerror or type(error).__name__)
        return
    logs.unexpected(context.get("message", ""), error)


async def feed_watchdog() -> None:
    while True:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(systemd.watchdog_seconds())
