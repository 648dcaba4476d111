"""Requests to frames, frames to replies (`bindings/README.md` gives every byte).

Promises: a reply is taken only if op, request id, partition, version and length are the ones asked for; a length is
compared with the request's bound before anything is stored.
Never: reads a socket or a clock.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgspec

from pepcore.core.frame import header
from pepcore.core.verdict import Verdict, read
from pepcore.errors import FAULTS, BadFrame, BadRequest, Fault, PdpFault
from pepcore.version import VERSION

from .questions import boot_and_revision, ends, unix_ms

HELLO, CHECK, CHECK_MANY, LEASE, END_LEASE, REVOKE, BLOCK, STATS, EXPLAIN = range(1, 10)
BLOCKS, LEASES, PING = 11, 12, 13
BARE = frozenset({END_LEASE, REVOKE, BLOCK, STATS, BLOCKS, LEASES, PING})
"""Ops that speak for nobody: partition 0, no tail."""
REPLY, ERROR = 0x80, 0xFF
HEADER = struct.Struct("<IIBBHIQ")
PARTITION = 1  # what the first hello of a connection makes
FRAME_LIMIT = 65536  # bytes of a body that a daemon takes, until its welcome says otherwise
MANY = 100
VERDICT_LIMIT = 1 << 20  # bytes of the reply to one check
REPLY_LIMIT = 1 << 24  # bytes of any other
CLIENT = f"pepclient/{VERSION}"
EARLY = "comes to a question that was not sent whole"

_DEADLINE, _NOT_AFTER, _MIN_REVISION, _TRACE = 1, 2, 4, 8
_DEADLINE_SIZE = 4
_TRACE_SIZE = 25
_MANY = struct.Struct("<B3xI")  # semantic and count of a batch
_pack = msgspec.msgpack.Encoder(order="sorted").encode


class Welcome(msgspec.Struct, frozen=True):
    """The reply to a hello, as far as a client needs it."""

    boot: int
    limits: dict[str, int]
    partition: int
    revision: int
    version: int
    now: int = 0
    """The daemon's CLOCK_BOOTTIME as it wrote this: a client with another clock cannot tell whether the page lives."""
    page: bool = False


class _Problem(msgspec.Struct, frozen=True):
    code: int
    field: str
    reason: str


_welcome = msgspec.msgpack.Decoder(Welcome).decode
_problem = msgspec.msgpack.Decoder(_Problem).decode
_map = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Request(NamedTuple):
    """Everything of a request but its id and the deadline that is left when it leaves."""

    op: int
    question: bytes = b""
    flags: int = 0
    tail: bytes = b""
    rest: bytes = b""
    limit: int = REPLY_LIMIT

    def frame(self, request_id: int, left_us: int) -> bytes:
        """The bytes to send."""
        if self.op in BARE:
            return header(self.op, request_id, len(self.rest)) + self.rest
        deadline = max(1, min(left_us, 0xFFFFFFFF)).to_bytes(_DEADLINE_SIZE, "little")
        size = len(self.question)
        head = header(self.op, request_id, self.size, question=size, partition=PARTITION, flags=self.flags | _DEADLINE)
        return b"".join((head, self.question, deadline, self.tail, self.rest))

    @property
    def size(self) -> int:
        """Bytes of the body."""
        if self.op in BARE:
            return len(self.rest)
        return len(self.question) + _DEADLINE_SIZE + len(self.tail) + len(self.rest)


def hello(point: str, handles: tuple[str, ...], page: bool) -> bytes:
    """The first frame of a connection. Its request id is 1, it makes partition 1. `page`: it wants to keep answers."""
    body = _pack({"client": CLIENT, "handles": handles, "page": page, "point": point, "versions": (1,)})
    return header(HELLO, 1, len(body)) + body


def tail(not_after: Any, min_revision: Any, trace: bytes = b"") -> tuple[int, bytes]:
    """Flags and bytes of what never changes the decision, but for the deadline. Raises BadRequest.

    `trace` is what `trace.current` gives: the 25 bytes, or none.
    """
    flags, fields = 0, b""
    if not_after is not None:
        flags |= _NOT_AFTER
        fields += unix_ms(not_after).to_bytes(8, "little")
    if min_revision is not None:
        flags |= _MIN_REVISION
        fields += struct.pack("<QQ", *boot_and_revision(min_revision))
    if trace:
        flags |= _TRACE
        fields += trace
    return flags, fields


def body_length(head: bytes | bytearray, op: int, request_id: int, partition: int, limit: int) -> tuple[int, bool]:
    """What a reply's header announces: bytes of body, and whether it is an error frame. Raises BadFrame."""
    length, question, version, got, flags, part, number = HEADER.unpack_from(head)
    if version != 1 or question or flags or part != partition or number != request_id:
        raise BadFrame("reply", "has a header that does not belong to what was asked")
    if got not in (op | REPLY, ERROR):
        raise BadFrame("reply", f"has op `{got}`, not `{op | REPLY}`")
    if length > limit:
        raise BadFrame("reply", f"announces {length} bytes, more than the {limit} that are taken")
    return length, got == ERROR


def whole(data: bytearray, limit: int) -> tuple[int, int, int, bytes] | None:
    """Cut the first whole frame off: op, partition, request id, body; None: it is not whole yet. Raises BadFrame."""
    if len(data) < HEADER.size:
        return None
    length, question, version, op, flags, partition, number = HEADER.unpack_from(data)
    if version != 1 or question or flags or length > limit:
        raise BadFrame("reply", "has a header that cannot be")
    if len(data) < HEADER.size + length:
        return None
    body = bytes(data[HEADER.size : HEADER.size + length])
    del data[: HEADER.size + length]
    return op, partition, number, body


def problem(body: bytes) -> Fault:
    """The fault in an error frame. Raises BadFrame."""
    try:
        told = _problem(body)
    except (ValueError, RecursionError) as error:
        raise BadFrame("reply", f"is an error frame that cannot be read: {error}") from None
    return FAULTS.get(told.code, PdpFault)(told.field, told.reason)


def welcome(body: bytes) -> Welcome:
    """The reply to a hello. Raises BadFrame."""
    try:
        told = _welcome(body)
    except (ValueError, RecursionError) as error:
        raise BadFrame("hello", f"got a reply that cannot be read: {error}") from None
    if told.version != 1 or told.partition != PARTITION:
        raise BadFrame("hello", f"got version `{told.version}` and partition `{told.partition}`, not 1 and 1")
    return told


def packed(**members: Any) -> bytes:
    """The body of an op that is a map."""
    return _pack(members)


def plain(body: bytes) -> dict[str, Any]:
    """The reply to stats and explain. Raises BadFrame."""
    try:
        return _map(body)
    except (ValueError, RecursionError) as error:
        raise BadFrame("reply", f"cannot be read: {error}") from None


def many(questions: list[bytes], semantic: int) -> bytes:
    """What follows the tail of a batch."""
    parts = [_MANY.pack(semantic, len(questions))]
    for question in questions:
        parts += (len(question).to_bytes(4, "little"), question)
    return b"".join(parts)


def read_many(body: bytes, asked: int, semantic: int, handles: frozenset[str], now: int) -> list[Verdict]:
    """The verdicts of a batch: as many as were asked, or up to the one that ends it. Raises Fault."""
    count = int.from_bytes(body[:4], "little")
    if len(body) < 4 or not 0 < count <= asked:
        raise BadFrame("reply", f"has {count} answers to {asked} questions")
    verdicts, at, ended = [], 4, False
    for _ in range(count):
        size = int.from_bytes(body[at : at + 4], "little")
        one = body[at + 4 : at + 4 + size]
        if ended or len(body) - at < 4 or len(one) != size:
            raise BadFrame("reply", "has answers that end outside it, or that follow the last")
        verdicts.append(read(one, handles, now))
        ended = ends(semantic, one[0] == 1)
        at += 4 + size
    if at != len(body) or (count < asked and not ended):
        raise BadFrame("reply", "has bytes left over, or stops before the batch has ended")
    return verdicts


def chunks(
    questions: list[bytes], flags: int, fields: bytes, semantic: int, frame_limit: int, count_limit: int
) -> list[tuple[int, Request]]:
    """A batch as requests that each fit a frame: a batch is not a snapshot, so cutting it changes nothing.

    Every question fits a frame by itself, at least without its trace: `alone` says so.
    """
    out: list[tuple[int, Request]] = []
    room = frame_limit - _DEADLINE_SIZE - len(fields) - _MANY.size
    held: list[bytes] = []
    size = 0
    for question in [*questions, None]:
        if held and (question is None or len(held) >= count_limit or size + 4 + len(question) > room):
            request = Request(CHECK_MANY, b"", flags, fields, many(held, semantic), REPLY_LIMIT)
            out.append((len(held), request))
            held, size = [], 0
        if question is not None:
            held.append(question)
            size += 4 + len(question)
    return out


def fitting(request: Request, frame_limit: int) -> Request:
    """The request, without its trace where it fits only so. One that the daemon would close the connection for is
    refused before it leaves. Raises BadRequest."""
    over = _over(request.size, frame_limit)
    if over is not None and request.flags & _TRACE:
        return fitting(request._replace(flags=request.flags & ~_TRACE, tail=request.tail[:-_TRACE_SIZE]), frame_limit)
    if over is not None:
        raise over
    return request


def alone(question: bytes, frame_limit: int) -> Fault | None:
    """A question of a batch that fits no frame even by itself, which no other question may suffer for."""
    return _over(_DEADLINE_SIZE + _MANY.size + 4 + len(question), frame_limit)


def _over(size: int, frame_limit: int) -> Fault | None:
    if size > frame_limit:
        return BadRequest("question", f"makes {size} bytes, more than the {frame_limit} of a frame: send less")
    return None
