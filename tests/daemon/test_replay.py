"""`pepcore replay` on the record of a real daemon: exit codes, text, JSON, plain attributes and digests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from journal import decisions, folder, wait
from raw import ask

import pepcore
from pepcore import cli
from pepcore.audit import entries

OLD = """
@id("readers") @reason("all read") permit(principal, action == Action::"read", resource);
@id("small") permit(principal, action == Action::"pay", resource) when { context.amount < 100 };
"""
NEW = OLD.replace("principal, action == Action", 'principal == User::"alice", action == Action', 1)
NEW = NEW.replace("< 100", "< 10")


def replay(journal: Path, policies: str, *options: str) -> subprocess.CompletedProcess[str]:
    file = journal.parent / "new.cedar"
    file.write_text(policies)
    command = [sys.executable, "-m", "pepcore", "replay", "--journal", str(journal), "--policies", str(file), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def told(journal: Path, policies: str, *options: str) -> tuple[int, dict[str, Any]]:
    done = replay(journal, policies, "--json", *options)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def asked(serve, config: str) -> Path:
    """The journal of a daemon that was asked for reads and payments, one of them six times."""
    daemon = serve(OLD, config)
    with daemon.client() as c, daemon.client(point="till") as till:
        for _ in range(6):
            assert c.ask(ask("User::eve")).permit
        assert c.ask(ask("User::alice")).permit
        for amount in (5, 50, 500):
            assert till.ask(ask(action="pay", context={"amount": amount})).permit == (amount < 100)
        decisions(daemon, 5)
        wait(daemon, lambda found: sum(each.count for each in found) == 5, entries.Hits)
    daemon.stop()
    return folder(daemon)


def test_plain_attributes_are_replayed_and_digests_are_said_to_hide(serve):
    journal = asked(serve, '[record]\nplain = ["context.amount"]\n')
    code, found = told(journal, OLD)
    assert (code, found["replayed"], found["times"], found["changed"], found["changes"]) == (0, 5, 10, 0, [])
    code, found = told(journal, NEW)
    assert (code, found["changed"], found["changed_times"], found["hidden"]) == (1, 2, 7, 0)
    eve, paid = found["changes"]
    assert (eve["times"], eve["old"]["policies"], eve["old"]["reason"]) == (6, ["readers"], "all read")
    assert (eve["new"]["verdict"], paid["examples"][0]["point"]) == ("deny", "till")
    text = replay(journal, NEW)
    assert text.returncode == 1
    assert "1 decisions, 6 times: permit by readers (all read) -> deny (no policy permits this)" in text.stdout
    assert "User::eve read Document::a (entry " in text.stdout
    assert text.stdout.endswith("2 of 5 decisions change (7 of 10 with the hits that were served from them)\n")
    assert told(journal, NEW, "--point", "till")[1]["changed"] == 1
    assert told(journal, NEW, "--subject", "User::eve")[1]["changed_times"] == 6
    assert told(journal, NEW, "--subject", "User::alice", "--point", "")[1]["changed"] == 1
    assert told(journal, NEW, "--until", "1h")[0] == 0
    assert told(journal, NEW, "--since", "1h")[0] == 1
    segment = max(journal.glob("*.seg"))
    segment.write_bytes(segment.read_bytes()[:-10] + bytes(10))
    code, found = told(journal, OLD)
    assert (code, found["replayed"], segment.name in found["damaged"]) == (3, 5, True)
    assert told(journal, NEW)[0] == 1


def test_of_digests_it_says_how_many_could_not_be_replayed_and_what_hides_them(serve):
    journal = asked(serve, "")
    code, found = told(journal, NEW)
    assert (code, found["replayed"], found["changed"], found["hidden"]) == (1, 2, 1, 3)
    assert found["hidden_by"] == {"context.amount": 3}
    text = replay(journal, OLD)
    assert text.returncode == 0
    assert "3 could not be replayed: the record has no values of context.amount (3)\n" in text.stdout


def test_a_shadowed_point_is_replayed_by_what_would_have_happened(serve):
    daemon = serve(OLD, '[points.trial]\nmode = "shadow"\n[points.gone]\nmode = "off"\n')
    with daemon.client(point="trial") as c, daemon.client(point="gone") as off:
        assert c.ask(ask(action="write")).permit
        assert c.ask().permit
        assert off.ask().permit
        decisions(daemon, 3)
    code, found = told(folder(daemon), OLD)
    assert (code, found["replayed"], found["undecided"]) == (0, 2, {"the point was off": 1})
    code, found = told(folder(daemon), OLD + 'permit(principal, action == Action::"write", resource);')
    assert (code, found["changes"][0]["old"]["verdict"], found["changes"][0]["new"]["verdict"]) == (1, "deny", "permit")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--policies"),
        (["--policies", "/nowhere"], "--policies `/nowhere` does not exist"),
        (["--policies", "{new}", "--entities", "/nowhere"], "--entities"),
        (["--policies", "{new}", "--journal", "/nowhere"], "--journal"),
        (["--policies", "{new}", "--since", "yesterday"], "--since"),
        (["--policies", "{broken}"], "broken.cedar:1"),
    ],
)
def test_wrong_arguments_exit_2_and_say_what_to_do(serve, tmp_path: Path, options: list[str], says: str):
    (tmp_path / "new.cedar").write_text(OLD)
    (tmp_path / "broken.cedar").write_text("permit(")
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "0000000001.seg").write_bytes(b"")
    words = [each.format(new=tmp_path / "new.cedar", broken=tmp_path / "broken.cedar") for each in options]
    command = [sys.executable, "-m", "pepcore", "replay", "--journal", str(tmp_path / "j"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("reason", ["", "gone"])
def test_what_a_block_denied_is_no_change_of_the_policies(serve, capfd, reason: str):
    daemon = serve('@id("ann") permit(principal == User::"ann", action, resource);')
    with pepcore.connect(daemon.socket, deadline=5.0) as pep:
        pep.block("User::ann", reason=reason)
        assert not pep.check("User::ann", "read", "Doc::1")
    decisions(daemon, 1)
    assert cli.main(["replay", "--policies", str(daemon.policies), "--socket", str(daemon.socket)]) == 0
    said = capfd.readouterr().out
    assert "1 were not decided by policies alone, and are left out: blocked" in said
