"""The cold paths of the wire: strict, and each refusal names the field."""

import struct

import msgspec
import pytest

from pepcore.errors import BadQuestion, BadRequest, Stale
from pepcore.wire import MAX_MANY, Hello, Op, Semantic, error, pack, read_hello, read_many, reply, write_many
from tests.vectors.frames import PLAIN, context, frame
from tests.vectors.frames import pack as packed

HELLO = {"client": "c/1", "handles": ["mask", "redact"], "point": "gateway", "versions": [1]}


def many(*questions: bytes, semantic: int = 0, zeros: bytes = bytes(3), count: int | None = None) -> bytes:
    body = b"".join(struct.pack("<I", len(q)) + q for q in questions)
    return bytes([semantic]) + zeros + struct.pack("<I", len(questions) if count is None else count) + body


def test_a_hello_is_read_whole_and_its_members_may_be_left_out():
    assert read_hello(packed(HELLO)) == Hello("c/1", ("mask", "redact"), False, "gateway", (1,))
    assert read_hello(packed({})) == Hello()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"versions": []}, "hello.versions"),
        ({"versions": [2, 3]}, "hello.versions"),
        ({"versions": ["1"]}, "hello"),
        ({"handles": [""]}, "hello.handles"),
        ({"handles": ["x" * 65]}, "hello.handles"),
        ({"handles": [f"{n}" for n in range(65)]}, "hello.handles"),
        ({"handles": "mask"}, "hello"),
        ({"point": "x" * 65}, "hello"),
        ({"client": "x" * 65}, "hello"),
        ({"point": 1}, "hello"),
        ({"other": 1}, "hello"),
    ],
)
def test_a_hello_that_is_malformed_is_refused_with_its_field(change: dict, field: str):
    with pytest.raises(BadRequest) as refused:
        read_hello(packed({**HELLO, **change}))
    assert refused.value.field == field
    edge = {"handles": [f"{n:064}" for n in range(64)], "point": "x" * 64, "client": "y" * 64}
    assert read_hello(packed({**HELLO, **edge}))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", packed(HELLO) + b"\0", b"\x91" * 3000])
def test_a_hello_that_is_no_map_is_refused(data: bytes):
    with pytest.raises(BadRequest):
        read_hello(data)


def test_a_batch_is_read_item_by_item_and_a_malformed_item_fails_alone():
    good, loose = packed(PLAIN), packed(context(1))
    semantic, items = read_many(many(good, b"\xc1", b"", b"\xdc\x00\x05" + loose[1:], semantic=2), 16)
    assert semantic is Semantic.permit_on_first_permit
    assert [items[0], items[3]] == [good, loose]
    assert all(isinstance(item, BadQuestion) for item in items[1:3])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "check-many"),
        (bytes(7), "check-many"),
        (many(semantic=3), "check-many.semantic"),
        (many(b"x", zeros=b"\0\0\1"), "check-many.semantic"),
        (many(), "check-many.count"),
        (many(b"x", count=101), "check-many.count"),
        (many(b"x", count=0xFFFFFFFF), "check-many.count"),
        (many(b"x", count=2), "check-many.1"),
        (many(b"x")[:-1], "check-many.0"),
        (many(b"x")[:-3], "check-many.0"),
        (many(b"x") + b"\0", "check-many"),
    ],
)
def test_a_batch_that_is_malformed_is_refused_with_its_field(body: bytes, field: str):
    with pytest.raises(BadRequest) as refused:
        read_many(body, 16)
    assert refused.value.field == field
    assert len(read_many(many(*[packed(PLAIN)] * MAX_MANY), 16)[1]) == MAX_MANY


def test_the_reply_to_a_batch_is_a_count_and_length_prefixed_bodies():
    assert write_many([b"ab", b""]) == b"\2\0\0\0" + b"\2\0\0\0ab" + b"\0\0\0\0"


def test_replies_and_errors_echo_partition_and_request():
    assert reply(Op.STATS, 7, 3, b"x") == frame(0x88, 7, b"x", partition=3)
    body = packed({"code": 12, "field": "min_revision", "reason": "wait"})
    assert error(7, 3, Stale("min_revision", "wait")) == frame(0xFF, 7, body, partition=3)


def test_what_is_packed_is_canonical():
    value = {"b": [1, 2.5, None], "a": {"\uffff": 1, "\U00010000": 2}}
    assert pack(value) == packed(value)
    assert msgspec.msgpack.decode(pack(value)) == value


@pytest.mark.parametrize("body", [b"\x82\xa5point\xa1a\xa5point\xa1b", b"\xde\x00\x01\xa5point\xa1a"])
def test_a_hello_that_says_something_twice_is_refused_and_its_neighbour_is_read(body):
    with pytest.raises(BadRequest, match="hello"):
        read_hello(body)
    assert read_hello(b"\x81\xa5point\xa1a").point == "a"
