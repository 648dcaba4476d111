"""Holders of leases in the client: daemons that hang, lie, restart and drip; on_end, forks, threads, asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pepclient import holding
from pepclient.leases import Lease
from pepclient.link import now

import pepcore
from tests.vectors.frames import ERROR, HELLO, LEASE, frame, pack

PING, END_LEASE = 13, 5
QUESTION = ("User::ann", "read", "Document::1")


def verdict(number: int, permit: bool = True, fault: int = 0) -> bytes:
    payload = b"" if permit else pack({"reason": "no"})
    return struct.pack("<BBBBIIIQQQ", permit, fault, 0, 0, 60_000, 0, len(payload), number, 9, 1) + payload


def ended(number: int, request: int, cause: int = 1, reason: str = "stolen", partition: int = 1) -> bytes:
    body = struct.pack("<QQQB7x", number, 9, 2, cause) + reason.encode()
    return frame(END_LEASE | 0x80, request, body, partition=partition)


class Fake:
    """A daemon by hand. `on_lease(request)` gives what is sent for a lease; every frame that came is in `frames`."""

    def __init__(self, path: Path, grace: int = 1000) -> None:
        self.path, self.grace = path, grace
        self.frames: list[tuple[int, int, bytes]] = []
        self.on_lease: Callable[[int], bytes] = lambda r: frame(LEASE | 0x80, r, verdict(r), partition=1)
        self.sending = threading.Lock()
        self.pings = True
        self.connections: list[socket.socket] = []
        self.start()

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(16)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.connections.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError):
            while got := sock.recv(65536):
                data += got
                while len(data) >= 24 and len(data) >= 24 + struct.unpack_from("<I", data)[0]:
                    size, _, _, op, _, _, request = struct.unpack_from("<IIBBHIQ", data)
                    body, data = data[24 : 24 + size], data[24 + size :]
                    self.frames.append((op, request, body))
                    told = self._reply(op, request)
                    with self.sending:
                        sock.sendall(told)

    def _reply(self, op: int, request: int) -> bytes:
        if op == HELLO:
            limits = {"depth": 16, "frame": 65536, "grace": self.grace, "many": 100, "values": 4096}
            welcome = {
                "boot": 9, "limits": limits, "now": 0, "page": False, "partition": 1, "revision": 1, "server": "f",
                "version": 1,
            }  # fmt: skip
            return frame(HELLO | 0x80, 1, pack(welcome))
        if op == LEASE:
            return self.on_lease(request)
        if op == PING and not self.pings:
            return b""
        return frame(op | 0x80, request, b"")

    def send(self, data: bytes) -> None:
        with self.sending:
            self.connections[-1].sendall(data)

    def asked(self, op: int) -> list[tuple[int, bytes]]:
        return [(request, body) for o, request, body in self.frames if o == op]

    def hang_up(self) -> None:
        for sock in self.connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    daemon = Fake(tmp_path / "s")
    yield daemon
    daemon.stop()


@pytest.fixture
def client(fake: Fake) -> Iterator[pepcore.Client]:
    with pepcore.connect(fake.path, deadline=2.0) as client:
        yield client


def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.002)


def keepers() -> set[threading.Thread]:
    """The threads of clients that hold something; those of other tests among them."""
    return {t for t in threading.enumerate() if t.name == "pepcore-leases"}


# ---- the end ----


def test_an_end_is_told_once_in_another_thread_and_then_confirmed(fake: Fake, client: pepcore.Client):
    told: list[tuple[Any, bool, int]] = []
    going = threading.Event()

    def on_end(lease: Lease) -> None:
        told.append((lease, bool(lease), threading.get_ident()))
        going.wait(5)

    lease = client.lease(*QUESTION, on_end=on_end)
    fake.send(ended(lease.number, lease.number) * 2)
    assert lease.wait(2)
    until(lambda: told)
    assert told[0][:2] == (lease, False)
    assert told[0][2] != threading.get_ident()
    time.sleep(0.05)
    assert fake.asked(END_LEASE) == [], "whoever is still at it has not stopped"
    going.set()
    until(lambda: fake.asked(END_LEASE))
    assert [body for _, body in fake.asked(END_LEASE)] == [struct.pack("<Q", lease.number)]
    assert len(told) == 1
    assert (lease.cause, lease.reason) == ("revoked", "stolen")


def test_an_on_end_that_raises_blocks_or_asks_for_a_lease_does_not_harm_others(
    fake: Fake, client: pepcore.Client, caplog
):
    order: list[str] = []
    going = threading.Event()

    def raises(lease: Lease) -> None:
        order.append("raises")
        raise ValueError("of the caller")

    def asks(lease: Lease) -> None:
        order.append(f"asks {bool(client.lease(*QUESTION))}")

    def blocks(lease: Lease) -> None:
        going.wait(5)
        order.append("blocks")

    def leaves(lease: Lease) -> None:
        raise SystemExit

    caplog.set_level(logging.CRITICAL)
    leases = [client.lease(*QUESTION, on_end=on_end) for on_end in (raises, asks, leaves, blocks)]
    other, kept = client.lease(*QUESTION), client.lease(*QUESTION)
    for lease in [*leases, other]:
        fake.send(ended(lease.number, lease.number))
    assert other.wait(1)
    until(lambda: len(order) == 2)
    time.sleep(3 * fake.grace / 1000)  # the thread that holds is not the one that is kept up
    assert kept
    going.set()
    until(lambda: order == ["raises", "asks True", "blocks"])


def test_an_end_that_comes_in_the_same_bytes_as_the_permit_ends_it(fake: Fake, client: pepcore.Client):
    ends: list[Lease] = []
    fake.on_lease = lambda r: frame(LEASE | 0x80, r, verdict(77), partition=1) + ended(77, r)
    lease = client.lease(*QUESTION, on_end=ends.append)
    until(lambda: ends == [lease])
    assert not lease


def test_who_closes_while_the_end_arrives_is_told_or_has_closed_and_never_both(fake: Fake, client: pepcore.Client):
    for _ in range(50):
        ends: list[Lease] = []
        lease = client.lease(*QUESTION, on_end=ends.append)
        fake.send(ended(lease.number, lease.number))
        lease.close()
        assert lease.wait(1)
        time.sleep(0.001)
        assert bool(ends) <= (lease.cause == "revoked")
        assert not lease


def test_closing_the_client_gives_up_everything_and_wakes_who_waits(fake: Fake):
    client, before = pepcore.connect(fake.path, deadline=2.0), keepers()
    ends: list[Lease] = []
    lease = client.lease(*QUESTION, on_end=ends.append)
    waited: list[bool] = []
    thread = threading.Thread(target=lambda: waited.append(lease.wait(5)))
    thread.start()
    time.sleep(0.05)
    client.close()
    thread.join(1)
    assert waited == [True]
    assert (bool(lease), ends) == (False, [])
    late = client.lease(*QUESTION)
    assert not late
    assert "closed" in late.verdict.error
    until(lambda: not keepers() - before)


# ---- a daemon that is lost, silent, or another ----


def test_a_silent_daemon_is_believed_from_when_the_last_answered_ping_was_sent(fake: Fake, client: pepcore.Client):
    lease = client.lease(*QUESTION)
    time.sleep(2 * fake.grace / 1000)
    assert lease
    fake.pings = False
    begun = time.monotonic()
    assert lease.wait(2)
    assert time.monotonic() - begun < 3 * fake.grace / 1000
    assert lease.cause == "lost"


def test_what_is_read_late_was_not_heard_late(fake: Fake, client: pepcore.Client):
    """A process that was stopped reads old replies when it goes on: what counts is when the ping was sent."""
    lease = client.lease(*QUESTION)
    fake.pings = False
    seen = len(fake.asked(PING))
    until(lambda: len(fake.asked(PING)) > seen)
    sent, request = time.monotonic(), fake.asked(PING)[seen][0]
    time.sleep(0.5 * fake.grace / 1000)
    fake.send(frame(PING | 0x80, request, b""))
    assert lease.wait(3)
    assert 0.9 * fake.grace / 1000 < time.monotonic() - sent < 3 * fake.grace / 1000


def test_a_lease_is_not_held_where_no_thread_of_ours_has_run_for_a_grace(fake: Fake, client: pepcore.Client):
    lease = client.lease(*QUESTION)
    holder = client._holder
    assert holder is not None
    assert lease
    holder._sure_until = now() - 0.001
    assert not lease


def test_a_lease_is_asked_for_afresh_over_and_over_until_the_grace_is_over(fake: Fake, client: pepcore.Client):
    lease, other = client.lease(*QUESTION), client.lease(*QUESTION)
    fake.on_lease = lambda r: frame(LEASE | 0x80, r, verdict(0, False, 6), partition=1)
    fake.hang_up()
    until(lambda: len(fake.asked(LEASE)) >= 6)
    assert lease, "that there is no room now says nothing"
    fake.on_lease = lambda r: frame(LEASE | 0x80, r, verdict(r), partition=1)
    time.sleep(2 * fake.grace / 1000)
    assert lease
    assert other
    fake.on_lease = lambda r: b""
    fake.hang_up()  # one that answers pings, and nothing else
    assert lease.wait(1)
    assert (lease.cause, other.wait(0.1)) == ("lost", True)


def test_numbers_of_another_daemon_are_its_own(fake: Fake, client: pepcore.Client):
    """The same numbers, the other way round: in one table one of the two would be lost, and held for ever."""
    numbers = iter([1, 2])
    fake.on_lease = lambda r: frame(LEASE | 0x80, r, verdict(next(numbers)), partition=1)
    one, two = client.lease(*QUESTION), client.lease(*QUESTION)
    again = {}

    def crossed(request: int) -> bytes:
        again[request] = 2 - len(again)
        return frame(LEASE | 0x80, request, verdict(again[request]), partition=1)

    fake.on_lease = crossed
    fake.hang_up()
    until(lambda: (one.number, two.number) == (2, 1))
    for request, number in again.items():
        fake.send(ended(number, request))
    assert one.wait(1)
    assert two.wait(1)


def test_one_that_is_closed_while_it_is_asked_for_afresh_stays_closed(fake: Fake):
    fake.grace = 5000
    client = pepcore.connect(fake.path, deadline=2.0)
    lease, other = client.lease(*QUESTION), client.lease(*QUESTION)
    held: list[int] = []
    fake.on_lease = lambda r: held.append(r) or b""  # type: ignore[func-returns-value]
    fake.hang_up()
    until(lambda: len(held) == 2)
    lease.close()
    for request in held:
        fake.send(frame(LEASE | 0x80, request, verdict(request + 100), partition=1))
    until(lambda: other.number > 100)
    assert not lease
    until(lambda: fake.asked(END_LEASE))
    assert fake.asked(END_LEASE)[0][1] != struct.pack("<Q", other.number)
    assert other


def test_an_answer_that_comes_with_the_deadline_is_one_or_the_other(fake: Fake):
    """Denied to the caller is not held: whoever was told of a deny would never give it up."""
    client = pepcore.connect(fake.path, deadline=0.03)
    delay = [0.0]

    def late(request: int) -> bytes:
        time.sleep(delay[0])
        return frame(LEASE | 0x80, request, verdict(request), partition=1)

    fake.on_lease = late
    outcomes = set()
    for n in range(60):
        delay[0] = 0.027 + 0.0001 * n
        lease = client.lease(*QUESTION)
        assert bool(lease) == bool(lease.verdict)
        outcomes.add(bool(lease))
        lease.close()
        time.sleep(0.01)
    assert False in outcomes
    until(lambda: {body for _, body in fake.asked(END_LEASE)} == {struct.pack("<Q", r) for r, _ in fake.asked(LEASE)})


# ---- garbage ----


@pytest.mark.parametrize(
    "garbage",
    [
        lambda r: b"\xff" * 30,
        lambda r: frame(LEASE | 0x80, r, verdict(r)[:-3], partition=1),
        lambda r: frame(LEASE | 0x80, r, verdict(r), partition=2),
        lambda r: frame(LEASE | 0x80, r + 50, verdict(r), partition=1),
        lambda r: frame(0x82, r, verdict(r), partition=1),
        lambda r: frame(LEASE | 0x80, r, verdict(r), partition=1, version=2),
        lambda r: frame(ERROR, r, b"\xc1", partition=1),
        lambda r: struct.pack("<IIBBHIQ", 1 << 30, 0, 1, LEASE | 0x80, 0, 1, r),
        lambda r: frame(LEASE | 0x80, r, verdict(3), partition=1),  # the number of another lease
        lambda r: ended(3, 3, partition=9),
        lambda r: frame(PING | 0x80, 3, b"x"),
    ],
    ids=range(11),
)
def test_garbage_is_a_deny_and_the_others_are_asked_for_afresh(fake: Fake, client: pepcore.Client, garbage: Any):
    good = fake.on_lease
    lease = client.lease(*QUESTION)
    assert lease.number == 3
    fake.on_lease = lambda r: good(r) if len(fake.asked(LEASE)) != 2 else garbage(r)
    refused = client.lease(*QUESTION)
    assert not refused
    assert refused.verdict.fault
    until(lambda: len(fake.asked(LEASE)) >= 3)
    time.sleep(2 * fake.grace / 1000)
    assert lease
    assert client.lease(*QUESTION)


def test_frames_that_drip_or_come_by_the_hundred_are_read(fake: Fake, client: pepcore.Client):
    leases = [client.lease(*QUESTION) for _ in range(700)]
    first, *others = leases
    with fake.sending:
        for byte in ended(first.number, first.number):
            fake.connections[-1].sendall(bytes([byte]))
            time.sleep(0.001)
    assert first.wait(1)
    fake.send(b"".join(ended(lease.number, lease.number, reason="r" * 300) for lease in others))
    until(lambda: not any(leases))
    until(lambda: len(fake.asked(END_LEASE)) == 700)


def test_a_question_over_the_limit_of_a_frame_is_refused_here(fake: Fake, client: pepcore.Client):
    lease = client.lease(*QUESTION)
    refused = client.lease(*QUESTION, context={"x": "x" * 70_000})
    assert not refused
    assert "more than the 65536 of a frame" in refused.verdict.error
    assert len(fake.connections) == 1
    assert lease


def test_malformed_questions_are_denies(client: pepcore.Client):
    for bad in (("User", "read", "Document::1"), (1, 2, 3)):
        lease = client.lease(*bad)  # type: ignore[arg-type]
        assert not lease
        assert lease.verdict.fault
        assert lease.wait(0)
        lease.close()
    assert not client.lease(*QUESTION, not_after="x")  # type: ignore[arg-type]
    assert client.lease(*QUESTION)


# ---- threads, descriptors, forks ----


def test_nobody_waits_longer_than_its_own_deadline_while_another_connects(tmp_path: Path):
    listener = socket.socket(socket.AF_UNIX)  # accepts nobody
    listener.bind(str(tmp_path / "s"))
    listener.listen(8)
    slow = pepcore.connect(tmp_path / "s", deadline=3.0)
    thread = threading.Thread(target=slow.lease, args=QUESTION)
    thread.start()
    time.sleep(0.05)
    lease = Lease(slow._holder, b"x", (0, b""))
    assert slow._holder is not None
    begun = time.monotonic()
    with pytest.raises(pepcore.Fault):
        slow._holder.ask(lease, now() + 0.1)
    assert time.monotonic() - begun < 0.5
    begun = time.monotonic()
    slow.close()
    assert time.monotonic() - begun < 0.2
    listener.close()
    thread.join(5)


def test_a_process_with_very_many_descriptors_holds_leases(fake: Fake, client: pepcore.Client):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("not so many descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(1200)]
    try:
        lease = client.lease(*QUESTION)
        assert lease
        assert client._holder is not None
        assert client._holder._link is not None
        assert client._holder._link.fileno() > 1024
        time.sleep(2 * fake.grace / 1000)
        assert lease
    finally:
        for fd in kept:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_fork_holds_nothing_and_asks_for_its_own(fake: Fake, client: pepcore.Client):
    lease = client.lease(*QUESTION)
    holder = client._holder
    assert holder is not None
    read, write = os.pipe()
    with holder._lock, lease._step, holder._wake._lock:  # as where other threads are in the middle of something
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                told = [bool(lease), lease.wait(0.1)]
                lease.close()
                mine = client.lease(*QUESTION)
                told += [bool(mine), len(threading.enumerate()) >= 2]
                client.close()
                os.write(write, repr(told).encode())
                status = 0
            os._exit(status)
    os.close(write)
    assert os.read(read, 100) == b"[False, True, True, True]"
    os.close(read)
    assert os.waitpid(child, 0)[1] == 0
    time.sleep(2 * fake.grace / 1000)
    assert lease
    assert len(fake.connections) == 2


def test_the_thread_and_the_connection_end_where_nothing_is_held(fake: Fake, client: pepcore.Client, monkeypatch):
    monkeypatch.setattr(holding, "IDLE_S", 0.1)
    fds, before = len(os.listdir("/proc/self/fd")), keepers()
    for _ in range(3):
        lease = client.lease(*QUESTION)
        assert lease
        time.sleep(0.3)
        assert lease, "what is held keeps it"
        lease.close()
        until(lambda: not keepers() - before)
    until(lambda: len(os.listdir("/proc/self/fd")) <= fds + 6)


def test_a_thread_that_fails_holds_nothing_and_goes_on(fake: Fake, client: pepcore.Client, monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL)
    ends: list[Lease] = []
    lease = client.lease(*QUESTION, on_end=ends.append)
    holder = client._holder
    assert holder is not None

    def fails(at: float) -> None:
        monkeypatch.undo()
        raise RuntimeError("a defect")

    monkeypatch.setattr(holder, "_stop", lambda: fails(0))
    holder._wake.poke()
    assert lease.wait(1)
    assert (lease.cause, lease.reason) == ("lost", "the client failed")
    until(lambda: ends == [lease])
    assert client.lease(*QUESTION)


# ---- asyncio ----


def test_a_lease_is_awaited_or_entered_and_its_end_is_called_in_the_loop(fake: Fake):
    async def main() -> None:
        client = await pepcore.aconnect(fake.path, deadline=2.0)
        loop, told = asyncio.get_running_loop(), []

        async def coroutine(lease: Any) -> None:
            await asyncio.sleep(0.05)
            told.append(("coroutine", lease, asyncio.get_running_loop() is loop))

        def plain(lease: Any) -> None:
            told.append(("plain", lease, asyncio.get_running_loop() is loop))

        async with client.lease(*QUESTION, on_end=coroutine) as slow, client.lease(*QUESTION, on_end=plain) as quick:
            assert slow
            assert quick
            assert slow.verdict
            assert not await slow.wait(0.05)
            for lease in (slow, quick):
                await asyncio.to_thread(fake.send, ended(lease.number, lease.number))
            assert await slow.wait(1)
            assert await quick.wait(1)
            assert (bool(slow), slow.cause, slow.reason) == (False, "revoked", "stolen")
        await asyncio.sleep(0.2)
        assert sorted(told, key=lambda t: t[0]) == [("coroutine", slow, True), ("plain", quick, True)]
        confirmed = [struct.unpack("<Q", body)[0] for _, body in fake.asked(END_LEASE)]
        assert confirmed == [quick.number, slow.number], "the daemon knows when it is done"
        lease = await client.lease(*QUESTION, on_end=plain)
        await lease.close()
        assert not lease
        assert await lease.wait(0.1)
        assert len(told) == 2
        await client.close()
        assert not await client.lease(*QUESTION)

    asyncio.run(main())


def test_denies_faults_and_cancelled_calls_hold_nothing_under_asyncio(fake: Fake, tmp_path: Path, caplog):
    caplog.set_level(logging.CRITICAL)

    async def main() -> None:
        client = await pepcore.aconnect(fake.path, deadline=1.0)
        good = fake.on_lease
        fake.on_lease = lambda r: frame(LEASE | 0x80, r, verdict(r, False), partition=1)
        denied = await client.lease(*QUESTION)
        assert (bool(denied), denied.verdict.reason) == (False, "no")
        assert await denied.wait()
        assert not await client.lease("x", "read", "Document::1")
        assert not await (await pepcore.aconnect(tmp_path / "nowhere")).lease(*QUESTION)
        fake.on_lease = lambda r: b""
        assert "deadline" in (await client.lease(*QUESTION)).verdict.error
        task = asyncio.ensure_future(client._lease(*QUESTION, None, (), None, None))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for request, _ in fake.asked(LEASE)[1:]:  # late permits: nobody wants them
            fake.send(good(request))
        await asyncio.sleep(0.1)
        assert len(fake.asked(END_LEASE)) == 2
        fake.on_lease = good

        async def raises(lease: Any) -> None:
            raise ValueError("of the caller")

        failing, kept = await client.lease(*QUESTION, on_end=raises), await client.lease(*QUESTION)
        fake.send(ended(failing.number, failing.number))
        assert await failing.wait(1)
        await asyncio.sleep(0.05)
        assert kept
        assert len(fake.asked(END_LEASE)) == 3
        await client.close()

    asyncio.run(main())


def test_a_loop_that_has_ended_does_not_raise_in_the_thread_of_the_holder(fake: Fake, caplog):
    async def main() -> tuple[Any, Any]:
        client = await pepcore.aconnect(fake.path, deadline=2.0)
        return client, await client.lease(*QUESTION, on_end=lambda lease: None)

    client, lease = asyncio.run(main())
    fake.send(ended(lease.number, lease.number))
    until(lambda: not lease)
    until(lambda: fake.asked(END_LEASE))
    assert not caplog.records
    asyncio.run(client.close())
