"""The worker processes as processes: started, and ended whatever state they are in.

Promises: every process that was started is waited for; one that does not end by itself when its socket closes
(stopped, stuck in an evaluation) is killed; `end_all` returns with none left.
Never: blocks the loop (ending happens in threads of its own, which nothing waits for but `end_all`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

from ..pdp.cedar_source import Source
from .messages import Load, frame

GRACE_S = 2.0
_running: set[Process] = set()


class Process:
    """A worker process and our end of its socket pair."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.process, self.sock = process, sock
        self.pid = process.pid
        _running.add(self)

    def end_soon(self, grace_s: float = GRACE_S) -> None:
        """See to it that the process ends, from a thread."""
        threading.Thread(target=self.end, args=(grace_s,), daemon=True).start()

    def end(self, grace_s: float = GRACE_S) -> None:
        """Wait until the process has ended; kill it where that takes too long."""
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _running.discard(self)


def spawn(source: Source) -> Process:
    """Start a worker process and send it its policies. Needs no loop, so that a start can begin with it."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-I", "-m", "pepcore.server.worker", str(theirs.fileno())]
        try:
            process = subprocess.Popen(  # noqa: S603
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for the daemon
                env={k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")},
            )
        except BaseException:
            ours.close()
            raise
    started = Process(process, ours)
    try:
        ours.settimeout(10.0)
        ours.sendall(frame(Load(source)))
        ours.setblocking(False)
    except BaseException:
        ours.close()
        started.end_soon()
        raise
    return started


async def spawned(source: Source, seconds: float) -> Process:
    """`spawn` from a thread that nobody waits for, not even at the end: a child may hang before it runs its program.

    One that comes after `seconds` is ended. Raises OSError, of which TimeoutError is one.
    """
    loop = asyncio.get_running_loop()
    said: asyncio.Future[Process] = loop.create_future()

    def tell(process: Process | None, error: OSError | None) -> None:
        if process is not None:
            if said.done():
                process.sock.close()
                process.end_soon(0.0)
            else:
                said.set_result(process)
        elif error is not None and not said.done():
            said.set_exception(error)

    def attempt() -> None:
        process: Process | None = None
        failed: OSError | None = None
        try:
            process = spawn(source)
        except OSError as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended: `end_all` ends the process
            loop.call_soon_threadsafe(tell, process, failed)

    threading.Thread(target=attempt, daemon=True, name="pepcore-spawn").start()
    try:
        return await asyncio.wait_for(said, seconds)
    except TimeoutError:
        raise TimeoutError(f"it did not start within {seconds:.0f} s") from None


def end_all() -> None:
    """End every process that still runs, all within one grace period."""
    until = time.monotonic() + GRACE_S
    for process in list(_running):
        process.sock.close()
    for process in list(_running):
        process.end(max(0.0, until - time.monotonic()))
