"""What the daemon counts: numbers for whoever may read the metrics, and more for who administers it.

Promises: `numbers` holds numbers and process ids only, and takes no longer when more is cached, held or connected
(blocks are the exception: at most 10,000). `stats`, which administrators get, adds who was denied most and why,
the points that do not enforce, and what a candidate policy set would decide otherwise.
Never: an attribute value of a question, or a policy's text.
"""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING, Any

from ..version import VERSION
from . import clock
from .health import unready

if TYPE_CHECKING:
    from .service import Service

SERVER = f"pepcore/{VERSION}"


def numbers(service: Service) -> dict[str, Any]:
    """What the metrics are made of."""
    enforcer, misses = service.enforcer, service.misses
    blocks, workers = enforcer.revocation.blocks, misses.workers
    return {
        "server": SERVER,
        "pid": os.getpid(),
        "uptime_ms": (clock.now() - service.started_ns) // 1_000_000,
        "ready": not unready(service),
        "boot": service.page.boot,
        "revision": service.page.revision,
        "connections": len(service.connections),
        "partitions": len(service.partitions),
        "waiting": enforcer.waiting,
        "cache": service.cache.usage(),
        "clients": service.recording.hits.numbers(),
        "asked": enforcer.asked,
        "joined": enforcer.joined,
        "late": enforcer.late,
        "asked_again": enforcer.asked_again,
        "faults": {str(code): n for code, n in enforcer.settlement.faults.items()},
        "evaluated_inline": misses.evaluated_inline,
        "evaluated_by_workers": misses.evaluated_by_workers,
        "miss_us": enforcer.latency.told(),
        "workers": workers.pids() if workers else [],
        "workers_ready": workers.ready if workers else 0,
        "policies": service.loaded.policies,
        "entities": service.loaded.entities,
        "load_ms": round(service.loaded.ms, 3),
        "reloads": service.reloads,
        "failed_reloads": service.failed_reloads,
        "revokes": service.administration.revokes,
        "blocks_set": service.administration.blocks_set,
        "blocks": blocks.count(clock.wall_ms()),
        "blocks_broken": bool(blocks.broken),
        "leases": service.leasing.leases.counts(),
        "record": service.recording.numbers(),
        "passed": service.passes.numbers(),
        "compared": service.candidate.numbers(),
        "process": _process(),
    }


def stats(service: Service) -> dict[str, Any]:
    """What `pepcore stats` shows."""
    return {
        **numbers(service),
        "denied": service.denials.top(clock.now()),
        "points": service.passes.shown(service.config),
        "candidate": service.candidate.shown(),
    }


def _process() -> dict[str, int]:
    """This process, without its workers; 0: this kernel does not tell."""
    return {
        "rss_bytes": _resident(),
        "open_fds": _open(),
        "max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "cpu_ms": time.process_time_ns() // 1_000_000,
    }


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def _open() -> int:
    """Open descriptors. Linux tells their number since 6.2; before, they are counted, some milliseconds of 10,000."""
    try:
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
