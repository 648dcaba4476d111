"""What the enforcer and the others have for a connection, sent with one write each.

Promises: replies go in the order they came, all of one turn in one write; a permit that has to be on record first waits
here for its sync and for nothing else; what is sent is recorded.
Never: decides anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..flight import Reply
from ..tenure import Holder, Recheck
from . import logs
from .replies import Explaining, frame_of

if TYPE_CHECKING:
    from .connection import Connection
    from .service import Service

Frames = dict["Connection", list[bytes]]


class Outbox:
    """The replies of a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ready: Frames = {}

    def put(self, to: Connection, frame: bytes) -> None:
        """A reply that is sent with the next ones."""
        self._ready.setdefault(to, []).append(frame)

    def send(self) -> None:
        """Send what there is."""
        recording = self._service.recording
        out, self._ready = self._ready, {}
        for r in self._service.enforcer.take_replies():
            try:
                if recording.demanded(r):
                    recording.before(r, self._released)
                else:
                    self._give(r, out)
                    recording.replied(r)
            except Exception as error:  # a defect in one must not cost the others theirs
                logs.unexpected("a reply could not be given", error)
        _write(out)

    def _released(self, r: Reply) -> None:
        """A reply whose record is on disk, or that became a deny since it is not."""
        out: Frames = {}
        self._give(r, out)
        _write(out)

    def _give(self, r: Reply, out: Frames) -> None:
        """One reply, as the frame that goes to its connection."""
        leasing = self._service.leasing
        if isinstance(r.to, Recheck):
            leasing.rechecked(r)
            return
        to: Connection = r.to.connection if isinstance(r.to, Explaining | Holder) else r.to
        frame = leasing.answered(r) if isinstance(r.to, Holder) else frame_of(r)
        if frame is not None:  # a lease may have to be asked for once more
            to.waiting -= 1
            out.setdefault(to, []).append(frame)


def _write(out: Frames) -> None:
    for connection, frames in out.items():
        connection.send(frames[0] if len(frames) == 1 else b"".join(frames))
