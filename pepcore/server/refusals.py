"""What was refused before anybody decided: counted, in the log, and where a peer asked for whom it may not, on record.

Promises: each fault that a peer was told is counted by its kind, beside those of decisions; a peer that asks for a
subject that is not its own leaves an entry at once, and as long as it goes on one a second that has the count; the log
has a line a second of each kind at most. Memory: an entry for each user that was refused within the last second.
Never: an attribute value, in the log or in the record; an entry for a question that nobody could read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..audit import entries
from ..errors import NAMES, BadFrame, BadQuestion, BadRequest, Fault, Refused
from ..flight import Partition
from . import logs

if TYPE_CHECKING:
    from .connection import Connection
    from .service import Service

EVERY_S = 1.0
MALFORMED = frozenset({BadFrame.code, BadQuestion.code, BadRequest.code})


class Refusals:
    """Of a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._since: dict[int, tuple[int, Partition, str]] = {}
        """By uid, of those who have an entry of the last second: how often since, where, and for whom the last time."""

    def answered(self, connection: Connection, faults: dict[int, tuple[int, str, int]]) -> None:
        """The gate has told these: by code, how often, and the last one's field and partition of the connection."""
        for code, (count, field, local) in faults.items():
            own = connection.partitions
            self._count(connection, code, count, field, own[local - 1].point if 0 < local <= len(own) else "")

    def raised(self, connection: Connection, partition: int, fault: Fault) -> None:
        """A request was answered with this."""
        of = self._service.partitions.get(partition)
        self._count(connection, fault.code, 1, fault.field, of.point if of is not None else "")

    def _count(self, connection: Connection, code: int, count: int, field: str, point: str) -> None:
        faults = self._service.enforcer.settlement.faults
        faults[code] = faults.get(code, 0) + count
        if code in MALFORMED:
            logs.limited("a request is malformed", **self._who(connection, point), fault=NAMES[code], field=field)
        elif code == Refused.code and field != "subject":  # that is said with whom it was about
            logs.limited("a request is refused", **self._who(connection, point), field=field)

    def _who(self, connection: Connection, point: str) -> dict[str, object]:
        return {"uid": connection.peer.uid, "pid": connection.peer.pid, "point": point}

    def subject(self, uid: int, of: Partition, name: str) -> None:
        """This peer has asked for a subject that it may not ask for."""
        logs.limited("a peer asked for a subject that it may not ask for", uid=uid, point=of.point, subject=name[:200])
        found = self._since.get(uid)
        if not self._service.recording.keeps(of):
            return
        if found is not None:
            self._since[uid] = (found[0] + 1, of, name)
            return
        self._write(uid, of, name, 1)
        self._wait(uid, of)

    def _wait(self, uid: int, of: Partition) -> None:
        self._since[uid] = (0, of, "")
        asyncio.get_running_loop().call_later(EVERY_S, self._over, uid)

    def _over(self, uid: int) -> None:
        """The second of this user is over."""
        count, of, name = self._since.pop(uid, (0, None, ""))
        if count and of is not None:
            self._write(uid, of, name, count)
            self._wait(uid, of)

    def _write(self, uid: int, of: Partition, name: str, count: int) -> None:
        reason = f"this peer may not ask for `{name}`: see `peers` in the config"
        entry = entries.Fault(**entries.times(), what="refused", reason=reason, uid=uid, point=of.point, count=count)
        self._service.recording.of(of, entry)

    def close(self) -> None:
        """Write down what is counted; the record ends."""
        for uid in list(self._since):
            count, of, name = self._since.pop(uid)
            if count:
                self._write(uid, of, name, count)
