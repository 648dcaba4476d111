"""The caller's trace, carried to the daemon's record: `with traced(request.headers["traceparent"]): ...`.

Promises: what is asked within carries the trace (W3C Trace Context, version 00), in this thread or task and in those
that take over its context; one that is malformed is ignored: nothing is raised, and what is asked within carries none,
not that of an outer `with` either. A trace never changes a decision.
Never: makes a trace of its own; sends one where the answer comes from this process (nobody is asked then).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_current: ContextVar[bytes] = ContextVar("pepclient-trace", default=b"")
_form = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)


def parse(traceparent: Any) -> bytes:
    """Trace id, span id and flags as the wire carries them; b"" where it is not a traceparent of version 00."""
    match = _form.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return bytes.fromhex("".join(match.groups())) if match else b""


@contextmanager
def traced(traceparent: str | None) -> Iterator[None]:
    """What is asked within carries this trace; None or one that is malformed: none."""
    token = _current.set(parse(traceparent))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> bytes:
    """The trace of what is asked now; b"": there is none."""
    return _current.get()
