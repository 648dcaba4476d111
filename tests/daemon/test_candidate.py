"""A candidate policy set beside the active one: differences found and none where equal, and no cost when it fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from journal import wait
from raw import ask

from pepcore.audit import entries
from pepcore.flight import Flight, Partition
from pepcore.model import Decision
from pepcore.server.candidate import Candidate
from pepcore.server.workers import ENDED

OLD = """
@id("readers") @reason("all read") permit(principal, action == Action::"read", resource);
@id("masked") @obligation("[{\\"type\\":\\"redact\\",\\"properties\\":{\\"fields\\":[\\"/a\\"]}}]")
permit(principal, action == Action::"show", resource);
@id("paid") permit(principal, action == Action::"pay", resource);
"""
NEW = OLD.replace("resource);", 'resource) unless { principal == User::"eve" };', 1)
NEW = NEW.replace('\\"/a\\"', '\\"/a\\", \\"/b\\"')
NEW += '@id("risky") forbid(principal, action == Action::"pay", resource) when { context.risk > 5 };\n'
RENAMED = OLD.replace('@id("readers")', '@id("all-readers")').replace('@id("masked")', '@id("hidden")')
WORKERS = "import pepcore.server.misses as m; m.SMALL = -1"


def beside(serve, tmp_path: Path, candidate: str | None, config: str = "", **options: Any):
    file = tmp_path / "candidate.cedar"
    if candidate is not None:
        file.write_text(candidate)
    daemon = serve(OLD, f'[shadow]\npolicies="{file}"\n{config}', **options)
    if candidate is not None:
        daemon.wait_for("candidate policies are compared", seconds=5)
    return daemon


def shown(daemon: Any) -> dict[str, Any]:
    with daemon.client(greet=False) as c:
        found: dict[str, Any] = c.stats()["candidate"]
    return found


def compared(daemon: Any, count: int) -> dict[str, Any]:
    """What is shown once so many decisions were compared."""
    until = time.monotonic() + 10
    while (found := shown(daemon))["compared"] < count:
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("before", ["", WORKERS], ids=["inline", "workers"])
def test_differences_are_counted_and_recorded_and_change_no_answer(serve, tmp_path: Path, before: str):
    daemon = beside(serve, tmp_path, NEW, '[record]\nplain = ["context.risk"]\n', before=before)
    with daemon.client(point="till", handles=("redact",)) as c:
        for _ in range(3):
            assert c.ask(ask("User::eve")).permit
        assert c.ask().permit
        assert c.ask(ask(action="show")).permit
        assert c.ask(ask(action="pay", context={"risk": 1, "card": "4711"})).permit
        assert c.ask(ask(action="pay", context={"card": "4711"})).permit
        assert not c.ask(ask(action="other")).permit
    found = compared(daemon, 6)
    assert (found["compared"], found["different"], found["skipped"], found["failed"]) == (6, 3, 0, 0)
    assert found["different_in"] == {"decision": 1, "obligations": 1, "errors": 1}
    assert found["policies"] == 4
    eve, show, pay = wait(daemon, lambda each: len(each) == 3, entries.Difference)
    assert (eve.subject, eve.what, eve.point, eve.permit, eve.candidate_permit) == (
        ("User", "eve"), ("decision",), "till", True, False,
    )  # fmt: skip
    assert (eve.policies, eve.reason, eve.candidate_policies, eve.candidate_reason) == (
        ("readers",),
        "all read",
        (),
        "",
    )
    assert (show.what, show.obligations[0][1], show.candidate_obligations[0][1]) == (
        ("obligations",),
        "redact",
        "redact",
    )
    assert (pay.what, pay.permit, pay.candidate_permit) == (("errors",), True, False)
    assert "`risky` (forbid) failed" in pay.candidate_fault
    assert (pay.attributes, set(pay.digests["context"])) == ({}, {"card"})
    assert abs(pay.asked_ms - time.time() * 1000) < 60_000
    with daemon.client(point="till") as c:
        assert not c.explain(ask("User::eve", "go"))["verdict"]["permit"]
    assert shown(daemon)["compared"] == 6, "what is explained is not decided"


@pytest.mark.parametrize("candidate", [OLD, RENAMED], ids=["equal", "renamed"])
def test_where_both_decide_the_same_nothing_differs(serve, tmp_path: Path, candidate: str):
    daemon = beside(serve, tmp_path, candidate)
    with daemon.client(handles=("redact",)) as c:
        for action in ("read", "show", "pay", "other"):
            for user in ("eve", "alice"):
                c.ask(ask(f"User::{user}", action))
    assert compared(daemon, 8)["different"] == 0
    assert wait(daemon, lambda _: True, entries.Difference) == []


def test_hits_are_not_compared(serve, tmp_path: Path):
    daemon = beside(serve, tmp_path, NEW)
    with daemon.client() as c:
        assert [c.ask(ask("User::eve")).cached for _ in range(20)] == [False] + [True] * 19
    assert compared(daemon, 1)["compared"] == 1


def test_both_decide_as_of_the_same_time(serve, tmp_path: Path):
    clock = '@id("early") permit(principal, action, resource) when { context.now < datetime("2001-01-01") };'
    daemon = beside(serve, tmp_path, OLD + clock)
    with daemon.client() as c:
        assert not c.ask(ask(action="other")).permit
    assert compared(daemon, 1)["different"] == 0


@pytest.mark.parametrize("candidate", [None, "permit(", '@id("a") permit(principal, action, resource);' * 2])
def test_a_candidate_that_does_not_load_is_logged_and_changes_nothing(serve, tmp_path: Path, candidate: str | None):
    (tmp_path / "candidate.cedar").write_text(candidate) if candidate is not None else None
    daemon = beside(serve, tmp_path, None)
    said = daemon.wait_for("the candidate policies are not loaded")["reason"]
    assert "candidate.cedar" in said
    with daemon.client() as c:
        assert c.ask().permit
        assert c.stats()["candidate"] == {}
    (tmp_path / "candidate.cedar").write_text(OLD)
    daemon.wait_for("candidate policies are compared")
    with daemon.client() as c:
        assert c.ask(ask("User::bob")).permit
    (tmp_path / "candidate.cedar").write_text("permit(")  # the one that is there stays
    daemon.wait_for("the candidate policies are not loaded", 2)
    with daemon.client() as c:
        assert c.ask(ask("User::carl")).permit
    assert compared(daemon, 2)["policies"] == 3


def test_a_change_of_the_candidate_alone_reloads_it_alone_and_sighup_both(serve, tmp_path: Path):
    daemon = beside(serve, tmp_path, OLD)
    with daemon.client() as c:
        assert [c.ask(ask("User::eve")).cached for _ in range(2)] == [False, True]
        (tmp_path / "candidate.cedar").write_text(NEW)
        daemon.wait_for("candidate policies are compared", 2)
        assert c.ask(ask("User::eve")).cached, "no answer of the active set is dropped"
    assert daemon.events("reloaded") == []
    assert shown(daemon)["policies"] == 4
    daemon.reload(policies=NEW)
    with daemon.client() as c:
        assert not c.ask(ask("User::eve")).permit
    assert compared(daemon, 2)["different"] == 0
    daemon.reload(config="")
    until = time.monotonic() + 5
    while shown(daemon).get("workers") and time.monotonic() < until:
        time.sleep(0.02)
    assert shown(daemon)["workers"] == []
    assert len(daemon.events("candidate policies are compared")) == 2, "one that is as it was goes on"
    with daemon.client() as c:
        c.ask(ask("User::new"))
    assert shown(daemon)["compared"] == 2


@pytest.mark.parametrize("before", ["", WORKERS], ids=["inline", "workers"])
def test_a_candidate_that_hangs_costs_nothing_and_what_does_not_fit_is_counted(serve, tmp_path: Path, before: str):
    small = "import pepcore.server.candidate as c; c.QUEUED = 20"
    daemon = beside(serve, tmp_path, NEW, before=f"{small}\n{before}")
    (pid,) = shown(daemon)["workers"]
    assert os.getpriority(os.PRIO_PROCESS, pid) == 10
    os.kill(pid, signal.SIGSTOP)
    with daemon.client() as c:
        for n in range(60):
            assert c.ask(ask(f"User::u{n}")).permit
            assert c.ask(ask(f"User::u{n}")).cached
    found = shown(daemon)
    assert (found["compared"], found["failed"], found["waiting"] + found["skipped"]) == (0, 0, 60)
    assert found["skipped"] >= 60 - 20 - 8
    os.kill(pid, signal.SIGCONT)
    assert compared(daemon, found["waiting"])["waiting"] == 0


def test_a_candidate_that_dies_is_started_again_and_what_it_had_is_counted(serve, tmp_path: Path):
    daemon = beside(serve, tmp_path, NEW)
    (pid,) = shown(daemon)["workers"]
    os.kill(pid, signal.SIGSTOP)
    with daemon.client() as c:
        for n in range(3):
            assert c.ask(ask(f"User::u{n}")).permit
        os.kill(pid, signal.SIGKILL)
        assert c.ask(ask("User::eve")).permit
        assert c.ask(ask("User::eve")).cached
        found = compared(daemon, 1)
        while found["waiting"]:
            found = shown(daemon)
        assert found["failed"] + found["compared"] == 4
        assert found["failed"] >= 1
        assert found["workers"] != [pid]


def test_no_candidate_process_outlives_its_daemon(serve, tmp_path: Path):
    daemon = beside(serve, tmp_path, OLD)
    pids = shown(daemon)["workers"]
    os.kill(pids[0], signal.SIGSTOP)
    assert daemon.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_point_without_a_record_is_compared_and_not_recorded(serve, tmp_path: Path):
    daemon = beside(serve, tmp_path, NEW, '[points.quiet]\nrecord = "off"\n')
    with daemon.client(point="quiet") as c:
        assert c.ask(ask("User::eve")).permit
    assert compared(daemon, 1)["different"] == 1
    daemon.stop()
    assert wait(daemon, lambda _: True, entries.Difference) == []


def test_a_candidate_sees_the_entities_of_the_active_set_unless_it_names_its_own(serve, tmp_path: Path):
    member = {"uid": {"type": "User", "id": "ann"}, "attrs": {}, "parents": [{"type": "Role", "id": "r"}]}
    (tmp_path / "entities.json").write_text(json.dumps([member]))
    (tmp_path / "none.json").write_text("[]")
    (tmp_path / "p.cedar").write_text('@id("r") permit(principal in Role::"r", action, resource);')
    config = f'[policies]\npolicies = "{tmp_path}/p.cedar"\nentities = "{tmp_path}/entities.json"\n'
    config += f'[shadow]\npolicies = "{tmp_path}/p.cedar"\n'
    daemon = serve(config=config)
    daemon.wait_for("candidate policies are compared")
    with daemon.client() as c:
        assert c.ask(ask("User::ann")).permit
    assert compared(daemon, 1)["different"] == 0
    daemon.reload(config=config + f'entities = "{tmp_path}/none.json"\n')
    daemon.wait_for("candidate policies are compared", 2)
    with daemon.client() as c:
        assert c.ask(ask("User::ann", "write")).permit
    assert compared(daemon, 2)["different"] == 1


def test_serve_takes_a_candidate_by_a_flag_and_audit_shows_what_differs(tmp_path: Path):
    (tmp_path / "old.cedar").write_text(OLD)
    (tmp_path / "new.cedar").write_text(NEW)
    socket = tmp_path / "s"
    command = [sys.executable, "-m", "pepcore"]
    wrong = subprocess.run(
        [*command, "serve", "--policies", str(tmp_path / "old.cedar"), "--shadow-policies", "/nowhere"],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (wrong.returncode, "--shadow-policies `/nowhere` does not exist" in wrong.stderr) == (2, True)
    flags = ["--policies", str(tmp_path / "old.cedar"), "--shadow-policies", str(tmp_path / "new.cedar")]
    with subprocess.Popen(
        [*command, "serve", *flags, "--socket", str(socket)], stderr=subprocess.PIPE, text=True
    ) as serves:
        try:
            assert serves.stderr is not None
            assert any("candidate policies are compared" in line for line in serves.stderr)
            asked = [*command, "check", "--socket", str(socket), "--deadline", "5000", "User::eve", "read", "Doc::1"]
            assert subprocess.run(asked, capture_output=True, timeout=20).returncode == 0
            audit = [*command, "audit", "query", "--kind", "difference", "--subject", "User::eve", "--journal"]
            until, text = time.monotonic() + 10, ""
            while not text and time.monotonic() < until:
                text = subprocess.run(
                    [*audit, str(Path(f"{socket}.state") / "journal")], capture_output=True, text=True, timeout=20
                ).stdout
            line = (
                'difference User::eve read Doc::1 in=decision active=permit reason="all read" by=readers candidate=deny'
            )
            assert line in text
        finally:
            serves.terminate()
            serves.communicate(timeout=20)


def test_only_what_the_pdp_decided_is_compared():
    async def queued(flight: Flight, said: Decision) -> int:
        candidate = Candidate(SimpleNamespace(misses=SimpleNamespace()))  # type: ignore[arg-type]
        candidate.decided(flight, said)
        return len(candidate._queue)

    asked, explained = Flight(Partition(1, 1), b"k", {}), Flight(Partition(1, 1), b"k", {}, explain=True)
    for flight, said, count in (
        (asked, Decision(True), 1), (asked, Decision(False, "policy failed"), 1),
        (explained, Decision(False, "the PDP raised"), 0), (asked, Decision(False, ENDED), 0),
    ):  # fmt: skip
        assert asyncio.run(queued(flight, said)) == count
