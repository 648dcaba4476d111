"""A lease: a permit that is held, and that says when it ends.

    with pep.lease("Agent::x", "use", "Session::7", on_end=stop) as lease:
        while lease: ...

Promises: `bool(lease)` is False from the moment that its end is known in this process, and once nothing was heard of
the daemon for a whole grace, even where no thread of ours ran meanwhile; `on_end(lease)` is called once, from another
thread, and never for a lease that was not permitted or was given up by its own `close`; the daemon is told that the
holder has stopped when `on_end` has returned.
Never: raises for a deny or a fault: `lease.verdict` says why.

INVARIANT: a lease is asked for, then held, then ended, or ended at once, and each step is taken by one thread only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from pepcore.core.verdict import Verdict, deny
from pepcore.errors import Fault

from .calls import Calls


class Holds(Protocol):
    """Who holds leases: of a client (`holding.py`), or of a PEP in this process."""

    calls: Calls

    def sure(self, lease: Lease) -> bool:
        """Whether it is held, as far as is known by now."""

    def give_up(self, lease: Lease) -> None:
        """It is not held any more."""


OnEnd = Callable[["Lease"], object]
_ASKED, _HELD, _ENDED = range(3)


class Lease:
    """As `client.lease` makes it. Once it ended, `cause` is revoked, blocked, denied, ended, over or lost."""

    def __init__(
        self, holder: Holds | None, question: bytes, tail: tuple[int, bytes], on_end: OnEnd | None = None
    ) -> None:
        self.verdict = Verdict()
        self.cause = self.reason = ""
        self.number = 0
        self._question, self._tail = question, tail
        self._sure_until = 0.0
        self._holder, self._on_end = holder, on_end
        self._state = _ASKED
        self._step = threading.Lock()
        self._ended = threading.Event()

    def __bool__(self) -> bool:
        return self._state == _HELD and self._holder is not None and self._holder.sure(self)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; False: it is still held after so many seconds."""
        return self._state != _HELD or self._ended.wait(seconds)

    def close(self) -> None:
        """Give it up: what it was held for is done. `on_end` is not called."""
        if self._end("", "") and self._holder is not None:
            self._holder.give_up(self)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for the answer."""
        return self._state == _ASKED

    # ---- steps, taken by the thread that holds it ----

    def _hold(self, number: int, verdict: Verdict) -> bool:
        """It is permitted, or permitted again; False: nobody wants it any more."""
        with self._step:
            if self._state == _ENDED:
                return False
            self.number, self.verdict, self._sure_until = number, verdict, 0.0
            self._state = _HELD
            return True

    def _refuse(self, verdict: Verdict) -> None:
        """It was not permitted."""
        with self._step:
            if self._state == _ASKED:
                self.verdict, self._state = verdict, _ENDED

    def _abandon(self) -> bool:
        """Nobody waits for it any more; False: it was answered already."""
        with self._step:
            if self._state != _ASKED:
                return False
            self._state = _ENDED
            return True

    def _end(self, cause: str, reason: str) -> bool:
        """It is not held any more; False: it was not held before."""
        with self._step:
            if self._state != _HELD:
                return False
            self.cause, self.reason, self._state = cause, reason, _ENDED
        self._ended.set()
        return True

    def _tell(self, holder: Holds, stopped: Callable[[], None]) -> None:
        """Tell the caller that it has ended; `stopped` says that he knows."""
        if self._on_end is None:
            stopped()
        else:
            holder.calls.put(self._on_end, self, stopped)

    def _forget(self) -> None:
        """In a forked child: it is not held here. A thread of the parent may have been in the middle of a step."""
        self._step, self._state = threading.Lock(), _ENDED
        self._ended = threading.Event()
        self._ended.set()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "held" if self else f"ended: {self.cause} {self.reason!r}" if self.cause else "not held"
        return f"<Lease {self.number} {state}>"


def refused(fault: Fault) -> Lease:
    """A lease that was never held, and why."""
    lease = Lease(None, b"", (0, b""))
    lease._refuse(deny(fault))
    return lease
