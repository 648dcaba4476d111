"""The client of the daemon, blocking: one instance for a whole process, from any thread.

Promises: `check`, `check_many` never raise for a deny, a fault or a malformed question: the verdict says what is
wrong. One deadline bounds a call. A kept connection that proves dead is replaced once, within that deadline.
An answer is kept in this process as the daemon allows, under its page: `check` is the compiled method of that table.
Never: keeps an answer without a page; shares a connection between two requests in flight or between
two processes; imports an event loop.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from pepcore.core.verdict import Verdict, deny, read
from pepcore.errors import Fault, Unreachable

from . import frames, trace
from .administration import Administration
from .batch import Batch, boottime_ns
from .frames import Request
from .guard import Guards
from .kept import nobody, table, under
from .leases import Lease, OnEnd, refused
from .mapped import Shared
from .place import absent
from .pool import Pool
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
from .stream import Lost, Stream

if TYPE_CHECKING:
    from .holding import Holder

T = TypeVar("T")
SHARE_AGAIN_S = 0.1
"""Between two tries to have a page again, where the connection that it hung on is lost and others are in order."""
_making = threading.Lock()
os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


class Client(Administration, Guards):
    """A connection to the daemon, as `pepcore.connect` makes it. Nothing is opened before the first question."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        deadline: float = 0.2,
        point: str | None = None,
        handles: Collection[str] = (),
    ) -> None:
        super().__init__(Settings(path, deadline, point, handles))
        self._pool = Pool()
        self._holder: Holder | None = None
        self._kept = table(self._miss)
        self._sharing: Stream | None = None
        self._share_at = float("inf")
        self.check = self._kept.check
        self._frame_limit, self._many_limit = frames.FRAME_LIMIT, frames.MANY

    def _miss(
        self, subject: Any, action: Any, resource: Any, context: Any, on_behalf_of: Any, not_after: Any, least: Any
    ) -> Verdict:
        """What the table does not answer. Never raises but for interrupts."""
        handles = self._settings.handles
        try:
            question = canonical(subject, action, resource, context, on_behalf_of)
            tail = frames.tail(not_after, least, trace.current())
            request = Request(frames.CHECK, question, *tail, b"", frames.VERDICT_LIMIT)
            now = boottime_ns()
            return self._ask(request, self._until(), lambda body: read(body, handles, now))
        except Fault as fault:
            return deny(fault)

    def check_many(self, questions: Iterable[QuestionLike], semantic: Semantic = "execute_all") -> list[Verdict]:
        """Ask many at once: tuples (subject, action, resource[, context]) or AuthZEN dicts. It never raises.

        With `deny_on_first_deny` and `permit_on_first_permit` the list ends with the answer that ended it. A batch
        is not a snapshot: a revoke may fall between two of its answers.
        """
        try:
            batch = Batch(questions, semantic, self._frame_limit)
        except Exception as error:
            return [deny(unreadable(error))]
        until = self._until()
        verdicts: list[Verdict] = []
        try:
            limits, tail = (self._frame_limit, self._many_limit), frames.tail(None, None, trace.current())
            for count, request in frames.chunks(batch.send, *tail, batch.semantic, *limits):
                verdicts += self._ask(request, until, batch.reader(count, self._settings.handles))
                if ends(batch.semantic, verdicts[-1].permit):
                    break
        except Fault as fault:
            return batch.failed(fault, verdicts)
        return batch.finish(verdicts)

    async def _check_beside(self, **question: Any) -> Verdict:
        from asyncio import to_thread  # whoever awaits this has imported it

        return await to_thread(self.check, **question)

    def lease(
        self,
        subject: EntityLike,
        action: ActionLike,
        resource: EntityLike,
        context: Context | None = None,
        *,
        on_behalf_of: Sequence[EntityLike] = (),
        not_after: NotAfter | None = None,
        on_end: OnEnd | None = None,
    ) -> Lease:
        """A permit that is held until it is given up, revoked, blocked, or permitted no more. It never raises.

        `bool(lease)` says whether it is held; `on_end(lease)` is called from another thread when it ended.
        Without a daemon it ends after the grace (1 s unless configured), unless one that is there again permits it.
        """
        try:
            question = canonical(subject, action, resource, context, on_behalf_of)
            if self._pool.closed:
                raise Unreachable("", "this client was closed")
            holder = self._holder_of_leases()
            tail = frames.tail(not_after, None, trace.current())
            lease = Lease(holder, question, tail, on_end)
            return holder.ask(lease, boottime_ns() / 1e9 + self._settings.deadline)
        except Fault as fault:
            return refused(fault)

    def _holder_of_leases(self) -> Holder:
        from .holding import Holder  # a thread and what it needs, for those who hold something

        with _making:
            if self._holder is None:
                self._holder = Holder(self._settings)
            return self._holder

    def stats(self) -> dict[str, Any]:
        """The daemon's counters. Raises Fault."""
        return self._ask(Request(frames.STATS), self._until(), frames.plain)

    def ping(self) -> float:
        """Seconds that one round trip to the daemon takes, without a question. Raises Fault."""
        began = time.perf_counter()
        self._ask(Request(frames.PING), self._until(), bytes)
        return time.perf_counter() - began

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
        question = canonical(subject, action, resource, context, on_behalf_of)
        return self._ask(
            Request(frames.EXPLAIN, question, *frames.tail(not_after, min_revision)), self._until(), frames.plain
        )

    def close(self) -> None:
        """Close the connections. What is asked afterwards is a deny."""
        self._pool.close()
        self._kept.renew(nobody())
        if self._holder is not None:
            self._holder.close()
        if self._admin is not None:
            self._admin.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _until(self) -> float:
        return time.monotonic() + self._settings.deadline

    def _ask(self, request: Request, until: float, parse: Callable[[bytes], T]) -> T:
        """Send a request on a kept connection or a new one. Raises Fault, and nothing else but interrupts."""
        request = frames.fitting(request, self._frame_limit)
        try:
            stream = self._pool.take()
            if stream is not None and self._sharing is None and time.monotonic() >= self._share_at:
                self._share_at = time.monotonic() + SHARE_AGAIN_S
                self._pool.drop(stream)  # only a welcome brings a page: a new connection takes the place of this one
            elif stream is not None:
                try:
                    return self._exchange(stream, request, until, parse)
                except Lost:
                    self._pool.clear()
            if self._pool.closed:
                raise Unreachable("", "this client was closed")
            hello = self._settings.hello_for_page if self._sharing is None else self._settings.hello
            stream = Stream(self._settings.path, hello, until)
            self._pool.opened(stream)
            return self._exchange(stream, request, until, parse)
        except Lost as lost:
            raise Unreachable("", f"the daemon at `{self._settings.path}` hung up: {lost}") from None
        except OSError as error:
            raise absent(self._settings.path, error) from None
        except (MemoryError, RecursionError) as error:
            raise Unreachable("", f"the reply cannot be read: {error!r}") from None

    def _share(self, stream: Stream, found: Shared) -> None:
        """Keep answers under this page as long as this connection lasts."""

        def closed() -> None:
            if self._sharing is stream:
                self._sharing, self._share_at = None, 0.0
                self._kept.renew(nobody())

        self._sharing, self._share_at, stream.on_close = stream, float("inf"), closed
        under(self._kept, found)

    def _exchange(self, stream: Stream, request: Request, until: float, parse: Callable[[bytes], T]) -> T:
        try:
            reply = stream.exchange(request, until)
            result = reply if isinstance(reply, Fault) else parse(reply)
        except BaseException:
            self._pool.drop(stream)  # whatever it was: what comes late must not answer the next question
            raise
        finally:
            if stream.greeted:  # also by one that hung up then, as over a frame that it does not take
                self._frame_limit, self._many_limit = stream.frame_limit, stream.many_limit
                if (found := stream.take_shared()) is not None:
                    self._share(stream, found)
        self._pool.give(stream)
        if isinstance(result, Fault):
            raise result
        return result
