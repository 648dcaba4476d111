"""The caller's trace: parsed strictly, carried by every form of asking, never a reason for another answer."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pepclient import frames, trace
from pepclient.questions import canonical

import pepcore
from pepcore.core.frame import header

SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01"
GOOD = "-".join(("00", *SPAN))
BYTES = bytes.fromhex("".join(SPAN))
OTHER = "00-" + "1" * 32 + "-" + "2" * 16 + "-00"

MALFORMED = [
    None, 7, b"00", "", "garbage", GOOD.upper(), GOOD + " ", " " + GOOD, GOOD + "\n", GOOD + "-00", "01" + GOOD[2:],
    "ff" + GOOD[2:], "00-" + "0" * 32 + GOOD[35:], GOOD[:36] + "0" * 16 + "-01", GOOD[:-1], GOOD.replace("-", "_"),
    GOOD.replace("4bf9", "4bg9"), GOOD.replace("4bf9", "4b\u0661\u0661"), GOOD[:3] + " " + GOOD[4:],
]  # fmt: skip


@pytest.mark.parametrize("given", MALFORMED)
def test_what_is_malformed_is_ignored(given: Any) -> None:
    assert trace.parse(given) == b""
    with pepcore.traced(GOOD), pepcore.traced(given):
        assert trace.current() == b""


def test_what_is_well_formed_is_the_bytes_of_the_wire() -> None:
    assert trace.parse(GOOD) == BYTES
    assert len(BYTES) == frames._TRACE_SIZE
    assert trace.parse(GOOD[:-2] + "ff") == BYTES[:-1] + b"\xff"


def test_it_holds_within_and_no_longer() -> None:
    assert trace.current() == b""
    with pepcore.traced(GOOD):
        assert trace.current() == BYTES
        with pepcore.traced(OTHER):
            assert trace.current() == trace.parse(OTHER)
        assert trace.current() == BYTES
        seen: list[bytes] = []
        other = threading.Thread(target=lambda: seen.append(trace.current()))
        other.start()
        other.join()
        assert seen == [b""], "a thread of its own has a context of its own"
    assert trace.current() == b""
    with pytest.raises(KeyError), pepcore.traced(GOOD):
        raise KeyError
    assert trace.current() == b""


def test_tasks_keep_their_traces_apart() -> None:
    async def one(traceparent: str) -> bytes:
        with pepcore.traced(traceparent):
            await asyncio.sleep(0.01)
            return trace.current()

    async def both() -> list[bytes]:
        return await asyncio.gather(one(GOOD), one(OTHER))

    assert asyncio.run(both()) == [BYTES, trace.parse(OTHER)]


# ---- on the wire ----


class Recorder:
    """Stands for a daemon: takes frames, answers a hello and denies the rest; keeps what came."""

    def __init__(self, path: Path) -> None:
        self.seen: list[tuple[int, int, bytes]] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        data = bytearray()
        with peer:
            while got := peer.recv(1 << 20):
                data += got
                while len(data) >= 24:
                    length, _, _, op, flags, partition, number = frames.HEADER.unpack_from(data)
                    if len(data) < 24 + length:
                        break
                    body = bytes(data[24 : 24 + length])
                    del data[: 24 + length]
                    if op == frames.HELLO:
                        told = frames.packed(boot=9, limits={}, partition=1, revision=0, version=1)
                        peer.sendall(header(op | 0x80, number, len(told)) + told)
                        continue
                    if op == frames.PING:
                        peer.sendall(header(op | 0x80, number, 0))
                        continue
                    self.seen.append((op, flags, body))
                    told = frames.packed(code=5, field="", reason="recorded")
                    peer.sendall(header(frames.ERROR, number, len(told), partition=partition) + told)

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[tuple[Recorder, str]]:
    path = tmp_path / "s"
    made = Recorder(path)
    yield made, str(path)
    made.close()


QUESTION = ("User::alice", "read", "Document::a")


def test_each_form_of_asking_carries_it(recorder: tuple[Recorder, str]) -> None:
    seen, path = recorder[0].seen, recorder[1]
    with pepcore.connect(path) as pep:
        calls: list[Callable[[], Any]] = [
            lambda: pep.check(*QUESTION),
            lambda: pep.check(*QUESTION, not_after=2e9, min_revision=(1, 2)),
            lambda: pep.check_many([QUESTION]),
        ]
        for call in calls:
            call()
            with pepcore.traced(GOOD):
                call()
            (_, bare, without), (op, flags, body) = seen[-2:]
            assert (bare & 8, flags) == (0, bare | 8)
            assert len(body) == len(without) + 25
            at = body.index(BYTES)
            assert op == frames.CHECK_MANY or at + 25 == len(body), "it comes last in the tail"

    async def asked() -> None:
        other = await pepcore.aconnect(path)
        with pepcore.traced(GOOD):
            await other.check(*QUESTION)
            await other.check_many([QUESTION])
        await other.close()

    asyncio.run(asked())
    assert [(op, flags & 8, BYTES in body) for op, flags, body in seen[-2:]] == [
        (frames.CHECK, 8, True),
        (frames.CHECK_MANY, 8, True),
    ]
    with pepcore.traced(GOOD), pepcore.connect(path).lease(*QUESTION):
        pass
    ((flags, body),) = [(flags, body) for op, flags, body in seen if op == frames.LEASE]
    assert (flags & 8, body[-25:]) == (8, BYTES)

    async def held() -> None:
        other = await pepcore.aconnect(path)
        with pepcore.traced(GOOD):
            await other.lease(*QUESTION)
        await other.close()

    asyncio.run(held())
    flags, body = [(flags, body) for op, flags, body in seen if op == frames.LEASE][1]
    assert (flags & 8, body[-25:]) == (8, BYTES)


def test_it_is_left_out_where_the_question_would_fit_no_frame_with_it(recorder: tuple[Recorder, str]) -> None:
    seen, path = recorder[0].seen, recorder[1]
    small = len(canonical(*QUESTION, {"a": ""}, ()))  # the length of a long text takes two bytes more
    for room, carried in ((25, 8), (24, 0), (0, 0)):
        context = {"a": "x" * (frames.FRAME_LIMIT - 4 - small - 2 - room)}
        with pepcore.connect(path) as pep, pepcore.traced(GOOD):
            told = pep.check(*QUESTION, context)
            assert "recorded" in told.error
            pep.check_many([(*QUESTION, {"a": context["a"][12:]})])
        assert [flags & 8 for _, flags, _ in seen[-2:]] == [carried, carried], room


def test_a_lease_that_fits_no_frame_costs_the_others_nothing(daemon: Any) -> None:
    with pepcore.connect(daemon.socket, deadline=5) as pep, pepcore.traced(GOOD):
        held = pep.lease(*QUESTION)
        assert held
        refused = pep.lease(*QUESTION, {"a": "x" * 70_000})
        assert not refused
        assert "more than the 65536 of a frame" in refused.verdict.error
        assert not held.wait(0.3)
        held.close()


def test_a_real_daemon_answers_the_same_with_and_without(daemon: Any) -> None:
    with pepcore.connect(daemon.socket, deadline=5) as pep:
        for resource in ("Document::traced", "Document::secret"):
            bare = pep.check("User::alice", "read", resource, {"n": 1.5})
            with pepcore.traced(GOOD):
                assert bool(pep.check("User::alice", "read", resource, {"n": 2.5})) == bool(bare)
            with pepcore.traced(None):
                assert bool(pep.check("User::alice", "read", resource, {"n": 3.5})) == bool(bare)


@pytest.mark.parametrize(("given", "carried"), [(GOOD, 8), ("garbage", 0), ("", 0)])
def test_the_command_line_takes_one(recorder: tuple[Recorder, str], given: str, carried: int) -> None:
    command = [sys.executable, "-m", "pepcore", "check", *QUESTION, f"--traceparent={given}", "--socket", recorder[1]]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert run.returncode == 3
    assert [flags & 8 for _, flags, _ in recorder[0].seen] == [carried]
