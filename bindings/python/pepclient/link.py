"""The connection of a holder of leases: frames out, frames in, and until when the daemon is known to be there.

Promises: never waits but while it is made; what comes is taken only if it answers what was asked here, or ends a lease
of here; the daemon was there when the last request was *sent* that it has answered, however late we read that.
Never: stores more than the bound of a verdict and one read; writes from another thread than that which reads.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from pepcore.core.verdict import Verdict, deny, read
from pepcore.errors import BadFrame, Fault, Unreachable

from . import frames
from .place import absent
from .settings import Settings
from .stream import Lost, Stream

if TYPE_CHECKING:
    from .leases import Lease

CAUSES = {1: "revoked", 2: "blocked", 3: "denied", 4: "ended", 5: "over"}
_END = struct.Struct("<QQQB7x")
_NUMBER = struct.Struct("<Q")
_CHUNK = 65536


def now() -> float:
    """Seconds that also pass while the machine sleeps, as those of the daemon do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Asked(NamedTuple):
    """A lease that is asked for, until when (`now`), and what tells that it was answered."""

    lease: Lease
    until: float
    answered: Callable[[], object]


class Ended(NamedTuple):
    """The daemon says that a lease has ended."""

    lease: Lease
    number: int
    cause: str
    reason: str


class Answered(NamedTuple):
    """The daemon's verdict on a lease that was asked for."""

    asked: Asked
    verdict: Verdict


class _Expected(NamedTuple):
    op: int
    sent: float
    asked: Asked | None


class Link:
    """A connection that was greeted. Raises Fault where there is none to be had by `until`, or nothing is believed."""

    def __init__(self, settings: Settings, until: float) -> None:
        self._settings = settings
        begun = now()
        patience = time.monotonic() + max(0.0, until - begun)
        try:
            stream = Stream(settings.path, settings.hello, patience)
            try:
                told = stream.exchange(frames.Request(frames.PING), patience)
                if isinstance(told, Fault):
                    raise told
                self.grace, self._frame_limit = stream.grace, stream.frame_limit
                self._socket = stream.detach()
            finally:
                stream.close()
        except Lost as lost:
            raise Unreachable("", f"the daemon at `{settings.path}` hung up: {lost}") from None
        except OSError as error:
            raise absent(settings.path, error) from None
        self.sure_until = begun + self.grace
        self.held: dict[int, Lease] = {}
        """By the number that the daemon gave."""
        self._pinged = begun
        self._expected: dict[int, _Expected] = {}
        self._next = 2
        self.asking = 0
        self._in, self._out = bytearray(), bytearray()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def used(self) -> bool:
        """Whether anything is held or waited for."""
        return bool(self.held or self._expected)

    @property
    def unsent(self) -> bool:
        """Whether there is something to send, once the daemon reads."""
        return bool(self._out)

    @property
    def ping_at(self) -> float:
        """When the daemon has to be asked whether it is there."""
        return self._pinged + self.grace / 3

    # ---- out ----

    def ask(self, asked: Asked) -> None:
        """Ask for a lease. Raises Fault, and nothing was asked then."""
        question, tail = asked.lease._question, asked.lease._tail
        # one that does not fit would end the connection, and with it every other lease of it
        request = frames.fitting(frames.Request(frames.LEASE, question, *tail), self._frame_limit)
        at = now()
        if not self.used:  # nobody has listened since the last one ended
            self.sure_until = self._pinged = at
            self.sure_until += self.grace
        self._send(request, int((asked.until - at) * 1e6), _Expected(frames.LEASE, at, asked))
        self.asking += 1

    def end(self, number: int) -> None:
        """Say that what a lease was held for has stopped."""
        self._send(frames.Request(frames.END_LEASE, rest=_NUMBER.pack(number)), 0, _Expected(frames.END_LEASE, 0, None))

    def ping(self) -> None:
        """Ask whether the daemon is there."""
        self._pinged = now()
        self._send(frames.Request(frames.PING), 0, _Expected(frames.PING, self._pinged, None))

    def _send(self, request: frames.Request, left_us: int, expected: _Expected) -> None:
        self._next += 1
        self._expected[self._next] = expected
        self._out += request.frame(self._next, left_us)

    def flush(self) -> None:
        """Send what the kernel takes. Where the daemon hung up, what it said before, and the end, come by reading."""
        with contextlib.suppress(BlockingIOError):
            try:
                while self._out:
                    del self._out[: self._socket.send(self._out, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)]
            except (BrokenPipeError, ConnectionResetError):
                self._out.clear()

    # ---- in ----

    def read(self) -> tuple[list[Ended | Answered], str]:
        """What has come, and why nothing more comes; "": more may come."""
        try:
            data = self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return [], ""
        except OSError as error:
            return [], f"the daemon hung up: {error.strerror or error}"
        self._in += data
        found: list[Ended | Answered] = []
        try:
            while (frame := frames.whole(self._in, frames.VERDICT_LIMIT)) is not None:
                self._take(*frame, found)
        except Fault as fault:
            return found, str(fault)
        return found, "" if data else "the daemon hung up"

    def _take(self, op: int, partition: int, number: int, body: bytes, found: list[Ended | Answered]) -> None:
        if op == frames.END_LEASE | frames.REPLY and len(body) >= _END.size:
            if partition != frames.PARTITION:
                raise BadFrame("reply", f"ends a lease in partition `{partition}`")
            lease_number, _, _, cause = _END.unpack_from(body)
            lease = self.held.pop(lease_number, None)
            if lease is not None:  # else it was given up meanwhile, which the daemon learns in a moment
                reason = body[_END.size :].decode("utf-8", "replace")
                found.append(Ended(lease, lease_number, CAUSES.get(cause, "ended"), reason))
            return
        expected = self._expected.get(number)
        if expected is None or partition != (frames.PARTITION if expected.asked else 0):
            raise BadFrame("reply", f"answers request `{number}`, which nobody asked")
        if op not in (expected.op | frames.REPLY, frames.ERROR):
            raise BadFrame("reply", f"has op `{op}`, not `{expected.op | frames.REPLY}`")
        if expected.asked is not None:
            verdict = self._verdict(op, body)
            if verdict:
                self.held[verdict.number] = expected.asked.lease  # now: its end may be the next frame
            found.append(Answered(expected.asked, verdict))
            self.asking -= 1
        elif body and op != frames.ERROR:
            raise BadFrame("reply", "has a body where there is none")
        del self._expected[number]
        self.sure_until = max(self.sure_until, expected.sent + self.grace)

    def _verdict(self, op: int, body: bytes) -> Verdict:
        if op == frames.ERROR:
            return deny(frames.problem(body))
        verdict = read(body, self._settings.handles, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        if verdict and verdict.number in self.held:
            raise BadFrame("reply", f"gives the number `{verdict.number}` to a second lease")
        return verdict

    # ---- the end ----

    def close(self) -> list[Asked]:
        """Nothing more comes. Returns what was asked for and is not answered."""
        self._socket.close()
        asked = [expected.asked for expected in self._expected.values() if expected.asked is not None]
        self._expected.clear()
        return asked
