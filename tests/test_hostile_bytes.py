"""The gate against hostile bytes: never a crash, never a permit, never an allocation beyond the frame limit.

Each attack has a neighbour: the same bytes before they were spoiled are answered with the permit that is cached. The
fuzzer's judge is tested first: it has to find a gate that answers what it should refuse.
"""

import json
import random
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pepcore.core.cache import Cache
from pepcore.core.frame import header
from pepcore.core.gate import Gate, Stream
from pepcore.core.page import Page
from pepcore.core.question import canonical
from pepcore.core.verdict import payload, settle
from pepcore.errors import BadQuestion, Fault
from pepcore.wire import pack, read_hello, read_many
from tests.vectors.frames import PLAIN, context, frame, nested, tail, text
from tests.vectors.frames import pack as packed

VECTORS = Path(__file__).parent / "vectors"
KEY = packed(PLAIN)
LIMIT = 65536
NOW, WALL = 1_000, 1_000
HELLO = frame(1, 1, packed({"client": "", "handles": [], "point": "", "versions": [1]}))
CHECK = frame(2, 2, KEY, question=len(KEY), partition=1)


def replies(out: bytes | None) -> Iterator[tuple[int, int, bytes]]:
    """(op, request id, body) of each frame."""
    out, at = out or b"", 0
    while at < len(out):
        length, question, version, op, flags, _, number = struct.unpack_from("<IIBBHIQ", out, at)
        assert (question, version, flags) == (0, 1, 0)
        assert len(out) - at - 24 >= length
        yield op, number, out[at + 24 : at + 24 + length]
        at += 24 + length


class Daemon:
    """A gate with one permit in its cache, for `KEY` in partition 1."""

    def __init__(self, kind: Any = Gate) -> None:
        self.cache, self.page = Cache(slots=64, slab=65536, seed=5), Page(3)
        verdict = settle(True, "yes", (), (), (), number=9)
        self.cache.put(
            1, 1, KEY, payload(verdict), permit=True, id=9, expires=10**12, revision=0, now=NOW, page=self.page
        )  # fmt: skip
        self.gate = kind(self.cache, self.page, self.hello, frame_limit=LIMIT)

    def hello(self, stream: Stream, local: int, body: bytes) -> tuple[int, bytes]:
        read_hello(body)
        return 1, pack({"partition": local})

    def talk(self, data: bytes, *, chunk: int | None = None) -> tuple[list[tuple[int, int, bytes]], Stream]:
        stream = Stream("peer")
        out: list[tuple[int, int, bytes]] = []
        for piece in [data] if chunk is None else [data[i : i + chunk] for i in range(0, len(data), chunk)]:
            out += replies(self.gate.feed(stream, piece, NOW, WALL))
            while stream.more:
                out += replies(self.gate.feed(stream, b"", NOW, WALL))
        return out, stream


def check(question: bytes, /, *, flags: int = 0, rest: bytes = b"", number: int = 2, **fields: Any) -> bytes:
    fields = {"partition": 1, "question": len(question), **fields}
    return frame(2, number, question + rest, flags=flags, **fields)


def only_error(out: list[tuple[int, int, bytes]], number: int = 2) -> dict[str, Any]:
    assert [(op, n) for op, n, _ in out] == [(0x81, 1), (0xFF, number)], out
    return msgspec.msgpack.decode(out[1][2], type=dict[str, Any])


def test_the_neighbour_of_every_attack_is_a_permit():
    out, stream = Daemon().talk(HELLO + CHECK)
    assert [(op, n, body[0]) for op, n, body in out[1:]] == [(0x82, 2, 1)]
    assert stream.waiting == 0


VALUES = {
    "duplicate keys": b"\x82" + (text(b"a") + b"\x01") * 2,
    "duplicate keys apart": b"\x83" + text(b"a") + b"\x01" + text(b"b") + b"\x01" + text(b"a") + b"\x02",
    "a key that is a number": b"\x81\x01\x01",
    "nan": b"\x81" + text(b"v") + b"\xcb\x7f\xf8" + bytes(6),
    "nan of 32 bits": b"\x81" + text(b"v") + b"\xca\x7f\xc0\0\0",
    "infinity": b"\x81" + text(b"v") + b"\xcb\xff\xf0" + bytes(6),
    "bad utf-8": b"\x81" + text(b"v") + text(b"\xff"),
    "a surrogate": b"\x81" + text(b"v") + text(b"\xed\xa0\x80"),
    "overlong utf-8": b"\x81" + text(b"v") + text(b"\xc0\xaf"),
    "bad utf-8 in a key": b"\x81" + text(b"\xff") + b"\x01",
    "bin": b"\x81" + text(b"v") + b"\xc4\x01a",
    "ext": b"\x81" + text(b"v") + b"\xd4\x01a",
    "timestamp": b"\x81" + text(b"v") + b"\xd6\xff" + bytes(4),
    "reserved": b"\x81" + text(b"v") + b"\xc1",
    "a string of 4 GiB": b"\x81" + text(b"v") + b"\xdb\xff\xff\xff\xff",
    "a list of 4 G items": b"\x81" + text(b"v") + b"\xdd\xff\xff\xff\xff",
    "a map of 4 G pairs": b"\x81" + text(b"v") + b"\xdf\xff\xff\xff\xff",
    "a map of 4 G pairs itself": b"\xdf\xff\xff\xff\xff",
    "cut": b"\x81" + text(b"v"),
    "not a map": b"\x90",
    "deep": b"\x81" + text(b"v") + b"\x91" * 40 + b"\xc0",
    "ten thousand deep": b"\x81" + text(b"v") + b"\x91" * 10_000 + b"\xc0",
}


@pytest.mark.parametrize("name", VALUES)
def test_duplicate_keys_nan_bad_utf8_over_deep_and_over_long_input_are_refused(name: str):
    question = b"\x95" + packed(PLAIN[0]) + packed(PLAIN[1]) + packed(PLAIN[2]) + VALUES[name] + b"\x90"
    daemon = Daemon()
    out, stream = daemon.talk(HELLO + check(question))
    error = only_error(out)
    assert error["code"] == 2
    assert error["field"]
    assert error["reason"]
    assert (stream.lost, stream.asks) == (False, [])
    with pytest.raises(BadQuestion):
        canonical(question)
    well = packed(context("v"))
    out, stream = daemon.talk(HELLO + check(well))
    assert [ask.question for ask in stream.asks] == [well]


def test_sixteen_levels_are_taken_and_the_seventeenth_is_refused():
    out, stream = Daemon().talk(HELLO + check(packed(nested(16))))
    assert (len(out), len(stream.asks)) == (1, 1)
    assert only_error(Daemon().talk(HELLO + check(packed(nested(17))))[0])["code"] == 2


def test_input_that_is_refused_is_refused_before_allocation():
    daemon = Daemon()
    stream = Stream("peer")
    daemon.gate.feed(stream, HELLO, NOW, WALL)
    hostile = [
        check(b"\x95" + packed(PLAIN[0]) + packed(PLAIN[1]) + packed(PLAIN[2]) + value + b"\x90")
        for value in VALUES.values()
    ]
    over = frame(2, 2, b"", length=0xFFFFFFFF, partition=1)
    tracemalloc.start()
    try:
        for data in [*hostile, over]:
            daemon.gate.feed(stream, data, NOW, WALL)
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    finally:
        tracemalloc.stop()
    assert stream.lost
    assert stream.waiting == 0


@pytest.mark.parametrize("change", [{"version": 2}, {"version": 0}, {"length": LIMIT + 1}, {"length": 0xFFFFFFFF}])
def test_framing_that_is_lost_is_answered_once_and_nothing_after_it_is_read(change: dict[str, int]):
    out, stream = Daemon().talk(HELLO + check(KEY, **change) + CHECK)
    assert only_error(out)["code"] == 1
    assert stream.lost
    assert Daemon().gate.feed(stream, CHECK, NOW, WALL) is None


def test_a_frame_of_exactly_the_limit_is_taken():
    pad = "x" * (LIMIT - len(packed(context(""))) - 2)
    question = packed(context(pad))
    assert len(question) == LIMIT
    assert len(Daemon().talk(HELLO + check(question))[1].asks) == 1
    assert only_error(Daemon().talk(HELLO + check(packed(context(pad + "x"))))[0])["code"] == 1


@pytest.mark.parametrize("lead", [b"", HELLO])
def test_a_slow_drip_is_answered_as_one_write_is(lead: bytes):
    data = lead + CHECK + check(b"\x95", number=3) + CHECK
    whole, _ = Daemon().talk(data)
    for chunk in (1, 2, 23, 24, 25, 64):
        dripped, stream = Daemon().talk(data, chunk=chunk)
        assert dripped == whole
        assert stream.waiting == 0


def test_a_truncated_frame_is_never_answered_and_waits_for_its_rest():
    for cut in range(len(CHECK)):
        out, stream = Daemon().talk(HELLO + CHECK[:cut])
        assert len(out) == 1
        assert (stream.waiting, stream.asks) == (cut, [])
    assert len(Daemon().talk(HELLO + CHECK)[0]) == 2


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (check(KEY, flags=16), "flags"),
        (check(KEY, flags=0xFFFF), "flags"),
        (check(KEY, flags=1), "length"),
        (check(KEY, rest=b"\0"), "length"),
        (check(KEY, question=len(KEY) + 1), "length"),
        (check(KEY, question=0xFFFFFFFF), "length"),
        (check(KEY, partition=0), "partition"),
        (check(KEY, partition=2), "partition"),
        (check(KEY, partition=0xFFFFFFFF), "partition"),
        (frame(1, 2, b"\xc1"), "hello"),
        (frame(1, 2, packed({"versions": [2]})), "hello.versions"),
        (frame(1, 2, packed({"other": 1})), "hello"),
        (frame(1, 2, b"", flags=1), "header"),
        (frame(3, 2, b"", partition=1, flags=16), "flags"),
        (frame(3, 2, b"", partition=1, flags=1), "length"),
        (frame(3, 2, bytes(8), partition=9), "partition"),
        (frame(8, 2, b"", question=1), "question length"),
    ],
)
def test_anything_malformed_gets_an_error_that_names_the_field_and_the_connection_goes_on(data: bytes, field: str):
    out, stream = Daemon().talk(HELLO + data + check(KEY, number=3))
    assert [(op, n) for op, n, _ in out] == [(0x81, 1), (0xFF, 2), (0x82, 3)]
    assert msgspec.msgpack.decode(out[1][2])["field"] == field
    assert out[2][2][0] == 1
    assert not stream.asks


def test_a_connection_makes_at_most_64_partitions():
    out, stream = Daemon().talk(HELLO * 65 + CHECK)
    assert [op for op, _, _ in out] == [0x81] * 64 + [0xFF, 0x82]
    assert msgspec.msgpack.decode(out[64][2])["code"] == 6
    assert stream.count == 64


# ---- the fuzzer ----


def golden() -> list[bytes]:
    return [bytes.fromhex(case["hex"]) for case in json.loads((VECTORS / "requests.json").read_text())]


def mutations(data: bytes, r: random.Random) -> Iterator[bytes]:
    """Every cut, every byte changed in some ways, runs moved, doubled, left out."""
    for i in range(len(data)):
        yield data[:i]
        for value in {0, 1, data[i] ^ 1, data[i] ^ 0x80, 0x7F, 0xC1, 0xDF, 0xFF, r.randrange(256)} - {data[i]}:
            yield data[:i] + bytes([value]) + data[i + 1 :]
    for _ in range(100):
        i, j = sorted((r.randrange(len(data) + 1), r.randrange(len(data) + 1)))
        yield data[:i] + data[j:]
        yield data[:j] + data[i:]
        yield data[:i] + r.randbytes(j - i) + data[j:]


def judge(daemon: Daemon, data: bytes) -> None:
    """No permit but for the bytes that the cache holds; nothing handed on that is not canonical; answers bounded."""
    stream = Stream("peer")
    out = [*replies(daemon.gate.feed(stream, HELLO, NOW, WALL)), *replies(daemon.gate.feed(stream, data, NOW, WALL))]
    for op, number, body in out:
        if op == 0x82 and body[0]:
            asked = asks_for_the_permit(data, number)
            assert asked, f"a permit for {data.hex()}"
    assert stream.waiting <= len(data)
    for ask in stream.take_asks():
        if ask.question is not None:
            assert canonical(ask.question) == ask.question, f"not canonical: {data.hex()}"
            assert ask.partition == 1
        elif ask.op == 3:
            try:
                for item in read_many(ask.rest, 16)[1]:
                    assert isinstance(item, Fault) or canonical(item) == item
            except Fault:
                pass
    for _, _, body in out:
        assert len(body) < 4096


def asks_for_the_permit(data: bytes, number: int) -> bool:
    """Whether some frame in the data is a check of the cached question: read by another reader than the gate."""
    at = 0
    while len(data) - at >= 24:
        length, question, version, op, flags, partition, request = struct.unpack_from("<IIBBHIQ", data, at)
        body = data[at + 24 : at + 24 + length]
        if (op, version, request, partition > 0) == (2, 1, number, True) and flags < 16 and len(body) == length:
            try:
                same = msgspec.msgpack.decode(body[:question]) == PLAIN
            except (ValueError, RecursionError):
                return False
            if same and canonical(body[:question]) == KEY:
                return True
        at += 24 + length
    return False


def fuzz(kind: Any, rounds: int) -> int:
    r, tried = random.Random(20), 0
    for data in [CHECK, *golden()][:rounds]:
        daemon = Daemon(kind)
        for mutant in mutations(data, r):
            judge(daemon, mutant)
            tried += 1
    return tried


class Careless:
    """A gate that takes a question for the cached one when only its length and its first bytes are the same."""

    def __init__(self, *args: Any, **rest: Any) -> None:
        self.gate = Gate(*args, **rest)

    def feed(self, stream: Stream, data: bytes, now: int, wall_ms: int) -> bytes | None:
        if data[24:34] == KEY[:10] and len(data) == len(CHECK):
            data = data[:24] + KEY
        return self.gate.feed(stream, data, now, wall_ms)


class Sloppy(Careless):
    """A gate that repairs an unknown version."""

    def feed(self, stream: Stream, data: bytes, now: int, wall_ms: int) -> bytes | None:
        if len(data) > 9:
            data = data[:8] + b"\x01" + data[9:]
        return self.gate.feed(stream, data, now, wall_ms)


@pytest.mark.parametrize("kind", [Careless, Sloppy])
def test_every_fuzzer_first_finds_a_planted_bug(kind: type):
    with pytest.raises(AssertionError, match="a permit for"):
        fuzz(kind, 1)


def test_no_mutation_of_a_golden_frame_is_a_permit_or_a_crash():
    assert fuzz(Gate, 100) > 10_000


def test_random_bytes_are_never_a_permit_or_a_crash():
    r, daemon = random.Random(21), Daemon()
    for _ in range(20_000):
        body = r.randbytes(r.randrange(80))
        judge(daemon, frame(r.randrange(12), 2, body, question=r.randrange(90), partition=1, flags=r.randrange(20)))
        judge(daemon, r.randbytes(r.randrange(80)))


def test_every_mutation_of_a_question_is_refused_or_has_one_canonical_form():
    r = random.Random(22)
    for case in json.loads((VECTORS / "questions.json").read_text()):
        for mutant in mutations(bytes.fromhex(case["hex"])[:200], r):
            try:
                once = canonical(mutant)
            except BadQuestion:
                continue
            assert canonical(once) == once
            # as another reader sees it, nothing was changed by that
            assert msgspec.msgpack.decode(once) == msgspec.msgpack.decode(mutant)


def test_a_tail_is_read_to_the_byte():
    flags, rest = tail(deadline_us=5, not_after=WALL + 7, min_revision=[3, 0], trace="ab" * 25)
    for asked in (PLAIN, context(1)):
        question = packed(asked)
        out, stream = Daemon().talk(HELLO + check(question, flags=flags, rest=rest))
        if asked is PLAIN:
            assert out[1][2][0] == 1
            assert struct.unpack_from("<I", out[1][2], 4) == (7,)
        else:
            (ask,) = stream.asks
            assert (ask.deadline_ns, ask.not_after, ask.min_boot, ask.trace) == (5000, WALL + 7, 3, b"\xab" * 25)
        for cut in range(1, len(rest)):
            assert only_error(Daemon().talk(HELLO + check(question, flags=flags, rest=rest[:-cut]))[0])["code"] == 3


def test_header_writes_what_frames_are_made_of():
    assert header(2, 7, 5, question=4, partition=3, flags=1) == frame(
        2, 7, bytes(5), question=4, partition=3, flags=1
    )[:24]  # fmt: skip
