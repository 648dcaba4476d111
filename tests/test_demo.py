"""The demo: its policies say what the company expects, and it leaves nothing behind.

The processes are found by their environment: every one of them inherits a TMPDIR of the test's own.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from random import Random

import pytest

from pepcore.cli.demo.asker import Report
from pepcore.cli.demo.questions import ENTITIES, POINTS, POLICIES, Case
from pepcore.cli.demo.tally import Tally
from pepcore.core.compose import compose
from pepcore.core.obligation import unhandled
from pepcore.core.properties import check
from pepcore.core.verdict import settle
from pepcore.pdp.cedar import load
from pepcore.pdp.cedar_lint import lint
from pepcore.settlement import read_question
from tests.demo_processes import environment, nothing_left, running

DEMO = [sys.executable, "-m", "pepcore", "demo"]


# ---- the policies ----


def test_the_bundled_policies_have_no_findings() -> None:
    cedar = load(POLICIES, ENTITIES, check_obligation=check)
    assert [f for f in lint(cedar) if f.level != "info"] == []
    assert all(policy.explicit_id for policy in cedar.policies)


@pytest.mark.parametrize("point", POINTS)
def test_every_question_is_decided_as_the_company_expects(point: str) -> None:
    cedar = load(POLICIES, ENTITIES, check_obligation=check)
    rng = Random(7)
    expected = set()
    for make in dict.fromkeys(POINTS[point].cases):
        for _ in range(30):
            case: Case = make(rng)
            question = read_question(compose(case.subject, case.action, case.resource, case.context, case.chain))
            decision = cedar.decide([question], 1_800_000_000_000)[0]
            assert decision.fault == ""
            if case.expect is not None:
                assert decision.permit == case.expect, case.title
            if decision.permit:
                assert unhandled(decision.obligations, POINTS[point].handles) == ""
            expected.add(case.expect)
    assert {True, False} <= expected


def test_every_deny_by_a_forbid_has_a_reason() -> None:
    cedar = load(POLICIES, ENTITIES)
    forbids = [policy for policy in cedar.policies if policy.effect == "forbid"]
    assert len(forbids) >= 4
    assert all(policy.notes.reason for policy in forbids)


# ---- without a terminal ----


def test_without_a_terminal_it_ends_by_itself_with_a_plain_summary(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--seconds", "3"], capture_output=True, text=True, timeout=60, env=environment(tmp_path)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "all as the company expects" in done.stdout
    for word in (*POINTS, "permit", "deny", "in", "out", "why"):
        assert re.search(rf"^(\w* +)?{word} ", done.stdout, re.MULTILINE), word
    assert "card: ****4021, notes: null" in done.stdout
    assert "what to try next" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.partition("what to try")[0].splitlines())
    assert nothing_left(tmp_path)


def test_its_numbers_as_json_show_permits_denies_hits_and_obligations(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--seconds", "3", "--json"], capture_output=True, text=True, timeout=60, env=environment(tmp_path)
    )
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["asked"] == told["permits"] + told["denies"] + told["faults"]
    assert min(told["permits"], told["denies"]) > 0
    assert told["surprises"] == []
    assert 0.1 < told["hit_ratio"] < 1
    assert 0 < told["hit_us"]["p50"] <= told["hit_us"]["p99"]
    assert set(told["points"]) == set(POINTS)
    assert all(point["asked"] > 0 for point in told["points"].values())
    assert told["points"]["gateway"]["seen"]["permit"]["after"] == "Accept: json, X-Caller: checkout"
    assert told["points"]["database"]["seen"]["permit"]["after"][:6] in ("3 rows", "4 rows")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: int) -> None:
    with subprocess.Popen([*DEMO, "--seconds", "60"], stdout=subprocess.PIPE, env=environment(tmp_path)) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline().startswith(b"starting a daemon")
        wait_for_askers(tmp_path)
        demo.send_signal(number)
        out = demo.stdout.read()
        assert demo.wait(20) == 0
    assert b"what to try next" in out
    assert nothing_left(tmp_path)


def test_killed_it_still_leaves_no_process(tmp_path: Path) -> None:
    with subprocess.Popen([*DEMO, "--seconds", "60"], stdout=subprocess.DEVNULL, env=environment(tmp_path)) as demo:
        wait_for_askers(tmp_path)
        demo.kill()
        demo.wait(20)
    for _ in range(250):
        if not running(tmp_path):
            break
        time.sleep(0.02)
    assert running(tmp_path) == []


def test_a_daemon_that_ends_by_itself_is_a_fault(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [*DEMO, "--seconds", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path)
    )
    wait_for_askers(tmp_path)
    daemon = [pid for pid in running(tmp_path) if b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(daemon) == 1
    os.kill(daemon[0], signal.SIGKILL)
    _, err = demo.communicate(timeout=20)
    assert demo.returncode == 3
    assert b"the daemon ended" in err
    assert nothing_left(tmp_path)


def test_an_answer_that_the_company_does_not_expect_is_counted() -> None:
    permit = settle(True, "", ("some-policy",), (), ())
    expected, other = Report(), Report()
    expected.add(Case("a reads b", "A::a", "read", "B::b", {}, expect=True), permit, 1000)
    other.add(Case("a reads b", "A::a", "read", "B::b", {}, expect=False), permit, 1000)
    tally = Tally()
    tally.add("ci", vars(expected))
    assert (tally.permits, tally.surprised) == (1, 0)
    tally.add("ci", vars(other))
    assert (tally.permits, tally.surprised) == (2, 1)
    assert tally.surprises == ["a reads b: permit "]


def wait_for_askers(folder: Path) -> None:
    """Wait until demo, daemon and the four askers run."""
    for _ in range(1000):
        if len(running(folder)) >= 2 + len(POINTS):
            return
        time.sleep(0.02)
    raise AssertionError(f"only {running(folder)} run")


# ---- on a terminal ----


def on_a_terminal(folder: Path, lines: int, columns: int, seconds: float, **env: str) -> tuple[str, int]:
    """What the demo writes to a terminal that types Ctrl-C after some seconds, and its exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(DEMO[0], DEMO, environment(folder, TERM="xterm", **env))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    out, typed, latest = b"", False, time.monotonic() + 60
    began = time.monotonic()
    while time.monotonic() < latest:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:  # the other side is closed
                break
            out += data
        if not typed and time.monotonic() > began + seconds:
            os.write(terminal, b"\x03")
            typed = True
    os.close(terminal)
    return out.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_on_a_terminal_it_draws_until_ctrl_c_and_gives_the_terminal_back(tmp_path: Path) -> None:
    out, code = on_a_terminal(tmp_path, 24, 80, 3.0)
    assert code == 0
    before, _, rest = out.partition("\x1b[?1049h")
    live, _, after = rest.partition("\x1b[?1049l")
    assert before.startswith("starting a daemon")
    frames = live.split("\x1b[H")[1:]
    assert len(frames) >= 4
    for frame in frames:
        rows = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\^C|\r", "", frame).split("\n")
        assert len(rows) <= 24
        assert all(len(row) < 80 for row in rows)
    assert "\x1b[32mpermit" in frames[-1]
    assert live.endswith("\x1b[?25h")
    assert "what to try next" in after
    assert nothing_left(tmp_path)


def test_no_color_means_no_colours_in_the_live_view(tmp_path: Path) -> None:
    out, code = on_a_terminal(tmp_path, 24, 80, 2.0, NO_COLOR="1")
    assert code == 0
    assert "\x1b[?1049h" in out
    assert re.search(r"\x1b\[[0-9;]*m", out) is None
    assert nothing_left(tmp_path)


def test_a_terminal_that_is_too_small_gets_the_plain_summary(tmp_path: Path) -> None:
    out, code = on_a_terminal(tmp_path, 10, 40, 2.0)
    assert code == 0
    assert "\x1b[?1049h" not in out
    assert "what to try next" in out
    assert nothing_left(tmp_path)
