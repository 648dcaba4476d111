"""The Python clients, blocking and asyncio, with a real daemon."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

import pepcore
from pepcore import AsyncClient, Client, Denied, Entity
from tests.both_clients import Both
from tests.conftest import POLICIES, Daemon

ALICE = ("User::alice", "read", "Document::1")
PATIENT = 5.0
"""Seconds: so that a busy machine is no deny. What is tested is never that it is reached."""


@pytest.fixture(params=["connect", "aconnect"])
def connect(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Callable[..., Both]]:
    made: list[Both] = []

    def start(path: Any = daemon.socket, *, deadline: float = PATIENT, **settings: Any) -> Both:
        made.append(Both(request.param, path=path, deadline=deadline, **settings))
        return made[-1]

    yield start
    for each in made:
        each.close()
        if each.loop:
            each.loop.close()


def test_a_check_brings_the_whole_verdict(connect: Callable[..., Both]) -> None:
    pep = connect()
    first, again = pep.check(*ALICE), pep.check(*ALICE)
    assert (first.permit, first.reason, first.policies, first.error) == (True, "alice reads", ("readers",), "")
    assert (again.permit, again.cached, again.id, again.boot) == (True, True, first.id, first.boot)
    assert again.expires > time.clock_gettime(time.CLOCK_BOOTTIME)
    denied = pep.check("User::alice", "read", "Document::secret")
    assert (denied.permit, denied.reason, denied.error) == (False, "nobody reads the secret", "")


@pytest.mark.parametrize("alice", ["User::alice", Entity("User", "alice"), {"type": "User", "id": "alice"}])
def test_every_form_of_an_entity_asks_the_same(connect: Callable[..., Both], alice: Any) -> None:
    pep = connect()
    pep.check(*ALICE)
    assert pep.check(alice, {"name": "read"}, {"type": "Document", "id": "1", "properties": {}}).cached


def test_context_and_chain_decide(connect: Callable[..., Both]) -> None:
    pep = connect()
    assert pep.check("Service::web", "connect", "Host::db", {"port": 22})
    assert not pep.check("Service::web", "connect", "Host::db", {"port": True})
    assert pep.check("Agent::a7", "read", "Document::1", on_behalf_of=["User::alice"])
    assert not pep.check("Agent::a7", "read", "Document::1")


def test_a_malformed_question_denies_and_the_next_is_answered(connect: Callable[..., Both]) -> None:
    pep = connect()
    for question, place in (
        (("alice", "read", "Document::1"), "subject"),
        (("User::alice", None, "Document::1"), "action"),
        ((*ALICE, {"at": datetime.now(UTC)}), "context.at"),
        ((*ALICE, {"x": "y" * 70_000}), "question"),
    ):
        verdict = pep.check(*question)
        assert not verdict
        assert f": {place}" in verdict.error
        assert pep.check(*ALICE)
    assert "not_after" in pep.check(*ALICE, not_after="tomorrow").error
    assert "min_revision" in pep.check(*ALICE, min_revision=(1, -1)).error


def test_an_obligation_is_applied_and_one_that_is_not_handled_denies(connect: Callable[..., Both]) -> None:
    pep = connect(handles=["mask"])
    for _ in range(2):
        assert pep.check("User::bob", "read", "Document::1").apply({"ssn": "123456789"}) == {"ssn": "****6789"}
    verdict = connect().check("User::bob", "read", "Document::1")
    assert not verdict
    assert verdict.error.startswith("obligation: ")


def test_not_after_and_min_revision_bound_an_answer(connect: Callable[..., Both]) -> None:
    pep = connect()
    verdict = pep.check(*ALICE)
    assert pep.check(*ALICE, min_revision=verdict)
    assert pep.check(*ALICE, min_revision=(verdict.boot ^ 1, 2**63))
    assert pep.check(*ALICE, min_revision=(verdict.boot, 2**63)).error.startswith("stale")
    soon = pep.check(*ALICE, not_after=datetime.now(UTC) + timedelta(seconds=5))
    assert 0 < soon.expires <= time.clock_gettime(time.CLOCK_BOOTTIME) + 5
    assert pep.check(*ALICE, not_after=time.time() - 1).error.startswith("expired")


def test_the_embedded_form_answers_as_the_daemon_does(connect: Callable[..., Both]) -> None:
    here, there = pepcore.embedded(POLICIES, handles=["mask"]), connect(handles=["mask"])
    asked = 0
    for subject in ("User::alice", "User::bob", "Agent::a7", "Service::job2", "nobody", {"type": "User", "id": "bob"}):
        for action in ("read", "connect", ""):
            for resource in ("Document::1", "Document::secret", Entity("Host", "db", {"x": 1})):
                for context in (None, {"port": 22}, {"port": 22.0}, {"port": True}, {"port": None}):
                    for chain in ((), ["User::alice"]):
                        one = here.check(subject, action, resource, context, on_behalf_of=chain)
                        two = there.check(subject, action, resource, context, on_behalf_of=chain)
                        assert (one.permit, one.fault, one.error, one.reason, one.policies, one.obligations) == (
                            two.permit, two.fault, two.error, two.reason, two.policies, two.obligations,
                        )  # fmt: skip
                        asked += 1
    assert asked == 540


def test_a_batch_answers_in_order_and_ends_as_its_semantic_says(connect: Callable[..., Both]) -> None:
    pep = connect()
    yes, no, broken = ALICE, ("User::mallory", "read", "Document::1"), ("mallory", "read", "Document::1")
    authzen = {
        "subject": {"type": "User", "id": "alice"}, "action": {"name": "read"},
        "resource": {"type": "Document", "id": "9"},
    }  # fmt: skip

    def ask(questions: list[Any], semantic: str = "execute_all") -> list[bool]:
        return [v.permit for v in pep.check_many(questions, semantic)]

    assert ask([yes, no, broken, authzen]) == [True, False, False, True]
    assert ask([yes, no, yes], "deny_on_first_deny") == [True, False]
    assert ask([yes, broken, yes], "deny_on_first_deny") == [True, False]
    assert ask([broken, no], "deny_on_first_deny") == [False]
    assert ask([no, broken, yes, no], "permit_on_first_permit") == [False, False, True]
    assert ask([broken, no], "permit_on_first_permit") == [False, False]
    assert ask([]) == []
    assert ask([yes], "whatever") == [False]
    assert ask([{**authzen, "extra": 1}, {"subject": "User::alice"}, (1, 2)]) == [False] * 3


def test_a_batch_that_fits_no_frame_is_asked_in_several(connect: Callable[..., Both]) -> None:
    pep = connect()
    questions = [("User::alice" if i % 3 else "User::carol", "read", f"Document::{i:0200}") for i in range(1500)]
    assert [v.permit for v in pep.check_many(questions)] == [bool(i % 3) for i in range(1500)]
    ended = pep.check_many([*questions[1:3], *questions[4:6]] * 400 + questions[:1] + questions, "deny_on_first_deny")
    assert (len(ended), sum(v.permit for v in ended)) == (1601, 1600)


def test_enforce_raises_denied_with_the_verdict(connect: Callable[..., Both]) -> None:
    pep = connect()
    assert pep.enforce(*ALICE).permit
    with pytest.raises(Denied, match="nobody reads the secret") as caught:
        pep.enforce("User::alice", "read", "Document::secret")
    assert caught.value.verdict.policies == ("never",)


def test_stats_and_explain_answer_or_raise(connect: Callable[..., Both], tmp_path: Path) -> None:
    pep = connect()
    pep.check(*ALICE)
    assert pep.stats()["boot"] == pep.check(*ALICE).boot
    told = pep.explain(*ALICE)
    assert (told["permit"], [p["id"] for p in told["policies"]]) == (True, ["readers"])
    absent = connect(tmp_path / "none")
    with pytest.raises(pepcore.Unreachable):
        absent.stats()
    with pytest.raises(pepcore.Unreachable):
        absent.explain(*ALICE)


def test_a_daemon_that_restarts_is_found_again(
    connect: Callable[..., Both], start_daemon: Callable[..., Daemon]
) -> None:
    running = start_daemon()
    pep = connect(running.socket)
    first = pep.check(*ALICE)
    assert first
    running.stop()
    assert pep.check(*ALICE).error.startswith("unreachable")
    running.start()
    second = pep.check(*ALICE)
    assert second
    assert second.boot != first.boot
    running.stop()
    running.start()
    assert pep.check(*ALICE)  # the kept connection is dead: asked once more, on a new one


def test_a_closed_client_denies(connect: Callable[..., Both]) -> None:
    pep = connect()
    assert pep.check(*ALICE)
    pep.close()
    assert pep.check(*ALICE).error.startswith("unreachable")


def test_points_and_handles_make_partitions_that_share_nothing(connect: Callable[..., Both]) -> None:
    question = ("User::alice", "read", f"Document::{secrets.token_hex(8)}")
    assert not connect(point="gateway").check(*question).cached
    assert connect(point="gateway").check(*question).cached
    assert not connect(point="other").check(*question).cached
    assert not connect(point="gateway", handles=["redact"]).check(*question).cached


def test_the_socket_is_found_where_the_environment_says(daemon: Daemon, tmp_path: Path) -> None:
    own = tmp_path / "pepcore"
    own.mkdir()
    code = "import pepclient; v = pepclient.connect(deadline=5).check('User::alice', 'read', 'Document::1'); print(v)"

    def run(**extra: str) -> str:
        env = {k: v for k, v in os.environ.items() if k not in ("PEPCORE_SOCKET", "XDG_RUNTIME_DIR")} | extra
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout

    assert "permit" in run(PEPCORE_SOCKET=str(daemon.socket))
    assert "permit" in run(PEPCORE_SOCKET=str(daemon.socket), XDG_RUNTIME_DIR="/nonexistent")
    assert "/run/pepcore/pepcore.sock" in run(XDG_RUNTIME_DIR=str(tmp_path))
    (own / "pepcore.sock").symlink_to(daemon.socket)
    assert "permit" in run(XDG_RUNTIME_DIR=str(tmp_path), PEPCORE_SOCKET="")
    assert "unreachable" in run(PEPCORE_SOCKET="/nonexistent", XDG_RUNTIME_DIR=str(tmp_path))


@pytest.mark.parametrize(
    "settings",
    [{"deadline": 0}, {"deadline": float("nan")}, {"handles": "mask"}, {"handles": [""]}, {"point": "x" * 65}],
)
def test_settings_that_cannot_be_are_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        pepcore.connect("/x", **settings)


def test_importing_the_client_loads_no_daemon_no_engine_and_no_event_loop(daemon: Daemon) -> None:
    code = (
        "import sys, pepclient, pepcore; heavy = ('asyncio', 'cedarpy', 'uvloop', 'pepcore.server', 'pepcore.pdp');"
        "assert pepclient.connect(sys.argv[1], deadline=5).check('User::alice', 'read', 'Document::1');"
        "assert pepcore.connect is pepclient.connect;"
        "print([m for m in heavy if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, daemon.socket], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# ---- threads and forks: the blocking client -----------------------------------------------------------------------


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with pepcore.connect(daemon.socket, deadline=PATIENT) as made:
        yield made


def test_threads_get_their_own_answers(client: Client) -> None:
    wrong: list[int] = []

    def ask(start: int) -> None:
        for i in range(start, start + 200):
            subject = "User::alice" if i % 2 else "User::mallory"
            verdict = client.check(subject, "read", f"Document::{i % 7}")
            if verdict.permit is not bool(i % 2) or verdict.error:
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forked_child_shares_no_connection(client: Client) -> None:
    assert client.check(*ALICE)
    ours = client.stats()["connections"]
    pid = os.fork()
    if pid == 0:
        fine = False
        try:
            fine = client.check(*ALICE).permit and client.stats()["connections"] == ours + 1
        finally:
            os._exit(0 if fine else 1)
    for _ in range(50):
        assert client.check(*ALICE)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_children_forked_while_other_threads_ask_get_their_own_answers(client: Client) -> None:
    stop = threading.Event()
    wrong: list[str] = []

    def ask(subject: str, permit: bool) -> None:
        while not stop.is_set():
            verdict = client.check(subject, "read", "Document::1")
            if verdict.permit is not permit:
                wrong.append(repr(verdict))

    threads = [threading.Thread(target=ask, args=a) for a in (("User::alice", True), ("User::mallory", False))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                fine = False
                try:
                    pairs = [(client.check(*ALICE).permit, client.check("User::x", "read", "D::1").permit)] * 20
                    fine = all(pair == (True, False) for pair in pairs)
                finally:
                    os._exit(0 if fine else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_guard_of_the_blocking_client_serves_both_kinds_of_function(client: Client) -> None:
    @client.guard("User::alice", "read", lambda name: f"Document::{name}")
    def read(name: str) -> str:
        return name

    @client.guard("User::alice", "read", lambda name: f"Document::{name}")
    async def read_later(name: str) -> str:
        return name

    assert read("1") == "1"
    assert asyncio.run(read_later("1")) == "1"
    with pytest.raises(Denied):
        read("secret")
    with pytest.raises(Denied):
        asyncio.run(read_later("secret"))


# ---- the asyncio client -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_many_questions_share_one_connection_and_get_their_own_answers(
    daemon: Daemon, run: Callable[[Any], None]
) -> None:
    async def main() -> None:
        async with await pepcore.aconnect(daemon.socket, deadline=PATIENT) as pep:
            before = (await pep.stats())["connections"]
            asked = [(f"User::{'alice' if i % 2 else 'eve'}", "read", f"Document::{i % 50}") for i in range(500)]
            verdicts = await asyncio.gather(*(pep.check(*question) for question in asked))
            assert [v.permit for v in verdicts] == [bool(i % 2) for i in range(500)]
            assert (await pep.stats())["connections"] == before

    run(main())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_cancelled_question_leaves_the_others_alone(daemon: Daemon, run: Callable[[Any], None]) -> None:
    async def main() -> None:
        async with await pepcore.aconnect(daemon.socket, deadline=PATIENT) as pep:
            tasks = [asyncio.create_task(pep.check("User::alice", "read", f"Document::c{i}")) for i in range(200)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(d, asyncio.CancelledError) for d in done[::2])
            assert all(getattr(d, "permit", False) for d in done[1::2])
            assert await pep.check(*ALICE)

    run(main())


def test_one_client_serves_one_event_loop_after_the_other(daemon: Daemon) -> None:
    pep = asyncio.run(pepcore.aconnect(daemon.socket, deadline=PATIENT))
    assert asyncio.run(pep.check(*ALICE))
    assert asyncio.run(pep.check(*ALICE))
    asyncio.run(pep.close())


def test_an_async_client_used_from_a_second_running_loop_denies(daemon: Daemon) -> None:
    pep = AsyncClient(daemon.socket, deadline=PATIENT)

    async def main() -> None:
        assert await pep.check(*ALICE)
        verdict = await asyncio.to_thread(asyncio.run, pep.check("User::alice", "read", "Document::other"))
        assert "another event loop" in verdict.error
        assert await pep.check(*ALICE)
        await pep.close()

    asyncio.run(main())


def test_a_child_forked_from_a_running_loop_shares_no_connection(daemon: Daemon) -> None:
    pep = AsyncClient(daemon.socket, deadline=PATIENT)

    def child() -> bool:
        asyncio.events._set_running_loop(None)
        return asyncio.run(pep.check(*ALICE)).permit

    async def main() -> None:
        assert await pep.check(*ALICE)
        pid = os.fork()
        if pid == 0:
            fine = False
            try:
                fine = child()
            finally:
                os._exit(0 if fine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert await pep.check(*ALICE)
        await pep.close()

    asyncio.run(main())


def test_a_guard_of_the_asyncio_client_serves_async_functions_only(daemon: Daemon) -> None:
    pep = AsyncClient(daemon.socket, deadline=PATIENT)

    @pep.guard("User::alice", "read", lambda name: f"Document::{name}")
    async def read(name: str) -> str:
        return name

    assert asyncio.run(read("1")) == "1"
    with pytest.raises(Denied):
        asyncio.run(read("secret"))
    with pytest.raises(TypeError, match="not async"):

        @pep.guard("User::alice", "read", "Document::1")
        def plain() -> None: ...
