"""Whether this daemon should be asked.

Promises: no reason is given only where a question that is sent now gets the answer that it should have: the policies
are active, somebody can evaluate them, the sockets are open, the page is believed, the blocks are known, the record is
written where that is demanded. The reasons are words of ours: whoever may read the metrics may read them, too.
Never: asks anybody anything; changes anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.page import LEASE_NS
from . import clock

if TYPE_CHECKING:
    from .service import Service


def unready(service: Service) -> list[str]:
    """Why this daemon should not be asked; nothing: it should."""
    workers, blocks = service.misses.workers, service.enforcer.revocation.blocks
    if workers is None:
        return ["the policies are not loaded yet"]
    reasons = []
    if service.enforcer.draining:
        reasons.append("draining: this daemon is stopping")
    elif not service.listening:
        reasons.append("the socket is not open")
    if blocks.broken:
        reasons.append("the list of blocks cannot be read: everything is denied, and the log says why")
    if service.config.demands_record and service.recording.numbers()["failing"]:
        reasons.append("the record cannot be written: points that demand it get no permit")
    if not 0 < service.page.lease - clock.now() <= LEASE_NS:
        reasons.append("the lease of the page is not renewed: clients keep no answers")
    if not workers.ready:
        reasons.append("no worker process has the policies: all that is not cached waits")
    return reasons
