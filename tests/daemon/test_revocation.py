"""Revokes and blocks against a real daemon: the effect, who may send them, what survives, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from raw import Error, ask, check, frame

import pepcore
from pepcore.errors import BadRequest, Fault, NotAvailable
from tests.vectors.frames import pack

READERS = '@id("readers") permit(principal, action == Action::"read", resource);\n'
ROLES = (
    '@id("payers") @tag("[\\"payments\\"]") permit(principal in Role::"payer", action == Action::"read", resource);\n'
)
MEMBERS = [
    {"uid": {"type": "User", "id": "ann"}, "attrs": {}, "parents": [{"type": "Role", "id": "payer"}]},
    {"uid": {"type": "User", "id": "bob"}, "attrs": {}, "parents": [{"type": "Role", "id": "payer"}]},
    {"uid": {"type": "Role", "id": "payer"}, "attrs": {}, "parents": []},
]


def connect(daemon: Any, **options: Any) -> pepcore.Client:
    return pepcore.connect(daemon.socket, deadline=5.0, **options)


def cached(client: pepcore.Client, *question: str) -> bool:
    """Whether this question is answered from a cache, in this process or in the daemon."""
    verdict = client.check(*question)
    assert verdict, verdict
    return verdict.cached


def asked(client: pepcore.Client, *question: str) -> None:
    """Ask until the answer is in this process."""
    client.check(*question)
    assert cached(client, *question)


@pytest.mark.parametrize(
    "what",
    [{"subject": "User::ann"}, {"resource": "Document::1"}, {"tag": "policy:readers"}, {"all": True}],
    ids=str,
)
def test_a_revoke_ends_what_hangs_on_it_in_every_process_and_leaves_the_rest(serve, what: dict[str, Any]):
    daemon = serve(READERS)
    mine, yours = connect(daemon), connect(daemon, point="other")
    everything = what.keys() & {"tag", "all"}
    for client in (mine, yours):
        asked(client, "User::ann", "read", "Document::1")
        asked(client, "User::bob", "read", "Document::2")
    told = mine.revoke(**what)
    assert (told.durable, told.held) == (True, 0)
    for client in (mine, yours):
        assert not cached(client, "User::ann", "read", "Document::1")
        assert cached(client, "User::bob", "read", "Document::2") == (not everything)


def test_a_revoke_of_a_chain_member_ends_what_was_done_on_its_behalf(serve):
    client = connect(serve(READERS))

    def asked() -> pepcore.Verdict:
        verdict = client.check("Agent::x", "read", "Document::1", on_behalf_of=["User::ann"])
        assert verdict
        return verdict

    def hits() -> bool:
        return asked().cached

    assert [hits(), hits()] == [False, True]
    assert asked() is asked(), "it is served in this process"
    client.revoke(subject="User::bob")
    assert hits()
    assert asked() is asked(), "it is served in this process"
    client.revoke(subject="User::ann")
    assert not hits()


def test_a_revoke_of_a_role_drops_the_permits_of_its_members_and_one_of_a_policys_tag_too(serve, tmp_path):
    entities = tmp_path / "entities.json"
    entities.write_text(json.dumps(MEMBERS))
    policies = tmp_path / "p.cedar"
    policies.write_text(ROLES)
    config = f'[policies]\npolicies = "{policies}"\nentities = "{entities}"\n'
    client = connect(serve(config=config))
    for tag in ("Role::payer", "payments"):
        asked(client, "User::ann", "read", "Document::1")
        asked(client, "User::bob", "read", "Document::1")
        client.revoke(tag="Role::other")
        assert cached(client, "User::ann", "read", "Document::1")
        client.revoke(tag=tag)
        assert not cached(client, "User::ann", "read", "Document::1")
        assert not cached(client, "User::bob", "read", "Document::1")


def test_a_block_denies_the_subject_and_whoever_acts_on_its_behalf_until_it_is_lifted(serve):
    client = connect(serve(READERS))
    asked(client, "Agent::x", "read", "Document::1")
    for _ in range(3):
        assert client.check("User::ann", "read", "Document::1", on_behalf_of=["Agent::y", "Agent::x"])
    client.block("Agent::x", reason="its key was stolen")
    for chain in ((), ("User::ann",)):
        verdict = client.check("Agent::x", "read", "Document::1", on_behalf_of=chain)
        assert (bool(verdict), verdict.fault, verdict.reason) == (False, 0, "blocked: its key was stolen")
    assert not client.check("User::ann", "read", "Document::1", on_behalf_of=["Agent::y", "Agent::x"])
    assert client.check("User::ann", "read", "Document::1", on_behalf_of=["Agent::y"])
    assert client.check("User::ann", "read", "Agent::x"), "a block is of who acts, not of what is acted on"
    assert [b["tag"] for b in client.blocks()] == ["Agent::x"]
    client.unblock("Agent::x")
    assert client.check("Agent::x", "read", "Document::1")
    assert client.blocks() == []


def test_a_block_for_a_time_is_over_by_itself(serve):
    client = connect(serve(READERS, config='[cache]\ndeny = "50ms"\n'))
    client.block("User::ann", for_=0.3)
    assert not client.check("User::ann", "read", "Document::1")
    assert client.check("User::bob", "read", "Document::1")
    time.sleep(0.4)
    assert client.check("User::ann", "read", "Document::1")
    assert client.blocks() == []


def test_a_grant_is_announced_as_a_revoke_and_drops_the_deny(serve):
    """Invariant 15: an announced grant drops the denies it affects; errors are never cached."""
    daemon = serve('@id("r") permit(principal == User::"ann", action, resource);', config='[cache]\ndeny = "1h"\n')
    client = connect(daemon)
    assert not client.check("User::bob", "read", "Document::1")
    assert client.check("User::bob", "read", "Document::1").cached
    client.revoke(subject="User::bob")
    assert not client.check("User::bob", "read", "Document::1").cached


def test_an_explanation_tells_of_a_block(serve):
    client = connect(serve(READERS))
    client.block("User::ann", reason="gone")
    told = client.explain("User::ann", "read", "Document::1")
    assert told["permit"]
    assert (told["verdict"]["permit"], told["verdict"]["reason"]) == (False, "blocked: gone")
    assert client.explain("User::bob", "read", "Document::1")["verdict"]["permit"]


def test_a_block_survives_kill_9_and_a_damaged_list_denies_everything(serve, make):
    daemon = serve(READERS)
    client = connect(daemon)
    client.block("User::ann", reason="gone")
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.process.wait()
    daemon.ready()
    assert not client.check("User::ann", "read", "Document::1")
    assert client.check("User::bob", "read", "Document::1")
    assert [b["reason"] for b in client.blocks()] == ["gone"]
    daemon.stop()
    kept = daemon.folder / "run" / "pepcore.sock.state" / "blocks.json"
    assert json.loads(kept.read_text())["blocks"]
    cut = kept.read_bytes()[:-3]
    kept.write_bytes(cut)
    daemon.ready()
    verdict = client.check("User::bob", "read", "Document::1")
    assert not verdict
    assert "the list of blocks cannot be read" in verdict.reason
    for call in (client.blocks, lambda: client.block("User::cay"), lambda: client.unblock("User::ann")):
        with pytest.raises(NotAvailable, match="everything is denied"):
            call()
    assert kept.read_bytes() == cut, "what could not be read is left as it was"
    daemon.stop()
    kept.unlink()
    daemon.ready()
    assert client.check("User::bob", "read", "Document::1")
    assert client.blocks() == []


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"all": True, "tag": "x"},
        {"tag": ""},
        {"tag": "x" * 1025},
        {"tag": ["x"] * 1001},
        {"reason": "r" * 1025, "all": True},
    ],
    ids=lambda w: str(w)[:30],
)
def test_a_revoke_that_names_nothing_or_too_much_is_refused(serve, what: dict[str, Any]):
    client = connect(serve(READERS))
    asked(client, "User::ann", "read", "Document::1")
    with pytest.raises(BadRequest):
        client.revoke(**what)
    assert cached(client, "User::ann", "read", "Document::1")
    assert client.revoke(all=True).revision > 0


@pytest.mark.parametrize(
    ("subject", "options"),
    [
        ("nobody", {}),
        ("::x", {}),
        ("", {}),
        ("User::ann", {"for_": 0}),
        ("User::ann", {"for_": True}),
        ("User::ann", {"reason": "r" * 2000}),
    ],
)
def test_a_block_of_nobody_or_of_no_time_is_refused(serve, subject: str, options: dict[str, Any]):
    client = connect(serve(READERS))
    with pytest.raises(BadRequest):
        client.block(subject, **options)
    assert client.blocks() == []
    assert client.block("User::ann", for_=60).durable


def test_only_the_administration_socket_takes_them(serve):
    daemon = serve(READERS)
    with daemon.client() as c:
        for op, body in ((6, {"all": True, "tags": []}), (7, {"tag": "User::a"})):
            c.send(frame(op, 9, pack(body), partition=0))
            answer = c.answer()
            assert isinstance(answer, Error)
            assert answer.code == 4
        assert c.ask().permit
    assert connect(daemon).revoke(all=True).durable


def test_who_does_not_administer_is_turned_away_from_its_socket(serve, other_uid):
    config = "[[peers]]\nuser = 12345\nadminister = {}\n[[peers]]\nuser = 0\nadminister = true\n"
    code = """
import json, pepcore
from pepcore.errors import Refused, Fault
c = pepcore.connect(path, deadline=5.0)
try:
    print(json.dumps(c.revoke(all=True).durable))
except Fault as fault:
    print(json.dumps([type(fault).__name__, bool(c.check("User::alice", "read", "Document::1"))]))
"""
    refused = serve(READERS, config=config.format("false"), name="refused")
    assert told(refused, other_uid, code) == ["Refused", True]
    admitted = serve(READERS, config=config.format("true"), name="admitted")
    assert told(admitted, other_uid, code) is True


def told(daemon: Any, other_uid: Callable[..., Any], code: str) -> Any:
    admin = daemon.folder / "run" / "pepcore.sock.admin"
    admin.chmod(0o666)
    return other_uid(daemon, code).wait()


def test_the_administration_socket_is_ours_and_goes_with_us(serve):
    daemon = serve(READERS)
    admin = daemon.folder / "run" / "pepcore.sock.admin"
    assert admin.is_socket()
    assert admin.stat().st_mode & 0o777 == 0o660
    daemon.stop()
    assert not admin.exists()


def test_an_absent_daemon_is_a_fault_that_says_so(tmp_path):
    client = pepcore.connect(tmp_path / "nowhere", deadline=1.0)
    for call in (lambda: client.revoke(all=True), lambda: client.block("User::a"), client.blocks):
        with pytest.raises(Fault, match=r"no daemon at .*nowhere.admin"):
            call()


def test_a_revoke_is_acknowledged_while_a_flood_of_misses_waits(serve):
    daemon = serve(READERS)
    client = connect(daemon)
    client.revoke(all=True)  # the first of a daemon waits until no page of one before it can be believed
    with daemon.client() as flood:
        flood.send(b"".join(check(ask(context={"n": n}), 1000 + n, deadline_us=30_000_000) for n in range(1500)))
        client.revoke(all=True)
        waiting = client.stats()["waiting"]
        assert waiting > 0, "the flood was over before the revoke: this shows nothing"
        client.block("User::bob")
        assert not client.check("User::bob", "read", "Document::1")


def test_acknowledgements_wait_until_a_predecessors_page_is_dead(make):
    """Invariant 4: none acknowledges a revoke while an older page may still be believed."""
    daemon = make(READERS, before="import pepcore.server.service as s; s.LEASE_NS = 10**9").ready()
    client = connect(daemon)
    started = time.monotonic()
    client.revoke(all=True)
    assert 0.8 < time.monotonic() - started < 3.0, "2 leases of a second, less what starting took"
    started = time.monotonic()
    client.revoke(all=True)
    assert time.monotonic() - started < 0.5


def test_a_block_in_cedars_notation_denies_whom_it_names(serve):
    daemon = serve(READERS)
    client = connect(daemon)
    assert client.check("User::ann", "read", "Document::1")
    client.block('User::"ann"')
    assert [each["tag"] for each in client.blocks()] == ["User::ann"]
    assert not client.check("User::ann", "read", "Document::1")
    client.unblock('User::"ann"')
    assert client.check("User::ann", "read", "Document::1")
    for command, blocked in (
        (("block", 'User::"ann"'), {"User::ann"}),
        (("block", r'User::"\"bob\""'), {"User::ann", 'User::"bob"'}),
        (("unblock", r'User::"\"bob\""'), {"User::ann"}),
    ):
        told = [sys.executable, "-m", "pepcore", *command, "--socket", str(daemon.socket)]
        assert subprocess.run(told, capture_output=True, timeout=30).returncode == 0
        assert {each["tag"] for each in client.blocks()} == blocked
    assert not client.check("User::ann", "read", "Document::1")
