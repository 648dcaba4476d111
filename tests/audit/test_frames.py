"""Frames: what is read is what was written, and nothing else is."""

from __future__ import annotations

import random

import pytest

from pepcore.audit.frames import HEAD, LONGEST, SYNCED, Broken, end, frame, frames, leaf, synced_behind


def test_frames_are_read_as_they_were_written() -> None:
    bodies = [b"a", b"b" * LONGEST, b"\0" * 9]
    data = b"".join(frame(body, i == 1) for i, body in enumerate(bodies))
    assert [data[start + HEAD : stop] for start, stop in frames(data, 0)] == bodies


@pytest.mark.parametrize("body", [b"", b"x" * (LONGEST + 1)])
def test_a_body_that_does_not_fit_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=f"at most {LONGEST}"):
        frame(body)


def test_a_length_is_tested_before_anything_is_read() -> None:
    for length in (0, LONGEST + 1, SYNCED - 1):
        with pytest.raises(Broken, match="is not 1 to") as broken:
            end(length.to_bytes(4, "big") + b"\0" * 100, 0)
        assert not broken.value.short


def test_every_flipped_bit_breaks_a_frame_and_its_leaf() -> None:
    data = frame(b"body of an entry", True)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Broken):
            end(bytes(flipped), 0)
        if not 32 <= bit < 64:  # the checksum itself hangs on the rest
            assert leaf(bytes(flipped)) != leaf(data)


def test_every_cut_is_short() -> None:
    data = frame(b"body of an entry")
    for length in range(1, len(data)):
        with pytest.raises(Broken) as broken:
            end(data[:length], 0)
        assert broken.value.short


def test_random_bytes_are_no_frames_and_never_read_past_the_end() -> None:
    random_ = random.Random(7)
    for _ in range(3000):
        data = random_.randbytes(random_.randrange(1, 60))
        with pytest.raises(Broken) as broken:
            list(frames(data, 0))
        assert broken.value.offset <= len(data)


def test_a_synced_frame_behind_a_hole_is_found_and_an_unsynced_one_is_not() -> None:
    torn = b"\x80\x00torn"
    assert synced_behind(torn + frame(b"later", True), 0) == len(torn)
    assert synced_behind(torn + frame(b"later", False), 0) == -1
    assert synced_behind(torn + frame(b"later", True)[:-1], 0) == -1
