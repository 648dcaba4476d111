"""What the enforcer brought for a request, as the frame that is sent.

Promises: a question that was to be explained gets an explanation or an error frame, never a verdict that somebody
could enforce. Never: builds a verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import FAULTS, Stale
from ..flight import Reply
from ..wire import Op, error, pack, reply, write_many

if TYPE_CHECKING:
    from .connection import Connection


class Explaining:
    """Stands for a connection where it asked to have a question explained."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection


def frame_of(r: Reply) -> bytes:
    """The reply as it is sent."""
    if r.explanation is not None:
        return reply(Op.EXPLAIN, r.request, r.local, pack(r.explanation))
    if isinstance(r.to, Explaining):
        code, reason = Stale.code, "the policies changed while they were explained: ask again"
        if r.verdict is not None and r.verdict.fault:
            code, reason = r.verdict.fault, r.verdict.error.partition(": ")[2]
        return error(r.request, r.local, FAULTS[code]("", reason))
    if r.bodies is not None:
        return reply(Op.CHECK_MANY, r.request, r.local, write_many(r.bodies))
    return reply(Op.CHECK, r.request, r.local, r.body)
