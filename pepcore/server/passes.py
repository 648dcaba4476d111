"""The points that do not enforce: named in the log at every start and reload, and what passed there, counted.

Promises: every permit of such a point is counted, whether it was decided, cached or given by a fault, and of `shadow`
apart from that what would have been a deny. Never: names a point that the config does not name.
"""

from __future__ import annotations

from ..config import Config
from ..flight import Partition, Passed
from ..pointconfig import not_enforced
from . import logs


class Passes:
    """What passed at each point, since the start."""

    def __init__(self) -> None:
        self._passes: dict[str, int] = {}
        self._would_deny: dict[str, int] = {}
        self._faults: dict[str, int] = {}

    def told(self, partition: Partition, body: bytes) -> None:
        """A verdict was given."""
        if partition.mode == "enforce" or body[0] != 1:
            return
        self.served(partition, 1)
        if isinstance(body, Passed) and body.real[0] != 1:
            point = partition.point
            self._would_deny[point] = self._would_deny.get(point, 0) + 1
            self._faults[point] = self._faults.get(point, 0) + (body.real[1] != 0)

    def served(self, partition: Partition, count: int) -> None:
        """A permit was given so many times; only what would be a permit, too, is ever kept."""
        if partition.mode != "enforce":
            self._passes[partition.point] = self._passes.get(partition.point, 0) + count

    def numbers(self) -> dict[str, int]:
        """Of all points together."""
        return {
            "told": sum(self._passes.values()), "would_deny": sum(self._would_deny.values()),
            "faults": sum(self._faults.values()),
        }  # fmt: skip

    def shown(self, config: Config) -> dict[str, dict[str, object]]:
        """By point: its mode now, passes, and of these what would have been denied, and denied for a fault."""
        return {
            point: {
                "mode": config.mode_of(point), "passes": self._passes.get(point, 0),
                "would_deny": self._would_deny.get(point, 0), "faults": self._faults.get(point, 0),
            }
            for point in sorted({*self._passes, *(p for p, each in config.points.items() if each.mode != "enforce")})
        }  # fmt: skip


def warn(config: Config) -> None:
    """Say which points let pass what is not enforced."""
    found = not_enforced(config.points)
    if found:
        logs.warning("points do not enforce: what the config names lets everybody pass who is not blocked", **found)
