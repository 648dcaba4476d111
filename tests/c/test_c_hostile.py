"""What a peer can do to the C client: stay away, hang, drip, lie, leave; and what a fork may not do.

Each deny has a permit beside it from a peer that differs in just that. Times are bounds with room, not targets.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import frames
import pytest
from harness import Driver, Peer, permit_all, read_frame, verdict, welcome

Serve = Callable[..., Peer]


def ask(driver: Driver, path: Path | str, *handles: bytes) -> None:
    assert driver("connect", path, b"", *handles) == "ok"
    driver("new")
    driver("ask", b"User::alice", b"read", b"Document::roadmap")


def test_a_peer_that_permits_is_a_permit_and_the_connection_is_kept(driver: Driver, serve: Serve) -> None:
    peer = serve()
    ask(driver, peer.path)
    assert [driver.check()["permit"] for _ in range(5)] == [True] * 5
    assert peer.connections == 1


def test_hello_and_the_first_check_leave_in_one_write(driver: Driver, serve: Serve) -> None:
    seen: list[bytes] = []

    def behave(peer: socket.socket, _: int) -> None:
        time.sleep(0.1)
        seen.append(peer.recv(65536))
        peer.sendall(welcome() + verdict(2))

    ask(driver, serve(behave).path)
    assert driver.check()["permit"]
    length = struct.unpack_from("<I", seen[0])[0]
    assert seen[0][9] == frames.HELLO
    assert seen[0][24 + length + 9] == frames.CHECK


def test_an_absent_daemon_denies_at_once(driver: Driver, tmp_path: Path) -> None:
    ask(driver, tmp_path / "none")
    answer = driver.check(5000)
    assert (answer["permit"], answer["fault"]) == (False, 10)
    assert answer["took_us"] < 1_000_000


def hang(peer: socket.socket, _: int) -> None:
    read_frame(peer)
    read_frame(peer)
    time.sleep(30)


def drip(peer: socket.socket, _: int) -> None:
    for byte in welcome() + verdict(2):
        peer.sendall(bytes([byte]))
        time.sleep(0.02)


def greet_and_hang(peer: socket.socket, number: int) -> None:
    peer.sendall(welcome())
    hang(peer, number)


@pytest.mark.parametrize("behave", [hang, drip, greet_and_hang])
def test_a_peer_that_is_slow_denies_within_the_deadline(driver: Driver, serve: Serve, behave: object) -> None:
    ask(driver, serve(behave).path)
    answer = driver.check(100)
    assert (answer["permit"], answer["fault"]) == (False, 7)
    assert 99_000 <= answer["took_us"] < 600_000


def test_a_drip_that_ends_in_time_permits(driver: Driver, serve: Serve) -> None:
    ask(driver, serve(drip).path)
    assert driver.check(20_000)["permit"]


def test_a_full_backlog_denies_within_the_deadline(driver: Driver, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        waiting = []
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            if waiting[-1].connect_ex(str(tmp_path / "s")):
                break
        ask(driver, tmp_path / "s")
        answer = driver.check(100)
        for peer in waiting:
            peer.close()
    assert (answer["permit"], answer["fault"]) == (False, 7)
    assert 99_000 <= answer["took_us"] < 600_000


def test_a_late_answer_is_never_taken_for_the_next_question(driver: Driver, serve: Serve) -> None:
    def behave(peer: socket.socket, number: int) -> None:
        if number == 1:
            read_frame(peer)
            read_frame(peer)
            time.sleep(0.2)
            peer.sendall(welcome() + verdict(2) + verdict(3))
            return
        for _ in range(2):
            op, request_id, _ = read_frame(peer)
            peer.sendall(welcome() if op == frames.HELLO else verdict(request_id, 0))
        time.sleep(5)

    peer = serve(behave)
    ask(driver, peer.path)
    assert driver.check(50)["fault"] == 7
    time.sleep(0.3)
    second = driver.check()
    assert (second["permit"], second["fault"], peer.connections) == (False, 0, 2)


def test_a_daemon_that_restarts_is_found_again(driver: Driver, serve: Serve) -> None:
    first = serve()
    ask(driver, first.path)
    assert driver.check()["permit"]
    first.close()
    gone = driver.check()
    assert (gone["permit"], gone["fault"]) == (False, 10)
    serve()
    assert driver.check()["permit"]


def test_a_kept_connection_that_was_closed_is_opened_again_within_one_check(driver: Driver, serve: Serve) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        for _ in range(2):
            op, request_id, _ = read_frame(peer)
            peer.sendall(welcome() if op == frames.HELLO else verdict(request_id))

    peer = serve(behave)
    ask(driver, peer.path)
    for number in range(1, 4):
        assert driver.check()["permit"]
        time.sleep(0.05)
        assert peer.connections == number


def test_an_error_frame_denies_and_keeps_the_connection(driver: Driver, serve: Serve) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        while True:
            op, request_id, _ = read_frame(peer)
            error = frames.pack({"code": 6, "field": "", "reason": "too busy"})
            busy = frames.frame(frames.ERROR, request_id, error, partition=1)
            peer.sendall(welcome() if op == frames.HELLO else verdict(request_id) if request_id % 2 else busy)

    peer = serve(behave)
    ask(driver, peer.path)
    answers = [driver.check() for _ in range(4)]
    assert [(answer["permit"], answer["fault"]) for answer in answers] == [(False, 6), (True, 0)] * 2
    assert answers[0]["error"] == "too busy"
    assert peer.connections == 1


def test_a_reply_over_the_limit_denies_before_it_is_read(driver: Driver, serve: Serve) -> None:
    def behave(peer: socket.socket, number: int) -> None:
        size = (1 << 20) + (number == 1)
        payload = frames.pack({"reason": "x" * (size - 40 - 13)})
        body = frames.verdict(1, payload)
        assert len(body) == size
        peer.sendall(welcome() + frames.frame(frames.CHECK | 0x80, 2, body, partition=1))
        time.sleep(5)

    ask(driver, serve(behave).path)
    over = driver.check(5000)
    assert (over["permit"], over["fault"], "larger" in over["error"]) == (False, 1, True)
    assert driver.check(5000)["permit"]


def test_a_forked_child_asks_on_a_connection_of_its_own(driver: Driver, serve: Serve) -> None:
    peer = serve()
    ask(driver, peer.path)
    assert driver.check()["permit"]
    child = json.loads(driver("fork", 2000))
    assert driver.process.stdout is not None
    parent = json.loads(driver.process.stdout.readline())
    assert (child["permit"], parent["permit"], peer.connections) == (True, True, 2)


def test_the_socket_is_never_a_standard_stream(programs: dict[str, Path], serve: Serve) -> None:
    """Where standard error is closed its number is free: what the program prints must not go to the daemon."""
    driver = Driver(programs["plain"], preexec_fn=lambda: os.close(2))
    ask(driver, serve().path)
    assert driver.check()["permit"]
    numbers = {int(entry.name): os.readlink(entry) for entry in Path(f"/proc/{driver.process.pid}/fd").iterdir()}
    assert 2 not in numbers
    assert [name.startswith("socket:") for number, name in numbers.items() if number > 2] == [True]
    with Path(f"/proc/{driver.process.pid}/fdinfo/3").open() as info:
        flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))
    assert flags & os.O_CLOEXEC
    assert flags & os.O_NONBLOCK
    driver.close()


SERVER = """
import os, socket, sys
sys.path[:0] = sys.argv[2:]
os.umask(0)
from pathlib import Path
from harness import Peer
peer = Peer(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to serve as another user")
@pytest.mark.parametrize(
    ("server_uid", "owner_uid", "mode", "permit"),
    [
        (0, 0, 0o755, True),
        (4711, 4711, 0o755, True),
        (4711, 4711, 0o775, False),
        (4711, 4711, 0o777, False),
        (4711, 4712, 0o777, False),
        (65534, 65534, 0o755, False),
    ],
)
def test_only_a_daemon_of_a_trusted_owner_is_believed(
    driver: Driver, tmp_path: Path, server_uid: int, owner_uid: int, mode: int, permit: bool
) -> None:
    run = Path("/tmp") / f"pepcore-{os.getpid()}"
    run.mkdir()
    os.chown(run, owner_uid, owner_uid)
    run.chmod(mode)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        code = f"import os, sys; sys.path[:0] = sys.argv[2:]; import harness; os.setuid({server_uid})\n{SERVER}"
        server = subprocess.Popen(
            [sys.executable, "-c", code, str(run / "s"), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        ask(driver, run / "s")
        answer = driver.check()
        assert (answer["permit"], answer["fault"]) == ((True, 0) if permit else (False, 4))
        server.communicate(timeout=10)
    finally:
        for left in run.iterdir():
            left.unlink()
        run.rmdir()


def test_an_unhandled_obligation_denies_and_a_handled_one_does_not(driver: Driver, serve: Serve) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        read_frame(peer)
        peer.sendall(welcome() + verdict(2, obligations=[["o", "mask", {"keep": 4}]]))

    path = serve(behave).path
    ask(driver, path)
    answer = driver.check()
    assert (answer["permit"], answer["fault"]) == (False, 9)
    assert "`mask` is not in `handles`" in answer["error"]
    ask(driver, path, b"redact", b"mask")
    assert driver.check()["permit"]


def test_a_client_without_a_daemon_is_served_by_permit_all(driver: Driver, serve: Serve) -> None:
    """The neighbouring permit of test_an_absent_daemon_denies_at_once."""
    ask(driver, serve(permit_all, "none").path)
    assert driver.check()["permit"]
