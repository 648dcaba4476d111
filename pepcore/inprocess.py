"""The embedded form: Cedar, enforcer and table in this process, without a daemon.

Promises: the same answers as a daemon with the same files, by the same enforcer; `check` is the compiled method of
the table (`core/local.pyx`), and only what is not in it comes here. A reload loads first, then swaps, then ends every
older answer. After a fork the child starts empty, with counters of its own.
Never: raises for a deny, a fault or a malformed question; revokes or blocks beyond this process; waits longer than
the deadline for another thread (a signal handler that asks while its own thread asks gets a deny).
The unit is not called `embedded`, since the function `pepcore.embedded` has that name.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pepclient.guard import P, R, enforced, guarded
from pepclient.questions import (
    ActionLike,
    Check,
    Context,
    EntityLike,
    MinRevision,
    NotAfter,
    QuestionLike,
    Semantic,
    boot_and_revision,
    canonical,
    ends,
    parts,
    semantic_code,
    unix_ms,
)
from pepclient.settings import handled

from .core import obligation
from .core.cache import Cache
from .core.local import Local
from .core.page import Page
from .core.verdict import Verdict, deny, read, stored_body
from .enforcer import Enforcer
from .errors import BadRequest, DeadlinePassed, Expired, Fault, PdpFault, Stale
from .flight import Flight, Partition, Times
from .model import Decision
from .pdp.cedar import Cedar, load
from .settlement import read_question

SLOTS = 8192
LONGEST_MS = 0xFFFFFFFF
DEADLINE_NS = 200_000_000


class Embedded:
    """A PEP inside this process, as `pepcore.embedded` makes it. Thread-safe."""

    check: Check
    """Whether `subject` may do `action` on `resource`. The answer is `bool(verdict)`; it never raises."""

    def __init__(
        self,
        policies: str | Path,
        entities: Path | str | list[dict[str, Any]] | None = None,
        schema: Path | str | None = None,
        *,
        handles: Collection[str] = (),
    ) -> None:
        self._partition = Partition(1, 1, "", frozenset(handled(handles)))
        self._pdp = _loaded(policies, entities, schema)
        self._begin()
        self._local = Local(self._page, self._ask, slots=SLOTS)
        self.check = self._local.check
        _all.add(self)

    def _begin(self) -> None:
        """A life of counters and caches; a forked child begins another."""
        self._lock = threading.Lock()
        self._page = Page(secrets.randbits(64) or 1)
        cache = Cache(slots=SLOTS, slab=SLOTS * 256, seed=secrets.randbits(64), quota=1.0)
        self._enforcer = Enforcer(cache, self._page, Times(deadline_ns=DEADLINE_NS))

    def _forked(self) -> None:
        self._begin()
        self._local.renew(self._page)

    def _ask(
        self, subject: Any, action: Any, resource: Any, context: Any, on_behalf_of: Any, not_after: Any, least: Any
    ) -> Verdict:
        """What the table does not answer. Never raises but for interrupts."""
        try:
            key = canonical(subject, action, resource, context, on_behalf_of)
            return self._decide(key, self._bounds(not_after, least))
        except Fault as fault:
            return self._deny(fault)
        except Exception as error:
            return self._deny(PdpFault("", f"the question cannot be decided: {error!r}"))

    def _deny(self, fault: Fault) -> Verdict:
        return deny(fault, boot=self._page.boot, revision=self._page.revision)

    def _bounds(self, not_after: Any, least: Any) -> int:
        """`not_after` in Unix milliseconds, -1: none. Raises Fault where the request's own bounds are not met."""
        if least is not None:
            boot, revision = boot_and_revision(least)
            if boot == self._page.boot and revision > self._page.revision:
                raise Stale("min_revision", "this process has not seen that revision yet")
        until = -1 if not_after is None else unix_ms(not_after)
        if 0 <= until <= _clocks()[1]:
            raise Expired("not_after", "the caller's own permission has ended")
        return until

    def _decide(self, key: bytes, not_after: int) -> Verdict:
        """One question through the enforcer: its cache, then Cedar."""
        lock = self._lock
        if not lock.acquire(timeout=DEADLINE_NS / 1e9):
            raise DeadlinePassed("deadline", "another thread was still deciding")
        try:
            now, wall = _clocks()
            self._local.clocks_read(now, wall)
            stored = self._enforcer.cache.get(1, key, now, self._page)
            if stored is None:
                return self._evaluate(key, not_after, now, wall)
            if not_after >= 0:
                left = now + (not_after - wall) * 1_000_000
                stored = stored._replace(expires=min(stored.expires, left))
            body = stored_body(stored, now=now, boot=self._page.boot, keep_ms=LONGEST_MS)
            return read(body, self._partition.handles, now)
        finally:
            lock.release()

    def _evaluate(self, key: bytes, not_after: int, now: int, wall: int) -> Verdict:
        enforcer, mine = self._enforcer, object()
        enforcer.ask(self._partition, mine, 0, 0, key, now, wall, not_after=not_after)
        while (flight := enforcer.next_flight(now, wall)) is not None:
            decision = Decision(False, "the evaluation was interrupted")
            try:
                decision = self._pdp.decide([read_question(flight.key)], flight.asked_ms)[0]
            finally:  # also for an interrupt: a flight that nobody answers would be joined for ever
                enforcer.answer(flight, decision, *_clocks())
        reply = next((r for r in enforcer.take_replies() if r.to is mine), None)
        if reply is None or reply.verdict is None:
            raise PdpFault("", "no decision came")
        if not_after >= 0:  # the body's lifetime ends with the caller's own permission
            return read(reply.body, self._partition.handles, now)
        return reply.verdict

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

    def enforce(
        self,
        subject: EntityLike,
        action: ActionLike,
        resource: EntityLike,
        context: Context | None = None,
        *,
        on_behalf_of: Sequence[EntityLike] = (),
        not_after: NotAfter | None = None,
        min_revision: MinRevision | None = None,
    ) -> Verdict:
        """As `check`, but a deny raises Denied."""
        return enforced(
            self.check(
                subject, action, resource, context,
                on_behalf_of=on_behalf_of, not_after=not_after, min_revision=min_revision,
            )
        )  # fmt: skip

    def guard(
        self,
        subject: EntityLike | Callable[..., EntityLike],
        action: ActionLike | Callable[..., ActionLike],
        resource: EntityLike | Callable[..., EntityLike],
        context: Context | Callable[..., Context | None] | None = None,
        *,
        on_behalf_of: Sequence[EntityLike] | Callable[..., Sequence[EntityLike]] = (),
        apply: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function so that it runs only if permitted, else raises Denied. See `pepclient.Client.guard`."""
        places = {
            "subject": subject, "action": action, "resource": resource, "context": context,
            "on_behalf_of": on_behalf_of,
        }  # fmt: skip
        return lambda function: guarded(function, places, self.check, self._check_at_once, apply)

    async def _check_at_once(self, **question: Any) -> Verdict:
        return self.check(**question)

    def stats(self) -> dict[str, Any]:
        """The counters of this process."""
        return {
            **self._local.usage(),
            "asked": self._enforcer.asked,
            "boot": self._page.boot,
            "faults": dict(self._enforcer.settlement.faults),
            "policies": len(self._pdp.policies),
            "revision": self._page.revision,
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
        now, wall = _clocks()
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
        pdp = _loaded(policies, entities, schema)
        with self._lock:
            self._pdp = pdp
            self._page.bump()
        self._local.clear()

    def close(self) -> None:
        """Forget every answer. What is asked afterwards is decided anew."""
        with self._lock:
            self._page.bump()
        self._local.clear()

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
) -> Embedded:
    """A PEP inside this process.

    `policies`: a file, a folder of `*.cedar`, or Cedar text, which ends with `;`; `entities`: a path or a list.
    `handles` are the obligation types that the caller discharges. Raises ConfigError or PolicyError.
    """
    return Embedded(policies, entities, schema, handles=handles)


def _loaded(policies: Any, entities: Any, schema: Any) -> Cedar:
    return load(policies, entities, schema, check_obligation=obligation.check)


def _clocks() -> tuple[int, int]:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns() // 1_000_000


_all: weakref.WeakSet[Embedded] = weakref.WeakSet()


def _forked() -> None:
    for one in list(_all):
        one._forked()


os.register_at_fork(after_in_child=_forked)
