"""pepclient: ask the pepcore daemon of this host. `import pepcore` offers the same names.

    pep = pepclient.connect()
    if pep.check("User::alice", "read", "Document::roadmap"): ...

Light: the daemon, the engine and the event loop are not imported until they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from pepcore.core.verdict import Verdict
from pepcore.errors import Denied, Fault, PepError
from pepcore.model import Action, Entity, Obligation

from .client import Client
from .trace import traced

if TYPE_CHECKING:
    from .aio import AsyncClient

__all__ = [
    "Action",
    "Client",
    "Denied",
    "Entity",
    "Fault",
    "Obligation",
    "PepError",
    "Verdict",
    "aconnect",
    "connect",
    "traced",
]


def connect(
    path: str | os.PathLike[str] | None = None,
    *,
    deadline: float = 0.2,
    point: str | None = None,
    handles: Collection[str] = (),
) -> Client:
    """A client of the daemon at `path`, or where PEPCORE_SOCKET and the run directories say.

    `deadline` bounds each call in seconds, `point` names the enforcement point to speak for, `handles` the obligation
    types that the caller discharges with `verdict.apply` or by itself. An absent daemon is a deny, not an error.
    """
    return Client(path, deadline=deadline, point=point, handles=handles)


async def aconnect(
    path: str | os.PathLike[str] | None = None,
    *,
    deadline: float = 0.2,
    point: str | None = None,
    handles: Collection[str] = (),
) -> AsyncClient:
    """As `connect`, for asyncio: many questions in flight over one connection."""
    from .aio import AsyncClient

    return AsyncClient(path, deadline=deadline, point=point, handles=handles)
