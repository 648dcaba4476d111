"""A policy set, built in this process and off the loop.

Promises: the loop goes on meanwhile; a set that cannot be built is None, since a worker meets the same error and says
what it is. Never: waited for at the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from ..core.obligation import check
from ..pdp.cedar import Cedar
from ..pdp.cedar_source import Source, build

T = TypeVar("T")


def built(source: Source) -> asyncio.Future[Cedar | None]:
    """The set, built by a thread that nobody waits for at the end; None where it cannot be (a worker says why)."""

    def attempt() -> Cedar | None:
        try:
            return build(source, check)
        except Exception:  # the worker meets it too, and its answer says so
            return None

    return apart(attempt)


def apart(call: Callable[[], T]) -> asyncio.Future[T]:
    """What a call returns or raises, from a thread that nobody waits for at the end: it may hang in a file."""
    loop = asyncio.get_running_loop()
    said: asyncio.Future[T] = loop.create_future()

    def tell(value: T | None, error: Exception | None) -> None:
        if said.done():
            return
        if error is not None:
            said.set_exception(error)
        else:
            said.set_result(value)  # type: ignore[arg-type]

    def attempt() -> None:
        value, failed = None, None
        try:
            value = call()
        except Exception as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, value, failed)

    threading.Thread(target=attempt, daemon=True, name="pepcore-apart").start()
    return said
