"""Worker processes that die, hang or come late; and what a flood of misses costs others (D11)."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time

import pytest
from raw import Client, ask, check

ALL = '@id("all")\npermit(principal, action, resource);\n'


def test_questions_of_a_killed_worker_are_denied_with_a_reason_and_the_next_are_permitted(serve):
    daemon = serve(ALL, config='[limits]\ndeadline = "10s"\n')
    (worker,) = daemon.workers()
    with daemon.client() as c:
        assert c.ask().permit
        os.kill(worker, signal.SIGSTOP)
        c.send(b"".join(check(ask(resource=f"Document::{n}"), n) for n in range(4)))  # at once: none is alone
        daemon.wait_until_waiting(4)
        os.kill(worker, signal.SIGKILL)
        start = time.monotonic()
        for _ in range(2):
            answer = c.answer()
            assert (answer.permit, answer.fault) == (False, 8)
            assert "worker" in answer.reason
        assert time.monotonic() - start < 2  # at once, not at the deadline
        for answer in (c.answer(), c.answer()):  # those that the worker did not hold waited for the next one
            assert answer.permit or "worker" in answer.reason
        assert c.ask().cached  # hits are not affected
        for n in range(4):
            assert c.ask(ask(resource=f"Document::{n}"), deadline_us=10_000_000).permit
        (new,) = daemon.workers()
        assert new != worker
    assert daemon.events("a worker ended and is replaced")[0]["pid"] == worker


def test_a_worker_that_is_killed_while_idle_is_replaced(serve):
    daemon = serve(ALL)
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGKILL)
    daemon.wait_for("a worker ended and is replaced")
    with daemon.client() as a, daemon.client() as b:
        for n in range(3):
            assert a.ask(ask(resource=f"Document::a{n}"), deadline_us=10_000_000).permit
            assert b.ask(ask(resource=f"Document::b{n}"), deadline_us=10_000_000).permit


def busy(daemon, question: bytes | None = None, deadline_us: int = 20_000_000) -> Client:
    """A neighbour whose two questions, the first as it is told, keep others from being evaluated inline."""
    c = daemon.client()
    first = check(question or ask(resource="Document::busy0"), 0, deadline_us=deadline_us)
    c.send(first + check(ask(resource="Document::busy1"), 1, deadline_us=20_000_000))
    return c


def test_a_deadline_that_passes_denies_in_time_and_the_late_answer_is_cached(serve):
    daemon = serve(ALL)
    (worker,) = daemon.workers()
    with daemon.client() as c:
        os.kill(worker, signal.SIGSTOP)
        start = time.monotonic()
        with busy(daemon, ask(), 100_000) as b:
            late = b.answer()
            took = time.monotonic() - start
            assert (late.permit, late.fault) == (False, 7)
            assert 0.09 < took < 2
            default = c.ask(ask(resource="Document::other"))
            assert (default.permit, default.fault) == (False, 7)
            os.kill(worker, signal.SIGCONT)
            until = time.monotonic() + 5
            while c.stats()["waiting"] and time.monotonic() < until:
                pass
            answer = c.ask(deadline_us=5_000_000)
            assert (answer.permit, answer.cached) == (True, True)


def test_a_late_answer_of_an_older_set_is_not_cached(serve):
    daemon = serve(ALL)
    (worker,) = daemon.workers()
    with daemon.client() as c:
        os.kill(worker, signal.SIGSTOP)
        with busy(daemon, ask(), 50_000) as b:
            assert b.answer().fault == 7
            daemon.reload('@id("closed")\nforbid(principal, action, resource);\n')
            os.kill(worker, signal.SIGCONT)
            time.sleep(0.2)
            answer = c.ask(deadline_us=5_000_000)
            assert (answer.permit, answer.fault) == (False, 0)
        daemon.reload(ALL)
        assert c.ask(deadline_us=5_000_000).permit


@pytest.mark.parametrize("deadline_us", [0, 1, 1000])
def test_a_deadline_of_nothing_denies_a_miss_and_not_a_hit(serve, deadline_us):
    daemon = serve(ALL)
    (worker,) = daemon.workers()
    with daemon.client() as c:
        assert c.ask().permit
        os.kill(worker, signal.SIGSTOP)
        with busy(daemon):
            time.sleep(0.05)
            denied = c.ask(ask(resource="Document::b"), deadline_us=deadline_us)
            assert (denied.permit, denied.fault) == (False, 7)
            assert c.ask(deadline_us=deadline_us).permit
        os.kill(worker, signal.SIGCONT)


@pytest.mark.slow
def test_a_worker_that_stays_silent_is_ended_and_replaced(serve):
    shorter = "import pepcore.server.workers as w; w.SILENT_S = 1.0"
    daemon = serve(ALL, before=shorter)
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    with daemon.client() as c, busy(daemon):
        daemon.wait_for("a worker was silent for too long and is ended")
        assert c.ask(ask(resource="Document::z"), deadline_us=10_000_000).permit
        assert daemon.workers() != [worker]


def test_a_replacement_that_hangs_while_it_loads_is_ended_and_replaced(serve):
    """The second worker that is started is stopped before it can load; the third serves."""
    stops = """
import os, signal, pepcore.server.workers as w, pepcore.server.processes as p
w.LOAD_S, spawn, started = 1.0, p.spawn, []
def stopped(source):
    started.append(spawn(source))
    if len(started) == 1:  # the very first was started by run.py itself
        os.kill(started[0].pid, signal.SIGSTOP)
    return started[-1]
p.spawn = stopped
"""
    daemon = serve(ALL, before=stops)
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGKILL)
    ended = daemon.wait_for("a worker did not load the policies in time and is ended")
    with daemon.client() as c, busy(daemon):
        assert c.ask(ask(resource="Document::z"), deadline_us=10_000_000).permit
        assert ended["pid"] not in daemon.workers()
    time.sleep(1.1)  # one that has loaded is not ended
    assert len(daemon.events("a worker did not load the policies in time and is ended")) == 1
    assert len(daemon.events("a worker ended and is replaced")) == 2


def test_a_replacement_that_hangs_before_it_runs_its_program_does_not_keep_its_place(serve):
    """Starting it comes back late: another was started meanwhile, and the late one is ended."""
    hangs = """
import threading, time, pepcore.server.workers as w, pepcore.server.processes as p
w.LOAD_S, spawn, calls = 1.0, p.spawn, []
def late(source):
    calls.append(1)
    if len(calls) == 1:
        time.sleep(3.5)
    return spawn(source)
p.spawn = late
"""
    daemon = serve(ALL, before=hangs)
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGKILL)
    assert "within 1 s" in daemon.wait_for("a worker process cannot be started")["reason"]
    with daemon.client() as c, busy(daemon):
        assert c.ask(ask(resource="Document::z"), deadline_us=10_000_000).permit
        time.sleep(2)
        assert len(c.stats()["workers"]) == 1
    assert daemon.stop() == 0


@pytest.mark.slow
def test_hits_of_one_peer_are_answered_while_another_floods_misses(serve):
    daemon = serve(ALL)
    stop = threading.Event()
    answered = [0]

    def flood() -> None:
        with daemon.client() as c:
            n = 0
            while not stop.is_set():
                c.send(b"".join(check(ask(resource=f"Document::f{n}-{i}"), i) for i in range(500)))
                for _ in range(500):
                    c.read()
                answered[0] += 500
                n += 1

    with daemon.client() as c:
        assert c.ask().permit
        thread = threading.Thread(target=flood)
        thread.start()
        took = []
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            start = time.perf_counter()
            answer = c.ask()
            took.append(time.perf_counter() - start)
            assert (answer.permit, answer.cached) == (True, True)
        stop.set()
        thread.join()
        stats = c.stats()
    assert answered[0] >= 500
    assert stats["evaluated_by_workers"] > 100
    assert len(took) > 200
    assert statistics.median(took) < 0.05
    assert max(took) < 1.0


def test_misses_are_taken_in_turn_from_each_peer(serve, other_uid):
    """A flood of one user does not make another wait behind all of it."""
    daemon = serve(ALL, config='[limits]\ndeadline = "20s"\n')
    (worker,) = daemon.workers()
    with daemon.client() as flood, daemon.client(greet=False) as s:
        os.kill(worker, signal.SIGSTOP)
        flood.send(b"".join(check(ask(resource=f"Document::e{n}"), 5000 + n) for n in range(2)))
        daemon.wait_until_waiting(1)  # the first may have been decided in the loop; the worker is busy from here on
        flood.send(b"".join(check(ask(resource=f"Document::f{n}"), n) for n in range(2000)))
        daemon.wait_until_waiting(2001)
        time.sleep(0.1)
        waiting = s.stats()["waiting"]
        asker = other_uid(daemon, "with Client(path) as c: print(int(c.ask(deadline_us=20_000_000).permit))")
        daemon.wait_until_waiting(waiting + 1)
        os.kill(worker, signal.SIGCONT)
        assert asker.wait() == 1
        assert s.stats()["waiting"] > 500
        assert all(flood.answer().permit for _ in range(2002))


def test_short_descriptors_keep_the_daemon_alive(make):
    short = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    daemon = make(ALL, before=short).ready()
    assert daemon.events("fewer descriptors than `limits.connections` needs")
    with daemon.client() as c:
        assert c.ask().permit
        (worker,) = c.stats()["workers"]
        clients = []
        for _ in range(80):
            try:
                clients.append(Client(daemon.socket, greet=False, timeout=0.5))
            except OSError:
                break
        assert c.ask().permit
        os.kill(worker, signal.SIGKILL)  # which cannot be replaced now
        daemon.wait_for("a worker process cannot be started")
        for client in clients:
            client.socket.close()
        assert c.ask(ask(resource="Document::later"), deadline_us=15_000_000).permit
    assert daemon.permits()
    assert daemon.stop() == 0
