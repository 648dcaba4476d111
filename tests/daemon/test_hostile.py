"""Hostile bytes on the socket: an error frame that names field and reason, never a permit, never a crash."""

from __future__ import annotations

import random
import socket
import struct
import time

import pytest
from raw import Client, Error, Verdict, ask, check, frame, hello, many, pack, tail

QUESTION = ask()
HEAD, TAIL = QUESTION[: QUESTION.index(b"\x80\x90")], b"\x90"


def with_context(value: bytes) -> bytes:
    """The question with these bytes as the value of context.v."""
    return QUESTION[:-2] + b"\x81\xa1v" + value + b"\x90"


BAD_QUESTIONS = {
    "bin": with_context(b"\xc4\x01a"),
    "ext": with_context(b"\xd4\x01a"),
    "timestamp": with_context(b"\xd6\xff\x00\x00\x00\x00"),
    "never used": with_context(b"\xc1"),
    "nan": with_context(b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
    "infinity": with_context(b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"),
    "nan32": with_context(b"\xca\x7f\xc0\x00\x00"),
    "bad utf-8": with_context(b"\xa2\xc3\x28"),
    "surrogate": with_context(b"\xa3\xed\xa0\x80"),
    "overlong": with_context(b"\xa2\xc0\x80"),
    "duplicate keys": with_context(b"\x82\xa1a\x01\xa1a\x02"),
    "integer key": with_context(b"\x81\x01\x02"),
    "deep": with_context(b"\x91" * 40 + b"\xc0"),
    "huge array": with_context(b"\xdd\xff\xff\xff\xff"),
    "huge map": with_context(b"\xdf\xff\xff\xff\xff"),
    "huge string": with_context(b"\xdb\xff\xff\xff\xff"),
    "truncated": QUESTION[:-3],
    "trailing": QUESTION + b"\xc0",
    "empty": b"",
    "not a list": pack({"a": 1}),
    "four items": b"\x94" + QUESTION[1:-1],
    "empty type": pack([["", "a", {}], ["read", {}], ["D", "a", {}], {}, []]),
    "empty action": pack([["U", "a", {}], ["", {}], ["D", "a", {}], {}, []]),
    "context is a list": pack([["U", "a", {}], ["read", {}], ["D", "a", {}], [], []]),
    "long chain": pack([["U", "a", {}], ["read", {}], ["D", "a", {}], {}, [["U", "b", {}]] * 17]),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One daemon for what must not hurt it."""
    from running import PERMIT, Daemon

    daemon = Daemon(tmp_path_factory.mktemp("hostile"), PERMIT, '[limits]\npartial = "300ms"\n', "", {}).ready()
    yield daemon
    assert daemon.process.poll() is None
    assert daemon.events("an error was not expected") == []
    assert daemon.stop() == 0


@pytest.mark.parametrize("name", BAD_QUESTIONS)
@pytest.mark.parametrize("op", [2, 9])
def test_a_malformed_question_gets_an_error_frame_and_the_connection_goes_on(shared, name, op):
    with shared.client() as c:
        c.send(check(BAD_QUESTIONS[name], 7, op=op))
        answer = c.answer()
        assert isinstance(answer, Error)
        assert answer.code == 2
        assert answer.reason
        assert c.ask().permit


@pytest.mark.parametrize("name", BAD_QUESTIONS)
def test_a_malformed_question_in_a_batch_denies_alone(shared, name):
    with shared.client() as c:
        bad, good = c.ask_many([BAD_QUESTIONS[name], QUESTION])
        assert (bad.permit, bad.fault) == (False, 2)
        assert good.permit


FLAGS, END = tail(deadline_us=1_000_000)
BAD_FRAMES = {
    "unknown op": (frame(77, 7, b""), 5, "op"),
    "op 0": (frame(0, 7, b""), 5, "op"),
    "op of a reply": (frame(0x82, 7, b""), 5, "op"),
    "unknown flags": (frame(2, 7, QUESTION, question=len(QUESTION), partition=1, flags=0x100), 3, "flags"),
    "all flags": (frame(2, 7, QUESTION, question=len(QUESTION), partition=1, flags=0xFFFF), 3, "flags"),
    "tail missing": (frame(2, 7, QUESTION, question=len(QUESTION), partition=1, flags=1), 3, "length"),
    "tail not announced": (frame(2, 7, QUESTION + END, question=len(QUESTION), partition=1), 3, "length"),
    "question length too long": (frame(2, 7, QUESTION, question=len(QUESTION) + 1, partition=1), 3, "length"),
    "question length huge": (frame(2, 7, QUESTION, question=0xFFFFFFFF, partition=1), 3, "length"),
    "question length 0": (frame(2, 7, QUESTION, question=0, partition=1), 3, "length"),
    "partition 0": (check(QUESTION, 7, partition=0), 3, "partition"),
    "partition of nobody": (check(QUESTION, 7, partition=2), 3, "partition"),
    "partition huge": (check(QUESTION, 7, partition=0xFFFFFFFF), 3, "partition"),
    "batch without hello": (many([QUESTION], 7, partition=0), 3, "partition"),
    "batch with question length": (frame(3, 7, b"\0" * 8, question=4, partition=1), 3, "question length"),
    "batch of none": (many([], 7), 3, "check-many.count"),
    "batch of too many": (frame(3, 7, b"\0" * 4 + struct.pack("<I", 1001), partition=1), 3, "check-many.count"),
    "batch of 4 billion": (frame(3, 7, b"\0" * 4 + b"\xff" * 4, partition=1), 3, "check-many.count"),
    "batch semantic": (frame(3, 7, b"\x03\0\0\0\x01\0\0\0", partition=1), 3, "check-many.semantic"),
    "batch padding": (frame(3, 7, b"\0\0\x01\0\x01\0\0\0", partition=1), 3, "check-many.semantic"),
    "batch item too long": (frame(3, 7, b"\0\0\0\0\x01\0\0\0\xff\xff\xff\xff", partition=1), 3, "check-many.0"),
    "batch trailing": (frame(3, 7, many([QUESTION], 7)[24:] + b"x", partition=1), 3, "check-many"),
    "hello with flags": (frame(1, 7, hello()[24:], flags=1), 3, "header"),
    "hello with partition": (frame(1, 7, hello()[24:], partition=1), 3, "header"),
    "hello empty": (frame(1, 7, b""), 3, "hello"),
    "hello no map": (frame(1, 7, b"\x01"), 3, "hello"),
    "hello unknown key": (frame(1, 7, pack({"client": "a", "uid": 0})), 3, "hello"),
    "hello deep": (frame(1, 7, b"\x91" * 5000), 3, "hello"),
    "hello bad utf-8": (frame(1, 7, b"\x81\xa5point\xa2\xc3\x28"), 3, "hello"),
    "hello other version": (hello(7, versions=(2, 3)), 3, "hello.versions"),
    "hello many handles": (hello(7, handles=tuple(f"t{i}" for i in range(65))), 3, "hello.handles"),
    "hello empty handle": (hello(7, handles=("",)), 3, "hello.handles"),
    "hello long point": (hello(7, point="p" * 65), 3, "hello"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_malformed_frame_names_the_field_and_the_connection_goes_on(shared, name):
    data, code, field = BAD_FRAMES[name]
    with shared.client() as c:
        c.send(data)
        got = c.read()
        assert (got.op, got.id) == (0xFF, 7)
        c.send(data)
        answer = c.answer()
        assert isinstance(answer, Error)
        assert (answer.code, answer.field) == (code, field)
        assert answer.reason
        assert c.ask().permit


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (frame(2, 7, b"", length=65537), "length"),
        (frame(2, 7, b"", length=0xFFFFFFFF), "length"),
        (frame(2, 7, b"", version=2), "version"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "version"),
    ],
)
def test_a_lost_framing_gets_an_error_frame_and_is_closed(shared, data, field):
    with shared.client() as c:
        assert c.ask().permit
        c.send(data)
        answer = c.answer()
        assert isinstance(answer, Error)
        assert (answer.code, answer.field) == (1, field)
        with pytest.raises(EOFError):
            c.read()
    assert shared.permits()


def test_a_frame_of_exactly_the_limit_is_read(shared):
    with shared.client() as c:
        question = ask(context={"v": "x" * (65536 - len(ask(context={"v": ""})) - 4)})
        while len(question) < 65536:
            question = ask(context={"v": "x" * (65536 - len(question) + question.count(b"x"))})
        assert len(question) == 65536
        assert c.ask(question).permit


def test_a_check_without_hello_is_an_error_and_after_it_a_permit(shared):
    with shared.client(greet=False) as c:
        answer = c.ask()
        assert isinstance(answer, Error)
        assert answer.field == "partition"
        c.greet()
        assert c.ask().permit


def test_the_65th_hello_is_refused_and_the_64th_is_not(shared):
    with shared.client(greet=False) as c:
        for _ in range(64):
            assert c.greet().op == 0x81
        refused = c.greet()
        assert refused.op == 0xFF
        assert c.ask(partition=64).permit
        assert isinstance(c.ask(partition=65), Error)


def test_values_that_are_valid_but_not_canonical_are_answered_alike(shared):
    with shared.client() as c:
        wide = QUESTION.replace(b"\xa5alice", b"\xd9\x05alice")
        assert c.ask(wide).permit
        assert c.ask(wide).cached
        assert c.ask().cached


def test_a_frame_may_come_byte_by_byte(shared):
    with shared.client() as c:
        for byte in check(QUESTION, 3):
            c.send(bytes([byte]))
        assert c.answer().permit


@pytest.mark.parametrize("sent", [1, 23, 24, 40])
def test_a_frame_that_stays_half_sent_is_closed_in_time(shared, sent):
    with shared.client() as c, shared.client() as neighbour:
        start = time.monotonic()
        c.send(check(QUESTION, 3)[:sent])
        with pytest.raises(EOFError):
            c.read()
        assert 0.2 < time.monotonic() - start < 5
        assert neighbour.ask().permit  # idle, and nothing half sent: not closed


@pytest.mark.parametrize("batches", [0, 1, 2, 6])
def test_a_frame_that_stays_half_sent_behind_others_that_waited_for_their_turn_is_closed_in_time(shared, batches):
    with shared.client() as c:
        new = [[ask(resource=f"Document::{batches}.{b}.{n}") for n in range(100)] for b in range(batches)]
        c.send(b"".join(many(questions, b) for b, questions in enumerate(new)) + check(QUESTION, 3)[:30])
        start = time.monotonic()
        for _ in range(batches):
            c.read()
        with pytest.raises(EOFError):
            c.read()
        assert time.monotonic() - start < 5


def test_a_slow_drip_does_not_extend_its_time(shared):
    with shared.client() as c:
        data = check(ask(context={"v": "x" * 2000}), 3)
        start = time.monotonic()

        def drip() -> None:
            for byte in data:
                c.send(bytes([byte]))
                time.sleep(0.02)

        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip()
        assert time.monotonic() - start < 5
    with shared.client() as c:
        c.send(data)
        assert c.answer().permit


def test_random_and_mutated_bytes_never_permit_and_never_hurt(shared):
    rng = random.Random(7)
    denied = ask("User::bob")
    found = 0
    for _ in range(300):
        data = bytearray(hello(1) + check(denied, 2) + many([denied, denied], 3))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with Client(shared.socket, greet=False) as c:
            c.send(bytes(data))
            c.socket.shutdown(socket.SHUT_WR)
            try:
                while True:
                    got = c.read()
                    found += 1
                    if got.op == 0x82:
                        assert got.body[0] == 0
                    elif got.op == 0x83 and len(got.body) > 8:
                        assert got.body[8] == 0
            except EOFError:
                pass
    assert found > 300
    assert shared.permits()


def test_a_peer_that_shuts_its_writing_side_still_gets_what_it_asked(shared):
    with shared.client() as c:
        c.send(check(QUESTION, 3))
        c.socket.shutdown(socket.SHUT_WR)
        answer = c.answer()
        assert isinstance(answer, Verdict)
        assert answer.permit
