"""The leases of an embedded PEP, and the one thread that looks after them, made for the first.

Promises: the same lease as a daemon's client has (`pepclient.leases.Lease`): held until it is given up, revoked, past
its `not_after`, or permitted no more by the policies, which are asked again before its lifetime ends, at the edges of
windows, and at once after a reload or where the wall clock was set. `bool(lease)` is False once a revoke or a reload
that ends it has returned, and at the end of its time even where no thread ran; `on_end` is called once, from another
thread, of each that was not given up.
Never: holds anything in a forked child; calls `on_end` while a lock is held, so that it may do with the PEP whatever it
likes; waits for an evaluation to give a lease up.

INVARIANT: a lease is in `_held` from its permit until its end was found here; the book (`leases.py`) has it until its
holder has stopped.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from functools import partial
from itertools import count

from pepclient.calls import Calls
from pepclient.leases import Lease, OnEnd

from ..audit import entries
from ..core import forks
from ..core.page import SLOT_TIMED
from ..core.verdict import Verdict
from ..errors import NotAvailable, PdpFault
from ..flight import Reply
from ..lease import Lease as Booked
from ..leases import Leases
from ..tenure import Holder as Asker
from ..tenure import Tenure
from .deciding import Deciding, clocks

MOST = 10_000
"""Leases of one PEP."""
LOOK_NS = 1_000_000_000
"""At least so often the wall clock is looked at while leases are held."""
SLICE = 128
"""Leases that are told under one lock."""
ASKED = 8
"""Leases that are asked about under one lock: questions of other threads wait that long."""
PAUSE_S = 0.0002
"""Between two such slices: whoever waits for the lock gets it."""
AGAIN_S = 0.02
IDLE_S = 10.0
"""How long the thread stays where nothing is held."""
CLOSED = "this PEP was closed"
_TIMED = SLOT_TIMED.to_bytes(2, "little")
Ended = tuple[Booked, tuple[Lease, Booked] | None]
_log = logging.getLogger("pepcore")


class Holder:
    """Holds the leases of one PEP, in one life of this process."""

    def __init__(self, pep: Deciding) -> None:
        self._pep = pep
        # one whose number was noted in an earlier run is not to be taken for another of this one
        self.leases = Leases(0, MOST, numbers=count(secrets.randbits(40)))
        self.leases.on_end = self._ended
        self.tenure = Tenure(pep._enforcer, self.leases)
        self.calls = Calls()
        self._me = Asker(None, 0)
        self._requests = count(1)
        self._held: dict[int, tuple[Lease, Booked]] = {}
        self._stopped: deque[int] = deque()
        """Of these leases the holders have stopped: they leave the book when next somebody has the lock."""
        self._life = forks.number()
        self._seen = pep._page.revision
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._planned = 0

    # ---- what callers do ----

    def ask(self, key: bytes, not_after: int, on_end: OnEnd | None) -> Lease:
        """Ask for a lease: it is held, or its verdict says why not. Raises Fault."""
        lease = Lease(self, key, (0, b""), on_end)
        lock = self._pep._enter()
        try:
            if self._pep._closed:
                raise NotAvailable("lease", CLOSED)
            self._tidy()
            self._ask(lease, key, not_after)
        finally:
            lock.release()
        return lease

    def _ask(self, lease: Lease, key: bytes, not_after: int) -> None:
        pep, me, request = self._pep, self._me, next(self._requests)
        now, wall = pep._clocks()
        began = now
        self.tenure.ask(me, pep._partition, request, 0, key, -1, not_after, now, wall)
        try:
            while True:  # until its deadline: what did not stand any more when it came is asked once more
                reply = next((r for r in pep._settled(now, wall) if r.to is me and r.request == request), None)
                if reply is None:
                    raise PdpFault("", "no decision came")
                now, wall = pep._clocks()
                found = self.tenure.answered(reply, now, wall)
                if found is not True:
                    break
            pep._told(key, reply.body, began)
            verdict = pep._verdict_of(reply, not_after, now)
        finally:
            if me.asked.pop(request, None) is not None:
                self.leases.room.leave(me.owner)
        if not isinstance(found, Booked):
            lease._refuse(verdict)
            return
        try:
            self._hold(lease, found, verdict)
        except BaseException:  # an interrupt, or no thread is to be had: nobody has it, so it is not held
            lease._abandon()
            self._held.pop(found.number, None)
            self._stopped.append(found.number)
            raise

    def _hold(self, lease: Lease, booked: Booked, verdict: Verdict) -> None:
        self._held[booked.number] = lease, booked
        if self._pep._recording is not None:
            of = self._pep._partition
            self._pep._recording.note(
                entries.LeaseStart, lease=booked.number, decision=verdict.number, uid=of.uid, point=of.point
            )
        self._arm()
        lease._hold(booked.number, verdict)

    def sure(self, lease: Lease) -> bool:
        """Whether a lease is held: by now, and in this process."""
        held = self._held.get(lease.number)
        return held is not None and held[1].held and clocks()[0] < held[1].ends_ns and forks.number() == self._life

    def give_up(self, lease: Lease) -> None:
        """A lease is not held any more. Its end is found now, or where others decide, when the thread next looks."""
        self._held.pop(lease.number, None)
        self._stopped.append(lease.number)
        lock = self._pep._lock
        if forks.number() == self._life and lock.acquire(blocking=False):
            try:
                ended = self._ended_now()
            finally:
                lock.release()
            self._tell(ended)

    def tell(self) -> int:
        """Tell the holders why their leases ended; of how many of all that ended we do not know that they stopped."""
        more = True
        while more:
            with self._pep._lock:
                ended, more = self._ended_now(), self.leases.telling
            self._tell(ended)
        with self._pep._lock:
            self._tidy()
            return self.leases.untold(self._pep._page.revision)

    def recheck(self) -> None:
        """Everything changed: ask about every lease again, before anybody goes on."""
        with self._pep._lock:
            self._recheck()
        self._look()
        self._wake.set()

    def close(self) -> None:
        """Hold nothing any more: nobody is told, as whoever closes it knows."""
        self.tell()
        for lease, _ in list(self._held.values()):
            lease.close()
        self.tell()
        self._wake.set()

    def forget(self) -> None:
        """In a forked child: nothing is held here."""
        for lease, _ in list(self._held.values()):
            lease._forget()

    # ---- under the lock ----

    def _tidy(self) -> None:
        """Take those out of the book whose holders have stopped."""
        while self._stopped:
            self.leases.given_up(self._stopped.popleft(), self._me)

    def _ended_now(self) -> list[Ended]:
        """Some of those that ended, and are to be told."""
        self._tidy()
        return [(booked, self._held.pop(booked.number, None)) for booked in self.leases.to_tell(SLICE)]

    def rechecked(self, r: Reply, asked_ns: int) -> None:
        """The policies were asked about a lease again."""
        self._pep._told(r.to.lease.key, r.body, asked_ns)
        self.tenure.rechecked(r, *clocks())

    def _recheck(self) -> None:
        self._seen = self._pep._page.revision
        self.leases.recheck()

    def _arm(self) -> None:
        """See to it that the thread looks in time."""
        due = self.leases.next_due()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pepcore-leases", daemon=True)
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                raise
        elif due is not None and due < self._planned:
            self._wake.set()

    def _ended(self, lease: Booked) -> None:
        if self._pep._recording is not None:
            self._pep._recording.note(entries.LeaseEnd, lease=lease.number, cause=lease.cause.name.lower())

    def _look_once(self) -> int | None:
        """Ask about some of what is due; when there is more to do, None: nothing is held."""
        pep, leases = self._pep, self.leases
        now, wall = pep._clocks()
        self._tidy()
        if not pep._page.untouched(_TIMED, self._seen):
            self._recheck()
        self.tenure.look(now, wall, ASKED)
        pep._settled(now, wall)
        if not len(leases) and not leases.telling:
            return None
        due = leases.next_due()
        self._planned = now + LOOK_NS if due is None else min(due, now + LOOK_NS)
        return self._planned

    # ---- with no lock ----

    def _look(self) -> int | None:
        """Ask about all that is due, tell who lost his lease; when there is more to do, None: nothing is held."""
        while True:
            with self._pep._lock:
                at = self._look_once()
            self.tell()
            if at is None or at > clocks()[0]:
                return at
            time.sleep(PAUSE_S)

    def _tell(self, ended: list[Ended]) -> None:
        for booked, held in ended:
            stopped = partial(self._stopped.append, booked.number)
            if held is not None and held[0]._end(booked.cause.name.lower(), booked.reason):
                held[0]._tell(self, stopped)
            else:  # given up at the same time
                stopped()

    def _run(self) -> None:
        while True:
            try:
                at = self._look()
                left = IDLE_S if at is None else max(0, at - clocks()[0]) / 1e9
            except Exception:  # what is held ends when its time is over, whatever becomes of this thread
                _log.exception("the thread that looks after leases failed")
                at, left = 0, AGAIN_S
            woken = self._wake.wait(left)
            self._wake.clear()
            if at is None and self._leave(woken):
                return

    def _leave(self, woken: bool) -> bool:
        """End the thread where nothing is held, unless somebody came meanwhile."""
        with self._pep._lock:
            if len(self.leases) or (woken and not self._pep._closed):
                return False
            self._thread = None
            return True
