"""pepcore: the policy enforcement core of a host.

    pep = pepcore.connect()                                  # the daemon of this host
    pep = await pepcore.aconnect()                           # the same, for asyncio
    pep = pepcore.embedded("policies/", "entities.json")     # no daemon: Cedar in this process

    if pep.check("User::alice", "read", "Document::roadmap"): ...

Names are imported when they are first used, so that each program loads only what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import VERSION as __version__

if TYPE_CHECKING:
    from pepclient import Client, aconnect, connect, traced
    from pepclient.aio import AsyncClient
    from pepclient.aioleases import AsyncLease
    from pepclient.leases import Lease

    from .core.payload import Headers, Rows
    from .core.verdict import Verdict
    from .errors import (
        BadFrame,
        BadQuestion,
        BadRequest,
        ConfigError,
        DeadlinePassed,
        Denied,
        Draining,
        Expired,
        Fault,
        NotAvailable,
        ObligationFault,
        Overloaded,
        PdpFault,
        PepError,
        PolicyError,
        Refused,
        Stale,
        Unreachable,
    )
    from .inprocess import Embedded, embedded
    from .model import Action, Decision, Entity, Obligation

__all__ = [
    "Action",
    "AsyncClient",
    "AsyncLease",
    "BadFrame",
    "BadQuestion",
    "BadRequest",
    "Client",
    "ConfigError",
    "DeadlinePassed",
    "Decision",
    "Denied",
    "Draining",
    "Embedded",
    "Entity",
    "Expired",
    "Fault",
    "Headers",
    "Lease",
    "NotAvailable",
    "Obligation",
    "ObligationFault",
    "Overloaded",
    "PdpFault",
    "PepError",
    "PolicyError",
    "Refused",
    "Rows",
    "Stale",
    "Unreachable",
    "Verdict",
    "__version__",
    "aconnect",
    "connect",
    "embedded",
    "traced",
]

_HOMES = {
    "pepclient": ("Client", "aconnect", "connect", "traced"),
    "pepclient.aio": ("AsyncClient",),
    "pepclient.aioleases": ("AsyncLease",),
    "pepclient.leases": ("Lease",),
    "pepcore.core.payload": ("Headers", "Rows"),
    "pepcore.core.verdict": ("Verdict",),
    "pepcore.inprocess": ("Embedded", "embedded"),
    "pepcore.model": ("Action", "Decision", "Entity", "Obligation"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module `pepcore` has no attribute `{name}`")
    value = getattr(import_module(_HOME.get(name, "pepcore.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
