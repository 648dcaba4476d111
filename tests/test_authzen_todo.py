"""The AuthZEN Todo interop cases, through the daemon: 40 evaluations and 3 batches of 2.

Cases and users are those of the AuthZEN working group, beside the repository; the policies are ours (`tests/todo/`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pepcore

ROOT = Path(__file__).parent.parent
CASES = ROOT.parent / "shared" / "vectors" / "authzen"
POLICIES = ROOT / "tests" / "todo" / "todo.cedar"

if not CASES.is_dir():
    MISSING = "the AuthZEN Todo cases are not in `../shared/vectors/authzen`: put `todo-*.json` of the interop there"
    print(MISSING)
    pytest.skip(MISSING, allow_module_level=True)


def entities() -> list[dict[str, Any]]:
    """The users, with their roles as parents."""
    users: dict[str, dict[str, Any]] = json.loads((CASES / "todo-users.json").read_text())
    roles = sorted({role for user in users.values() for role in user["roles"]})
    rows: list[dict[str, Any]] = [{"uid": {"type": "role", "id": r}, "attrs": {}, "parents": []} for r in roles]
    for ident, user in users.items():
        parents = [{"type": "role", "id": role} for role in user["roles"]]
        attributes = {"email": user["email"]}
        rows.append({"uid": {"type": "user", "id": ident}, "attrs": attributes, "parents": parents})
    return rows


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("todo")
    store, path, log = folder / "entities.json", folder / "pep.sock", folder / "log"
    store.write_text(json.dumps(entities()))
    files = ["--policies", str(POLICIES), "--entities", str(store), "--socket", str(path)]
    hidden = ("PEPCORE_CONFIG", "PEPCORE_SOCKET", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET")
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "pepcore", "serve", *files],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in hidden},
        )  # fmt: skip
    try:
        for _ in range(1000):
            if daemon.poll() is not None or path.exists():
                break
            time.sleep(0.02)
        assert daemon.poll() is None, log.read_text()
        yield str(path)
    finally:
        daemon.terminate()
        assert daemon.wait(20) == 0


def cases(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CASES / "todo-decisions.json").read_text())[kind]
    return found


def test_all_40_evaluations_are_decided_as_authzen_says(socket: str) -> None:
    evaluations = cases("evaluation")
    assert len(evaluations) == 40
    with pepcore.connect(socket, deadline=5) as pep:
        verdicts = [pep.check(**case["request"]) for case in evaluations]
    assert [verdict.error for verdict in verdicts] == [""] * 40
    assert [verdict.permit for verdict in verdicts] == [case["expected"] for case in evaluations]


def test_all_40_evaluations_as_json_lines_through_the_command_line(socket: str) -> None:
    evaluations = cases("evaluation")
    lines = "".join(json.dumps(case["request"]) + "\n" for case in evaluations)
    command = [sys.executable, "-m", "pepcore", "check", "--socket", socket, "--deadline", "5000"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    answers = [json.loads(line)["decision"] for line in done.stdout.splitlines()]
    assert answers == [case["expected"] for case in evaluations]


def test_all_3_batches_are_decided_as_authzen_says(socket: str) -> None:
    batches = cases("evaluations")
    assert [len(case["request"]["evaluations"]) for case in batches] == [2, 2, 2]
    with pepcore.connect(socket, deadline=5) as pep:
        for case in batches:
            defaults = {name: value for name, value in case["request"].items() if name != "evaluations"}
            questions = [{**defaults, **each} for each in case["request"]["evaluations"]]
            answers = [{"decision": verdict.permit} for verdict in pep.check_many(questions)]
            assert answers == case["expected"]


def test_a_user_whom_nobody_knows_may_do_nothing(socket: str) -> None:
    request = cases("evaluation")[0]["request"]
    with pepcore.connect(socket, deadline=5) as pep:
        assert pep.check(**request)
        assert not pep.check(**{**request, "subject": {"type": "user", "id": "nobody"}})
