"""The thread in which `on_end` of leases is called, one after another.

Promises: what one does keeps up nobody but the next: it may take its time, raise, and ask for leases itself; the thread
ends where nothing has to be called for a while.
Never: calls one twice.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .leases import Lease, OnEnd

IDLE_S = 10.0


class Calls:
    """What is to be called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[OnEnd, Lease, Callable[[], None]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, on_end: OnEnd, lease: Lease, stopped: Callable[[], None]) -> None:
        """Call `on_end(lease)`, then `stopped()`, soon."""
        with self._lock:
            self._queue.put((on_end, lease, stopped))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pepcore-leases-end", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                on_end, lease, stopped = self._queue.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None
                        return
                continue
            try:
                on_end(lease)
            except Exception:  # of the caller's own code: the others go on
                logging.getLogger("pepclient").exception("`on_end` of a lease failed")
            except BaseException:  # as where it calls sys.exit(): that ends no other lease's call
                logging.getLogger("pepclient").error("`on_end` of a lease wanted to end its thread")
            stopped()
            del on_end, lease, stopped  # not kept until the next one
