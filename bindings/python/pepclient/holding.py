"""Who holds the leases of a client: one connection, and one thread that alone touches it, made for the first lease.

Promises: a lease that the daemon ends is ended here as soon as the frame is read; one whose daemon is lost, stopped or
silent is ended when its grace is over, unless another daemon (or the same again) permits it afresh before; no caller
waits for the daemon longer than its own deadline, whatever the thread is doing; what `on_end` does keeps up nobody but
the next `on_end`.
Never: believes that it holds what nobody told it for a whole grace; holds anything in a forked child.

INVARIANT: a lease that is held is in `_link.held` under its number there, or in `_adrift` (its daemon is lost).
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from pepcore.core.forks import number as fork_number
from pepcore.core.verdict import Verdict, deny
from pepcore.errors import DeadlinePassed, Draining, Fault, Overloaded, Stale, Unreachable

from .calls import Calls
from .link import Answered, Asked, Ended, Link, now
from .settings import Settings
from .wake import Wake

if TYPE_CHECKING:
    from .leases import Lease

AT_ONCE = 256
"""Leases that are asked for afresh at one time: the daemon lets only so many questions of one peer wait."""
AGAIN_S = 0.02
"""Until a daemon is looked for again, or asked again where it had no room."""
IDLE_S = 10.0
"""How long the thread and the connection stay where nothing is held."""
_UNDECIDED = frozenset({DeadlinePassed.code, Draining.code, Overloaded.code, Stale.code})
CLOSED = "this client was closed"
_log = logging.getLogger("pepclient")


class Holder:
    """Holds leases for one client. It costs nothing before the first is asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clear()
        _all.add(self)

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._wanted: deque[Asked] = deque()
        self._given_up: deque[Lease] = deque()
        self._told: deque[tuple[Link, int]] = deque()
        self._link: Link | None = None
        self._adrift: dict[Lease, None] = {}
        self._afresh: deque[Lease] = deque()
        self._sure_until = 0.0
        self._again_at = 0.0
        self._used_at = 0.0
        self._wake = Wake()
        self._thread: threading.Thread | None = None
        self.calls = Calls()
        self._life = fork_number()
        self._closed = False

    # ---- what callers do ----

    def ask(self, lease: Lease, until: float) -> Lease:
        """Ask for a lease, and wait for the verdict until then (`link.now`). Raises Fault."""
        answered = threading.Event()
        self.ask_soon(Asked(lease, until, answered.set))
        if not answered.wait(max(0.0, until - now())) and lease._abandon():
            raise DeadlinePassed("deadline", "no answer came in time")
        return lease

    def ask_soon(self, asked: Asked) -> None:
        """Ask for a lease. Raises Unreachable where this holder was closed."""
        if self._life != fork_number():  # somebody else than Python forked us: the thread is our parent's
            self.forget()
        with self._lock:
            if self._closed:
                raise Unreachable("", CLOSED)
            self._wanted.append(asked)
            if self._thread is None:
                self._wake.open()
                self._used_at = now()
                self._thread = threading.Thread(target=self._run, name="pepcore-leases", daemon=True)
                self._thread.start()
        self._wake.poke()

    def give_up(self, lease: Lease) -> None:
        """A lease is not held any more: say so to the daemon."""
        self._given_up.append(lease)
        self._wake.poke()

    def sure(self, lease: Lease) -> bool:
        """Whether the daemon was heard of within the grace, as far as this lease goes, and by this process."""
        return now() < (lease._sure_until or self._sure_until) and fork_number() == self._life

    def close(self) -> None:
        """Hold nothing any more. The daemon sees the connection end."""
        with self._lock:
            self._closed = True
        for lease in [*self._adrift.copy(), *(self._link.held.copy().values() if self._link else ())]:
            lease._end("", "")
        self._wake.poke()

    def forget(self) -> None:
        """In a forked child: nothing is held here, and our copies of the parent's descriptors are closed."""
        link, closed = self._link, self._closed
        for lease in [*self._adrift, *(link.held.values() if link else ())]:
            lease._forget()
        self._wake.forget()
        if link is not None:
            link.close()
        self._clear()
        self._closed = closed

    # ---- the thread ----

    def _run(self) -> None:
        going = True
        while going:
            try:
                going = self._turn()
            except Exception:  # whatever it is: what is held may not be held by a thread that does not work
                _log.exception("the thread that holds leases failed")
                self._drop("the client failed")
                self._lose(float("inf"), "the client failed")
                time.sleep(AGAIN_S)

    def _turn(self) -> bool:
        """Send what is to be sent, wait for what comes; False: the thread is not needed any more."""
        at = now()
        self._stop()
        if self._link is not None and self._link.used and at >= self._link.sure_until:
            self._drop("the daemon does not answer")
        self._lose(at, "the daemon is gone")
        if self._link is None and (self._wanted or self._adrift) and at >= self._again_at and not self._closed:
            self._connect(at)
        if self._link is not None and not self._closed:
            self._send(self._link, at)
        link = self._link
        if self._wanted or self._adrift or (link is not None and link.used):
            self._used_at = at
        if (self._closed or at >= self._used_at + IDLE_S) and self._leave():
            return False
        if self._wait(link) and link is not None:
            found, broken = link.read()
            self._sure_until = link.sure_until
            for one in found:
                self._take(link, one)
            if broken:
                self._drop(broken)
        return True

    def _stop(self) -> None:
        """Forget what callers gave up, and confirm what they were told."""
        link = self._link
        while self._given_up:
            lease = self._given_up.popleft()
            self._adrift.pop(lease, None)
            if link is not None and link.held.get(lease.number) is lease:
                del link.held[lease.number]
                link.end(lease.number)
        while self._told:
            on, number = self._told.popleft()
            if on is link and link is not None:
                link.end(number)

    def _lose(self, at: float, why: str) -> None:
        """End what is adrift for its whole grace."""
        for lease in [lease for lease in self._adrift if lease._sure_until <= at]:
            del self._adrift[lease]
            self._end(lease, "lost", why, _nothing)

    def _connect(self, at: float) -> None:
        """Look for a daemon, as long as what waits for it has."""
        waiting = list(self._wanted.copy())
        until = [max(asked.until for asked in waiting)] if waiting else []
        try:
            self._link = Link(self._settings, min([*until, *(lease._sure_until for lease in self._adrift)]))
        except Fault as fault:
            self._again_at = now() + AGAIN_S
            for _ in waiting:
                _refuse(self._wanted.popleft(), fault)
            return
        self._afresh = deque(self._adrift)

    def _send(self, link: Link, at: float) -> None:
        """Ask for what is wanted, also afresh; ask whether the daemon is there."""
        while self._wanted:
            asked = self._wanted.popleft()
            if asked.lease.wanted:
                self._ask(link, asked)
        while self._afresh and link.asking < AT_ONCE and at >= self._again_at:
            lease = self._afresh.popleft()
            if lease in self._adrift:
                self._ask(link, Asked(lease, lease._sure_until, _nothing))
        if link.used and at >= link.ping_at:
            link.ping()
        link.flush()

    def _ask(self, link: Link, asked: Asked) -> None:
        try:
            link.ask(asked)
            self._sure_until = link.sure_until
        except Fault as fault:
            self._refused(asked, deny(fault))

    def _take(self, link: Link, one: Ended | Answered) -> None:
        if isinstance(one, Ended):
            self._end(one.lease, one.cause, one.reason, lambda: self._confirm(link, one.number))
            return
        lease, verdict = one.asked.lease, one.verdict
        if not verdict:
            self._refused(one.asked, verdict)
            return
        self._adrift.pop(lease, None)
        if not lease._hold(verdict.number, verdict):  # nobody wants it any more
            link.held.pop(verdict.number, None)
            link.end(verdict.number)
        one.asked.answered()

    def _refused(self, asked: Asked, verdict: Verdict) -> None:
        lease = asked.lease
        if lease not in self._adrift:
            lease._refuse(verdict)
            asked.answered()
        elif verdict.fault in _UNDECIDED:
            self._afresh.append(lease)
            self._again_at = now() + AGAIN_S
        else:
            del self._adrift[lease]
            why = verdict.error or verdict.reason or "no policy permits it any more"
            self._end(lease, "denied", why, _nothing)

    def _end(self, lease: Lease, cause: str, reason: str, stopped: Callable[[], None]) -> None:
        if lease._end(cause, reason):
            lease._tell(self, stopped)

    def _confirm(self, link: Link, number: int) -> None:
        """Whoever was told of the end of a lease has stopped: the daemon is to know."""
        self._told.append((link, number))
        self._wake.poke()

    def _drop(self, why: str) -> None:
        """The connection is lost: what is held goes on for the grace."""
        link, self._link = self._link, None
        if link is None:
            return
        for lease in link.held.values():
            lease._sure_until = link.sure_until
            self._adrift[lease] = None
        for asked in link.close():
            if asked.lease not in self._adrift:
                _refuse(asked, Unreachable("", why))

    def _leave(self) -> bool:
        """End the thread and what it has, unless somebody has come meanwhile."""
        with self._lock:  # whoever asks next makes a thread anew: until then all that it would touch is ours
            if self._wanted and not self._closed:
                return False
            self._drop(CLOSED)
            for lease in self._adrift:
                lease._end("", "")
            self._adrift.clear()
            while self._wanted:
                _refuse(self._wanted.popleft(), Unreachable("", CLOSED))
            self._thread = None
            self._wake.close()
        return True

    def _wait(self, link: Link | None) -> bool:
        """Wait until something has to be done; whether the connection can be read from."""
        at = self._used_at + IDLE_S
        if link is not None and link.used:
            at = min(at, link.ping_at, link.sure_until)
        if self._adrift:
            at = min(at, *(lease._sure_until for lease in self._adrift))
        if self._afresh or (link is None and (self._adrift or self._wanted)):
            at = min(at, self._again_at)
        return self._wake.wait(link, at)


def _nothing() -> None:
    """What is done where nobody waits for it."""


def _refuse(asked: Asked, fault: Fault) -> None:
    asked.lease._refuse(deny(fault))
    asked.answered()


_all: weakref.WeakSet[Holder] = weakref.WeakSet()


def _forked() -> None:
    for holder in list(_all):
        holder.forget()


os.register_at_fork(after_in_child=_forked)
