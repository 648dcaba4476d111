"""Obligations that the daemon discharges itself, and log and notices that no input can forge."""

from __future__ import annotations

import json

from raw import ask


def obliged(*obligations: dict) -> str:
    text = json.dumps(json.dumps(list(obligations)))
    return f'@id("p")@obligation({text})\npermit(principal, action, resource);\n'


NOTIFY = {"id": "tell", "type": "notify", "properties": {"to": "ops", "body": "read"}}


def test_a_rate_permits_so_many_and_then_denies_with_its_name(serve):
    rate = {"id": "slow", "type": "rate", "properties": {"count": 2, "per": "1h"}}
    with serve(obliged(rate)).client() as c:
        answers = [c.ask() for _ in range(4)]
        assert [a.permit for a in answers] == [True, True, False, False]
        assert not any(a.cached for a in answers)
        assert "slow" in answers[2].reason
        assert c.ask(ask("User::bob")).permit


def test_a_window_that_is_closed_denies_and_one_that_is_open_permits(serve):
    closed = {"id": "w", "type": "window", "properties": {"not_after": "2020-01-01T00:00:00Z"}}
    daemon = serve(obliged(closed))
    with daemon.client() as c:
        denied = c.ask()
        assert (denied.permit, denied.fault) == (False, 0)
        assert "w" in denied.reason
        daemon.reload(obliged({**closed, "properties": {"not_after": "2120-01-01T00:00:00Z"}}))
        assert c.ask().permit


def test_a_notice_is_written_for_every_permit_and_cannot_be_forged(serve, tmp_path):
    file = tmp_path / "notices"
    daemon = serve(obliged(NOTIFY), config=f'[notify]\nfile = "{file}"\n')
    hostile = 'x\n{"forged": true}\u2028\x1b[31m'
    with daemon.client() as c:
        assert c.ask().permit
        assert c.ask().permit
        assert c.ask(ask(f"User::{hostile}")).permit
    lines = file.read_text().split("\n")
    assert lines.pop() == ""
    told = [json.loads(line) for line in lines]
    assert [t["subject"] for t in told] == ["User::alice", "User::alice", f"User::{hostile}"]
    assert all(line.isascii() for line in lines)


def test_a_notice_that_has_no_place_denies_and_with_a_place_permits(serve, tmp_path):
    daemon = serve(obliged(NOTIFY))
    with daemon.client() as c:
        denied = c.ask()
        assert (denied.permit, denied.fault) == (False, 9)
        daemon.reload(config=f'[notify]\nfile = "{tmp_path / "notices"}"\n')
        assert c.ask().permit


def test_a_full_disk_denies_and_leaves_no_half_line(make, tmp_path):
    file = tmp_path / "notices"
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " \
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"  # fmt: skip
    daemon = make(obliged(NOTIFY), config=f'[notify]\nfile = "{file}"\n', before=limit).ready()
    with daemon.client() as c:
        answers = [c.ask() for _ in range(12)]
    permits = [a.permit for a in answers]
    assert permits[0]
    assert not permits[-1]
    assert {a.fault for a in answers if not a.permit} == {9}
    lines = file.read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == sum(permits)


def test_an_obligation_that_the_point_does_not_handle_denies(serve):
    unknown = {"id": "u", "type": "sing", "properties": {}}
    daemon = serve(obliged(unknown))
    with daemon.client(greet=False) as c:
        c.greet()
        c.greet(handles=("sing",))
        denied = c.ask(partition=1)
        assert (denied.permit, denied.fault) == (False, 9)
        permit = c.ask(partition=2)
        assert permit.permit
        assert [o[1] for o in permit.payload["obligations"]] == ["sing"]


def test_hostile_names_cannot_forge_a_line_of_the_log(serve):
    daemon = serve(config="")
    with daemon.client() as c:
        c.ask(ask('User::\n{"event": "forged"}\x1b[2J'))
        c.greet(point='\n{"event": "forged"}')
    assert daemon.stop() == 0
    assert daemon.events("forged") == []
    assert daemon.log.read_text().isascii()
    assert daemon.events("stopped")
