"""The wire on its cold paths: what the gate hands on, and what clients send besides checks.

Promises: every decoder here is strict (unknown members, wrong types, counts that do not fit are BadRequest that
names the field) and reads only bytes that the frame limit already bounds.
Never: touches a check that hits; that is `core/gate.pyx`. Every byte is specified in `bindings/README.md`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, TypeVar

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
MAX_TAGS = 1000
LONGEST_TAG = 1024

T = TypeVar("T")


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
    BLOCKS = 11
    LEASES = 12
    PING = 13
    TAKEOVER = 14


class Semantic(enum.IntEnum):
    """How a batch is evaluated (AuthZEN 1.0, section 7.1.2.1)."""

    execute_all = 0
    deny_on_first_deny = 1
    permit_on_first_permit = 2


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client says first: who it is, which point it speaks for, what it can discharge."""

    client: str = ""
    handles: tuple[str, ...] = ()
    page: bool = False
    """Whether it wants the daemon's page, to keep answers by itself."""
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
    now: int
    """CLOCK_BOOTTIME as this is written."""
    page: bool
    """Whether the page's descriptor comes with this reply."""
    partition: int
    revision: int
    server: str
    version: int


class Revoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End every answer that hangs on a tag, or all of them."""

    all: bool = False
    reason: str = ""
    tags: tuple[str, ...] = ()


class BlockWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Deny whoever bears a tag, until then (Unix ms, 0: without end); or lift that."""

    lift: bool = False
    reason: str = ""
    tag: str = ""
    until: int = 0


class BlocksWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next blocks that are in force. `after`: what the reply before told."""

    after: int = 0


class LeasesWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next leases that are held, or only how many holders still have to be told of what was done up to a revision.

    `after`: the number of the last one that was shown.
    """

    after: int = 0
    list: bool = True
    revision: int = (1 << 63) - 1


class Acknowledged(msgspec.Struct, frozen=True):
    """It holds: no question asked after this gets an older answer.

    `why`: what is not on disk that should be; `held`: leases that still have to be told.
    """

    boot: int
    durable: bool
    held: int
    revision: int
    before: bool = False
    """Whether leases of a daemon before this one may still be held: its holders stop within 10 s by themselves."""
    why: str = ""


pack = msgspec.msgpack.Encoder(order="sorted").encode
_hello = msgspec.msgpack.Decoder(Hello).decode
_revoke = msgspec.msgpack.Decoder(Revoke).decode
_block = msgspec.msgpack.Decoder(BlockWanted).decode
_blocks = msgspec.msgpack.Decoder(BlocksWanted).decode
_leases = msgspec.msgpack.Decoder(LeasesWanted).decode


def read_hello(body: bytes) -> Hello:
    """Decode a hello. Raises BadRequest."""
    hello = _strict(_hello, body, "hello")
    if VERSION not in hello.versions:
        raise BadRequest("hello.versions", f"`{hello.versions}` has none that is spoken here: offer {VERSION}")
    if len(hello.handles) > MAX_HANDLES or any(not 0 < len(h) <= 64 for h in hello.handles):
        raise BadRequest("hello.handles", f"must be at most {MAX_HANDLES} obligation types of 1 to 64 characters")
    if len(hello.point) > 64 or len(hello.client) > 64:
        raise BadRequest("hello", "`point` and `client` have at most 64 characters")
    return hello


def read_revoke(body: bytes) -> Revoke:
    """Decode a revoke. Raises BadRequest, also where it names nothing."""
    wanted = _strict(_revoke, body, "revoke")
    if wanted.all == bool(wanted.tags):
        raise BadRequest("revoke", "names nothing, or all and some: send `all`, or `tags`")
    if len(wanted.tags) > MAX_TAGS:
        raise BadRequest("revoke.tags", f"has `{len(wanted.tags)}` tags, more than {MAX_TAGS}: send several")
    for tag in wanted.tags:
        _tag("revoke.tags", tag)
    _reason("revoke.reason", wanted.reason)
    return wanted


def read_block(body: bytes) -> BlockWanted:
    """Decode a block. Raises BadRequest."""
    wanted = _strict(_block, body, "block")
    check_block(wanted.tag, wanted.reason, wanted.until)
    return wanted


def check_block(tag: str, reason: str, until: int) -> None:
    """Raise BadRequest for a block that cannot be, wherever it comes from."""
    _tag("block.tag", tag)
    if not tag.partition("::")[0] or "::" not in tag:
        raise BadRequest("block.tag", f"`{tag}` is not a subject: write `Type::id`")
    check_time("block.until", until)
    _reason("block.reason", reason)


def check_time(field: str, unix_ms: int) -> None:
    """Raises BadRequest."""
    if not 0 <= unix_ms < 1 << 63:
        raise BadRequest(field, f"`{unix_ms}` is not a time in Unix milliseconds, or 0")


def read_blocks(body: bytes) -> BlocksWanted:
    """Decode a request for blocks. Raises BadRequest."""
    return _strict(_blocks, body, "blocks")


def read_leases(body: bytes) -> LeasesWanted:
    """Decode a request for leases. Raises BadRequest."""
    return _strict(_leases, body, "leases")


def check_text(field: str, text: str) -> None:
    """Raise BadRequest for what has no UTF-8 form: JSON can escape half a character, which nothing can pass on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(field, "has a lone surrogate: send valid text") from None


def _tag(field: str, tag: str) -> None:
    check_text(field, tag)
    if not 0 < len(tag) <= LONGEST_TAG:
        raise BadRequest(field, f"has a tag of {len(tag)} characters: 1 to {LONGEST_TAG} are taken")


def _reason(field: str, reason: str) -> None:
    check_text(field, reason)
    if len(reason) > LONGEST_TAG:
        raise BadRequest(field, f"has {len(reason)} characters, more than {LONGEST_TAG}")


def _strict(decode: Callable[[bytes], T], body: bytes, name: str) -> T:
    """Decode a map that names each member once. Raises BadRequest."""
    try:
        value = decode(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(name, f"cannot be read: {error}") from None
    if body[0] & 0xF0 != 0x80 or body[0] & 0x0F != len(unpack(body)):
        raise BadRequest(name, "names a member twice, or is not a map in its shortest form")
    return value


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
