"""What administrators do, for asyncio: each call waits in a thread. See `administration.py`.

Promises: as there. Never: blocks the event loop.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterable
from typing import Any

from .administration import Acknowledgement, Administration
from .questions import EntityLike
from .settings import Settings


class AsyncAdministration:
    """The calls of an administrator."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._administration = Administration(settings)

    async def revoke(
        self,
        *,
        subject: EntityLike | None = None,
        resource: EntityLike | None = None,
        tag: str | Iterable[str] | None = None,
        all: bool = False,
        reason: str = "",
    ) -> Acknowledgement:
        """See `pepclient.Client.revoke`. Waits in a thread."""
        given = {"subject": subject, "resource": resource, "tag": tag, "all": all, "reason": reason}
        return await asyncio.to_thread(self._administration.revoke, **given)  # type: ignore[arg-type]

    async def block(
        self, subject: EntityLike, *, for_: float | datetime.timedelta | None = None, reason: str = ""
    ) -> Acknowledgement:
        """See `pepclient.Client.block`. Waits in a thread."""
        return await asyncio.to_thread(self._administration.block, subject, for_=for_, reason=reason)

    async def unblock(self, subject: EntityLike) -> Acknowledgement:
        """See `pepclient.Client.unblock`. Waits in a thread."""
        return await asyncio.to_thread(self._administration.unblock, subject)

    async def blocks(self) -> list[dict[str, Any]]:
        """See `pepclient.Client.blocks`. Waits in a thread."""
        return await asyncio.to_thread(self._administration.blocks)

    async def leases(self) -> list[dict[str, Any]]:
        """See `pepclient.Client.leases`. Waits in a thread."""
        return await asyncio.to_thread(self._administration.leases)

    async def end_lease(self, lease: int) -> None:
        """See `pepclient.Client.end_lease`. Waits in a thread."""
        await asyncio.to_thread(self._administration.end_lease, lease)

    async def untold(self, acknowledged: Acknowledgement) -> Acknowledgement:
        """See `pepclient.Client.untold`. Waits in a thread."""
        return await asyncio.to_thread(self._administration.untold, acknowledged)
