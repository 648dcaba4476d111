"""What the daemon counts, for whoever administers it.

Promises: numbers and process ids only. Never: a question, a name that a peer chose, a policy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..version import VERSION
from . import clock

if TYPE_CHECKING:
    from .service import Service

SERVER = f"pepcore/{VERSION}"


def stats(service: Service) -> dict[str, object]:
    """What `pepcore stats` shows."""
    enforcer, misses = service.enforcer, service.misses
    return {
        "server": SERVER,
        "pid": os.getpid(),
        "uptime_ms": (clock.now() - service.started_ns) // 1_000_000,
        "boot": service.page.boot,
        "revision": service.page.revision,
        "connections": len(service.connections),
        "partitions": len(service.partitions),
        "waiting": enforcer.waiting,
        "cache": service.cache.usage(),
        "asked": enforcer.asked,
        "joined": enforcer.joined,
        "late": enforcer.late,
        "asked_again": enforcer.asked_again,
        "faults": {str(code): n for code, n in enforcer.settlement.faults.items()},
        "evaluated_inline": misses.evaluated_inline,
        "evaluated_by_workers": misses.evaluated_by_workers,
        "workers": misses.workers.pids() if misses.workers else [],
        "policies": service.loaded.policies,
        "entities": service.loaded.entities,
        "load_ms": round(service.loaded.ms, 3),
        "reloads": service.reloads,
        "failed_reloads": service.failed_reloads,
    }
