"""What a peer can do to the Python clients: stay away, hang, drip, lie, leave. Each deny has a permit beside it.

The peer is a thread behind a real Unix socket; that client and daemon understand each other is tested elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parent / "c"), str(Path(__file__).parent / "vectors")]

import frames  # noqa: E402
from harness import VECTORS, Peer, permit_all, read_frame, verdict, welcome  # noqa: E402
from pepclient.questions import canonical  # noqa: E402

import pepcore  # noqa: E402
from tests.both_clients import Both  # noqa: E402

ALICE = ("User::alice", "read", "Document::roadmap")
Serve = Callable[..., Peer]
Connect = Callable[..., Both]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    peers: list[Peer] = []

    def start(behave: Callable[[socket.socket, int], None] = permit_all, name: str = "s") -> Peer:
        peers.append(Peer(tmp_path / name, behave))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture(params=["connect", "aconnect"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    made: list[Both] = []

    def start(path: Any, *, deadline: float = 5.0, **settings: Any) -> Both:
        made.append(Both(request.param, path=path, deadline=deadline, **settings))
        return made[-1]

    yield start
    for each in made:
        each.close()
        if each.loop:
            each.loop.close()


def told(pep: Both) -> tuple[bool, int]:
    said = pep.check(*ALICE)
    return said.permit, said.fault


def vectors(name: str) -> list[Any]:
    items = json.loads((VECTORS / f"{name}.json").read_text())
    return [pytest.param(item, id=item["name"]) for item in items]


# ---- the golden frames --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [v for v in vectors("questions") if v.values[0]["outcome"] == "canonical"])
def test_questions_have_the_golden_bytes(vector: dict[str, Any]) -> None:
    subject, action, resource, context, chain = vector["question"]

    def entity(parts: list[Any]) -> dict[str, Any]:
        return dict(zip(("type", "id", "properties"), parts, strict=True))

    named = dict(zip(("name", "properties"), action, strict=True))
    built = canonical(entity(subject), named, entity(resource), context, [entity(member) for member in chain])
    assert built.hex() == vector["hex"]


@pytest.mark.parametrize("vector", vectors("replies"))
def test_replies_mean_what_the_vectors_say(connect: Connect, serve: Serve, vector: dict[str, Any]) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        read_frame(peer)
        peer.sendall(bytes.fromhex(vector["hex"]))

    said = connect(serve(behave).path, handles=vector["handles"]).check(*ALICE)
    expect = vector["expect"]
    assert said.permit is expect["permit"]
    assert bool(said.fault) is bool(expect["fault"])
    assert bool(said.error) is bool(expect["fault"])
    if not expect["fault"]:
        assert (said.cached, said.number, said.boot, said.revision, said.reason, list(said.policies)) == (
            expect["cached"], expect["id"], expect["boot"], expect["revision"], expect["reason"], expect["policies"],
        )  # fmt: skip
        assert [[o.id, o.type, o.properties] for o in said.obligations] == expect["obligations"]
        left = said.expires - time.clock_gettime(time.CLOCK_BOOTTIME)
        assert left <= expect["lifetime_ms"] / 1000 or said.expires == 0


def test_hello_and_the_first_check_leave_in_one_write(connect: Connect, serve: Serve) -> None:
    seen: list[bytes] = []

    def behave(peer: socket.socket, _: int) -> None:
        time.sleep(0.1)
        seen.append(peer.recv(65536))
        peer.sendall(welcome() + verdict(2))

    assert connect(serve(behave).path, handles=["redact", "mask", "mask"], point="p").check(*ALICE)
    data = seen[0]
    length = struct.unpack_from("<I", data)[0]
    hello = frames.pack(
        {"client": "pepclient/0.1.0", "handles": ["mask", "redact"], "page": True, "point": "p", "versions": [1]}
    )
    assert data[: 24 + length] == frames.frame(frames.HELLO, 1, hello)
    assert data[24 + length + 9] == frames.CHECK


# ---- absent, slow, late -------------------------------------------------------------------------------------------


def test_an_absent_daemon_denies_at_once(connect: Connect, serve: Serve, tmp_path: Path) -> None:
    began = time.monotonic()
    assert told(connect(tmp_path / "none")) == (False, 10)
    assert told(connect("/" + "x" * 106)) == (False, 10)
    assert told(connect(Path(os.devnull) / "s")) == (False, 10)
    assert time.monotonic() - began < 1
    assert told(connect(serve().path)) == (True, 0)


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
def test_a_peer_that_is_slow_denies_within_the_deadline(connect: Connect, serve: Serve, behave: Any) -> None:
    pep = connect(serve(behave).path, deadline=0.1)
    began = time.monotonic()
    assert told(pep) == (False, 7)
    assert 0.099 <= time.monotonic() - began < 0.6


def test_a_drip_that_ends_in_time_permits(connect: Connect, serve: Serve) -> None:
    assert told(connect(serve(drip).path, deadline=20)) == (True, 0)


def test_signals_do_not_extend_the_deadline(serve: Serve) -> None:
    pep = pepcore.connect(serve(hang).path, deadline=0.3)
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        began = time.monotonic()
        assert pep.check(*ALICE).fault == 7
        assert 0.29 <= time.monotonic() - began < 0.9
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_full_backlog_denies_within_the_deadline(connect: Connect, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        waiting = []
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            if waiting[-1].connect_ex(str(tmp_path / "s")):
                break
        pep = connect(tmp_path / "s", deadline=0.1)
        began = time.monotonic()
        assert told(pep) == (False, 7)
        assert 0.099 <= time.monotonic() - began < 0.6
        for peer in waiting:
            peer.close()


def test_a_late_answer_is_never_taken_for_the_next_question(connect: Connect, serve: Serve) -> None:
    def behave(peer: socket.socket, number: int) -> None:
        for turn in range(3):
            op, request_id, _ = read_frame(peer)
            if turn == 2 and number == 1:
                time.sleep(0.2)
                peer.sendall(verdict(3) + verdict(4))
                break
            peer.sendall(welcome() if op == frames.HELLO else verdict(request_id, int(number == 1)))
        time.sleep(5)

    peer = serve(behave)
    pep = connect(peer.path, deadline=0.15)
    assert told(pep) == (True, 0)
    assert told(pep) == (False, 7)
    time.sleep(0.2)
    assert told(pep) == (False, 0)
    assert peer.connections == 2


# ---- lies ---------------------------------------------------------------------------------------------------------


def reply(**changes: Any) -> bytes:
    """A permit to request 2, with fields of its header changed."""
    head = {"length": 40, "question": 0, "version": 1, "op": 0x82, "flags": 0, "partition": 1, "id": 2, **changes}
    return struct.pack("<IIBBHIQ", *head.values()) + verdict(2)[24:]


LIES = {
    "another request id": reply(id=3),
    "the request id of the hello": reply(id=1),
    "another partition": reply(partition=2),
    "no partition": reply(partition=0),
    "another version": reply(version=2),
    "flags": reply(flags=1),
    "a question length": reply(question=40),
    "the op of a batch": reply(op=0x83),
    "the op of a request": reply(op=2),
    "a shorter length": reply(length=39),
    "a longer body than its length": reply() + b"\0",
    "an answer twice": reply() + reply(),
    "a length over the bound": reply(length=(1 << 20) + 1),
    "a length of 4 GiB": reply(length=0xFFFFFFFF),
    "an error frame that is no map": frames.frame(0xFF, 2, b"\x01", partition=1),
    "an error frame that is empty": frames.frame(0xFF, 2, b"", partition=1),
    "an end in the middle of the header": reply()[:10],
    "an end in the middle of the body": reply()[:50],
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_reply_that_is_not_the_one_asked_for_denies_and_closes(connect: Connect, serve: Serve, lie: bytes) -> None:
    def behave(peer: socket.socket, number: int) -> None:
        read_frame(peer)
        read_frame(peer)
        peer.sendall(welcome() + (lie if number == 1 else verdict(2)))
        if number == 1 and len(lie) < 64:
            return
        time.sleep(2)

    peer = serve(behave)
    pep = connect(peer.path)
    assert told(pep) == (False, 1)
    assert told(pep) == (True, 0)
    assert peer.connections == 2


@pytest.mark.parametrize(
    "greeting",
    [
        welcome(2),
        frames.frame(0x81, 1, frames.pack({"boot": 1})),
        frames.frame(0x81, 1, b"\xc1"),
        frames.frame(0x81, 1, welcome()[24:], partition=1),
        welcome().replace(b"\xa7version\x01", b"\xa7version\x02"),
        welcome().replace(b"\xa9partition\x01", b"\xa9partition\x02"),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_a_welcome_that_is_malformed_denies(connect: Connect, serve: Serve, greeting: bytes) -> None:
    def behave(peer: socket.socket, number: int) -> None:
        read_frame(peer)
        read_frame(peer)
        peer.sendall((greeting if number == 1 else welcome()) + verdict(2))
        time.sleep(2)

    pep = connect(serve(behave).path)
    assert told(pep) == (False, 1)
    assert told(pep) == (True, 0)


def test_a_refused_hello_denies_with_its_reason(connect: Connect, serve: Serve) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        read_frame(peer)
        why = frames.pack({"code": 4, "field": "hello.point", "reason": "not yours"})
        other = frames.pack({"code": 3, "field": "partition", "reason": "none"})
        peer.sendall(frames.frame(0xFF, 1, why) + frames.frame(0xFF, 2, other, partition=1))
        time.sleep(2)

    said = connect(serve(behave).path).check(*ALICE)
    assert (said.permit, said.error) == (False, "refused: hello.point: not yours")


@pytest.mark.parametrize("code", [6, 200, 0])
def test_an_error_frame_denies_and_keeps_the_connection(connect: Connect, serve: Serve, code: int) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        while True:
            op, request_id, _ = read_frame(peer)
            error = frames.pack({"code": code, "field": "", "reason": "too busy"})
            busy = frames.frame(frames.ERROR, request_id, error, partition=1)
            peer.sendall(welcome() if op == frames.HELLO else verdict(request_id) if request_id % 2 else busy)

    peer = serve(behave)
    pep = connect(peer.path)
    said = [pep.check(*ALICE) for _ in range(4)]
    assert [v.permit for v in said] == [False, True] * 2
    assert all(v.fault and "too busy" in v.error for v in said[::2])
    assert peer.connections == 1


def test_an_unhandled_obligation_denies_and_a_handled_one_does_not(connect: Connect, serve: Serve) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        read_frame(peer)
        peer.sendall(welcome() + verdict(2, obligations=[["o", "step-up", {"level": 4}]]))
        time.sleep(2)

    path = serve(behave).path
    assert told(connect(path)) == (False, 9)
    assert told(connect(path, handles=["step-up"])) == (True, 0)


# ---- batches ------------------------------------------------------------------------------------------------------


def batch(*permits: int, count: int | None = None, spare: bytes = b"") -> bytes:
    parts = [struct.pack("<I", len(permits) if count is None else count)]
    parts += [struct.pack("<I", 40) + frames.verdict(permit, b"") for permit in permits]
    return frames.frame(0x83, 2, b"".join(parts) + spare, partition=1)


@pytest.mark.parametrize(
    ("semantic", "answer", "permits"),
    [
        ("execute_all", batch(1, 0, 1), [True, False, True]),
        ("execute_all", batch(1, 0), [False] * 3),
        ("execute_all", batch(1, 0, 1, 1), [False] * 3),
        ("execute_all", batch(1, 0, 1, count=2), [False] * 3),
        ("execute_all", batch(1, 0, 1, spare=b"\0"), [False] * 3),
        ("execute_all", batch(1, 0, 2), [False] * 3),
        ("deny_on_first_deny", batch(1, 0), [True, False]),
        ("deny_on_first_deny", batch(1, 1), [False]),
        ("deny_on_first_deny", batch(0, 1), [False]),
        ("permit_on_first_permit", batch(0, 1), [False, True]),
        ("permit_on_first_permit", batch(0, 0), [False] * 3),
        ("permit_on_first_permit", batch(1, 0, 0), [False] * 3),
    ],
)
def test_a_batch_is_believed_only_if_it_ends_where_it_must(
    connect: Connect, serve: Serve, semantic: str, answer: bytes, permits: list[bool]
) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        read_frame(peer)
        peer.sendall(welcome() + answer)
        time.sleep(2)

    said = connect(serve(behave).path).check_many([ALICE] * 3, semantic)
    assert [v.permit for v in said] == permits
    assert len({v.error for v in said}) == 1


def test_a_batch_that_finds_no_daemon_denies_each_question(connect: Connect, serve: Serve, tmp_path: Path) -> None:
    pep = connect(tmp_path / "none")
    assert [v.fault for v in pep.check_many([ALICE, ("x", "y", "z"), ALICE])] == [10, 2, 10]
    assert [v.fault for v in pep.check_many([ALICE] * 3, "deny_on_first_deny")] == [10]


# ---- connections --------------------------------------------------------------------------------------------------


def test_one_connection_is_kept(connect: Connect, serve: Serve) -> None:
    peer = serve()
    pep = connect(peer.path)
    assert [told(pep) for _ in range(5)] == [(True, 0)] * 5
    assert peer.connections == 1


def test_a_kept_connection_that_was_closed_is_opened_again_within_one_check(connect: Connect, serve: Serve) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        for _ in range(2):
            op, request_id, _ = read_frame(peer)
            peer.sendall(welcome() if op == frames.HELLO else verdict(request_id))

    peer = serve(behave)
    pep = connect(peer.path)
    for number in range(1, 4):
        assert told(pep) == (True, 0)
        time.sleep(0.05)
        assert peer.connections == number


def test_a_question_is_asked_at_most_twice(connect: Connect, serve: Serve) -> None:
    asked = []

    def behave(peer: socket.socket, number: int) -> None:
        op, request_id, _ = read_frame(peer)
        while True:
            if op == frames.HELLO:
                peer.sendall(welcome())
            elif number == 1 and request_id == 2:
                peer.sendall(verdict(2))
            else:
                asked.append(number)
                return
            op, request_id, _ = read_frame(peer)

    pep = connect(serve(behave).path)
    assert told(pep) == (True, 0)
    assert told(pep) == (False, 10)
    assert asked == [1, 2]


def test_a_question_whose_reply_had_begun_is_not_asked_again(connect: Connect, serve: Serve) -> None:
    def behave(peer: socket.socket, number: int) -> None:
        for turn in range(3):
            op, request_id, _ = read_frame(peer)
            whole = welcome() if op == frames.HELLO else verdict(request_id)
            peer.sendall(whole[:30] if number == 1 and turn == 2 else whole)

    peer = serve(behave)
    pep = connect(peer.path)
    assert told(pep) == (True, 0)
    assert told(pep) == (False, 1)
    assert peer.connections == 1
    assert told(pep) == (True, 0)


def test_a_child_forked_in_the_middle_of_a_question_does_not_read_the_answer(serve: Serve) -> None:
    """The child's copy of the socket is gone before it could read what the parent waits for."""
    arrived, answer = threading.Event(), threading.Event()

    def behave(peer: socket.socket, number: int) -> None:
        while True:
            op, request_id, _ = read_frame(peer)
            if op != frames.HELLO and number == 1:
                arrived.set()
                answer.wait(10)
            peer.sendall(welcome() if op == frames.HELLO else verdict(request_id, int(number == 1)))

    peer = serve(behave)
    pep = pepcore.connect(peer.path, deadline=10)
    said: list[bool] = []
    thread = threading.Thread(target=lambda: said.append(pep.check(*ALICE).permit))
    thread.start()
    assert arrived.wait(10)
    pid = os.fork()
    if pid == 0:
        own = -1
        try:
            own = pep.check(*ALICE).permit + len(pep._pool._open) * 10
        finally:
            os._exit(own & 0xFF)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10  # a deny, on the one connection of its own
    answer.set()
    thread.join()
    assert said == [True]


SERVER = """
import os, sys
sys.path[:0] = sys.argv[3:]
import harness
os.setuid(int(sys.argv[2]))
os.umask(0)
from pathlib import Path
peer = harness.Peer(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to serve as another user")
@pytest.mark.parametrize(
    ("server", "owner", "mode", "permit"),
    [
        (0, 0, 0o755, True),
        (4711, 4711, 0o755, True),
        (4711, 4711, 0o775, False),
        (4711, 4711, 0o757, False),
        (4711, 4712, 0o777, False),
        (65534, 65534, 0o755, False),
    ],
)
def test_only_a_daemon_of_a_trusted_owner_is_believed(
    connect: Connect, server: int, owner: int, mode: int, permit: bool
) -> None:
    run = Path("/tmp") / f"pepclient-{os.getpid()}"
    run.mkdir()
    os.chown(run, owner, owner)
    run.chmod(mode)
    command = [sys.executable, "-c", SERVER, str(run / "s"), str(server), *sys.path]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert told(connect(run / "s")) == ((True, 0) if permit else (False, 4))
    finally:
        process.communicate(timeout=10)
        for left in run.iterdir():
            left.unlink()
        run.rmdir()
