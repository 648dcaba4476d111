"""`pepcore demo revoke`: a real loop is stopped by a real block, the numbers are measured, nothing is left behind."""

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
from typing import Any

import pytest

from pepcore.cli.demo.course import Act, Course
from pepcore.cli.demo.split import pieces, view
from tests.demo_processes import environment, nothing_left, running

DEMO = [sys.executable, "-m", "pepcore", "demo", "revoke"]


# ---- without a terminal ----


def test_without_a_terminal_it_ends_by_itself_and_tells_after_how_long_and_why(tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "--seconds", "3"], capture_output=True, text=True, timeout=60,
                          env=environment(tmp_path))  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    told = [row.strip() for row in done.stdout.splitlines()]
    assert all(len(row) < 80 for row in done.stdout.splitlines())
    order = ["$ pepcore block Agent::helpdesk", "us call to acknowledgement", "0    permits asked thereafter",
             "us call to first deny", "us last permit to first deny", "$ pepcore unblock Agent::helpdesk",
             "us call to acknowledgement", "us call to first permit",
             "why the loop was denied: blocked: the administrator of the demo stops it"]  # fmt: skip
    rows = [row for row in told if row.endswith(tuple(order))]
    assert [row.endswith(end) for row, end in zip(rows, order, strict=True)] == [True] * len(order)
    assert nothing_left(tmp_path)


def test_its_numbers_as_json(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run([*DEMO, "--seconds", "3", "--json"], capture_output=True, text=True, timeout=60,
                          env=environment(tmp_path))  # fmt: skip
    took_us = (time.monotonic() - began) * 1e6
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["asked"] == told["permits"] + told["denies"] + told["faults"]
    assert (told["faults"], told["late_permits"], told["problems"], told["blocked_by"]) == (0, 0, [], "demo")
    assert told["permits"] > 10_000
    assert told["denies"] > 10
    assert 0.99 < told["hit_ratio"] < 1  # the first answer, and one after each change, came from the daemon
    assert told["checks_per_second"] > 10_000
    assert told["reason"] == "blocked: the administrator of the demo stops it"
    for act, answer in ((told["block"], "first_deny_us"), (told["unblock"], "first_permit_us")):
        assert sorted(act) == sorted(("acknowledged_us", "revision", "durable", "held", answer))
        assert 0 < act["acknowledged_us"] < took_us
        assert 0 < act[answer] < took_us
        assert (act["durable"], act["held"]) == (True, 0)
    assert int(told["block"]["revision"]) < int(told["unblock"]["revision"])
    assert 0 < told["gap_us"] < took_us
    assert nothing_left(tmp_path)


def test_a_signal_ends_it_in_order(tmp_path: Path) -> None:
    with subprocess.Popen([*DEMO, "--seconds", "60"], stdout=subprocess.PIPE, env=environment(tmp_path)) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        for _ in range(500):
            if len(running(tmp_path)) >= 3:
                break
            time.sleep(0.02)
        demo.send_signal(signal.SIGTERM)
        out = demo.stdout.read()
        assert demo.wait(20) == 0
    assert b"the agent's loop asked" in out
    assert b"not as promised" not in out
    assert nothing_left(tmp_path)


def test_a_loop_that_ends_by_itself_is_a_fault(tmp_path: Path) -> None:
    demo = subprocess.Popen([*DEMO, "--seconds", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=environment(tmp_path))  # fmt: skip
    loop: list[int] = []
    for _ in range(1000):
        loop = [p for p in running(tmp_path) if b"pepcore.cli.demo.loop" in Path(f"/proc/{p}/cmdline").read_bytes()]
        if loop:
            break
        time.sleep(0.02)
    os.kill(loop[0], signal.SIGKILL)
    _, err = demo.communicate(timeout=20)
    assert (demo.returncode, b"the process `loop` ended" in err) == (3, True)
    assert nothing_left(tmp_path)


# ---- on a terminal ----


def test_on_a_terminal_who_blocks_from_another_one_stops_the_loop(tmp_path: Path) -> None:
    """The reason tries to drive the terminal; the command is the one that the screen shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(DEMO[0], [*DEMO, "--seconds", "15"], environment(tmp_path, TERM="xterm"))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    out, blocked, latest = b"", None, time.monotonic() + 60
    while time.monotonic() < latest:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                out += os.read(terminal, 1 << 16)
            except OSError:  # the other side is closed
                break
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", out.decode(errors="replace"))
        if blocked is None and "checks a second" in shown and "blocks the agent in" in shown:
            command = shown.rpartition("another terminal:")[2].replace("\\\n", "").split()
            if "Agent::helpdesk" not in command:
                continue
            socket = command[1].removeprefix("PEPCORE_SOCKET=")
            words = [sys.executable, "-m", "pepcore", "block", "Agent::helpdesk", "--reason", "mine\n\x1b[2J\x1b[31m"]
            env = environment(tmp_path, PEPCORE_SOCKET=socket)
            blocked = subprocess.run(words, capture_output=True, text=True, timeout=20, env=env)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert blocked is not None
    assert (blocked.returncode, blocked.stderr) == (0, "")
    live, _, after = out.decode().partition("\x1b[?1049h")[2].partition("\x1b[?1049l")
    assert live.endswith("\x1b[?25h")
    assert "\x1b[2J" not in live.removeprefix("\x1b[?25l\x1b[2J")
    for frame in live.split("\x1b[H")[1:]:
        rows = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", frame).split("\n")
        assert len(rows) <= 24
        assert all(len(row) < 80 for row in rows)
    assert f"blocked from elsewhere, by uid {os.getuid()}" in live
    assert re.search(r"\d us to first deny, at most", live)
    assert "blocked: mine\\n\\x1b[2J\\x1b[31m" in live
    assert re.search(r"\x1b\[32mpermit +\x1b", live)
    assert re.search(r"\x1b\[31mdeny +\x1b", live)
    assert "$ pepcore block" not in live  # the demo left that to others
    assert "$ pepcore unblock Agent::helpdesk" in after
    assert "why the loop was denied: blocked: mine\\n\\x1b[2J" in after
    assert nothing_left(tmp_path)


# ---- what follows from stamps ----


def change(kind: str, asked: int, last: int = 0) -> dict[str, Any]:
    return {"kind": kind, "why": "w", "last_ns": last, "asked_ns": asked, "answered_ns": asked + 5_000}


def course(*changes: dict[str, Any], lift: bool = True) -> Course:
    """One with a block that was called at 100 us and acknowledged at 200 us, and lifted at 900 us."""
    made = Course()
    made.block = Act(100_000, 200_000, 2, True, 0)
    made.lift = Act(900_000, 950_000, 3, True, 0) if lift else None
    made.add({"permit": 90, "deny": 10, "fault": 0, "hits": 97, "ns": 1_000_000, "changes": list(changes)})
    return made


FIRST, DENY, RESUMED = change("permit", 1_000), change("deny", 150_000, 149_000), change("permit", 940_000)


def test_a_loop_that_is_denied_in_time_and_goes_on_has_no_problem() -> None:
    seen = course(FIRST, DENY, RESUMED)
    told = seen.summary()
    assert (told["late_permits"], told["problems"]) == (0, [])
    assert told["block"] == {"acknowledged_us": 100, "revision": "2", "durable": True, "held": 0, "first_deny_us": 55}
    assert (told["unblock"]["first_permit_us"], told["gap_us"], told["hit_ratio"]) == (45, 6, 0.97)


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ((FIRST, change("deny", 202_000, 200_000), RESUMED), 0),  # asked for as it was acknowledged
        ((FIRST, change("deny", 202_000, 200_001), RESUMED), 1),
        ((FIRST, DENY, change("permit", 300_000), change("deny", 310_000, 305_000), RESUMED), 1),
        ((FIRST, DENY, change("fault", 300_000), change("deny", 310_000, 305_000), RESUMED), 0),
    ],
)
def test_a_permit_that_was_asked_for_after_the_acknowledgement_is_late(
    changes: tuple[dict[str, Any], ...], late: int
) -> None:
    seen = course(*changes)
    assert seen.late == late
    assert ("the loop got a permit for what it asked after the block was acknowledged" in seen.problems()) is (late > 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [((FIRST,), "the loop was never denied"), ((FIRST, DENY), "the loop did not go on after the block was lifted")],
)
def test_a_loop_that_is_not_denied_or_does_not_go_on_is_a_problem(
    changes: tuple[dict[str, Any], ...], problem: str
) -> None:
    assert course(*changes).problems() == [problem]


# ---- how it looks ----


def test_a_command_that_is_longer_than_a_line_pastes_as_one() -> None:
    command = "printf %s " + "/long" * 40
    assert len(pieces(command)) == 3
    assert all(len(piece) < 80 for piece in pieces(command))
    done = subprocess.run(["/bin/sh", "-c", "\n".join(pieces(command))], capture_output=True, text=True)
    assert done.stdout == "/long" * 40
    assert pieces("pepcore block A::b") == ["pepcore block A::b"]


def test_no_frame_is_larger_than_the_screen() -> None:
    seen = course(FIRST, DENY | {"why": "blocked: " + "\x1b\n" * 500}, RESUMED)
    rows = view(seen, "h" * 300, "s" * 300, ["c" * 300], "q" * 300, colours=False)
    assert len(rows) <= 24
    assert all(len(row) < 80 for row in rows)
    assert all(row.isprintable() for row in rows)
