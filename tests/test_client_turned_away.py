"""Why there is no answer: a daemon that hangs up says so, and of one that is not there the client says what to do.

Promises: a write that fails is forced, not left to which thread is faster: the client looks at its peer (`believe`)
only after the peer has closed.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent / "c"), str(Path(__file__).parent / "vectors")]

import frames  # noqa: E402
from harness import WELCOME, Peer, read_frame, verdict, welcome  # noqa: E402
from pepclient import channel, stream  # noqa: E402
from pepclient.place import believe  # noqa: E402

from tests.both_clients import Both  # noqa: E402

ALICE = ("User::alice", "read", "Document::roadmap")
Serve = Callable[[Callable[[socket.socket], None]], Both]


def error(code: int, reason: str, request_id: int = 1, partition: int = 0) -> bytes:
    body = frames.pack({"code": code, "field": "peer", "reason": reason})
    return frames.frame(frames.ERROR, request_id, body, partition=partition)


@pytest.fixture(params=["connect", "aconnect"])
def asked_of(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A client of a peer that behaves like this once, and then permits; it writes after the peer has closed."""
    closed = threading.Event()
    started: list[tuple[Peer, Both]] = []

    def late(sock: socket.socket, path: str) -> None:
        assert closed.wait(10)
        believe(sock, path)

    for module in (stream, channel):
        monkeypatch.setattr(module, "believe", late)

    def start(behave: Callable[[socket.socket], None]) -> Both:
        def serve(peer: socket.socket, number: int) -> None:
            if number == 1:
                try:
                    behave(peer)
                finally:
                    peer.close()
                    closed.set()
                return
            while True:
                op, request_id, _ = read_frame(peer)
                peer.sendall(welcome() if op == frames.HELLO else verdict(request_id))

        peer = Peer(tmp_path / "s", serve)
        started.append((peer, Both(request.param, path=peer.path, deadline=5.0)))
        return started[-1][1]

    yield start
    for peer, pep in started:
        pep.close()
        if pep.loop:
            pep.loop.close()
        peer.close()


@pytest.mark.parametrize(
    ("said", "fault", "text"),
    [
        (error(4, "uid 7 may not ask here"), 4, "refused: peer: uid 7 may not ask here"),
        (error(6, "too many connections"), 6, "overloaded: peer: too many connections"),
        (b"", 10, "unreachable: "),
        (error(4, "x")[:30], 1, "bad-frame: reply: ended in the middle"),
        (error(4, "x", request_id=2), 1, "bad-frame: "),
        (verdict(2), 1, "bad-frame: "),
        (welcome(), 10, "unreachable: "),
        (welcome() + verdict(2), 1, "bad-frame: reply: comes to a question that was not sent whole"),
        (welcome() + error(11, "bye", 2, 1), 11, "draining: peer: bye"),
    ],
    ids=["refused", "overloaded", "nothing", "half", "another id", "verdict", "welcome", "permit", "draining"],
)
def test_what_the_daemon_said_before_it_closed_is_the_fault(
    asked_of: Serve, said: bytes, fault: int, text: str
) -> None:
    pep = asked_of(lambda peer: peer.sendall(said))
    verdict = pep.check(*ALICE)
    assert (verdict.permit, verdict.fault) == (False, fault)
    assert text in verdict.error
    assert pep.check(*ALICE)  # a new connection, which is not turned away


def test_a_peer_that_is_turned_away_after_it_wrote_is_told_why(
    asked_of: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon closes with most of the hello unread, which the client sees as a reset connection."""

    def behave(peer: socket.socket) -> None:
        peer.recv(1)
        peer.sendall(error(4, "not you"))

    pep = asked_of(behave)
    for module in (stream, channel):
        monkeypatch.setattr(module, "believe", believe)
    assert pep.check(*ALICE).error == "refused: peer: not you"
    assert pep.check(*ALICE)


def test_every_question_of_a_batch_learns_why(asked_of: Serve) -> None:
    pep = asked_of(lambda peer: peer.sendall(error(6, "full")))
    assert [v.error for v in pep.check_many([ALICE] * 3)] == ["overloaded: peer: full"] * 3
    assert pep.check(*ALICE)


def test_a_limit_below_the_usual_one_is_learned_by_the_refusal(asked_of: Serve) -> None:
    small = frames.pack({**WELCOME, "limits": {"depth": 16, "frame": 1024, "many": 1000}})

    def behave(peer: socket.socket) -> None:
        over = error(1, "over the limit of 1024 bytes", 2, 1)
        peer.sendall(frames.frame(frames.HELLO | 0x80, 1, small) + over)

    pep = asked_of(behave)
    long = (*ALICE, {"x": "y" * 2000})
    assert "over the limit of 1024 bytes" in pep.check(*long).error
    assert "more than the 1024 of a frame" in pep.check(*long).error


@pytest.mark.parametrize("kind", ["connect", "aconnect"])
def test_a_daemon_that_is_not_there_is_a_deny_that_says_what_to_do(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    for name, why in (
        ("none", "No such file or directory"),
        ("dead", "Connection refused"),
        ("file/s", "Not a directory"),
    ):
        said = Both(kind, path=tmp_path / name).check(*ALICE).error
        advice = "start it with `pepcore serve`, or name its socket in PEPCORE_SOCKET"
        assert said == f"unreachable: no daemon at `{tmp_path / name}`: {why}: {advice}"
