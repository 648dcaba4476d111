"""Headers: every field at its place, little-endian, and cut by the gate as they were written."""

import struct

import pytest

from pepcore.core.cache import Cache
from pepcore.core.frame import header
from pepcore.core.gate import Gate, Stream
from pepcore.core.page import Page
from tests.vectors.frames import frame


@pytest.mark.parametrize(
    ("op", "number", "length", "fields"),
    [
        (1, 0, 0, {}),
        (2, 2**64 - 1, 2**32 - 1, {"question": 2**32 - 1, "partition": 2**32 - 1, "flags": 0xFFFF}),
        (0xFF, 1, 2, {"partition": 3}),
    ],
)
def test_a_header_is_24_bytes_with_every_field_at_its_place(op: int, number: int, length: int, fields: dict):
    f = {"question": 0, "partition": 0, "flags": 0, **fields}
    data = header(op, number, length, **fields)
    assert data == struct.pack("<IIBBHIQ", length, f["question"], 1, op, f["flags"], f["partition"], number)
    assert data == frame(op, number, b"", length=length, **fields)


@pytest.mark.parametrize("wrong", [{"request_id": -1}, {"request_id": 2**64}, {"length": -1}, {"length": 2**32}])
def test_a_number_that_does_not_fit_is_refused(wrong: dict):
    with pytest.raises(OverflowError):
        header(**{"op": 2, "request_id": 0, "length": 0, **wrong})
    assert header(2, 0, 0)


def test_a_frame_is_whole_only_when_its_last_byte_is_there():
    gate, stream = Gate(Cache(slots=8, slab=64, seed=1), Page(1), lambda s, n, b: (1, b"")), Stream()
    data = frame(8, 5, bytes(100))
    for i in range(len(data) - 1):
        assert gate.feed(stream, data[i : i + 1], 0, 0) is None
        assert (stream.waiting, stream.asks) == (i + 1, [])
    gate.feed(stream, data[-1:] + data[:30], 0, 0)
    assert ([a.id for a in stream.take_asks()], stream.waiting) == ([5], 30)
