"""The kept connections of one client.

Promises: a connection is used by one request at a time, the warmest first; after a fork the child has none of them.
Never: takes a lock (a fork in another thread's critical section would leave it held for ever): deques and sets
are changed by single operations that the interpreter makes whole.
"""

from __future__ import annotations

import os
import weakref
from collections import deque

from pepcore.core.forks import number as fork_number

from .stream import Stream

KEPT = 64


class Pool:
    """Idle streams, and all that are open."""

    def __init__(self) -> None:
        self._idle: deque[Stream] = deque()
        self._open: set[Stream] = set()
        self.closed = False
        self._life = fork_number()
        _pools.add(self)

    def take(self) -> Stream | None:
        """The connection that was used last, or None."""
        if self._life != fork_number():  # somebody else than Python forked us: these are our parent's
            self.forget()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def opened(self, stream: Stream) -> None:
        """A stream that was made for a request and may be kept."""
        self._open.add(stream)

    def give(self, stream: Stream) -> None:
        """A stream that is in order comes back."""
        if self.closed or len(self._idle) >= KEPT or stream not in self._open:
            self.drop(stream)
        else:
            self._idle.append(stream)

    def drop(self, stream: Stream) -> None:
        self._open.discard(stream)
        stream.close()

    def clear(self) -> None:
        """Close what is idle: one kept connection turned out to be dead, so the others are, too."""
        while (stream := self.take()) is not None:
            self.drop(stream)

    def close(self) -> None:
        self.closed = True
        self.clear()

    def forget(self) -> None:
        """In a forked child: close our copies of the parent's sockets, also of those in use there."""
        streams, self._open = list(self._open), set()
        self._idle = deque()
        self._life = fork_number()
        for stream in streams:
            stream.close()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forked() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forked)
