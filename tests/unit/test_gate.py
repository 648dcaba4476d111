"""The gate: hits without Python objects, what is asked, the bounds of one read (hostile bytes: their own test)."""

import gc
import struct
import sys
import tracemalloc

import pytest

from pepcore.core.gate import Gate, Stream
from pepcore.errors import Refused
from tests.test_hostile_bytes import CHECK, HELLO, KEY, NOW, WALL, Daemon, check, replies
from tests.vectors.frames import context, frame, pack, tail


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def connected(daemon: Daemon) -> Stream:
    stream = Stream("peer")
    daemon.gate.feed(stream, HELLO, NOW, WALL)
    return stream


def test_allocations_do_not_grow_with_pipelined_hits(daemon: Daemon):
    stream = connected(daemon)
    many = CHECK * 1000
    daemon.gate.feed(stream, many, NOW, WALL)  # the output buffer has its size
    gc.collect()
    gc.disable()
    try:
        grown = {}
        for n, data in ((1, CHECK), (1000, many)):
            before = sys.getallocatedblocks()
            out = daemon.gate.feed(stream, data, NOW, WALL)
            grown[n] = sys.getallocatedblocks() - before
            assert out is not None
            assert len(out) == n * len(out[: 24 + struct.unpack_from("<I", out)[0]])
            del out
        tracemalloc.start()
        peaks = []
        for data in (CHECK, many):
            tracemalloc.reset_peak()
            start = tracemalloc.get_traced_memory()[0]
            out = daemon.gate.feed(stream, data, NOW, WALL)
            peaks.append(tracemalloc.get_traced_memory()[1] - start - sys.getsizeof(out))
            del out
        tracemalloc.stop()
    finally:
        gc.enable()
    assert grown[1000] <= grown[1] + 1
    assert abs(peaks[1] - peaks[0]) < 200
    assert daemon.cache.usage()["hits"] == 1000 + 2 * 1001


def test_a_question_that_is_not_canonical_hits_the_same_entry(daemon: Daemon):
    stream = connected(daemon)
    loose = b"\xdc\x00\x05" + KEY[1:]
    out = list(replies(daemon.gate.feed(stream, check(loose), NOW, WALL)))
    assert [(op, body[0]) for op, _, body in out] == [(0x82, 1)]
    asked = pack(context(1))
    daemon.gate.feed(stream, check(b"\xdc\x00\x05" + asked[1:]), NOW, WALL)
    assert [a.question for a in stream.take_asks()] == [asked]


def test_nothing_crosses_a_partition(daemon: Daemon):
    numbers = iter((1, 2))
    gate = Gate(daemon.cache, daemon.page, lambda s, n, b: (next(numbers), b""))
    stream = Stream()
    gate.feed(stream, HELLO * 2, NOW, WALL)
    out = list(replies(gate.feed(stream, CHECK + check(KEY, partition=2, number=3), NOW, WALL)))
    assert [(n, body[0]) for _, n, body in out] == [(2, 1)]
    assert [(a.id, a.partition, a.local) for a in stream.take_asks()] == [(3, 2, 2)]


def test_no_hit_outlives_its_lifetime_its_revision_or_its_callers_token(daemon: Daemon):
    stream = connected(daemon)

    def permitted(now: int = NOW, wall: int = WALL, **fields: int) -> bool:
        flags, rest = tail(**fields)  # type: ignore[arg-type]
        out = list(replies(daemon.gate.feed(stream, check(KEY, flags=flags, rest=rest), now, wall)))
        return any(op == 0x82 and body[0] == 1 for op, _, body in out)

    assert permitted(10**12 - 1)
    assert not permitted(10**12)
    assert permitted(not_after=WALL + 1)
    assert not permitted(not_after=WALL)
    assert not permitted(not_after=0)
    assert permitted(not_after=2**64 - 1)
    daemon.page.bump()
    assert not permitted()


def test_a_minimum_revision_is_met_or_denied(daemon: Daemon):
    stream = connected(daemon)
    for least, code in (([3, 0], 0), ([3, 1], 12), ([3, 2**64 - 1], 12), ([4, 9], 0)):
        flags, rest = tail(min_revision=least)
        ((op, _, body),) = replies(daemon.gate.feed(stream, check(KEY, flags=flags, rest=rest), NOW, WALL))
        assert (op, body[0], body[1]) == (0x82, code == 0, code)


def test_the_lifetime_told_is_bounded_by_the_callers_token(daemon: Daemon):
    stream = connected(daemon)
    flags, rest = tail(not_after=WALL + 17)
    ((_, _, body),) = replies(daemon.gate.feed(stream, check(KEY, flags=flags, rest=rest), NOW, WALL))
    assert struct.unpack_from("<I", body, 4) == (17,)
    ((_, _, body),) = replies(daemon.gate.feed(stream, CHECK, NOW, WALL))
    assert struct.unpack_from("<I", body, 4) == ((10**12 - NOW) // 10**6,)


def test_output_is_bounded_and_what_is_left_is_answered_in_the_next_call(daemon: Daemon):
    stream = connected(daemon)
    data, answered, calls = CHECK * 20_000, 0, 0
    while data or stream.more:
        out = daemon.gate.feed(stream, data, NOW, WALL)
        assert out is not None
        assert len(out) < 262_144 + 200
        answered, calls, data = answered + sum(1 for _ in replies(out)), calls + 1, b""
    assert answered == 20_000
    assert calls > 4
    assert (stream.waiting, stream.more) == (0, False)


def test_more_bytes_may_come_while_some_are_left(daemon: Daemon):
    stream = connected(daemon)
    out = list(replies(daemon.gate.feed(stream, CHECK * 5000, NOW, WALL)))
    out += replies(daemon.gate.feed(stream, check(KEY, number=77), NOW, WALL))
    while stream.more:
        out += replies(daemon.gate.feed(stream, b"", NOW, WALL))
    assert len(out) == 5001
    assert out[-1][1] == 77


def test_a_hello_that_is_refused_makes_no_partition(daemon: Daemon):
    def hello(stream, local, body):
        raise Refused("point", "not yours")

    gate = Gate(daemon.cache, daemon.page, hello)
    stream = Stream()
    out = list(replies(gate.feed(stream, HELLO + CHECK, NOW, WALL)))
    assert [op for op, _, _ in out] == [0xFF, 0xFF]
    assert b"not yours" in out[0][2]
    assert stream.count == 0


def test_what_is_no_check_is_handed_on_as_it_came(daemon: Daemon):
    stream = connected(daemon)
    flags, rest = tail(deadline_us=9)
    daemon.gate.feed(stream, frame(3, 5, rest + b"body", partition=1, flags=flags) + frame(200, 6, b"x"), NOW, WALL)
    many, unknown = stream.take_asks()
    assert (many.op, many.id, many.rest, many.deadline_ns, many.question) == (3, 5, b"body", 9000, None)
    assert (unknown.op, unknown.rest, unknown.partition) == (200, b"x", 0)
    assert stream.take_asks() == []


def test_an_explanation_is_never_answered_from_the_cache(daemon: Daemon):
    stream = connected(daemon)
    assert daemon.gate.feed(stream, frame(9, 4, KEY, question=len(KEY), partition=1), NOW, WALL) is None
    assert [(a.op, a.question) for a in stream.take_asks()] == [(9, KEY)]


def test_a_read_pauses_after_some_frames_that_did_not_hit_and_goes_on_where_it_was(daemon: Daemon):
    stream = connected(daemon)
    odd = [frame(77, n, b"") for n in range(40)]
    daemon.gate.feed(stream, b"".join(odd) + CHECK * 3, NOW, WALL)
    seen, hits = [[ask.id for ask in stream.take_asks()]], 0
    while stream.more:
        out = daemon.gate.feed(stream, b"", NOW, WALL)
        seen.append([ask.id for ask in stream.take_asks()])
        hits += len(list(replies(out))) if out else 0
    assert [len(each) for each in seen] == [16, 16, 8]
    assert [n for each in seen for n in each] == list(range(40))
    assert hits == 3
    assert stream.waiting == 0
