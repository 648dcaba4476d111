"""A lease: a permit that is held, and that says when it ends.

    with pep.lease("Agent::x", "use", "Session::7", on_end=stop) as lease:
        while lease: ...

Promises: `bool(lease)` is False from the moment that its end is known in this process; `on_end(lease)` is called once,
from another thread, and never for a lease that was not permitted or was given up by its own `close`.
Never: raises for a deny or a fault: `lease.verdict` says why.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from pepcore.core.verdict import Verdict

if TYPE_CHECKING:
    from .holding import Holder

OnEnd = Callable[["Lease"], object]


class Lease:
    """As `client.lease` makes it. Once it ended, `cause` is revoked, blocked, denied, ended, over or lost."""

    def __init__(self, holder: Holder | None, question: bytes, tail: tuple[int, bytes], on_end: OnEnd | None) -> None:
        self.verdict = Verdict()
        self.cause = self.reason = ""
        self.question, self.tail = question, tail
        self.number = 0
        self.held = self.abandoned = False
        self._holder, self._on_end = holder, on_end
        self._ended = threading.Event()

    def __bool__(self) -> bool:
        return self.held

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; False: it is still held after so many seconds."""
        return not self.held or self._ended.wait(seconds)

    def close(self) -> None:
        """Give it up: what it was held for is done. `on_end` is not called."""
        if self.held and self._holder is not None:
            self.held = False
            self._ended.set()
            self._holder.give_up(self)

    def ended_by(self, cause: str, reason: str) -> None:
        """It was ended by somebody else. Called by the thread that holds it."""
        if not self.held:
            return
        self.cause, self.reason, self.held = cause, reason, False
        self._ended.set()
        if self._on_end is not None:
            try:
                self._on_end(self)
            except Exception:  # of the caller's own code: the other leases of this thread go on
                logging.getLogger("pepclient").exception("`on_end` of a lease failed")

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "held" if self.held else f"ended: {self.cause} {self.reason}" if self.cause else "not held"
        return f"<Lease {self.number} {state}>"
