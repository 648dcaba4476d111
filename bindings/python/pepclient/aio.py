"""The client of the daemon for asyncio: one connection, many questions in flight.

Promises: as `client.py`: no call raises for a deny, a fault or a malformed question; one deadline bounds a call; a
kept connection that proves dead is replaced once. A cancelled call ends alone. An answer is kept in this process as the
daemon allows, under its page.
Never: blocks the loop; keeps an answer without a page; shares a connection between two event loops or two processes.
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from pepcore.core.forks import number as fork_number
from pepcore.core.verdict import Verdict, deny, read
from pepcore.errors import Fault, Unreachable

from . import frames, trace
from .aioadmin import AsyncAdministration
from .aioleases import Asking, AsyncLease, OnAsyncEnd, ask, refused
from .batch import Batch, boottime_ns
from .channel import Channel, dial
from .frames import Request
from .guard import Guarding, enforced
from .kept import nobody, table, under
from .place import absent
from .questions import (
    ActionLike,
    Context,
    EntityLike,
    MinRevision,
    NotAfter,
    QuestionLike,
    Semantic,
    canonical,
    ends,
    unreadable,
)
from .settings import Settings
from .stream import Lost

if TYPE_CHECKING:
    from .holding import Holder

T = TypeVar("T")


class AsyncClient(AsyncAdministration, Guarding):
    """A connection to the daemon, as `pepcore.aconnect` makes it. Nothing is opened before the first question."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        deadline: float = 0.2,
        point: str | None = None,
        handles: Collection[str] = (),
    ) -> None:
        super().__init__(Settings(path, deadline, point, handles))
        self._channel: Channel | None = None
        self._kept = table(None)
        self._sharing: Channel | None = None
        self._life = fork_number()
        self._holder: Holder | None = None
        self._closed = False
        self._frame_limit, self._many_limit = frames.FRAME_LIMIT, frames.MANY
        _clients.add(self)

    async def check(
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
        """Whether `subject` may do `action` on `resource`. The answer is `bool(verdict)`; it never raises."""
        chain = tuple(on_behalf_of) if isinstance(on_behalf_of, list) else on_behalf_of
        bare = not_after is None and min_revision is None
        if bare and (kept := self._kept.look(subject, action, resource, context, chain)) is not None:
            return kept
        asked = dict(context) if isinstance(context, dict) else context  # the caller may change its own meanwhile
        verdict = await self._miss(subject, action, resource, asked, chain, not_after, min_revision)
        if bare:
            self._kept.put(subject, action, resource, asked, verdict, chain)
        return verdict

    async def _miss(
        self, subject: Any, action: Any, resource: Any, context: Any, on_behalf_of: Any, not_after: Any, least: Any
    ) -> Verdict:
        handles = self._settings.handles
        try:
            question = canonical(subject, action, resource, context, on_behalf_of)
            tail = frames.tail(not_after, least, trace.current())
            request = Request(frames.CHECK, question, *tail, b"", frames.VERDICT_LIMIT)
            now = boottime_ns()
            return await self._ask(request, self._until(), lambda body: read(body, handles, now))
        except Fault as fault:
            return deny(fault)

    async def check_many(self, questions: Iterable[QuestionLike], semantic: Semantic = "execute_all") -> list[Verdict]:
        """Ask many at once. See `pepclient.Client.check_many`."""
        try:
            batch = Batch(questions, semantic, self._frame_limit)
        except Exception as error:
            return [deny(unreadable(error))]
        until = self._until()
        verdicts: list[Verdict] = []
        try:
            limits, tail = (self._frame_limit, self._many_limit), frames.tail(None, None, trace.current())
            for count, request in frames.chunks(batch.send, *tail, batch.semantic, *limits):
                verdicts += await self._ask(request, until, batch.reader(count, self._settings.handles))
                if ends(batch.semantic, verdicts[-1].permit):
                    break
        except Fault as fault:
            return batch.failed(fault, verdicts)
        return batch.finish(verdicts)

    async def enforce(
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
            await self.check(
                subject, action, resource, context,
                on_behalf_of=on_behalf_of, not_after=not_after, min_revision=min_revision,
            )
        )  # fmt: skip

    def _checks(self) -> tuple[None, Callable[..., Awaitable[Verdict]]]:
        return None, self.check

    async def stats(self) -> dict[str, Any]:
        """The daemon's counters. Raises Fault."""
        return await self._ask(Request(frames.STATS), self._until(), frames.plain)

    async def explain(
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
        question = canonical(subject, action, resource, context, on_behalf_of)
        return await self._ask(
            Request(frames.EXPLAIN, question, *frames.tail(not_after, min_revision)), self._until(), frames.plain
        )

    def lease(
        self,
        subject: EntityLike,
        action: ActionLike,
        resource: EntityLike,
        context: Context | None = None,
        *,
        on_behalf_of: Sequence[EntityLike] = (),
        not_after: NotAfter | None = None,
        on_end: OnAsyncEnd | None = None,
    ) -> Asking:
        """A permit that is held: `async with pep.lease(...) as lease`, or `lease = await pep.lease(...)`.

        See `pepclient.Client.lease`. `on_end(lease)` may be a coroutine function; it runs in this event loop.
        """
        asked = dict(context) if isinstance(context, dict) else context  # the caller may change its own meanwhile
        return Asking(lambda: self._lease(subject, action, resource, asked, on_behalf_of, not_after, on_end))

    async def _lease(
        self, subject: Any, action: Any, resource: Any, context: Any, on_behalf_of: Any, not_after: Any, on_end: Any
    ) -> AsyncLease:
        from .holding import Holder  # a thread and what it needs, for those who hold something

        try:
            question = canonical(subject, action, resource, context, on_behalf_of)
            tail = frames.tail(not_after, None, trace.current())
            if self._closed:
                raise Unreachable("", "this client was closed")
        except Fault as fault:
            return refused(fault)
        if self._holder is None:
            self._holder = Holder(self._settings)
        return await ask(self._holder, question, tail, on_end, self._settings.deadline)

    async def close(self) -> None:
        """Close the connection. What waits for it, and what is asked afterwards, is a deny."""
        self._closed = True
        self._kept.renew(nobody())
        if self._holder is not None:
            self._holder.close()
        if self._channel is not None:
            self._channel.end(Unreachable("", "this client was closed"))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def _until(self) -> float:
        return time.monotonic() + self._settings.deadline

    async def _ask(self, request: Request, until: float, parse: Callable[[bytes], T]) -> T:
        """Send a request on the connection there is, or a new one. Raises Fault, and nothing else but cancellation."""
        request = frames.fitting(request, self._frame_limit)
        try:
            channel, kept = await self._connected(until)
            try:
                return await self._exchange(channel, request, until, parse)
            except Lost:
                if not kept:
                    raise
            channel, _ = await self._connected(until)
            return await self._exchange(channel, request, until, parse)
        except Lost as lost:
            raise Unreachable("", f"the daemon at `{self._settings.path}` hung up: {lost}") from None
        except OSError as error:
            raise absent(self._settings.path, error) from None
        except (MemoryError, RecursionError) as error:
            raise Unreachable("", f"the reply cannot be read: {error!r}") from None

    async def _connected(self, until: float) -> tuple[Channel, bool]:
        """A channel of this event loop, and whether it was there before."""
        if self._closed:
            raise Unreachable("", "this client was closed")
        if self._life != fork_number():  # somebody else than Python forked us
            self._forked()
        loop = asyncio.get_running_loop()
        channel = self._channel
        if channel is not None and channel.loop is not loop and not channel.loop.is_closed():
            raise Unreachable("", "this client belongs to another event loop: make one for each")
        if channel is not None and channel.loop is loop and not channel.retired:
            return channel, channel.answered
        if channel is not None and channel.loop is not loop:
            channel.close()  # its loop has ended
        sock = await dial(self._settings.path, until)
        channel = self._channel
        if channel is not None and channel.loop is loop and not channel.retired:
            sock.close()  # another task was faster while the backlog was full
            return channel, channel.answered
        try:
            self._channel = channel = Channel(sock, self._settings.path, self._settings.hello_for_page)
        except BaseException:
            sock.close()
            raise
        return channel, False

    async def _exchange(self, channel: Channel, request: Request, until: float, parse: Callable[[bytes], T]) -> T:
        reply = await channel.ask(request, until)
        self._frame_limit, self._many_limit = channel.frame_limit, channel.many_limit
        if (found := channel.take_shared()) is not None:
            channel.on_close = partial(self._closed_with, channel)
            self._sharing = channel
            under(self._kept, found)
        if isinstance(reply, Fault):
            raise reply
        try:
            return parse(reply)
        except Fault:
            channel.broken()
            raise

    def _closed_with(self, channel: Channel) -> None:
        """What is kept hangs on the connection over which the daemon shares its page."""
        if self._sharing is channel:
            self._sharing = None
            self._kept.renew(nobody())

    def _forked(self) -> None:
        self._life = fork_number()
        if self._channel is not None:
            self._channel.forget()
            self._channel = None


_clients: weakref.WeakSet[AsyncClient] = weakref.WeakSet()


def _forked() -> None:
    for client in list(_clients):
        client._forked()


os.register_at_fork(after_in_child=_forked)
