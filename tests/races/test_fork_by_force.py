"""A forked child shares nothing with its parent (invariant 16), also where something else than Python forked it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import race_twins as twins
from race_run import Race

Start = Callable[..., Race]

FORKING = """
import ctypes, json, os, sys, time
from race_asker import Watched, asks
socket, how = sys.argv[1:3]
fork = os.fork if how == "python" else ctypes.PyDLL(None).fork    # the child of a PyDLL call holds the GIL, too
client = Watched(socket, deadline=2.0)
PERMITTED, DENIED = ("User::quiet", "read", "Document::d1"), ("User::quiet", "write", "Document::d1")

def local(question):
    asks.missed = False
    client.check(*question)
    return not asks.missed

until = time.monotonic() + 10
while not local(PERMITTED):
    assert time.monotonic() < until
out, into = os.pipe()
child = fork()
told = {"first": local(PERMITTED)}
told["later"] = any(local(PERMITTED) for _ in range(50))
question = PERMITTED if child == 0 else DENIED
asked = [client.check(*question, {"n": n, "who": child != 0}) for n in range(300)]
told["wrong"] = sum(v.permit != (child == 0) for v in asked if not v.fault)
told["permitted"] = sum(v.permit for v in asked)
told["faults"] = sorted({v.error for v in asked if v.fault})[:3]
told["answered"] = sum(not v.fault for v in asked)
os.close(out if child == 0 else into)
if child == 0:
    os.write(into, json.dumps(told).encode())
    os._exit(0)
theirs = b""
while data := os.read(out, 65536):
    theirs += data
os.waitpid(child, 0)
print(json.dumps({"parent": told, "child": json.loads(theirs)}))
"""


def forked(race: Race, how: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-c", FORKING, str(race.daemon.socket), how],
        env=race.env,
        cwd=race.out,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout)
    print(told)
    return told


@pytest.mark.parametrize("how", ["python", "libc"])
def test_a_forked_child_is_served_nothing_from_its_parents_table(race: Start, how: str) -> None:
    told = forked(race(), how)
    assert told["parent"]["first"], "the parent keeps what it had"
    assert not told["child"]["first"]
    assert told["child"]["later"], "and the child keeps what it asked for itself"


@pytest.mark.parametrize("how", ["python", "libc"])
def test_a_forked_child_shares_no_socket_and_each_gets_its_own_answers(race: Start, how: str) -> None:
    for name, told in forked(race(), how).items():
        assert told["wrong"] == 0, name
        assert told["answered"] == 300, told["faults"]


def inherited_in_c(race: Race) -> int:
    """How many first answers of forked children came from the table of their parent, a process in C."""
    outcome = race.ask("c").go_on(3.0, forked=True).over()
    assert outcome.counts["forks"] > 2
    assert outcome.counts["in process in C"] > 1000
    return outcome.counts["inherited"]


def test_a_forked_child_in_c_is_served_nothing_from_its_parents_table(race: Start) -> None:
    assert inherited_in_c(race()) == 0


@pytest.mark.slow
def test_a_child_in_c_is_served_its_parents_answers_where_its_memory_is_not_wiped(race: Start) -> None:
    assert inherited_in_c(race(guard_in_c="a client in C whose memory is not wiped in a fork")) > 0


@pytest.mark.slow
def test_a_child_is_served_its_parents_answers_where_its_memory_is_not_wiped(race: Start, twin: twins.Build) -> None:
    told = forked(race(twin=twin("a process whose memory is not wiped in a fork")), "libc")
    assert told["child"]["first"]
