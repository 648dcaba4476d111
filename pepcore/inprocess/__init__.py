"""The embedded form: Cedar, enforcer and table in this process, without a daemon.

The units: `deciding.py` the way of a question, `holding.py` leases, `recording.py` the record.

Promises: the same answers as a daemon with the same files, by the same enforcer; `check` is the compiled method of
the table (`core/local.pyx`), and only what is not in it comes here. A reload loads first, then swaps, then ends every
older answer and every lease that is permitted no more.
Never: raises for a deny, a fault or a malformed question; revokes or blocks beyond this process; costs a thread or a
file where nothing is held or recorded.
It is not called `embedded`, since the function `pepcore.embedded` has that name.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pepclient import frames
from pepclient.administration import Acknowledgement
from pepclient.guard import Guards
from pepclient.leases import Lease, OnEnd
from pepclient.questions import (
    ActionLike,
    Context,
    EntityLike,
    MinRevision,
    NotAfter,
    QuestionLike,
    Semantic,
    canonical,
    ends,
    parts,
    semantic_code,
)
from pepclient.settings import handled
from pepclient.tags import tags_of, text_of

from ..core import obligation
from ..core.verdict import Verdict
from ..errors import BadRequest, ConfigError, Fault
from ..flight import Flight
from ..pdp.cedar import Cedar, load
from ..settlement import read_question
from ..wire import read_revoke
from .deciding import Deciding, clocks, undecided


class Embedded(Deciding, Guards):
    """A PEP inside this process, as `pepcore.embedded` makes it. Thread-safe."""

    def __init__(
        self,
        policies: str | Path,
        entities: Path | str | list[dict[str, Any]] | None = None,
        schema: Path | str | None = None,
        *,
        handles: Collection[str] = (),
        record: str | os.PathLike[str] | None = None,
    ) -> None:
        kinds = frozenset(handled(handles))
        super().__init__(_loaded(policies, entities, schema), kinds, record)

    def check_many(self, questions: Iterable[QuestionLike], semantic: Semantic = "execute_all") -> list[Verdict]:
        """Ask many: tuples (subject, action, resource[, context]) or AuthZEN dicts. It never raises.

        With `deny_on_first_deny` and `permit_on_first_permit` the list ends with the answer that ended it.
        """
        out: list[Verdict] = []
        try:
            code = semantic_code(semantic)
            for item in questions:
                try:
                    subject, action, resource, context, chain = parts(item)
                    verdict = self.check(subject, action, resource, context, on_behalf_of=chain)
                except Fault as fault:
                    verdict = self._deny(fault)
                out.append(verdict)
                if ends(code, verdict.permit):
                    break
        except Exception as error:
            broken = error if isinstance(error, Fault) else BadRequest("questions", f"cannot be read: {error!r}")
            out.append(self._deny(broken))
        return out

    def lease(
        self,
        subject: EntityLike,
        action: ActionLike,
        resource: EntityLike,
        context: Context | None = None,
        *,
        on_behalf_of: Sequence[EntityLike] = (),
        not_after: NotAfter | None = None,
        on_end: OnEnd | None = None,
    ) -> Lease:
        """A permit that is held until it is given up, revoked, or permitted no more. It never raises.

        `bool(lease)` says whether it is held; `on_end(lease)` is called from another thread when it ended.
        A forked child holds none of its parent's.
        """
        key = b""
        try:
            asked = canonical(subject, action, resource, context, on_behalf_of)
            until = self._bounds(not_after, None)
            key = asked
            return self._holding().ask(key, until, on_end)
        except Fault as fault:
            verdict = self._failed(key, fault)
        except Exception as error:
            verdict = self._failed(key, undecided(error))
        refused = Lease(None, key, (0, b""))
        refused._refuse(verdict)
        return refused

    def revoke(
        self,
        *,
        subject: EntityLike | None = None,
        resource: EntityLike | None = None,
        tag: str | Iterable[str] | None = None,
        all: bool = False,
        reason: str = "",
    ) -> Acknowledgement:
        """End every cached answer and every lease of this PEP that hangs on these. Raises Fault.

        The policies decide anew. It waits for the question that is being decided, so it is not for signal handlers.
        """
        wanted = frames.packed(all=all, reason=text_of(reason, "reason"), tags=tags_of(subject, resource, tag))
        return self._revoke(read_revoke(wanted))

    @property
    def unrecorded(self) -> int:
        """Entries that should be in the record and are not: the disk was full, failed, or was too slow."""
        return self._recording.lost if self._recording is not None else 0

    def stats(self) -> dict[str, Any]:
        """The counters of this process."""
        return {
            **self._local.usage(),
            "asked": self._enforcer.asked,
            "boot": self._page.boot,
            "faults": dict(self._enforcer.settlement.faults),
            "policies": len(self._pdp.policies),
            "revision": self._page.revision,
            "unrecorded": self.unrecorded,
        }

    def explain(
        self,
        subject: EntityLike,
        action: ActionLike,
        resource: EntityLike,
        context: Context | None = None,
        *,
        on_behalf_of: Sequence[EntityLike] = (),
        not_after: NotAfter | None = None,
        min_revision: MinRevision | None = None,
    ) -> dict[str, Any]:
        """How a question would be decided, for people: never enforce it. Raises Fault."""
        key = canonical(subject, action, resource, context, on_behalf_of)
        self._bounds(not_after, min_revision)
        now, wall = clocks()
        with self._lock:
            told = self._pdp.explain(read_question(key), wall)
            flight = Flight(self._partition, key, {}, True, True, self._page.revision, now, wall)
            self._enforcer.answers.complete(flight, told, now)
        return told

    def reload(
        self,
        policies: str | Path,
        entities: Path | str | list[dict[str, Any]] | None = None,
        schema: Path | str | None = None,
    ) -> None:
        """Decide by another set from here on. Raises ConfigError or PolicyError, and then keeps what it had."""
        try:
            pdp = _loaded(policies, entities, schema)
        except ConfigError as error:
            if self._recording is not None:
                self._recording.not_reloaded(error)
            raise
        self._replace(pdp)

    def close(self) -> None:
        """Forget every answer and give up every lease. Without a record, what is asked afterwards is decided anew; with
        one it is written to its end, and what is asked afterwards is denied."""
        self._end()

    def __enter__(self) -> Embedded:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def embedded(
    policies: str | Path,
    entities: Path | str | list[dict[str, Any]] | None = None,
    schema: Path | str | None = None,
    *,
    handles: Collection[str] = (),
    record: str | os.PathLike[str] | None = None,
) -> Embedded:
    """A PEP inside this process.

    `policies`: a file, a folder of `*.cedar`, or Cedar text, which ends with `;`; `entities`: a path or a list.
    `handles` are the obligation types that the caller discharges. Raises ConfigError or PolicyError.

    `record` is the folder of a journal, as a daemon writes it (`pepcore audit --journal FOLDER` reads it), which one
    PEP at a time has; the keys are beside it, in FOLDER.keys. Every decision is an entry, hits by count; what cannot be
    written is counted in `unrecorded`. Raises ConfigError where the folder is in use or damaged. Close the PEP, and all
    is on disk; the end of the process closes it, too. A forked child cannot record, so there it denies: make one after
    the fork.
    """
    return Embedded(policies, entities, schema, handles=handles, record=record)


def _loaded(policies: Any, entities: Any, schema: Any) -> Cedar:
    return load(policies, entities, schema, check_obligation=obligation.check)
