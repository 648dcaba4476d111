"""What administrators do: revoke, block, unblock, list blocks. Over the daemon's administration socket.

Promises: when a call returns, no question asked afterwards gets an answer from before, in any process of the host; the
acknowledgement says whether it is on disk too.
Never: takes the deadline of a check: a daemon that has just started acknowledges only once the page of the one before
is dead.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from pepcore.errors import BadFrame, BadRequest

from . import frames
from .questions import EntityLike
from .settings import Settings
from .tags import tag_of, tags_of, text_of

if TYPE_CHECKING:
    from .client import Client

PATIENCE = 5.0
"""Seconds that a call waits at least: an effect is there at once, its acknowledgement may wait for a disk."""


class Acknowledgement(NamedTuple):
    """It holds from (boot, revision) on: pass it as `min_revision` to ask for nothing older.

    `durable`: it is on disk, as far as it has to be; `why` says what went wrong otherwise. `held`: leases that still
    have to be told; `before`: leases of a daemon before this one may still be held (for 10 s).
    """

    boot: int
    revision: int
    durable: bool
    held: int
    before: bool
    why: str = ""


class Administration:
    """The calls of an administrator."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: Client | None = None

    def revoke(
        self,
        *,
        subject: EntityLike | None = None,
        resource: EntityLike | None = None,
        tag: str | Iterable[str] | None = None,
        all: bool = False,
        reason: str = "",
    ) -> Acknowledgement:
        """End every cached answer that hangs on these, everywhere on this host. Raises Fault.

        The policies decide anew: whoever is to be denied although they still permit is to be blocked.
        """
        body = frames.packed(all=all, reason=text_of(reason, "reason"), tags=tags_of(subject, resource, tag))
        return _acknowledgement(self._administer(frames.REVOKE, body))

    def block(
        self, subject: EntityLike, *, for_: float | datetime.timedelta | None = None, reason: str = ""
    ) -> Acknowledgement:
        """Deny `subject`, and whoever acts on its behalf, for so many seconds, or until it is lifted. Raises Fault."""
        until = 0
        if for_ is not None:
            seconds = for_.total_seconds() if isinstance(for_, datetime.timedelta) else for_
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e10:
                raise BadRequest("for_", f"`{for_!r}` is not a number of seconds above 0, or a timedelta")
            until = int((time.time() + seconds) * 1000)
        body = frames.packed(lift=False, reason=text_of(reason, "reason"), tag=tag_of(subject), until=until)
        return _acknowledgement(self._administer(frames.BLOCK, body))

    def unblock(self, subject: EntityLike) -> Acknowledgement:
        """Lift a block. It is no fault if there is none. Raises Fault."""
        body = frames.packed(lift=True, reason="", tag=tag_of(subject), until=0)
        return _acknowledgement(self._administer(frames.BLOCK, body))

    def blocks(self) -> list[dict[str, Any]]:
        """The blocks in force: tag, reason, since and until (Unix ms, 0: without end), by. Raises Fault."""
        found: list[dict[str, Any]] = []
        after, more = 0, True
        while more:  # each call shows some kilobytes: ten thousand blocks can be 80 MB
            told = self._administer(frames.BLOCKS, frames.packed(after=after))
            found += told["blocks"]
            after, more = told["after"], bool(told["more"] and told["blocks"])
        return found

    def leases(self) -> list[dict[str, Any]]:
        """The leases that are held: lease, subject, chain, action, resource, point, uid, since, lost. Raises Fault."""
        found: list[dict[str, Any]] = []
        more = True
        while more:  # each call shows a few hundred: a daemon is not to be held up by who looks at ten thousand
            after = found[-1]["lease"] if found else 0
            told = self._administer(frames.LEASES, frames.packed(after=after, list=True))
            found += told["leases"]
            more = bool(told["more"] and told["leases"])
        return found

    def end_lease(self, lease: int) -> None:
        """End one lease by its number. Raises Fault, also where it is not held."""
        self._administer(frames.END_LEASE, lease.to_bytes(8, "little"))

    def untold(self, acknowledged: Acknowledgement) -> Acknowledgement:
        """The same acknowledgement with `held` and `before` as they are now. Raises Fault."""
        told = self._administer(frames.LEASES, frames.packed(list=False, revision=acknowledged.revision))
        return acknowledged._replace(held=int(told["untold"]), before=bool(told["before"]))

    def _administer(self, op: int, body: bytes) -> dict[str, Any]:
        until = time.monotonic() + max(PATIENCE, self._settings.deadline)
        return self._administrator()._ask(frames.Request(op, rest=body), until, _told)

    def _administrator(self) -> Client:
        """A client of the administration socket, made when it is first needed."""
        if self._admin is None:
            from .client import Client  # it is one of us

            self._admin = Client(self._settings.path + ".admin", deadline=self._settings.deadline)
        return self._admin


def _told(body: bytes) -> dict[str, Any]:
    return frames.plain(body) if body else {}


def _acknowledgement(told: dict[str, Any]) -> Acknowledgement:
    try:
        return Acknowledgement(**{name: told[name] for name in Acknowledgement._fields})
    except KeyError as missing:
        raise BadFrame("reply", f"is an acknowledgement without {missing}") from None
