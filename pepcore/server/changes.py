"""What a new configuration changes in a running daemon, and what only a restart changes.

Promises: what was fixed at start keeps its value, so that what a hello tells stays true, and is named for the log.
Never: applies anything.
"""

from __future__ import annotations

import msgspec

from ..config import Config, milliseconds
from ..flight import Times

FIXED = {
    "daemon": ("socket", "state", "watch"),
    "limits": ("frame", "depth", "values"),
    "record": ("keep", "folder", "keys", "plain", "heads", "syslog", "retain_mib", "retain"),
    "cache": ("slots", "slab_mib", "quota"),
    "leases": ("held", "held_per_peer", "grace"),
    "observe": ("listen",),
}


def times(config: Config) -> Times:
    """Lifetimes and bounds of the enforcer."""
    return Times(
        permit_ms=milliseconds(config.cache.permit),
        deny_ms=milliseconds(config.cache.deny),
        keep_ms=milliseconds(config.cache.clients),
        deadline_ns=milliseconds(config.limits.deadline) * 1_000_000,
        longest_deadline_ns=milliseconds(config.limits.longest_deadline) * 1_000_000,
        waiting=config.limits.waiting,
        waiting_per_owner=config.limits.waiting_per_peer,
        waiting_bytes=config.limits.waiting_bytes_per_peer,
    )


def keep_fixed(old: Config, new: Config) -> tuple[Config, list[str]]:
    """The new configuration with the old values of what is fixed, and the keys where they differed."""
    kept: list[str] = []
    for section, keys in FIXED.items():
        was, becomes = getattr(old, section), getattr(new, section)
        differing = {k: getattr(was, k) for k in keys if getattr(was, k) != getattr(becomes, k)}
        if differing:
            kept += [f"{section}.{k}" for k in differing]
            new = msgspec.structs.replace(new, **{section: msgspec.structs.replace(becomes, **differing)})
    return new, kept
