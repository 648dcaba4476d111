"""How a thread waits for a connection and for other threads at once.

Promises: a poke that comes before the wait, or during it, ends it; one that comes after the end does nothing.
Never: waits by `select`, which takes no descriptor above 1023.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading

from .link import Link, now


class Wake:
    """A pipe that is there from `open` to `close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read = self._write = -1

    def open(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def close(self) -> None:
        with self._lock:
            for fd in (self._read, self._write):
                if fd >= 0:
                    os.close(fd)
            self._read = self._write = -1

    def poke(self) -> None:
        """End the wait, from any thread."""
        with self._lock:
            if self._write >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._write, b"\0")

    def wait(self, link: Link | None, until: float) -> bool:
        """Wait until then (`link.now`), for a poke, or for the connection; whether it can be read from."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if link is not None:
            poll.register(link, select.POLLIN | (select.POLLOUT if link.unsent else 0))
        ready = dict(poll.poll(max(0.0, until - now()) * 1000 + 1))
        if self._read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)
        return link is not None and bool(ready.get(link.fileno(), 0) & ~select.POLLOUT)

    def forget(self) -> None:
        """In a forked child: another thread of the parent may have been in the middle of a poke."""
        self._lock = threading.Lock()
        self.close()
