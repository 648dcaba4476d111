"""Permits and denies of a running daemon, in all the ways to ask."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from raw import Client, Error, Verdict, ask, check, frame, hello

import pepcore

READERS = '@id("readers") permit(principal, action == Action::"read", resource);\n'
Serve = Callable[..., object]
PEP = Path(sys.executable).with_name("pep")


def test_what_a_policy_permits_is_permitted_and_nothing_else(serve):
    with serve().client() as c:
        first, again = c.ask(), c.ask()
        assert (first.permit, first.cached, first.fault) == (True, False, 0)
        assert (again.permit, again.cached) == (True, True)
        assert first.payload["policies"] == ["readers"]
        for other in (ask("User::bob"), ask(action="write"), ask("Agent::alice")):
            answer = c.ask(other)
            assert (answer.permit, answer.fault) == (False, 0)
        assert c.ask(ask(resource="Document::b")).permit


def test_hello_and_check_may_go_out_together(serve):
    with serve().client(greet=False) as c:
        c.send(hello(1) + check(ask(), 2))
        assert c.read().id == 1
        assert c.answer().permit


@pytest.mark.skipif(not PEP.exists(), reason="the program `pep` is not installed: pip install -e .")
def test_the_program_pep_exits_by_the_verdict(serve):
    daemon = serve()

    def pep(subject: str) -> int:
        command = [PEP, "check", subject, "read", "Document::a", "--socket", str(daemon.socket), "--deadline", "5000"]
        return subprocess.run(command, capture_output=True).returncode

    assert pep("User::alice") == 0
    assert pep("User::bob") == 1
    daemon.stop()
    assert pep("User::alice") == 3


ALICE, BOB, CAROL = ask(), ask("User::bob"), ask("User::alice", resource="Document::c")


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("semantic", "questions", "expected"),
    [
        (0, [ALICE, BOB, CAROL], [True, False, True]),
        (1, [ALICE, BOB, CAROL], [True, False]),
        (1, [ALICE, CAROL], [True, True]),
        (2, [BOB, ALICE, CAROL], [False, True]),
        (2, [BOB, BOB], [False, False]),
    ],
)
def test_a_batch_ends_where_its_semantic_says_cached_or_not(serve, warm, semantic, questions, expected):
    with serve().client() as c:
        if warm:  # some of it only: mixed batches are the interesting ones
            c.ask(BOB)
        assert [v.permit for v in c.ask_many(questions, semantic=semantic)] == expected
        assert [v.permit for v in c.ask_many(questions, semantic=semantic)] == expected


def test_one_bad_item_of_a_batch_denies_alone(serve):
    with serve().client() as c:
        good, bad, other = c.ask_many([ALICE, b"\xc1", CAROL])
        assert (good.permit, other.permit) == (True, True)
        assert (bad.permit, bad.fault) == (False, 2)


def test_a_batch_that_cannot_be_read_is_one_error_frame_and_the_connection_goes_on(serve):
    with serve().client() as c:
        c.send(frame(3, 5, b"\x00\x00\x00\x00\x05\x00\x00\x00", partition=1))
        answer = c.answer()
        assert isinstance(answer, Error)
        assert answer.field.startswith("check-many")
        assert [v.permit for v in c.ask_many([ALICE])] == [True]


def test_not_after_in_the_past_denies_also_a_cached_permit(serve):
    with serve().client() as c:
        assert c.ask().permit
        late = c.ask(not_after=1_000)
        assert (late.permit, late.fault) == (False, 13)
        in_time = c.ask(not_after=2**62)
        assert (in_time.permit, in_time.cached) == (True, True)
        assert [v.fault for v in c.ask_many([ALICE], not_after=1_000)] == [13]


def test_a_revision_that_was_not_reached_denies_and_another_boot_does_not(serve):
    with serve().client() as c:
        seen = c.ask()
        ahead = c.ask(min_revision=[seen.boot, seen.revision + 1])
        assert (ahead.permit, ahead.fault) == (False, 12)
        assert c.ask(min_revision=[seen.boot, seen.revision]).permit
        assert c.ask(min_revision=[seen.boot ^ 1, seen.revision + 1]).permit
        assert [v.fault for v in c.ask_many([ALICE], min_revision=[seen.boot, seen.revision + 1])] == [12]


def test_explain_names_policy_and_lines_and_whether_it_is_cached(serve):
    with serve().client() as c:
        cold = c.explain()
        assert (cold["permit"], cold["cached"]) == (True, False)
        assert [(p["id"], p["lines"]) for p in cold["policies"]] == [("readers", [1, 2])]
        assert c.ask().permit
        warm = c.explain()
        assert warm["cached"]
        assert warm["cached_left_ms"] > 0
        assert not c.explain(BOB)["permit"]


def test_an_explanation_that_comes_too_late_is_an_error_frame_and_no_verdict(serve):
    with serve(config='[limits]\npartial = "5s"').client() as c:
        answer = c.explain(deadline_us=0)
        assert isinstance(answer, Error)
        assert answer.code == 7
        assert c.explain()["permit"]


@pytest.mark.parametrize("op", [10])
def test_what_is_not_built_answers_not_available_and_the_connection_goes_on(serve, op):
    with serve().client() as c:
        c.send(frame(op, 9, b"", partition=0))
        answer = c.answer()
        assert isinstance(answer, Error)
        assert (answer.code, answer.field) == (5, "op")
        assert c.ask().permit


def test_stats_count_what_happened(serve):
    with serve().client() as c:
        c.ask()
        c.ask()
        c.ask(BOB)
        stats = c.stats()
        assert stats["cache"]["hits"] == 1
        assert stats["asked"] == 2
        assert stats["evaluated_inline"] + stats["evaluated_by_workers"] == 2
        assert (stats["policies"], stats["connections"], stats["waiting"]) == (1, 1, 0)


def test_a_client_that_leaves_while_it_waits_leaks_nothing(serve):
    daemon = serve()
    (worker,) = daemon.workers()
    with daemon.client() as watcher:
        os.kill(worker, signal.SIGSTOP)
        clients = [Client(daemon.socket) for _ in range(20)]
        for n, c in enumerate(clients):
            c.send(b"".join(check(ask(resource=f"Document::{n}-{i}"), i, deadline_us=20_000_000) for i in range(20)))
        until = time.monotonic() + 5
        while watcher.stats()["waiting"] <= 300 and time.monotonic() < until:  # it reads in slices, fair over peers
            time.sleep(0.02)
        assert watcher.stats()["waiting"] > 300
        for c in clients:
            c.socket.close()
        until = time.monotonic() + 5
        while watcher.stats()["waiting"] and time.monotonic() < until:
            time.sleep(0.02)
        stats = watcher.stats()
        os.kill(worker, signal.SIGCONT)
        assert (stats["waiting"], stats["connections"]) == (0, 1)
        assert watcher.ask(deadline_us=5_000_000).permit


def test_a_deny_of_a_policy_carries_its_reason(serve):
    daemon = serve('@id("r")@reason("not today")\nforbid(principal == User::"bob", action, resource);\n'
                   '@id("all")\npermit(principal, action, resource);')  # fmt: skip
    with daemon.client() as c:
        denied = c.ask(BOB)
        assert isinstance(denied, Verdict)
        assert (denied.permit, denied.reason, denied.payload["policies"]) == (False, "not today", ["r"])
        assert c.ask(ALICE).permit


@pytest.mark.parametrize("was_set", [False, True])
def test_a_wall_clock_that_is_set_while_a_question_is_in_flight_is_seen_when_its_answer_comes(serve, tmp_path, was_set):
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    policy = f'@id("t") permit(principal, action, resource) when {{ context.now < datetime("{ends}") }};'
    moved = tmp_path / "moved"
    before = f"""
import os, pepcore.server.clock as clock
real = clock.wall_ms
clock.wall_ms = lambda: real() + (3_600_000 if os.path.exists({str(moved)!r}) else 0)
"""
    daemon = serve(policy, before=before)
    (worker,) = daemon.workers()
    with daemon.client() as c:
        assert c.ask().permit
        os.kill(worker, signal.SIGSTOP)
        c.send(b"".join(check(ask(resource=f"Document::{n}"), n, deadline_us=10_000_000) for n in range(3)))
        daemon.wait_until_waiting(3)
        if was_set:
            moved.touch()
        os.kill(worker, signal.SIGCONT)
        answers = [c.answer() for _ in range(3)]
    assert [(a.permit, a.fault) for a in answers] == [(not was_set, 0)] * 3


def test_a_client_of_many_threads_keeps_answers_again_after_one_that_came_late(serve):
    daemon = serve(READERS)
    client = pepcore.connect(daemon.socket, deadline=0.5)
    beside = threading.Barrier(4)

    def miss(k: int) -> None:
        beside.wait()
        for n in range(50):
            assert client.check("User::ann", "read", f"Document::{k}-{n}")

    def kept() -> bool:
        before = client._kept.usage()["hits"]
        for _ in range(20):
            client.check("User::ann", "read", "Document::1")
        return bool(client._kept.usage()["hits"] - before >= 10)

    while len(client._pool._open) < 2:
        threads = [threading.Thread(target=miss, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert kept()
    idle = client._pool._idle
    if idle[-1] is not client._sharing:  # the question that comes late goes over the one that shares the page
        idle.remove(client._sharing)
        idle.append(client._sharing)
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        late = client.check("User::ann", "read", "Document::late")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert late.error
    assert client._pool._idle, "there are others that are in order"
    until = time.monotonic() + 5
    while not kept():
        assert time.monotonic() < until, "no connection asked for the page again"
        time.sleep(0.05)
    assert len(client._pool._open) <= 4
