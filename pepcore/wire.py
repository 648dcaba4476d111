"""The wire on its cold paths: what the gate hands on, and what clients send besides checks.

Promises: every decoder here is strict (unknown members, wrong types, counts that do not fit are BadRequest that
names the field) and reads only bytes that the frame limit already bounds.
Never: touches a check that hits; that is `core/gate.pyx`. Every byte is specified in `bindings/README.md`.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from .core.frame import header
from .core.question import canonical
from .errors import BadRequest, Fault

VERSION = 1
REPLY = 0x80
ERROR = 0xFF
MAX_MANY = 100
"""Items of a batch: it is worked on in one piece, and must not hold the others for long. Clients split larger ones."""
MAX_HANDLES = 64


class Op(enum.IntEnum):
    HELLO = 1
    CHECK = 2
    CHECK_MANY = 3
    LEASE = 4
    END_LEASE = 5
    REVOKE = 6
    BLOCK = 7
    STATS = 8
    EXPLAIN = 9
    MAP = 10


class Semantic(enum.IntEnum):
    """How a batch is evaluated (AuthZEN 1.0, section 7.1.2.1)."""

    execute_all = 0
    deny_on_first_deny = 1
    permit_on_first_permit = 2


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client says first: who it is, which point it speaks for, what it can discharge."""

    client: str = ""
    handles: tuple[str, ...] = ()
    point: str = ""
    versions: tuple[int, ...] = (VERSION,)


class Problem(msgspec.Struct, frozen=True):
    """The body of an error frame."""

    code: int
    field: str
    reason: str


class Welcome(msgspec.Struct, frozen=True):
    """The reply to a hello."""

    boot: int
    limits: dict[str, int]
    partition: int
    revision: int
    server: str
    version: int


pack = msgspec.msgpack.Encoder(order="sorted").encode
_hello = msgspec.msgpack.Decoder(Hello).decode


def read_hello(body: bytes) -> Hello:
    """Decode a hello. Raises BadRequest."""
    try:
        hello = _hello(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("hello", f"cannot be read: {error}") from None
    if body[0] & 0xF0 != 0x80 or body[0] & 0x0F != len(unpack(body)):
        raise BadRequest("hello", "names a member twice, or is not a map in its shortest form")
    if VERSION not in hello.versions:
        raise BadRequest("hello.versions", f"`{hello.versions}` has none that is spoken here: offer {VERSION}")
    if len(hello.handles) > MAX_HANDLES or any(not 0 < len(h) <= 64 for h in hello.handles):
        raise BadRequest("hello.handles", f"must be at most {MAX_HANDLES} obligation types of 1 to 64 characters")
    if len(hello.point) > 64 or len(hello.client) > 64:
        raise BadRequest("hello", "`point` and `client` have at most 64 characters")
    return hello


def read_many(body: bytes, depth: int, values: int = 4096) -> tuple[Semantic, list[bytes | Fault]]:
    """Decode a batch: the semantic, and for each item its canonical question or what is wrong with it.

    Raises BadRequest where the batch itself cannot be read (AuthZEN: the whole payload fails); an item that is
    malformed fails alone.
    """
    if len(body) < 8:
        raise BadRequest("check-many", "ends before its count")
    if body[0] > 2 or body[1:4] != b"\0\0\0":
        raise BadRequest("check-many.semantic", f"`{body[0]}` is not 0, 1 or 2 followed by three zero bytes")
    count = int.from_bytes(body[4:8], "little")
    if not 0 < count <= MAX_MANY:
        raise BadRequest("check-many.count", f"`{count}` is not between 1 and {MAX_MANY}")
    items: list[bytes | Fault] = []
    at = 8
    for i in range(count):
        size = int.from_bytes(body[at : at + 4], "little")
        if len(body) - at < 4 or len(body) - at - 4 < size:
            raise BadRequest(f"check-many.{i}", "ends outside the frame")
        try:
            items.append(canonical(body[at + 4 : at + 4 + size], depth, values))
        except Fault as fault:
            items.append(fault)
        at += 4 + size
    if at != len(body):
        raise BadRequest("check-many", "is followed by bytes that do not belong to it")
    return Semantic(body[0]), items


def write_many(bodies: list[bytes]) -> bytes:
    """Encode the reply to a batch: a count and length-prefixed verdict bodies."""
    parts = [len(bodies).to_bytes(4, "little")]
    for body in bodies:
        parts += (len(body).to_bytes(4, "little"), body)
    return b"".join(parts)


def reply(op: int, request_id: int, partition: int, body: bytes) -> bytes:
    """Return a whole reply frame."""
    return header(op | REPLY, request_id, len(body), partition=partition) + body


def error(request_id: int, partition: int, fault: Fault) -> bytes:
    """Return a whole error frame."""
    body = pack({"code": fault.code, "field": fault.field, "reason": fault.reason})
    return header(ERROR, request_id, len(body), partition=partition) + body


def unpack(body: bytes) -> Any:
    """Decode a body that has no schema of its own (stats, explain)."""
    return msgspec.msgpack.decode(body)
