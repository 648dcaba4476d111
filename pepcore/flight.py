"""What travels through the enforcer: partitions, flights, waiters, batches, replies.

Values without behaviour of their own; `enforcer.py` moves them. A flight is one question on its way to the PDP,
its waiters are the requests that the answer will serve. The revision and the clocks are written when the question is
handed to the PDP, never later.

INVARIANT: `waiter.flight is f` if and only if `waiter in f.waiters`; a waiter waits for one flight at most.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from .core.cache import Stored
from .core.verdict import Verdict
from .errors import Fault
from .model import Decision
from .wire import Semantic


class Times(Struct, frozen=True):
    """Lifetimes and bounds, in the units of the clocks that are passed in."""

    permit_ms: int = 60_000
    deny_ms: int = 1_000
    keep_ms: int = 60_000
    """For how long a client may keep an answer at most, where its partition may keep any."""
    deadline_ns: int = 200_000_000
    longest_deadline_ns: int = 30_000_000_000
    waiting: int = 65_536
    waiting_per_owner: int = 4_096
    waiting_bytes: int = 32 << 20
    """Of the questions of one owner that wait, whole batches included."""


class Partition(Struct, frozen=True):
    """Who asks: nothing crosses from one partition to another (D9)."""

    number: int
    owner: int
    point: str = ""
    handles: frozenset[str] = frozenset()
    uid: int = -1
    gid: int = -1
    keeps: bool = True
    """Whether its clients may keep answers."""
    record: str = "off"
    """How its decisions are recorded: off, lossy, buffered, or durable (each is on disk before it is given)."""
    mode: str = "enforce"
    """What is made of its decisions: enforce, shadow, off (`modes.py`)."""

    @property
    def durable(self) -> bool:
        return self.record == "durable"


class Waiter(Struct, eq=False):
    """One request, or one item of a batch, that waits for a flight."""

    to: Any
    request: int
    local: int
    deadline_ns: int
    not_after: int = -1
    batch: Batch | None = None
    index: int = 0
    again: bool = False
    """Asked a second time already, because the first answer was too old when it came."""
    flight: Flight | None = None
    """What it waits for; None: nothing any more."""
    timed: bool = False
    """Has its place among the deadlines."""
    held: bool = False
    """Asks about a lease that is held: what each request discharges for itself was discharged when it began."""
    partition: Partition | None = None
    key: bytes = b""
    asked_ns: int = 0
    """Of a request of its own (no batch): what it asked and when, for the record."""
    trace: bytes = b""
    """Of the caller, as the wire carries it (W3C trace id, span id, flags), for the record; b"": none was sent."""


class Flight(Struct, eq=False):
    """A question on its way to the PDP, with all who wait for it (in the order they came)."""

    partition: Partition
    key: bytes
    waiters: dict[Waiter, None]
    explain: bool = False
    taken: bool = False
    revision: int = 0
    asked_ns: int = 0
    asked_ms: int = 0
    begun_ns: int = 0
    """When its first one came who waits; 0: the PDP is not asked."""
    stamps: bytes = b""
    """Slots of the page that its answer hangs on, once there is one."""
    told: bool = False
    """Somebody was told the verdict that is kept, which is what the record has of it."""

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits."""
        return bool(self.waiters)

    @property
    def deadline_ns(self) -> int:
        """The latest deadline of those who still wait; 0: nobody does."""
        return max((w.deadline_ns for w in self.waiters), default=0)


class Passed(bytes):
    """The body of a permit that a point's mode gives. The record holds `real`: of what would have been enforced."""

    real: bytes = b""


class Said(Struct, frozen=True):
    """A batch item that the PDP answered."""

    flight: Flight
    outcome: Decision | Fault
    shared: Any = None
    """The verdict that serves all who wait (`modes.Settled`), if there is one."""


class Batch(Struct, eq=False):
    """The items of one check-many, in the order asked, and what is known of each: None is nothing yet, bytes are final.

    Nothing that may grow old is written out before the whole batch is answered.
    """

    partition: Partition
    to: Any
    request: int
    local: int
    semantic: Semantic
    items: list[bytes | Fault]
    until_ns: int
    not_after: int
    outcomes: list[bytes | Stored | Said | None]
    missing: int = 0
    rounds: int = 0
    asked_ns: int = 0
    held: int = 0
    """Bytes that its owner is charged with while it waits."""
    trace: bytes = b""


class Reply(Struct, frozen=True):
    """What the host sends: a verdict with its body, the bodies of a batch, or an explanation."""

    to: Any
    request: int
    local: int
    verdict: Verdict | None = None
    body: bytes = b""
    bodies: list[bytes] | None = None
    explanation: dict[str, Any] | None = None
    said: Said | None = None
    """What the PDP said, where one decision is the answer."""
    asked: Waiter | Batch | None = None
    """What was asked, for the record; None: nothing that is recorded."""
