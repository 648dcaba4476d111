"""The connection over which a client holds leases: one, with a thread, made when the first lease is asked for.

Promises: a lease that the daemon ends is ended here as soon as the frame is read; one whose daemon is lost, stopped or
silent is ended when its grace is over, unless another daemon (or the same again) permits it afresh before; its `on_end`
is called once, in this thread.
Never: believes that it holds what nobody told it for a whole grace; holds anything in a forked child.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from pepcore.core.verdict import Verdict, deny, read
from pepcore.errors import BadFrame, DeadlinePassed, Fault, Unreachable

from . import frames
from .place import absent
from .settings import Settings
from .stream import Lost, Stream

if TYPE_CHECKING:
    from .leases import Lease

_END = struct.Struct("<QQQB7x")
_CHUNK = 65536
CAUSES = {1: "revoked", 2: "blocked", 3: "denied", 4: "ended", 5: "over"}


class Asked(NamedTuple):
    """A lease that was asked for, and who waits for the verdict."""

    lease: Lease
    answered: threading.Event


class Holder:
    """Holds leases for one client."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._held: dict[int, Lease] = {}
        self._asked: dict[int, Asked] = {}
        self._next = 1
        self._grace = 1.0
        self._heard = 0.0
        self._lost_at = 0.0
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread: threading.Thread | None = None
        self._closed = False
        _all.add(self)

    # ---- what callers do ----

    def ask(self, lease: Lease, until: float) -> Verdict:
        """Ask for a lease, and wait for the verdict. Raises Fault."""
        asked = Asked(lease, threading.Event())
        with self._lock:
            if self._closed:
                raise Unreachable("", "this client was closed")
            if self._socket is None:
                self._connect(until)
            self._send(asked, until)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pepcore-leases", daemon=True)
                self._thread.start()
        os.write(self._woken, b"\0")
        if not asked.answered.wait(max(0.0, until - time.monotonic())):
            with self._lock:
                lease.abandoned = True
            raise DeadlinePassed("deadline", "no answer came in time")
        return lease.verdict

    def give_up(self, lease: Lease) -> None:
        """Hold a lease no more, and say so to the daemon."""
        with self._lock:
            self._held.pop(lease.number, None)
            self._tell_given_up(lease.number)

    @property
    def elsewhere(self) -> bool:
        """Whether this is the holder of a process that we were forked from."""
        return os.getpid() != self._pid

    def close(self) -> None:
        """Hold nothing any more. The daemon sees the connection end."""
        with self._lock:
            self._closed = True
            for lease in self._take_all():
                lease.held = False
            self._drop()
        with contextlib.suppress(OSError):
            os.write(self._woken, b"\0")

    def forget(self) -> None:
        """In a forked child: nothing is held here, and our copies of the parent's descriptors are closed."""
        for lease in self._held.values():
            lease.held = False
        self._held = {}
        self._closed = True
        for fd in (self._wake, self._woken):
            os.close(fd)
        if self._socket is not None:
            self._socket.close()

    # ---- the connection ----

    def _connect(self, until: float) -> None:
        """Raises Fault."""
        try:
            stream = Stream(self._settings.path, self._settings.hello, until)
            try:
                stream.exchange(frames.Request(frames.PING), until)
                self._grace = stream.grace
                self._socket = stream.detach()
            finally:
                stream.close()
        except Lost as lost:
            raise Unreachable("", f"the daemon at `{self._settings.path}` hung up: {lost}") from None
        except OSError as error:
            raise absent(self._settings.path, error) from None
        self._in = bytearray()
        self._heard, self._lost_at = time.monotonic(), 0.0

    def _send(self, asked: Asked, until: float) -> None:
        self._next += 1
        lease = asked.lease
        request = frames.Request(frames.LEASE, lease.question, *lease.tail)
        self._asked[self._next] = asked
        try:
            self._write(request.frame(self._next, int((until - time.monotonic()) * 1e6)))
        except OSError as error:
            del self._asked[self._next]
            self._drop()
            raise Unreachable("", f"the daemon hung up: {error.strerror or error}") from None

    def _write(self, data: bytes) -> None:
        assert self._socket is not None, "only what is connected is written to"
        self._socket.settimeout(self._grace)
        self._socket.sendall(data)

    def _tell_given_up(self, number: int) -> None:
        if self._socket is None:
            return
        self._next += 1
        try:
            self._write(frames.Request(frames.END_LEASE, rest=struct.pack("<Q", number)).frame(self._next, 0))
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """The connection is lost: what is held goes on for the grace. With the lock held."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._lost_at = self._heard
        asked, self._asked = self._asked, {}
        for waiting in asked.values():
            if not waiting.lease.held:
                waiting.lease.verdict = deny(Unreachable("", "the daemon hung up"))
                waiting.answered.set()

    # ---- the thread ----

    def _run(self) -> None:
        while not self._closed:
            try:
                ended = self._turn()
            except Exception:  # whatever it is: what is held may not be held by a thread that has ended
                logging.getLogger("pepclient").exception("the thread that holds leases failed")
                with self._lock:
                    self._drop()
                    ended = [(lease, "lost", "the client failed") for lease in self._take_all()]
            for lease, cause, reason in ended:
                lease.ended_by(cause, reason)

    def _turn(self) -> list[tuple[Lease, str, str]]:
        """Wait for what comes, at most a third of the grace; returns what ended."""
        with self._lock:
            connected = self._socket
        waiting: list[Any] = [self._wake] if connected is None else [self._wake, connected]
        left = self._heard + self._grace - time.monotonic()
        seconds = max(0.01, min(left, self._grace / 3)) if self._held or self._asked else 3600
        ready, _, _ = select.select(waiting, [], [], seconds)
        if self._wake in ready:
            os.read(self._wake, 4096)
        with self._lock:
            ended = self._read() if connected is not None and connected in ready and connected is self._socket else []
            now = time.monotonic()
            if self._socket is not None and (self._held or self._asked):
                if now - self._heard >= self._grace:
                    self._drop()
                elif connected not in ready:
                    self._ping()
            if self._socket is None and self._held:
                if now - self._lost_at >= self._grace:
                    return ended + [(lease, "lost", "the daemon is gone") for lease in self._take_all()]
                self._again(now)
            return ended

    def _ping(self) -> None:
        self._next += 1
        try:
            self._write(frames.Request(frames.PING).frame(self._next, 0))
        except OSError:
            self._drop()

    def _again(self, now: float) -> None:
        """Ask a daemon that may be there again about what is held: it is decided afresh."""
        until = min(now + self._grace / 3, self._lost_at + self._grace)
        lost_at = self._lost_at
        try:
            self._connect(until)
            for lease in list(self._held.values()):
                self._send(Asked(lease, threading.Event()), until)
            self._lost_at = 0.0
        except Fault:
            self._drop()
            self._lost_at = lost_at
            time.sleep(0.02)

    def _take_all(self) -> list[Lease]:
        held, self._held = list(self._held.values()), {}
        return held

    def _read(self) -> list[tuple[Lease, str, str]]:
        assert self._socket is not None, "only what is connected is read from"
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._drop()
            return []
        self._heard = time.monotonic()
        self._in += data
        ended: list[tuple[Lease, str, str]] = []
        try:
            while (frame := frames.whole(self._in, frames.VERDICT_LIMIT)) is not None:
                self._take(*frame, ended)
        except Fault:
            self._drop()
        return ended

    def _take(self, op: int, number: int, body: bytes, ended: list[tuple[Lease, str, str]]) -> None:
        if op == frames.END_LEASE | frames.REPLY and len(body) >= _END.size:
            lease_number, _, _, cause = _END.unpack_from(body)
            lease = self._held.pop(lease_number, None)
            if lease is not None:
                ended.append((lease, CAUSES.get(cause, "ended"), body[_END.size :].decode("utf-8", "replace")))
            self._tell_given_up(lease_number)
        elif number in self._asked:
            self._answered(self._asked.pop(number), op, body, ended)

    def _answered(self, asked: Asked, op: int, body: bytes, ended: list[tuple[Lease, str, str]]) -> None:
        lease = asked.lease
        if op == frames.ERROR:
            verdict = deny(frames.problem(body))
        elif op == frames.LEASE | frames.REPLY:
            verdict = read(body, self._settings.handles, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        else:
            raise BadFrame("reply", f"has op `{op}`, not that of a lease")
        again = lease.number and self._held.pop(lease.number, None) is lease
        if lease.abandoned or (again and not lease.held):
            if verdict:
                self._tell_given_up(verdict.number)
        elif verdict:
            lease.number, lease.verdict, lease.held = verdict.number, verdict, True
            self._held[lease.number] = lease
        elif again:
            ended.append((lease, "denied", verdict.error or verdict.reason or "no policy permits it any more"))
        else:
            lease.verdict = verdict
        asked.answered.set()


_all: weakref.WeakSet[Holder] = weakref.WeakSet()


def _forked() -> None:
    for holder in list(_all):
        holder.forget()


os.register_at_fork(after_in_child=_forked)
