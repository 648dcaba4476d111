"""`pepcore top` against a real daemon: once, as JSON, on a terminal, and with names that would like to drive it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pepcore
from pepcore.cli.live import COLUMNS, fit
from pepcore.cli.top.reading import view
from pepcore.cli.top.table import lines

EVIL = "User::\x1b[2J\u202emallory\n\u9f8d" + "\u9f8d" * 60


def top(daemon: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pepcore", "top", *arguments, "--socket", str(daemon.socket), "--deadline", "5000"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def busy(start_daemon: Callable[..., Any]) -> Iterator[Any]:
    """A daemon that is asked all the time: hits, misses, denies, a block, a lease."""
    daemon = start_daemon()
    ended = threading.Event()

    def ask() -> None:
        with pepcore.connect(daemon.socket, deadline=5) as pep:
            n = 0
            while not ended.wait(0.002):
                n += 1
                pep.check_many([("User::alice", "read", "Document::a")] * 9 + [("User::alice", "read", f"D::{n}")])
                pep.check_many([(EVIL, "read", f"D::{n}"), ("User::blocked", "read", "D::1")])

    with pepcore.connect(daemon.socket, deadline=5) as pep:
        pep.block("User::blocked", reason="a \x1b[31mred reason")
        lease = pep.lease("User::alice", "read", "Document::held")
        assert lease
        asking = threading.Thread(target=ask)
        asking.start()
        yield daemon
        ended.set()
        asking.join()
        lease.close()


def test_once_as_json(busy: Any) -> None:
    done = top(busy, "--once", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert done.stdout.count("\n") == 1
    seen = json.loads(done.stdout)
    rate = seen["per_second"]
    assert rate["checks"] > rate["hits"] > rate["misses"] > 0
    assert rate["checks"] == pytest.approx(rate["hits"] + rate["misses"], abs=0.2)
    assert 0.5 < seen["hit_ratio"] < 1
    assert 0 < seen["miss_us"]["p50"] <= seen["miss_us"]["p99"]
    assert seen["miss_us"]["count"] > 0
    assert 0 < seen["ping_us"] < 1e6
    assert 0.9 < seen["seconds"] < 5
    denied = {each["subject"]: each for each in seen["denied"]}
    assert denied["User::blocked"]["reason"] == "blocked: a \x1b[31mred reason"
    evil = next(each for name, each in denied.items() if "mallory" in name)
    assert (evil["reason"], evil["denies"] > 10) == ("no policy permits this", True)
    assert seen["denied"][0]["denies"] >= seen["denied"][-1]["denies"]
    assert seen["blocks"]["in_force"] == 1
    assert seen["blocks"]["newest"][0]["tag"] == "User::blocked"
    assert seen["leases"]["held"] == 1
    assert seen["leases"]["newest"][0]["resource"] == "Document::held"


def test_without_a_terminal_it_prints_once_and_nothing_that_a_terminal_obeys(busy: Any) -> None:
    done = top(busy)
    assert (done.returncode, done.stderr) == (0, "")
    rows = done.stdout.split("\n")
    assert len(rows) <= 24
    assert rows[0].startswith("pepcore top   pepcore/")
    assert all(row.isprintable() for row in rows)
    for word in ("checks/s", "hits/s", "ping", "denied most", "\\x1b[2J\\u202emallory", "blocks 1 in force", "held"):
        assert word in done.stdout, word


def test_on_a_terminal_it_draws_each_second_until_ctrl_c(busy: Any) -> None:
    command = [sys.executable, "-m", "pepcore", "top", "--socket", str(busy.socket), "--deadline", "5000"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, {**os.environ, "TERM": "xterm", "NO_COLOR": ""})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    out, typed, began = b"", False, time.monotonic()
    while time.monotonic() < began + 40:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                out += os.read(terminal, 1 << 16)
            except OSError:  # the other side is closed
                break
        if not typed and out.count(b"\x1b[H") >= 4:
            os.write(terminal, b"\x03")
            typed = True
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    live = out.decode().partition("\x1b[?1049h")[2].partition("\x1b[?1049l")[0]
    frames = live.split("\x1b[H")[1:]
    assert len(frames) >= 4
    for frame in frames:
        rows = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\^C|\r", "", frame).split("\n")
        assert len(rows) <= 24
        assert all(row.isprintable() for row in rows)
    assert "\x1b[2J" not in live.replace("\x1b[?25l\x1b[2J", "")
    assert live.endswith("\x1b[?25h")


def test_a_daemon_that_is_not_there_is_a_fault(tmp_path: Any) -> None:
    class Absent:
        socket = tmp_path / "none"

    done = top(Absent, "--json")
    assert (done.returncode, json.loads(done.stdout)["fault"]) == (3, "unreachable")
    assert top(Absent).returncode == 3


# ---- what two readings say ----


class Seen:
    """A reading as the tests want it."""

    def __init__(self, at: float, boot: int = 1, hits: int = 0, misses: int = 0, **more: Any) -> None:
        counts = [misses, 0, 0]
        self.at, self.ping_us, self.blocks, self.leases = at, 50.0, [], []
        self.stats = {
            "server": "pepcore/0", "pid": 1, "boot": boot, "ready": True, "uptime_ms": 1, "revision": 1,
            "cache": {"hits": hits, "misses": misses, "entries": 1}, "faults": {},
            "clients": {"hits": 0, "per_second": 0.0},
            "miss_us": {"bounds": [100, 200], "counts": counts, "sum": 1}, "waiting": 0, "connections": 1,
            "workers_ready": 1, "denied": [], "blocks": 0, "blocks_broken": False,
            "leases": {"held": 0, "started": 0, "ended": 0, "untold": 0}, "points": {},
            "record": {"entries": 0, "lost": 0, "failing": 0, "unsigned": 0}, **more,
        }  # fmt: skip


def test_rates_are_of_the_time_between() -> None:
    seen = view(Seen(10.0, hits=100, misses=10), Seen(12.0, hits=500, misses=110))  # type: ignore[arg-type]
    assert seen["per_second"] == {"checks": 250.0, "hits": 200.0, "by_clients": 0.0, "misses": 50.0, "faults": 0.0}
    assert (seen["hit_ratio"], seen["miss_us"]) == (0.8, {"count": 100, "p50": 50, "p99": 99})


def test_what_clients_serve_by_themselves_is_in_the_rates_and_the_ratio() -> None:
    clients = {"hits": 9000, "per_second": 700.0}
    seen = view(Seen(10.0, hits=100, misses=10), Seen(12.0, hits=500, misses=110, clients=clients))  # type: ignore[arg-type]
    rates = {"checks": 950.0, "hits": 900.0, "by_clients": 700.0, "misses": 50.0, "faults": 0.0}
    assert (seen["per_second"], seen["hit_ratio"]) == (rates, round(18 / 19, 4))
    assert "checks/s 950   hits/s 900 (700 by clients)   misses/s 50" in lines(seen, False)[1]


def test_a_daemon_that_started_anew_gives_no_negative_rates() -> None:
    seen = view(Seen(1.0, hits=100, misses=10), Seen(2.0, boot=2, hits=5, misses=1))  # type: ignore[arg-type]
    assert set(seen["per_second"].values()) == {0.0}
    assert seen["hit_ratio"] is None
    assert "no misses" in "\n".join(lines(seen, False))


def test_what_is_wrong_stands_in_the_first_lines() -> None:
    seen = view(Seen(1.0), Seen(2.0, ready=False, blocks_broken=True))  # type: ignore[arg-type]
    shown = lines(seen, False)
    assert "NOT READY" in shown[0]
    assert any("everything is denied" in line for line in shown)
    assert not any("record" in line or "not enforced" in line for line in shown)
    assert "does not answer: gone\\x1b" in lines({**seen, "fault": "gone\x1b"}, False)[0]


def test_what_is_not_enforced_and_what_is_not_on_record_is_shown() -> None:
    record = {"entries": 9, "lost": 1200, "failing": 1, "unsigned": 0}
    points = {"gate": {"mode": "shadow", "passes": 9, "would_deny": 3, "faults": 0}, "was": {"mode": "enforce"}}
    shown = lines(view(Seen(1.0), Seen(2.0, record=record, points=points)), False)  # type: ignore[arg-type]
    assert "the record takes no entries right now: 1,200 are lost since the start" in shown[4]
    assert "not enforced: gate (shadow, 3 would be denied)" in shown[5]
    assert not any("was" in line for line in shown)


def test_a_full_view_fits_the_screen() -> None:
    many = [{"denies": 10**7, "over": 0, "subject": EVIL, "reason": EVIL} for _ in range(20)]
    seen = view(Seen(1.0), Seen(2.0, denied=many))  # type: ignore[arg-type]
    seen["blocks"]["newest"] = [{"tag": EVIL, "reason": EVIL}] * 3
    seen["leases"]["newest"] = [{"subject": EVIL, "action": EVIL, "resource": EVIL}] * 3
    shown = lines(seen, False)
    assert len(shown) <= 23
    assert all(line.isprintable() for line in shown)


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("abc", 5, "abc  "), ("abcdef", 5, "abc.."), ("\u9f8d\u9f8d", 5, "\u9f8d\u9f8d "),
        ("\u9f8d\u9f8d\u9f8d", 5, "\u9f8d.. "), ("a\u0301b", 3, "a\u0301b "), ("\x1b[", 8, "\\x1b[   "),
        ("\u202e", 8, "\\u202e  "), ("\u00e9" * 9, 5, "\u00e9\u00e9\u00e9.."),
    ],
)  # fmt: skip
def test_a_text_takes_exactly_its_columns(text: str, columns: int, shown: str) -> None:
    assert fit(text, columns) == shown
    assert len(fit("x" * 500)) == COLUMNS - 1
