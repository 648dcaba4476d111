"""Leases for asyncio: the same holder and its thread underneath, everything of the caller in his event loop.

    async with pep.lease("Agent::x", "use", "Session::7", on_end=stop) as lease:
        while lease: ...

Promises: as `leases.py`; `on_end(lease)`, a plain or a coroutine function, is called once, in the event loop that
asked; the daemon is told that the holder has stopped when it is done; a call that is cancelled leaves nothing held.
Never: blocks the event loop; raises in the thread of the holder where the loop has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pepcore.core.verdict import Verdict, deny
from pepcore.errors import DeadlinePassed, Fault

from .leases import Holds, Lease
from .link import Asked, now

if TYPE_CHECKING:
    from .holding import Holder

OnAsyncEnd = Callable[["AsyncLease"], object]
"""May return an awaitable, which is awaited."""


class AsyncLease:
    """As `await client.lease(...)` makes it. Once ended, `cause` is revoked, blocked, denied, ended, over or lost."""

    def __init__(self, held: _Held) -> None:
        self._held = held

    @property
    def verdict(self) -> Verdict:
        """What was said when it was asked for, or last asked for afresh."""
        return self._held.verdict

    @property
    def cause(self) -> str:
        return self._held.cause

    @property
    def reason(self) -> str:
        return self._held.reason

    @property
    def number(self) -> int:
        return self._held.number

    def __bool__(self) -> bool:
        return bool(self._held)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; False: it is still held after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._held.over.wait()
        return self._held.over.is_set()

    async def close(self) -> None:
        """Give it up: what it was held for is done. `on_end` is not called."""
        self._held.close()
        self._held.over.set()

    async def __aenter__(self) -> AsyncLease:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Async{repr(self._held)[1:]}"


class _Held(Lease):
    """What the holder's thread knows of it."""

    def __init__(
        self, holder: Holder | None, question: bytes, tail: tuple[int, bytes], told: OnAsyncEnd | None
    ) -> None:
        super().__init__(holder, question, tail)
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        self.lease = AsyncLease(self)
        self._told = told
        self._running: asyncio.Future[object] | None = None

    def _end(self, cause: str, reason: str) -> bool:
        ended = super()._end(cause, reason)
        if ended:
            soon(self.loop, self.over.set)
        return ended

    def _tell(self, holder: Holds, stopped: Callable[[], None]) -> None:
        if self._told is None or not soon(self.loop, self._call, self._told, stopped):
            stopped()

    def _call(self, told: OnAsyncEnd, stopped: Callable[[], None]) -> None:
        """In the loop: call what the caller has for the end, and wait for it if it takes its time."""
        try:
            result = told(self.lease)
            if inspect.isawaitable(result):
                self._running = asyncio.ensure_future(result)
                self._running.add_done_callback(lambda done: _done(done, stopped))
                return
        except Exception:  # of the caller's own code: the other leases go on
            logging.getLogger("pepclient").exception("`on_end` of a lease failed")
        stopped()


def _done(task: asyncio.Future[object], stopped: Callable[[], None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logging.getLogger("pepclient").error("`on_end` of a lease failed", exc_info=error)
    stopped()


class Asking:
    """A lease that is about to be asked for: await it, or enter it with `async with`. Asked once."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self._lease: AsyncLease | None = None

    def __await__(self) -> Generator[Any, None, AsyncLease]:
        lease: AsyncLease = yield from self._ask().__await__()
        return lease

    async def __aenter__(self) -> AsyncLease:
        self._lease = await self
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._lease is not None:
            await self._lease.close()


async def ask(
    holder: Holder, question: bytes, tail: tuple[int, bytes], told: OnAsyncEnd | None, seconds: float
) -> AsyncLease:
    """Ask for a lease, and wait so long for the verdict."""
    held = _Held(holder, question, tail, told)
    answered = asyncio.Event()
    until = now() + seconds
    try:
        holder.ask_soon(Asked(held, until, lambda: soon(held.loop, answered.set)))
        async with asyncio.timeout(seconds):
            await answered.wait()
    except TimeoutError:
        if held._abandon():
            held.verdict = deny(DeadlinePassed("deadline", "no answer came in time"))
    except Fault as fault:
        held._refuse(deny(fault))
    except BaseException:
        if not held._abandon():
            held.close()
        raise
    if not held:
        held.over.set()
    return held.lease


def refused(fault: Fault) -> AsyncLease:
    """A lease that was never held, and why."""
    held = _Held(None, b"", (0, b""), None)
    held._refuse(deny(fault))
    held.over.set()
    return held.lease


def soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: object) -> bool:
    """Call something in the loop, from any thread; False: it has ended."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        return False
    return True
