"""`pepcore revoke`, `block`, `unblock` and `blocks` against a real daemon, as their users meet them.

Every deny has the permit beside it that the block or the damage took away.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pepclient.administration import Acknowledgement

import pepcore
from pepcore.cli import administering

POLICIES = """
@id("agents") @ttl("60s") permit (principal is Agent, action == Action::"read", resource);
@id("people") @ttl("60s") @tag("[\\"payroll\\"]")
permit (principal in Role::"clerk", action == Action::"read", resource);
"""
ENTITIES = [
    {"uid": {"type": "User", "id": "tom"}, "attrs": {}, "parents": [{"type": "Role", "id": "clerk"}]},
    {"uid": {"type": "Role", "id": "clerk"}, "attrs": {}, "parents": []},
]
AGENT, TOM = ("Agent::a", "read", "Doc::x"), ("User::tom", "read", "Doc::x")
HOSTILE = "gone\npepcore: unblocked\r\x1b[2J\x1b[31m\u202epermit\x07\x9b1A"
OURS = ("PEPCORE_SOCKET", "PEPCORE_CONFIG", "NO_COLOR", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET", "STATE_DIRECTORY")
Run = subprocess.CompletedProcess[str]


class Daemon:
    """A daemon in a folder of its own. It is called as `daemon("block", "Agent::a")`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, folder / "s"
        self.state = folder / "s.state" / "blocks.json"
        (folder / "acl.cedar").write_text(POLICIES)
        (folder / "entities.json").write_text(json.dumps(ENTITIES))
        self.process: subprocess.Popen[bytes] | None = None
        self.env = {name: value for name, value in os.environ.items() if name not in OURS} | {"TZ": "UTC"}

    def start(self, peers: str = "") -> Daemon:
        config = f'[daemon]\nsocket = "s"\n[policies]\npolicies = "acl.cedar"\nentities = "entities.json"\n{peers}'
        (self.folder / "pepcore.toml").write_text(config)
        command = [sys.executable, "-m", "pepcore", "serve", "--config", str(self.folder / "pepcore.toml")]
        log = self.folder / "log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=self.env)
        for _ in range(1000):
            if self.process.poll() is not None or b'"event": "ready"' in log.read_bytes():
                break
            time.sleep(0.02)
        assert self.process.poll() is None, log.read_text()
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def __call__(self, *arguments: str) -> Run:
        command = [sys.executable, "-m", "pepcore", *arguments]
        env = self.env | {"PEPCORE_SOCKET": str(self.socket)}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, env=env)
        return Run(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def permits(self, question: tuple[str, str, str] = AGENT, *more: str) -> bool:
        done = self("check", *question, *more)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 0

    def cached(self, question: tuple[str, str, str]) -> bool:
        told = json.loads(self("check", *question, "--json").stdout)
        assert told["permit"]
        return bool(told["cached"])

    def tags(self) -> list[str]:
        return [block["tag"] for block in json.loads(self("blocks", "--json").stdout)["blocks"]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[], Daemon]]:
    made: list[Daemon] = []

    def build() -> Daemon:
        made.append(Daemon(tmp_path))
        return made[-1]

    yield build
    for daemon in made:
        daemon.stop()


@pytest.fixture
def daemon(make: Callable[[], Daemon]) -> Daemon:
    return make().start()


# ---- what they do ----


def test_a_block_denies_at_once_with_its_reason_until_it_is_lifted(daemon: Daemon) -> None:
    assert daemon.permits()
    done = daemon("block", "Agent::a", "--reason", "went wild")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"blocked Agent::a until it is lifted \(acknowledged after [\d,]+ us\)\n", done.stdout)
    assert re.search(
        r"\n  holds       from revision \d+ on\n  on disk     yes\n  leases      none to be told\n"
        r"(              those of a daemon before this one may be held for some seconds still\n)?$", done.stdout
    )  # fmt: skip
    denied = daemon("check", *AGENT)
    assert (denied.returncode, denied.stdout) == (1, "deny: blocked: went wild\n")
    assert not daemon.permits(TOM, "--on-behalf-of", "Agent::a")
    assert daemon.permits(TOM)
    explained = daemon("explain", *AGENT)
    assert (explained.returncode, "policies    permit, and a block makes it a deny" in explained.stdout) == (1, True)
    lifted = daemon("unblock", "Agent::a")
    assert (lifted.returncode, lifted.stdout.splitlines()[0]) == (0, "unblocked Agent::a")
    assert daemon.permits()
    again = daemon("unblock", "Agent::a")
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "there was no block of Agent::a")


def test_a_block_for_some_time_ends_by_itself(daemon: Daemon) -> None:
    assert daemon("block", "Agent::a", "--for", "4s").returncode == 0
    assert not daemon.permits()
    for _ in range(100):
        if daemon.permits():
            break
        time.sleep(0.1)
    assert daemon.permits()
    assert daemon("blocks").stdout == "no blocks\n"


def test_blocks_tells_since_until_and_how_long_is_left(daemon: Daemon) -> None:
    assert (daemon("blocks").returncode, daemon("blocks").stdout) == (0, "no blocks\n")
    assert json.loads(daemon("blocks", "--json").stdout) == {"blocks": []}
    before = int(time.time() * 1000)
    daemon("block", "Agent::a", "--for", "2h", "--reason", "r")
    daemon("block", "Agent::b")
    shown = daemon("blocks")
    assert shown.returncode == 0
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    rows = shown.stdout.splitlines()
    assert re.fullmatch(rf"Agent::a  until {when}, 1 h 59 min left", rows[0])
    assert re.fullmatch(rf"  since {when}, by uid {os.getuid()}: r", rows[1])
    assert rows[2] == "Agent::b  until it is lifted"
    told = json.loads(daemon("blocks", "--json").stdout)["blocks"]
    assert [sorted(block) for block in told] == [["by", "reason", "since", "tag", "until"]] * 2
    assert [(block["tag"], block["reason"], block["by"]) for block in told] == [
        ("Agent::a", "r", f"uid {os.getuid()}"), ("Agent::b", "", f"uid {os.getuid()}"),
    ]  # fmt: skip
    assert before <= told[0]["since"] <= told[0]["until"] - 7_100_000
    assert told[1]["until"] == 0


@pytest.mark.parametrize(
    ("named", "hit"),
    [
        (("--subject", "User::tom"), True),
        (("--subject", "Role::clerk"), True),
        (("--resource", "Doc::x"), True),
        (("--tag", "payroll"), True),
        (("--all",), True),
        (("--subject", "Agent::a", "--tag", "payroll"), True),
        (("--subject", "Agent::a"), False),
        (("--tag", "pay"), False),
    ],
)
def test_a_revoke_ends_what_is_cached_and_permits_anew(daemon: Daemon, named: tuple[str, ...], hit: bool) -> None:
    daemon.permits(TOM)
    assert daemon.cached(TOM)
    done = daemon("revoke", *named, "--reason", "moved on")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"revoked {'every answer' if '--all' in named else 'what hangs on '}")
    assert "\n  on disk     nothing has to be: no answer outlives the daemon\n" in done.stdout
    assert daemon.cached(TOM) is not hit


@pytest.mark.parametrize("words", [("revoke", "--all"), ("block", "Agent::a"), ("unblock", "Agent::a")])
def test_an_acknowledgement_as_json(daemon: Daemon, words: tuple[str, ...]) -> None:
    boot = str(json.loads(daemon("stats", "--json").stdout)["boot"])
    told = [json.loads(daemon(*words, "--json").stdout) for _ in range(2)]
    for each in told:
        alike = {"boot": boot, "revision": "", "durable": True, "held": 0, "before": True, "why": ""}
        assert {**each, "revision": ""} == alike, "this daemon is young: one before it may have had leases"
    assert int(told[0]["revision"]) < int(told[1]["revision"])


def test_a_wait_ends_where_no_lease_is_left_to_be_told(daemon: Daemon) -> None:
    for words in (("revoke", "--all"), ("block", "Agent::b")):
        done = daemon(*words, "--wait", "--deadline", "30000")  # the first waits for the grace of a daemon before
        assert (done.returncode, "leases      none to be told" in done.stdout) == (0, True), done.stderr
    assert "before" not in done.stdout


# ---- who may not, and who is not there ----


@pytest.mark.parametrize("words", [("revoke", "--all"), ("block", "Agent::a"), ("unblock", "Agent::a"), ("blocks",)])
@pytest.mark.parametrize("administer", [True, False])
def test_a_peer_is_refused_unless_it_administers(
    make: Callable[[], Daemon], words: tuple[str, ...], administer: bool
) -> None:
    rule = f"[[peers]]\nuser = {os.getuid()}\nadminister = {str(administer).lower()}\n"
    daemon = make().start(rule)
    done = daemon(*words)
    if administer:
        assert (done.returncode, done.stderr) == (0, "")
        assert daemon.permits() is (words[0] != "block")
        return
    assert (done.returncode, done.stdout) == (3, "")
    assert f"uid `{os.getuid()}` does not administer this daemon: the config names who does" in done.stderr
    assert json.loads(daemon(*words, "--json").stdout)["fault"] == "refused"
    assert daemon.permits()


@pytest.mark.parametrize("words", [("revoke", "--all"), ("block", "Agent::a"), ("unblock", "Agent::a"), ("blocks",)])
def test_an_absent_daemon_is_a_fault_that_says_what_to_do(make: Callable[[], Daemon], words: tuple[str, ...]) -> None:
    daemon = make()
    done = daemon(*words)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no daemon at `" in done.stderr
    assert "start it with `pepcore serve`" in done.stderr
    assert json.loads(daemon(*words, "--json").stdout)["fault"] == "unreachable"


def test_a_daemon_that_does_not_answer_leaves_open_whether_it_holds(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    done = daemon("block", "Agent::a")
    daemon.process.send_signal(signal.SIGCONT)
    assert (done.returncode, done.stdout) == (3, "")
    assert "whether it holds is not known: run this again" in done.stderr
    assert daemon("block", "Agent::a").returncode == 0


# ---- hostile text ----


def test_no_reason_forges_a_line_or_drives_a_terminal(daemon: Daemon) -> None:
    assert daemon("block", "Agent::a", "--reason", HOSTILE).returncode == 0
    assert daemon("revoke", "--tag", HOSTILE, "--reason", HOSTILE).returncode == 0
    told = json.loads(daemon("blocks", "--json").stdout)["blocks"]
    assert told[0]["reason"] == HOSTILE
    outputs = [daemon(*words) for words in (
        ("blocks",), ("blocks", "--json"), ("check", *AGENT), ("explain", *AGENT), ("revoke", "--tag", HOSTILE),
        ("block", f"Agent::{HOSTILE}"), ("unblock", f"Agent::{HOSTILE}"), ("block", HOSTILE),
    )]  # fmt: skip
    assert [done.returncode for done in outputs] == [0, 0, 1, 1, 0, 0, 0, 2]
    for done in outputs:
        text = done.stdout + done.stderr
        assert "gone\\n" in text  # it is told, and escaped
        assert all(c.isprintable() or c == "\n" for c in text)
        assert not any(row.startswith(("pepcore: unblocked", "permit")) and "agents" not in row
                       for row in text.splitlines())  # fmt: skip


# ---- what outlives the daemon ----


def test_a_restart_keeps_blocks(daemon: Daemon) -> None:
    daemon("block", "Agent::a", "--reason", "kept")
    daemon("block", "Agent::b")
    daemon("unblock", "Agent::b")
    shown = daemon("blocks").stdout
    daemon.stop()
    daemon.start()
    assert daemon("blocks").stdout == shown
    assert not daemon.permits()
    assert daemon.permits(("Agent::b", "read", "Doc::x"))


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version":2,"blocks":[]}', b'{"version":1,"blocks":[],"x":1}'])
def test_a_damaged_list_denies_everything_and_says_so(daemon: Daemon, damage: bytes) -> None:
    daemon("block", "Agent::a")
    assert daemon.permits(TOM)
    daemon.stop()
    whole = daemon.state.read_bytes()
    daemon.state.write_bytes(damage)
    daemon.start()
    denied = daemon("check", *TOM)
    assert (denied.returncode, denied.stdout.startswith("deny: blocked: the list of blocks cannot be read: `")) == (
        1, True,
    )  # fmt: skip
    listed = daemon("blocks")
    assert (listed.returncode, listed.stdout) == (3, "")
    assert "everything is denied: the list cannot be read" in listed.stderr
    daemon.stop()
    daemon.state.write_bytes(whole)
    daemon.start()
    assert daemon.permits(TOM)
    assert not daemon.permits()


def test_a_block_that_is_not_on_disk_holds_and_is_a_fault(daemon: Daemon) -> None:
    in_the_way = daemon.state.parent / "blocks.json.new"
    in_the_way.mkdir(parents=True)
    done = daemon("block", "Agent::a")
    assert done.returncode == 3
    assert "\n  on disk     no: " in done.stdout
    assert "not on disk and is lost when the daemon stops" in done.stderr
    assert not daemon.permits()
    data = json.loads(daemon("block", "Agent::a", "--json").stdout)
    assert (data["durable"], data["why"] != "") == (False, True)
    in_the_way.rmdir()
    assert daemon("block", "Agent::a").returncode == 0


# ---- without a daemon ----


class Told:
    """A client whose daemon still has these to tell, one number each time it is asked; -1: one of a daemon before."""

    def __init__(self, *left: int) -> None:
        self.left = list(left)

    def untold(self, ack: Acknowledgement) -> Acknowledgement:
        held = self.left.pop(0) if len(self.left) > 1 else self.left[-1]
        return ack._replace(held=max(0, held), before=held < 0)


@pytest.mark.parametrize(("held", "code"), [([0], 0), ([3, 2, 0], 0), ([3, -1, 0], 0), ([3, 3], 3), ([-1, -1], 3)])
def test_a_wait_asks_until_everybody_was_told_and_says_where_it_waited_in_vain(
    held: list[int], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(wait=True, json=True, deadline=60_000 if held[-1] == 0 else 250)
    first = Acknowledgement(7, 8, True, 5, False)
    ack = administering.settled(options, Told(*held), first)  # type: ignore[arg-type]
    assert ack == first._replace(held=max(0, held[-1]), before=held[-1] < 0)
    assert administering.tell(options, ack, "", "") == code
    out, err = capsys.readouterr()
    assert json.loads(out)["held"] == max(0, held[-1])
    assert ("still not told after 250 ms" in err) is (code == 3)


def test_without_wait_nothing_is_asked_again() -> None:
    options = argparse.Namespace(wait=False, json=True, deadline=5000)
    held = Acknowledgement(7, 8, True, 3, True)
    assert administering.settled(options, Told(), held) == held  # type: ignore[arg-type]
    assert administering.tell(options, held, "", "") == 0


def test_leases_are_listed_and_one_is_ended_by_its_number(daemon: Daemon) -> None:
    assert daemon("leases").stdout == "no leases\n"
    with pepcore.connect(daemon.socket, deadline=5.0) as client:
        kept, gone = (client.lease("Agent::a", "read", f"Document::{n}") for n in range(2))
        assert kept
        assert gone
        told = json.loads(daemon("leases", "--json").stdout)["leases"]
        assert [each["lease"] for each in told] == [str(kept.number), str(gone.number)]
        assert f"{kept.number}  Agent::a read Document::0\n" in daemon("leases").stdout
        assert daemon("end", str(gone.number)).returncode == 0
        assert gone.wait(5)
        assert kept
        assert daemon("end", str(gone.number)).returncode == 3
        for words in ((), ("x",), ("1", "2"), ("-1",)):
            assert daemon("end", *words).returncode == 2


@pytest.mark.parametrize(
    ("ms", "text"),
    [(-5, "0 ms"), (999, "999 ms"), (1000, "1 s"), (59_999, "59 s"), (61_000, "1 min 1 s"), (3_600_000, "1 h"),
     (5_400_000, "1 h 30 min"), (86_400_000 + 60_000, "1 d"), (10 * 86_400_000 + 7_200_000, "10 d 2 h")],
)  # fmt: skip
def test_how_long_is_left(ms: int, text: str) -> None:
    assert administering.left(ms) == text
