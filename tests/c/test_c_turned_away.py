"""A daemon that hangs up says why: the C client reads that before it gives up on a write that failed.

Promises: a write that fails is forced by a question that no socket holds, of a peer that closes without reading it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import frames
import pytest
from harness import WELCOME, Driver, Peer, read_frame, verdict, welcome

Serve = Callable[..., Peer]
SMALL, LARGE = 10, 900_000


def error(code: int, reason: str, request_id: int = 1, partition: int = 0) -> bytes:
    body = frames.pack({"code": code, "field": "peer", "reason": reason})
    return frames.frame(frames.ERROR, request_id, body, partition=partition)


def limited(**limits: int) -> bytes:
    return frames.frame(frames.HELLO | 0x80, 1, frames.pack({**WELCOME, "limits": limits}))


def once(said: bytes) -> Callable[[socket.socket, int], None]:
    """A peer that says this and closes without reading, and permits from then on."""

    def behave(peer: socket.socket, number: int) -> None:
        if number == 1:
            peer.sendall(said)
            return
        while True:
            op, request_id, _ = read_frame(peer)
            peer.sendall(welcome() if op == frames.HELLO else verdict(request_id))

    return behave


def ask(driver: Driver, size: int) -> tuple[bool, int, str]:
    driver("new")
    driver("ask", b"User::alice", b"read", b"Document::roadmap")
    assert driver("string", 3, b"x", b"y" * size) == "ok"
    answer = driver.check(5000)
    return answer["permit"], answer["fault"], answer["error"]


@pytest.mark.parametrize(
    ("said", "fault", "text"),
    [
        (error(4, "uid 7 may not ask here"), 4, "peer: uid 7 may not ask here"),
        (error(6, "too many connections"), 6, "peer: too many connections"),
        (b"", 10, "the daemon closed the connection"),
        (error(4, "x")[:30], 10, "the daemon closed the connection"),
        (error(4, "x", request_id=2), 1, "answers another request"),
        (verdict(2), 1, "not one of version 1 to this request"),
        (welcome(), 10, "the daemon closed the connection"),
        (welcome() + verdict(2), 1, "a question that was not sent whole"),
        (welcome() + error(1, "over the limit of 65536 bytes", 2, 1), 1, "over the limit of 65536 bytes"),
    ],
    ids=["refused", "overloaded", "nothing", "half", "another id", "verdict", "welcome", "permit", "limit"],
)
def test_what_the_daemon_said_before_it_closed_is_the_fault(
    driver: Driver, serve: Serve, said: bytes, fault: int, text: str
) -> None:
    peer = serve(once(said))
    assert driver("connect", peer.path, b"") == "ok"
    permit, why, reason = ask(driver, LARGE)
    assert (permit, why) == (False, fault)
    assert text in reason
    assert ask(driver, SMALL) == (True, 0, "")
    assert peer.connections == 2


def test_a_small_question_learns_why_it_is_turned_away_however_fast_the_daemon_is(driver: Driver, serve: Serve) -> None:
    peer = serve(lambda peer, _: peer.sendall(error(4, "not you")))
    assert driver("connect", peer.path, b"") == "ok"
    assert {ask(driver, SMALL) for _ in range(50)} == {(False, 4, "peer: not you")}


def test_a_kept_connection_that_refuses_a_question_is_not_asked_twice(driver: Driver, serve: Serve) -> None:
    def behave(peer: socket.socket, number: int) -> None:
        read_frame(peer)
        _, request_id, _ = read_frame(peer)
        peer.sendall(limited() + verdict(request_id))
        peer.recv(24)
        peer.sendall(error(1, "over the limit", request_id + 1, 1))

    peer = serve(behave)
    assert driver("connect", peer.path, b"") == "ok"
    assert ask(driver, SMALL) == (True, 0, "")
    assert ask(driver, LARGE) == (False, 1, "peer: over the limit")
    assert peer.connections == 1


def test_a_question_over_the_limit_that_the_daemon_told_is_refused_here(driver: Driver, serve: Serve) -> None:
    sizes: list[int] = []

    def behave(peer: socket.socket, _: int) -> None:
        while True:
            op, request_id, body = read_frame(peer)
            sizes.append(len(body))
            told = limited(depth=16, frame=2000, many=1000)
            peer.sendall(told if op == frames.HELLO else verdict(request_id))

    peer = serve(behave)
    assert driver("connect", peer.path, b"") == "ok"
    assert ask(driver, SMALL) == (True, 0, "")
    fits = 2000 - (sizes[-1] - SMALL) - 2  # a longer string has a length of two bytes more
    assert ask(driver, fits) == (True, 0, "")
    assert sizes[-1] == 2000
    over = "question: makes 2001 bytes, more than the 2000 of a frame: send less"
    assert ask(driver, fits + 1) == (False, 3, over)
    assert driver("not_after", 1 << 62) == "ok"
    assert ask(driver, SMALL) == (True, 0, "")
    assert peer.connections == 1


@pytest.mark.parametrize(
    ("limits", "fault"),
    [({"frame": 1 << 63}, 0), ({}, 0), ({"frame": 0}, 0), ([], 1), ({"frame": "1"}, 1), ({"frame": -1}, 1), (7, 1)],
)
def test_limits_that_are_none_are_a_malformed_hello(driver: Driver, serve: Serve, limits: object, fault: int) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        read_frame(peer)
        told = frames.pack({**WELCOME, "limits": limits})
        peer.sendall(frames.frame(frames.HELLO | 0x80, 1, told) + verdict(2))

    assert driver("connect", serve(behave).path, b"") == "ok"
    assert ask(driver, SMALL)[:2] == (not fault, fault)
