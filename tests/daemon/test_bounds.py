"""What one peer may take: connections, unread replies, questions that wait, time on the loop."""

from __future__ import annotations

import os
import resource
import signal
import time

import pytest
from msgspec.msgpack import decode as unpack
from raw import ERROR, Client, Verdict, ask, check, frame, hello

ALL = '@id("all")\npermit(principal, action, resource);\n'


def memory(pid: int) -> int:
    """Resident bytes."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def turned_away(daemon) -> bool:
    """Whether a new connection is closed behind an error frame that says so."""
    with Client(daemon.socket, greet=False) as c:
        try:
            c.send(hello(1))
            answer = c.read()
            if answer.op != ERROR:
                return False
            assert unpack(answer.body)["code"] == 6
            with pytest.raises(EOFError):
                c.read()
        except BrokenPipeError:  # closed before we had said anything
            assert unpack(c.read().body)["code"] == 6
    return True


@pytest.mark.parametrize("limit", ["connections", "connections_per_peer"])
def test_connections_over_the_limit_are_closed_and_those_within_go_on(serve, limit):
    daemon = serve(ALL, config=f"[limits]\n{limit} = 4\n")
    clients = [Client(daemon.socket) for _ in range(4)]
    assert turned_away(daemon)
    assert all(c.ask().permit for c in clients)
    clients.pop().socket.close()
    until = time.monotonic() + 5
    while True:
        if not turned_away(daemon):
            break
        assert time.monotonic() < until
    clients.append(Client(daemon.socket))
    assert clients[-1].ask().permit
    for c in clients:
        c.socket.close()


def push(c: Client, data: bytes, most: int) -> int:
    """Send without reading, until the daemon takes no more, closes, or `most` is sent."""
    c.socket.settimeout(0.7)
    sent, size = 0, len(data)
    try:
        while sent < most:
            sent += c.socket.send(data[sent % size :])  # whole frames, whatever the kernel takes at a time
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("kind", ["hits", "errors", "misses"])
def test_a_peer_that_never_reads_its_replies_is_bounded_and_closed(serve, kind):
    daemon = serve(ALL, config='[limits]\nunread = "1s"\n')
    with daemon.client() as c, daemon.client() as neighbour:
        assert neighbour.ask().permit
        before = memory(daemon.pid)
        if kind == "hits":
            data = check(ask(), 1) * 2000
        elif kind == "errors":
            data = check(b"\xc1", 1) * 5000
        else:
            data = b"".join(check(ask(resource=f"Document::{n}"), n) for n in range(2000))
        sent = push(c, data, 64 << 20)
        assert sent < 32 << 20
        assert neighbour.ask().permit
        assert memory(daemon.pid) - before < 40 << 20
        daemon.wait_for("a peer does not read its replies")
        until = time.monotonic() + 5
        while neighbour.stats()["connections"] > 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert neighbour.stats()["connections"] == 1
        assert neighbour.ask().permit


def test_a_peer_that_reads_late_but_reads_gets_every_reply(serve):
    daemon = serve(ALL)
    with daemon.client() as c:
        assert c.ask().permit
        import threading

        count = 30_000
        data = check(ask(), 9) * count
        sender = threading.Thread(target=c.send, args=(data,))
        sender.start()
        time.sleep(0.5)
        for _ in range(count):
            answer = c.answer()
            assert isinstance(answer, Verdict)
            assert answer.permit
        sender.join()
        assert c.ask().cached


def test_replies_to_a_half_sent_frame_behind_many_are_not_a_reason_to_close(serve):
    """While the daemon does not read from a peer, the peer cannot send the rest of its frame."""
    daemon = serve(ALL, config='[limits]\npartial = "200ms"\nunread = "5s"\n')
    with daemon.client() as c:
        assert c.ask().permit
        one = check(ask(), 9)
        sent = push(c, one * 100, 64 << 20)
        time.sleep(0.6)
        c.socket.settimeout(10)
        rest = (-sent) % len(one)
        import threading

        got = []
        reader = threading.Thread(target=lambda: got.extend(c.answer() for _ in range(-(-sent // len(one)))))
        reader.start()
        c.send(one[len(one) - rest :] if rest else b"")
        reader.join()
        assert len(got) == -(-sent // len(one))
        assert all(v.permit for v in got)


def test_questions_over_the_limit_of_a_peer_are_denied_at_once_and_those_within_are_answered(serve):
    daemon = serve(ALL, config='[limits]\nwaiting_per_peer = 10\ndeadline = "10s"\n')
    (worker,) = daemon.workers()
    with daemon.client() as c:
        assert c.ask().permit
        os.kill(worker, signal.SIGSTOP)
        c.send(b"".join(check(ask(resource=f"Document::{n}"), n) for n in range(15)))
        over = [c.answer() for _ in range(5)]
        assert {(a.permit, a.fault) for a in over} == {(False, 6)}
        assert c.ask().cached
        os.kill(worker, signal.SIGCONT)
        assert all(c.answer().permit for _ in range(10))
        assert c.ask(ask(resource="Document::14")).permit


def test_large_questions_that_wait_are_bounded_in_bytes_and_hits_go_on(serve):
    daemon = serve(ALL, config='[limits]\nwaiting_bytes_per_peer = 1000000\ndeadline = "10s"\n')
    (worker,) = daemon.workers()
    with daemon.client() as c:
        assert c.ask().permit
        os.kill(worker, signal.SIGSTOP)
        large = {"text": "x" * 50_000}
        c.send(b"".join(check(ask(resource=f"Document::{n}", context=large), n) for n in range(25)))
        over = [c.answer() for _ in range(6)]
        assert {(a.permit, a.fault) for a in over} == {(False, 6)}
        assert c.ask().cached
        os.kill(worker, signal.SIGCONT)
        assert all(c.answer().permit for _ in range(19))


def test_many_requests_in_one_write_are_all_answered_and_others_come_between(serve):
    daemon = serve(ALL)
    with daemon.client(timeout=60) as c, daemon.client() as other:
        assert other.ask().permit
        count = 3000
        data = b"".join(check(ask(resource=f"Document::{n % 900}"), n, deadline_us=30_000_000) for n in range(count))
        c.send(data)
        start = time.monotonic()
        assert other.ask().cached
        assert time.monotonic() - start < 2
        assert {c.read().id for _ in range(count)} == set(range(count))


def test_thousands_of_peers_that_vanish_at_once_do_not_hold_the_others(serve):
    daemon = serve(ALL, config='[limits]\ndeadline = "20s"\n')
    (worker,) = daemon.workers()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 800 if hard >= 2000 else hard // 3
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with daemon.client() as c:
        assert c.ask().permit
        os.kill(worker, signal.SIGSTOP)
        gone = [Client(daemon.socket) for _ in range(count)]
        for n, client in enumerate(gone):
            client.send(check(ask(resource=f"Document::{n}"), 1) + check(ask(resource=f"Document::more{n}"), 2))
        daemon.wait_until_waiting(count)
        for client in gone:
            client.socket.close()
        start = time.monotonic()
        assert c.ask().cached
        assert time.monotonic() - start < 1
        until = time.monotonic() + 5
        while c.stats()["waiting"] and time.monotonic() < until:
            time.sleep(0.02)
        assert c.stats()["waiting"] == 0
        os.kill(worker, signal.SIGCONT)
        assert c.ask(ask(resource="Document::after"), deadline_us=10_000_000).permit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_peer_cannot_evict_what_another_has_cached(serve, other_uid):
    """At its quota a flood takes only its own entries; below it, a full set may cost the other a few."""
    daemon = serve(ALL, config="[cache]\nslots = 512\nslab_mib = 1\n")
    with daemon.client() as c:
        mine = [ask(resource=f"Mine::{n}") for n in range(20)]
        assert all(c.ask(question).permit for question in mine)
        flood = "for n in range(2000): assert c.ask(ask(resource=f'Document::{n}')).permit"
        assert other_uid(daemon, f"c = Client(path)\n{flood}\nprint(1)").wait() == 1
        answers = [c.ask(question) for question in mine]
        assert all(answer.permit for answer in answers)
        assert sum(answer.cached for answer in answers) >= 10


def test_a_question_of_too_many_values_is_refused_alone_and_in_a_batch_and_one_of_as_many_is_not(serve):
    daemon = serve(ALL, config="[limits]\nvalues = 64\n")
    fits, over = (ask(context={"v": [[]] * n}) for n in (63, 64))
    with daemon.client(greet=False) as c:
        assert unpack(c.greet().body)["limits"]["values"] == 64
        assert c.ask(fits).permit
        for refused in (c.ask(over), c.explain(over)):
            assert (refused.code, refused.field) == (2, "context.v.63")
            assert "limits.values" in refused.reason
        good, bad = c.ask_many([fits, over])
        assert (good.permit, bad.permit, bad.fault) == (True, False, 2)


def test_long_evaluations_of_one_user_do_not_deny_the_misses_of_another(serve, other_uid):
    """Sixteen questions of 200 ms each are in flight all the time; every worker has room for somebody else's."""
    daemon = serve(ALL, config='[limits]\ndeadline = "1s"\nvalues = 65536\n')
    flood = """
import time
context = {"a": [[]] * 60000}
with Client(path) as c:
    print(0, flush=True)
    for n in range(16):
        c.send(check(ask(f"User::{n}", context=context), n, deadline_us=30_000_000))
    until = time.monotonic() + 3
    while time.monotonic() < until:
        c.read()
        n += 1
        c.send(check(ask(f"User::{n}", context=context), n, deadline_us=30_000_000))
"""
    asker = other_uid(daemon, flood)
    daemon.wait_until_waiting(10)
    with daemon.client() as c:
        permits = [c.ask(ask(resource=f"Document::{n}")).permit for n in range(6)]
    assert asker.wait() == 0
    assert permits == [True] * 6


def test_what_a_closed_connection_had_sent_is_free_at_once_without_a_collection(serve):
    daemon = serve(ALL, config="[limits]\nframe = 4194304\n", before="import gc; gc.disable()")
    half = hello(1) + frame(3, 2, bytes(4_100_000))[:4_000_000]

    def wave() -> int:
        """Memory with ten half frames, all of whose connections ask and end in different ways."""
        clients = [daemon.client(greet=False) for _ in range(10)]
        for n, c in enumerate(clients):
            c.send(check(ask(), 3) * (n % 2) + half)
        time.sleep(0.2)
        held = memory(daemon.pid)
        for c in clients:
            c.socket.close()
        return held

    wave()
    with daemon.client(greet=False) as s:

        def settled() -> int:
            while s.stats()["connections"] > 1:
                time.sleep(0.01)
            return memory(daemon.pid)

        before = settled()
        held = max(wave() for _ in range(2))
        assert held - before > 20 << 20  # they are held while they are open
        for _ in range(4):
            wave()
        assert settled() - before < 20 << 20
