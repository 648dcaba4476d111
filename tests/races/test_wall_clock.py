"""A wall clock that jumps: no permit outlives its window, also where it is kept in a process that asks nobody (5).

The clock is that of a preloaded library (`tests/wall.c`), the same for daemon, workers and clients, and it alone jumps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from race_run import HERE
from running import Daemon

from tests.wall_clock import AT_NINE, Wall

HOUR_NS = 3_600_000_000_000
NINE, TEN = "2030-01-01T09:00:00Z", "2030-01-01T10:00:00Z"
WINDOW = json.dumps(json.dumps([{"id": "w", "type": "window", "properties": {"not_after": TEN}}]))
HOURS = f"""
@id("hours") @obligation({WINDOW})
permit(principal, action == Action::"read", resource);
@id("now") permit(principal, action == Action::"peek", resource) when {{ context.now < datetime("{TEN}") }};
"""
ASKING = """
import json, sys, time
from race_asker import Watched, asks
client = Watched(sys.argv[1], deadline=2.0)
def ask():
    asks.missed = False
    v = client.check("User::ann", sys.argv[2], "Document::1")
    return {"permit": v.permit, "local": not asks.missed, "error": v.error or v.reason}
until = time.monotonic() + 10
while not (told := ask())["local"] and time.monotonic() < until: pass
print(json.dumps(told), flush=True)
for line in sys.stdin:
    print(json.dumps(ask()), flush=True)
"""


@pytest.fixture
def clock(tmp_path: Path) -> Wall:
    return Wall(tmp_path)


@pytest.fixture
def told(tmp_path: Path, clock: Wall) -> Any:
    """What a process of its own is told before a jump, after it, and after the daemon was asked something else."""
    started: list[subprocess.Popen[Any]] = []

    def ask(action: str, jump_to: int, wake: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        daemon = Daemon(tmp_path / "d", HOURS, "", "", {"env": clock.env, "cwd": tmp_path})
        started.append(daemon.ready().process)  # type: ignore[arg-type]
        command = [sys.executable, "-c", ASKING, str(daemon.socket), action]
        asking = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**clock.env, "PYTHONPATH": str(HERE)},
            cwd=tmp_path,
            text=True,
        )
        started.append(asking)
        assert asking.stdout is not None
        assert asking.stdin is not None
        before = json.loads(asking.stdout.readline())
        clock.set(jump_to)
        if wake:
            with daemon.client(greet=False) as other:
                other.stats()
        time.sleep(0.05)
        asking.stdin.write("ask\n")
        asking.stdin.flush()
        return before, json.loads(asking.stdout.readline())

    (tmp_path / "d").mkdir()
    yield ask
    for process in started:
        process.kill()
        process.wait()


Told = Callable[[str, int, bool], tuple[dict[str, Any], dict[str, Any]]]


@pytest.mark.parametrize("action", ["read", "peek"])
@pytest.mark.parametrize("wake", [True, False], ids=["the daemon looks", "the daemon sleeps"])
def test_a_wall_clock_that_jumps_past_a_window_ends_what_a_process_keeps(told: Told, action: str, wake: bool) -> None:
    before, after = told(action, AT_NINE + 2 * HOUR_NS, wake)
    assert (before["permit"], before["local"]) == (True, True), before
    assert not after["permit"], after


@pytest.mark.parametrize("action", ["read", "peek"])
def test_a_wall_clock_that_stands_where_it_was_leaves_it(told: Told, action: str) -> None:
    before, after = told(action, AT_NINE + 600_000_000, False)
    assert before["permit"] and after["permit"], (before, after)  # noqa: PT018
