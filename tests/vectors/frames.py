"""Canonical msgpack and frames, written a second time: what make.py makes the golden frames with.

Promises: shares only the specification (bindings/README.md) with pepcore; can also write what is malformed.
Never: imports pepcore, msgspec or a msgpack library.
"""

from __future__ import annotations

import struct
from typing import Any

HELLO, CHECK, CHECK_MANY, LEASE, END_LEASE, REVOKE, BLOCK, STATS, EXPLAIN, MAP, ERROR = *range(1, 11), 0xFF
BLOCKS, LEASES, PING = 11, 12, 13
BOOT, REVISION, DECISION = 0x0123456789ABCDEF, 7, 0xFEDCBA9876543210


def number(value: int) -> bytes:
    if value >= 0:
        for most, head, code in (
            (0x7F, b"", ">B"),
            (0xFF, b"\xcc", ">B"),
            (0xFFFF, b"\xcd", ">H"),
            (0xFFFFFFFF, b"\xce", ">I"),
            (2**64 - 1, b"\xcf", ">Q"),
        ):
            if value <= most:
                return head + struct.pack(code, value)
    for least, head, code in (
        (-32, b"", ">b"),
        (-(2**7), b"\xd0", ">b"),
        (-(2**15), b"\xd1", ">h"),
        (-(2**31), b"\xd2", ">i"),
        (-(2**63), b"\xd3", ">q"),
    ):
        if least <= value < 0:
            return head + struct.pack(code, value)
    raise ValueError(value)


def head(size: int, fix: int, fix_limit: int, wide: tuple[int, ...]) -> bytes:
    if size < fix_limit:
        return bytes([fix | size])
    for code, most, mark in zip((">B", ">H", ">I"), (0xFF, 0xFFFF, 0xFFFFFFFF), wide, strict=True):
        if mark and size <= most:
            return bytes([mark]) + struct.pack(code, size)
    raise ValueError(size)


def text(value: bytes) -> bytes:
    return head(len(value), 0xA0, 32, (0xD9, 0xDA, 0xDB)) + value


def pack(value: Any) -> bytes:
    """Canonical msgpack."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        return text(value.encode())
    if isinstance(value, list):
        return head(len(value), 0x90, 16, (0, 0xDC, 0xDD)) + b"".join(map(pack, value))
    pairs = sorted((key.encode(), item) for key, item in value.items())
    return head(len(pairs), 0x80, 16, (0, 0xDE, 0xDF)) + b"".join(text(key) + pack(item) for key, item in pairs)


def frame(
    op: int,
    request_id: int,
    body: bytes,
    *,
    question: int = 0,
    partition: int = 0,
    flags: int = 0,
    version: int = 1,
    length: int | None = None,
) -> bytes:
    size = len(body) if length is None else length
    return struct.pack("<IIBBHIQ", size, question, version, op, flags, partition, request_id) + body


def tail(
    *,
    deadline_us: int | None = None,
    not_after: int | None = None,
    min_revision: list[int] | None = None,
    trace: str | None = None,
) -> tuple[int, bytes]:
    flags, out = 0, b""
    for bit, present, data in (
        (1, deadline_us is not None, struct.pack("<I", deadline_us or 0)),
        (2, not_after is not None, struct.pack("<Q", not_after or 0)),
        (4, min_revision is not None, struct.pack("<QQ", *(min_revision or [0, 0]))),
        (8, trace is not None, bytes.fromhex(trace or "")),
    ):
        if present:
            flags, out = flags | bit, out + data
    return flags, out


def verdict(
    permit: int,
    payload: dict[str, Any] | bytes = b"",
    *,
    fault: int = 0,
    flags: int = 0,
    lifetime: int = 0,
    keep: int = 0,
    stamps: list[int] | None = None,
    count: int | None = None,
    size: int | None = None,
) -> bytes:
    stamps = stamps or []
    data = payload if isinstance(payload, bytes) else pack(payload)
    fixed = struct.pack(
        "<BBBBIIIQQQ",
        permit,
        fault,
        flags,
        len(stamps) if count is None else count,
        lifetime,
        keep,
        len(data) if size is None else size,
        DECISION,
        BOOT,
        REVISION,
    )
    return fixed + data + struct.pack(f"<{len(stamps)}H", *stamps)


PLAIN = [["User", "alice", {}], ["read", {}], ["Document", "roadmap", {}], {}, []]
RICH = [
    ["User", "alice", {"dept": "eng", "age": 41}],
    ["Action::read", {"soft": True}],
    ["Acme::Document", "a::b \u00e9\U0001f600", {"owner": None, "labels": ["x", "y"]}],
    {"z": 1, "a": {"\u00e9": -1, "e": 1.5, "": 0}, "\uffff": 1, "\U00010000": 2, "ip": "10.0.0.1"},
    [["Agent", "a7", {}], ["User", "bob", {"level": 3}]],
]
NUMBERS = [
    0,
    1,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2**32 - 1,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -1,
    -32,
    -33,
    -128,
    -129,
    -32768,
    -32769,
    -(2**31),
    -(2**31) - 1,
    -(2**53) - 1,
    -(2**63),
]
FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 1e300, 5e-324, 1.7976931348623157e308]


def context(value: Any) -> list[Any]:
    return [*PLAIN[:3], {"v": value}, []]


def nested(levels: int) -> Any:
    """A question with so many containers one in another: the question, the context, then lists."""
    value: Any = []
    for _ in range(levels - 3):
        value = [value]
    return context(value)
