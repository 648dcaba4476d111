"""What `pepcore top` asks the daemon for, and what two readings say of the time between them.

Promises: a daemon that was started anew between two readings gives rates of zero, no negative ones; a list is only
fetched where it is short, so that looking costs a busy daemon little. Never: writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import Fault
from ...latency import quantile

if TYPE_CHECKING:
    from pepclient import Client

PINGS = 3
SHORT = 100
"""Leases or blocks that are fetched to show the newest: ten thousand, every second, would be the daemon's main work."""
NEWEST = 3


class Reading:
    """One look. Raises Fault where the daemon does not answer, or not to us."""

    def __init__(self, client: Client, at: float) -> None:
        self.at = at
        self.stats: dict[str, Any] = client.stats()
        self.ping_us = round(min(client.ping() for _ in range(PINGS)) * 1e6, 1)
        self.blocks: list[dict[str, Any]] = []
        self.leases: list[dict[str, Any]] = []
        try:
            if 0 < self.stats["blocks"] <= SHORT and not self.stats["blocks_broken"]:
                self.blocks = client.blocks()[-NEWEST:]
            if 0 < self.stats["leases"]["held"] <= SHORT:
                self.leases = client.leases()[-NEWEST:]
        except Fault:
            pass  # the administration socket is not there for us: the numbers are


def view(before: Reading, after: Reading) -> dict[str, Any]:
    """What is shown: of the time between the readings, else of now."""
    new, old = after.stats, before.stats
    if old["boot"] != new["boot"]:
        old = new
    seconds = max(1e-3, after.at - before.at)
    hits, misses = (new["cache"][name] - old["cache"][name] for name in ("hits", "misses"))
    by_clients = new["clients"]["per_second"]  # they are fetched once a second, as we ask: it has none or two of those
    hits += by_clients * seconds
    faults = sum(new["faults"].values()) - sum(old["faults"].values())
    told = new["miss_us"]
    counts = [a - b for a, b in zip(told["counts"], old["miss_us"]["counts"], strict=True)]
    return {
        "server": new["server"],
        "pid": new["pid"],
        "boot": new["boot"],
        "ready": new["ready"],
        "uptime_ms": new["uptime_ms"],
        "revision": new["revision"],
        "seconds": round(after.at - before.at, 3),
        "per_second": {
            "checks": round((hits + misses) / seconds, 1),
            "hits": round(hits / seconds, 1),
            "by_clients": by_clients,
            "misses": round(misses / seconds, 1),
            "faults": round(faults / seconds, 1),
        },
        "hit_ratio": round(hits / (hits + misses), 4) if hits + misses else None,
        "miss_us": {
            "count": sum(counts),
            "p50": round(quantile(told["bounds"], counts, 0.5)),
            "p99": round(quantile(told["bounds"], counts, 0.99)),
        },
        "ping_us": after.ping_us,
        "waiting": new["waiting"],
        "connections": new["connections"],
        "workers": new["workers_ready"],
        "entries": new["cache"]["entries"],
        "denied": new["denied"],
        "record": new["record"],
        "points": {point: each for point, each in new["points"].items() if each["mode"] != "enforce"},
        "leases": {**new["leases"], "newest": after.leases},
        "blocks": {"in_force": new["blocks"], "unreadable": new["blocks_broken"], "newest": after.blocks},
    }
