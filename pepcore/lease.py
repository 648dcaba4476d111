"""A lease of the daemon, as a value: `leases.py` moves it."""

from __future__ import annotations

import enum
from typing import Any

from msgspec import Struct

from .flight import Partition


class Cause(enum.IntEnum):
    """Why a lease ended (bindings/README.md, "lease")."""

    REVOKED = 1
    BLOCKED = 2
    DENIED = 3
    ENDED = 4
    OVER = 5


class Lease(Struct, eq=False):
    """One held permit. `until_ns`: its lifetime; `ends_ns`: when it ends unless a newer answer permits it."""

    number: int
    to: Any
    owner: int
    request: int
    local: int
    partition: Partition
    key: bytes
    principals: tuple[str, ...]
    resource: str
    action: str
    since_ms: int
    not_after: int = -1
    tags: frozenset[str] = frozenset()
    until_ns: int = 0
    ends_ns: int = 0
    asking: bool = False
    again: bool = False
    """Something changed while it was with the PDP: ask once more."""
    tried: bool = False
    """It was asked about since it was last permitted."""
    held: bool = True
    cause: Cause = Cause.ENDED
    reason: str = ""
    revision: int = 0
    """At which it ended."""
    lost: bool = False
    """Its holder has no connection any more, and stops by himself."""
