"""Deciding in this process: the table, the enforcer and Cedar, used under one lock.

    check ──► table ──hit──► verdict
                └─miss─► lock ─► enforcer's cache ─► Cedar ─► verdict ─► record, if there is one

Promises: what the table does not answer comes here, and every fault becomes a deny; a question waits for another
thread's no longer than the deadline (a signal handler that asks while its own thread asks gets a deny). After a fork
the child starts empty, with counters of its own, and holds no lease. Where there is a record, a decision is in its
queue before anybody is told, and what cannot be recorded any more (the PEP was closed, or this is a forked child, which
has no thread that writes) is denied: a permit of which nobody finds a trace is worse than a deny that says why.
Never: raises for a deny, a fault or a malformed question.

INVARIANT: enforcer, cache, PDP and leases are touched by whoever has the lock.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from itertools import count
from typing import TYPE_CHECKING, Any

from pepclient.administration import Acknowledgement
from pepclient.questions import Check, boot_and_revision, canonical, unix_ms

from ..core.cache import Cache
from ..core.local import Local
from ..core.page import Page
from ..core.verdict import Verdict, body, deny, payload, read, stored_body
from ..enforcer import Enforcer
from ..errors import DeadlinePassed, Expired, Fault, NotAvailable, PdpFault, Stale
from ..flight import Partition, Reply, Times
from ..model import Decision
from ..pdp.cedar import Cedar
from ..settlement import read_question
from ..tenure import Recheck
from ..wire import Revoke

if TYPE_CHECKING:
    from .holding import Holder
    from .recording import Recording

SLOTS = 8192
LONGEST_MS = 0xFFFFFFFF
DEADLINE_NS = 200_000_000


class Deciding:
    """What an embedded PEP decides with."""

    check: Check
    """Whether `subject` may do `action` on `resource`. The answer is `bool(verdict)`; it never raises."""

    def __init__(self, pdp: Cedar, handles: frozenset[str], record: str | os.PathLike[str] | None) -> None:
        self._partition = Partition(1, 1, "", handles, os.geteuid(), os.getegid())
        self._pdp = pdp
        self._holder: Holder | None = None
        self._recording: Recording | None = None
        self._closed = False
        self._begin()
        self._local = Local(self._page, self._ask, slots=SLOTS)
        self.check = self._local.check
        if record is not None:
            from .recording import Recording  # a journal and what it needs, for those who keep one

            self._recording = Recording(self, record)
            self._local.renew(self._page, self._recording.counts)
        _all.add(self)

    def _begin(self) -> None:
        """A life of counters and caches; a forked child begins another."""
        self._lock = threading.Lock()
        self._page = Page(secrets.randbits(64) or 1)
        cache = Cache(slots=SLOTS, slab=SLOTS * 256, seed=secrets.randbits(64), quota=1.0)
        numbers = count(secrets.randbits(62))  # so that those of two runs do not meet in one record
        self._enforcer = Enforcer(cache, self._page, Times(deadline_ns=DEADLINE_NS), numbers=numbers)

    def _forked(self) -> None:
        holder, self._holder = self._holder, None
        if holder is not None:
            holder.forget()
        self._begin()
        self._local.renew(self._page)

    def _ask(
        self, subject: Any, action: Any, resource: Any, context: Any, on_behalf_of: Any, not_after: Any, least: Any
    ) -> Verdict:
        """What the table does not answer. Never raises but for interrupts."""
        key = b""
        try:
            asked = canonical(subject, action, resource, context, on_behalf_of)
            until = self._bounds(not_after, least)
            key = asked  # one that is malformed, or over before it was asked, is no decision
            return self._decide(key, until)
        except Fault as fault:
            return self._failed(key, fault)
        except Exception as error:
            return self._failed(key, undecided(error))

    def _deny(self, fault: Fault) -> Verdict:
        return deny(fault, boot=self._page.boot, revision=self._page.revision)

    def _failed(self, key: bytes, fault: Fault) -> Verdict:
        """The deny of a fault, recorded where there is a question."""
        verdict = self._deny(fault)
        if key:
            now = clocks()[0]
            self._told(key, body(verdict, payload(verdict), now), now)
        return verdict

    def _told(self, key: bytes, said: bytes, asked_ns: int) -> None:
        """A verdict is given: its body goes to the record."""
        if self._recording is not None:
            self._recording.told(self._partition, key, said, asked_ns)

    def _bounds(self, not_after: Any, least: Any) -> int:
        """`not_after` in Unix milliseconds, -1: none. Raises Fault where the request's own bounds are not met."""
        if least is not None:
            boot, revision = boot_and_revision(least)
            if boot == self._page.boot and revision > self._page.revision:
                raise Stale("min_revision", "this process has not seen that revision yet")
        until = -1 if not_after is None else unix_ms(not_after)
        if 0 <= until <= clocks()[1]:
            raise Expired("not_after", "the caller's own permission has ended")
        return until

    def _enter(self) -> threading.Lock:
        """Take the lock, which the caller releases. Raises DeadlinePassed, or NotAvailable where nothing is decided any
        more."""
        lock = self._lock
        if not lock.acquire(timeout=DEADLINE_NS / 1e9):
            raise DeadlinePassed("deadline", "another thread was still deciding")
        if self._recording is not None and (why := self._recording.silent()):
            lock.release()
            raise NotAvailable("record", why)
        return lock

    def _decide(self, key: bytes, not_after: int) -> Verdict:
        """One question through the enforcer: its cache, then Cedar."""
        lock = self._enter()
        try:
            now, wall = self._clocks()
            stored = self._enforcer.cache.get(1, key, now, self._page)
            if stored is None:
                return self._evaluate(key, not_after, now, wall)
            if not_after >= 0:
                left = now + (not_after - wall) * 1_000_000
                stored = stored._replace(expires=min(stored.expires, left))
            return read(
                stored_body(stored, now=now, boot=self._page.boot, keep_ms=LONGEST_MS), self._partition.handles, now
            )
        finally:
            lock.release()

    def _evaluate(self, key: bytes, not_after: int, now: int, wall: int) -> Verdict:
        mine = object()
        self._enforcer.ask(self._partition, mine, 0, 0, key, now, wall, not_after=not_after)
        reply = next((r for r in self._settled(now, wall) if r.to is mine), None)
        if reply is None:
            raise PdpFault("", "no decision came")
        self._told(key, reply.body, now)
        return self._verdict_of(reply, not_after, now)

    def _settled(self, now: int, wall: int) -> list[Reply]:
        """Evaluate what waits in the enforcer; the replies. A flight that nobody answered would be joined for ever, so
        an interrupt answers it, too."""
        enforcer = self._enforcer
        while (flight := enforcer.next_flight(now, wall)) is not None:
            decision = Decision(False, "the evaluation was interrupted")
            try:
                decision = self._pdp.decide([read_question(flight.key)], flight.asked_ms)[0]
            except Exception as error:
                decision = Decision(False, undecided(error).reason)
            finally:
                enforcer.answer(flight, decision, *clocks())
        replies = enforcer.take_replies()
        for reply in replies:
            if isinstance(reply.to, Recheck) and self._holder is not None:  # whoever evaluated it
                self._holder.rechecked(reply, now)
        return replies

    def _verdict_of(self, reply: Reply, not_after: int, now: int) -> Verdict:
        if reply.verdict is None:
            raise PdpFault("", "no decision came")
        if not_after >= 0:  # the body's lifetime ends with the caller's own permission
            return read(reply.body, self._partition.handles, now)
        return reply.verdict

    def _clocks(self) -> tuple[int, int]:
        """Both clocks; a wall clock that was set ends what was measured on it."""
        now, wall = clocks()
        self._local.clocks_read(now, wall)
        return now, wall

    def _replace(self, pdp: Cedar) -> None:
        """Decide by another set from here on."""
        with self._lock:
            self._pdp = pdp
            revision = self._page.bump()
            if self._recording is not None:
                self._recording.reloaded(pdp, revision)
        self._local.clear()
        if self._holder is not None:
            self._holder.recheck()

    def _revoke(self, wanted: Revoke) -> Acknowledgement:
        """End what hangs on these tags, or everything. It holds when this returns; the record's word may be missing."""
        recording, holder, revocation = self._recording, self._holder, self._enforcer.revocation
        with self._lock:
            if holder is not None:
                tenure = holder.tenure
                revision = tenure.revoke_all(wanted.reason) if wanted.all else tenure.revoke(wanted.tags, wanted.reason)
            else:
                revision = revocation.revoke_all() if wanted.all else revocation.revoke(wanted.tags)
            kept = None if recording is None else recording.revoked(wanted, revision)
        held = 0 if holder is None else holder.tell()
        why = "" if kept is None else kept()
        return Acknowledgement(self._page.boot, revision, not why, held, False, why)

    def _end(self) -> None:
        with self._lock:
            self._closed = True
        if self._holder is not None:
            self._holder.close()
        with self._lock:
            self._page.bump()
            if self._recording is not None:
                self._recording.over = True
        self._local.clear()
        if self._recording is not None:
            self._recording.close()

    def _holding(self) -> Holder:
        """Who holds the leases. Raises Fault."""
        from .holding import Holder  # a thread and what it needs, for those who hold something

        lock = self._enter()
        try:
            if self._holder is None:
                self._holder = Holder(self)
            return self._holder
        finally:
            lock.release()


def undecided(error: Exception) -> PdpFault:
    """What an exception of others' code is."""
    return PdpFault("", f"the question cannot be decided: {error!r}")


def clocks() -> tuple[int, int]:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns() // 1_000_000


_all: weakref.WeakSet[Deciding] = weakref.WeakSet()


def _forked() -> None:
    for one in list(_all):
        one._forked()


os.register_at_fork(after_in_child=_forked)
