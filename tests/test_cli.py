"""The command line as its users meet it: a process, its arguments, its output, its exit code.

Everything runs through the installed program against a real daemon on the demo's policies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMPANY = Path(__file__).parent.parent / "pepcore" / "cli" / "demo" / "company"
PERMIT = ("Job::shop-deploy", "deploy", "Environment::shop-production", 'branch="main"')
DENY = ("Job::shop-deploy", "deploy", "Environment::shop-production", 'branch="fix-1"')
CUSTOMER = ("Agent::helpdesk", "read", "Customer::7", "--on-behalf-of", "User::maria")
OURS = ("PEPCORE_SOCKET", "PEPCORE_CONFIG", "NO_COLOR", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET")


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OURS} | more


def pepcore(*arguments: str, stdin: bytes | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pepcore", *arguments],
        input=stdin if stdin is not None else b"",
        capture_output=True,
        timeout=60,
        env=environment(**env),
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def started(*arguments: str, socket: Path, log: Path, **env: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "pepcore", "serve", *arguments],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment(**env),
        )  # fmt: skip
    for _ in range(1000):
        if daemon.poll() is not None or b'"event": "ready"' in log.read_bytes():
            break
        time.sleep(0.02)
    assert daemon.poll() is None, log.read_text()
    assert socket.is_socket()
    return daemon


def ended(daemon: subprocess.Popen[bytes]) -> int:
    daemon.terminate()
    try:
        return daemon.wait(20)
    finally:
        daemon.kill()


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cli")
    path = folder / "pep.sock"
    files = ("--policies", str(COMPANY), "--entities", str(COMPANY / "entities.json"))
    daemon = started(*files, "--socket", str(path), socket=path, log=folder / "log")
    yield str(path)
    assert ended(daemon) == 0


# ---- check ----


def test_a_permit_exits_0_and_a_deny_exits_1_with_its_reason(socket: str) -> None:
    permit = pepcore("check", *PERMIT, "--socket", socket)
    assert (permit.returncode, permit.stderr) == (0, "")
    assert permit.stdout.startswith("permit (by deploy-own-app)\n")
    deny = pepcore("check", *DENY, "--socket", socket)
    assert (deny.returncode, deny.stderr) == (1, "")
    assert deny.stdout.startswith("deny: production takes deploys from main only")
    nobody = pepcore(
        "check", "Job::other", "deploy", "Environment::shop-production", 'branch="main"', "--socket", socket
    )
    assert (nobody.returncode, nobody.stdout) == (1, "deny: no policy permits this\n")


def test_the_socket_comes_from_the_environment_too(socket: str) -> None:
    assert pepcore("check", *PERMIT, PEPCORE_SOCKET=socket).returncode == 0
    assert pepcore("check", *PERMIT, "--socket", socket, PEPCORE_SOCKET="/nowhere").returncode == 0


def test_an_absent_daemon_is_a_fault_and_no_permit(tmp_path: Path) -> None:
    done = pepcore("check", *PERMIT, "--socket", str(tmp_path / "none.sock"))
    assert (done.returncode, done.stdout) == (3, "")
    assert "no verdict, so deny: unreachable: no daemon at" in done.stderr
    data = pepcore("check", *PERMIT, "--socket", str(tmp_path / "none.sock"), "--json")
    assert data.returncode == 3
    told = json.loads(data.stdout)
    assert (told["permit"], told["fault"]) == (False, "unreachable")
    assert told["error"].startswith(f"no daemon at `{tmp_path / 'none.sock'}`: No such file")  # as `pep --json` tells


def test_check_writes_one_verdict_as_json(socket: str) -> None:
    done = pepcore("check", *CUSTOMER, "--handles", "redact,mask", "--socket", socket, "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert (told["permit"], told["fault"], told["policies"]) == (True, None, ["agent-reads-customer"])
    assert sorted(duty["type"] for duty in told["obligations"]) == ["mask", "redact"]
    assert 0 < told["lifetime_ms"] <= 15_000
    assert told["id"].isdigit()
    assert told["boot"].isdigit()


def test_a_permit_with_an_obligation_that_is_not_handled_is_a_fault(socket: str) -> None:
    assert pepcore("check", *CUSTOMER, "--handles", "mask,redact", "--socket", socket).returncode == 0
    done = pepcore("check", *CUSTOMER, "--handles", "mask", "--socket", socket)
    assert done.returncode == 3
    assert "redact" in done.stderr
    assert pepcore("check", *CUSTOMER, "--socket", socket).returncode == 3


def test_a_token_that_has_ended_is_a_fault_and_one_that_lives_is_not(socket: str) -> None:
    ended_ms, alive_ms = int((time.time() - 5) * 1000), int((time.time() + 600) * 1000)
    assert pepcore("check", *PERMIT, "--not-after", str(alive_ms), "--socket", socket).returncode == 0
    done = pepcore("check", *PERMIT, "--not-after", str(ended_ms), "--socket", socket)
    assert done.returncode == 3
    assert "deny: expired" in done.stderr


def test_options_may_stand_anywhere(socket: str) -> None:
    for question, code in ((PERMIT, 0), (DENY, 1)):
        assert pepcore("check", "--socket", socket, *question).returncode == code
        assert pepcore("check", question[0], "--socket", socket, *question[1:]).returncode == code
        assert pepcore("check", *question, f"--socket={socket}").returncode == code


def test_no_word_behind_two_dashes_is_an_option(tmp_path: Path) -> None:
    """The daemon behind `--socket` permits everything, so that whatever is read as an option would be seen."""
    (tmp_path / "acl.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    permits, none = str(tmp_path / "s"), f"--socket={tmp_path / 'none'}"
    daemon = started(
        "--policies", str(tmp_path / "acl.cedar"), "--socket", permits, socket=Path(permits), log=tmp_path / "log"
    )
    try:
        for command in ("check", "explain"):
            for question in (("User::a", "read", "D::b", "--socket=1"), ("User::-h", "--help", "D::b", "--=2")):
                assert pepcore(command, "--socket", permits, "--", *question).returncode == 0
                assert pepcore(command, none, "--", *question).returncode == 3
            unnamed = pepcore(command, "--socket", permits, "--", "-x::a", "--", "D::b")  # Cedar has no such type
            assert (unnamed.returncode, "__entity" in unnamed.stdout + unnamed.stderr) == (3, True)
            for foreign in (("--help", "read", "D::b"), ("User::a", "--help", "-h"), ("-h",), ("--json",)):
                done = pepcore(command, "--socket", permits, "--", *foreign)
                assert (done.returncode, done.stdout) == (2, "")
            question = ("User::a", "read", "D::b", f"--socket={permits}")
            assert pepcore(command, none, "--", *question).returncode == 2
            assert pepcore(command, none, *question).returncode == 0
        for value in ("--help", "-h", "--json"):  # the value of an option is a value, too
            assert pepcore("check", "--socket", permits, "--point", value, *PERMIT[:3]).returncode == 0
            assert pepcore("check", none, "--point", value, *PERMIT[:3]).returncode == 3
    finally:
        assert ended(daemon) == 0


# ---- JSON lines ----


def line(subject: str = "shop-deploy", branch: str = "main", **more: object) -> bytes:
    question = {
        "subject": {"type": "Job", "id": subject},
        "action": {"name": "deploy"},
        "resource": {"type": "Environment", "id": "shop-production"},
        "context": {"branch": branch},
        **more,
    }
    return json.dumps(question).encode() + b"\n"


def test_json_lines_get_one_answer_each_in_order_and_the_worst_exit_code(socket: str) -> None:
    good = pepcore("check", "--socket", socket, stdin=line() + b"\n" + line())
    assert good.returncode == 0
    assert [json.loads(row)["decision"] for row in good.stdout.splitlines()] == [True, True]
    mixed = pepcore("check", "--socket", socket, stdin=line() + line(branch="x") + line())
    assert mixed.returncode == 1
    rows = [json.loads(row) for row in mixed.stdout.splitlines()]
    assert [row["decision"] for row in rows] == [True, False, True]
    assert rows[1]["context"]["reason"] == "production takes deploys from main only; merge first"


@pytest.mark.parametrize("nothing", [b"", b"\n \n\t\n"])
def test_no_question_on_standard_input_is_no_permit(socket: str, nothing: bytes) -> None:
    for json_too in ((), ("--json",)):
        done = pepcore("check", "--socket", socket, *json_too, stdin=nothing)
        assert (done.returncode, done.stdout) == (2, "")
        assert "no question on standard input: write one JSON object a line" in done.stderr
        assert pepcore("check", "--socket", socket, *json_too, stdin=nothing + line()).returncode == 0


def test_a_json_line_may_name_a_chain(socket: str) -> None:
    def asked(chain: list[dict[str, str]]) -> bytes:
        row = {"subject": {"type": "Agent", "id": "helpdesk"}, "action": {"name": "read"}}
        return json.dumps({**row, "resource": {"type": "Customer", "id": "7"}, "on_behalf_of": chain}).encode() + b"\n"

    handles = ("--handles", "redact,mask", "--socket", socket)
    assert pepcore("check", *handles, stdin=asked([{"type": "User", "id": "maria"}])).returncode == 0
    assert pepcore("check", *handles, stdin=asked([{"type": "User", "id": "tom"}])).returncode == 1
    assert pepcore("check", *handles, stdin=asked([])).returncode == 1


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{", "Expecting"),
        (b"[]\n", "must be a JSON object"),
        (b'{"subject": {"type": "Job", "id": "a", "id": "b"}}\n', "the key `id` stands twice"),
        (line(contxt={}), "`contxt`"),
        (line(context={"x": float("nan")}), "`NaN` is no number"),
        (line(context={"x": float("inf")}), "`Infinity` is no number"),
        (line().replace(b'"main"', b"1e999"), "larger than a number can be"),
        (line().replace(b"main", b"\xff"), "not valid UTF-8"),
        (line().replace(b"main", b"\\ud800"), "surrogate"),
        (line(context=[]), "`context` must be an object"),
        (line(action={"name": ""}), "`action.name`"),
        (line(action="deploy"), "`action` must be a JSON object"),
        (line(subject_=1), "`subject_`"),
        (line(on_behalf_of=[{"type": "User", "id": "a"}] * 17), "at most 16"),
        (line(context={"x": 2**64}), "64"),
        (b"[" * 100_000 + b"\n", "nested too deep"),
        (b'{"subject": "' + b"x" * (1 << 20) + b'"}\n', "longer than 1048576 bytes"),
    ],
)
def test_a_line_that_is_no_question_is_a_deny_that_says_why_and_the_next_is_read(
    socket: str, bad: bytes, why: str
) -> None:
    done = pepcore("check", "--socket", socket, stdin=bad.rstrip(b"\n") + b"\n" + line())
    assert done.returncode == 2
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    assert [row["decision"] for row in rows] == [False, True]
    assert why in rows[0]["context"]["error"]
    assert done.stderr == ""


def test_an_answer_comes_before_the_next_question_is_sent(socket: str) -> None:
    command = [sys.executable, "-m", "pepcore", "check", "--socket", socket]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as asker:
        assert asker.stdin is not None
        assert asker.stdout is not None
        for branch, expected in (("main", True), ("x", False), ("main", True)):
            asker.stdin.write(line(branch=branch))
            asker.stdin.flush()
            assert json.loads(asker.stdout.readline())["decision"] is expected
        asker.stdin.close()
        assert asker.wait(20) == 1


@pytest.mark.parametrize("streams", [">/dev/full", ">&-", ">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_an_answer_that_cannot_be_written_is_a_fault(socket: str, streams: str) -> None:
    command = f"'{sys.executable}' -m pepcore check {' '.join(map(repr, PERMIT))} --socket {socket} {streams}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=60, env=environment())
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    without_errors = command.removesuffix(streams) + "2>&-"
    assert subprocess.run(["/bin/sh", "-c", without_errors], timeout=60, env=environment()).returncode == 0


# ---- explain, stats ----


def test_explain_shows_policy_source_lifetime_and_cache(socket: str) -> None:
    question = (*PERMIT, "attempt=76")  # asked nowhere else, so that its 20 s have just begun
    pepcore("check", *question, "--socket", socket)
    done = pepcore("explain", *question, "--socket", socket)
    assert done.returncode == 0
    assert "permit deploy-own-app" in done.stdout
    assert f"{COMPANY / 'deploy.cedar'}:3-9" in done.stdout
    assert "principal in Pipeline::" in done.stdout
    assert "lifetime    20 s: @ttl of policy `deploy-own-app`" in done.stdout
    assert "cached      yes" in done.stdout
    deny = pepcore("explain", *DENY, "--socket", socket)
    assert deny.returncode == 1
    assert deny.stdout.startswith("deny: production takes deploys from main only")
    fresh = pepcore("explain", *PERMIT, "attempt=77", "--socket", socket)
    assert "cached      no" in fresh.stdout


def test_explain_names_the_policy_that_failed(socket: str) -> None:
    wrong = ("Service::checkout", "charge", "Api::payments", 'mtls="none"')
    done = pepcore("explain", *wrong, "--socket", socket)
    assert done.returncode == 1
    assert "failed permit payments-charge" in done.stdout
    data = pepcore("explain", *wrong, "--socket", socket, "--json")
    assert data.returncode == 1
    assert "payments-charge" in [policy["id"] for policy in json.loads(data.stdout)["errors"]]


def test_stats_are_read_by_people_and_programs(socket: str, tmp_path: Path) -> None:
    pepcore("check", *PERMIT, "--socket", socket)
    text = pepcore("stats", "--socket", socket)
    assert text.returncode == 0
    assert any(row.split() == ["policies", "14"] for row in text.stdout.splitlines())
    data = pepcore("stats", "--socket", socket, "--json")
    assert json.loads(data.stdout)["policies"] == 14
    told = json.loads(data.stdout)
    rows = dict(row.split(None, 1) for row in text.stdout.splitlines())
    assert (rows["pid"], rows["boot"]) == (str(told["pid"]), str(told["boot"]))
    assert "," in rows["cache.slots"]
    absent = pepcore("stats", "--socket", str(tmp_path / "none"), "--json")
    assert (absent.returncode, json.loads(absent.stdout)["fault"]) == (3, "unreachable")


# ---- serve ----


def test_serve_reads_a_config_and_flags_override_it(tmp_path: Path) -> None:
    (tmp_path / "acl.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    config = tmp_path / "pepcore.toml"
    config.write_text('[daemon]\nsocket = "configured.sock"\n[policies]\npolicies = "acl.cedar"\n')
    configured, given = tmp_path / "configured.sock", tmp_path / "given.sock"
    daemon = started(socket=configured, log=tmp_path / "log", PEPCORE_CONFIG=str(config))
    try:
        assert pepcore("check", "A::b", "c", "D::e", "--socket", str(configured)).returncode == 0
    finally:
        assert ended(daemon) == 0
    flags = ("--config", str(config), "--socket", str(given), "--policies", str(COMPANY))
    daemon = started(*flags, socket=given, log=tmp_path / "log")
    try:
        assert not configured.exists()
        assert pepcore("check", "A::b", "c", "D::e", "--socket", str(given)).returncode == 1
    finally:
        assert ended(daemon) == 0


@pytest.mark.parametrize(("flag", "as_json"), [((), False), (("--json",), True)])
def test_serve_logs_for_people_on_a_terminal_and_json_where_asked(
    tmp_path: Path, flag: tuple[str, ...], as_json: bool
) -> None:
    import pty

    own, terminal = pty.openpty()
    files = ("--policies", str(COMPANY), "--socket", str(tmp_path / "s"), *flag)
    daemon = subprocess.Popen(
        [sys.executable, "-m", "pepcore", "serve", *files],
        stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=environment(TERM="xterm"),
    )  # fmt: skip
    try:
        logged = os.read(own, 1 << 16).decode()
        assert logged.startswith('{"time": ') == as_json
        assert ("info    ready" in logged) != as_json
    finally:
        assert ended(daemon) == 0
        os.close(own)
        os.close(terminal)


def test_serve_runs_where_its_standard_streams_are_closed(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    line = f"exec '{sys.executable}' -m pepcore serve --policies '{COMPANY}' --socket '{socket}' <&- >&- 2>&-"
    daemon = subprocess.Popen(["/bin/sh", "-c", line], env=environment())
    try:
        for _ in range(1000):
            if socket.is_socket() or daemon.poll() is not None:
                break
            time.sleep(0.02)
        assert pepcore("check", *PERMIT, "--socket", str(socket)).returncode == 1  # the demo's entities are not there
        worker = next(int(pid) for pid in children(daemon.pid))
        for process in (daemon.pid, worker):
            assert os.readlink(f"/proc/{process}/fd/2") == "/dev/null"
    finally:
        assert ended(daemon) == 0


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_serve_on_a_set_that_does_not_load_exits_2_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "acl.cedar"
    file.write_text("permit (principal, action);\n")
    done = pepcore("serve", "--policies", str(file), "--socket", str(tmp_path / "s"))
    assert done.returncode == 2
    assert f"{file}:1: " in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_refuses_a_config_with_an_unknown_key(tmp_path: Path) -> None:
    config = tmp_path / "pepcore.toml"
    config.write_text("[daemon]\nsokcet = 'x'\n")
    done = pepcore("serve", "--config", str(config))
    assert done.returncode == 2
    assert "sokcet" in done.stderr


# ---- colours, imports ----


def on_a_terminal(*arguments: str, **env: str) -> str:
    """What a command writes to a terminal."""
    import pty

    own, terminal = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "pepcore", *arguments],
            stdin=terminal, stdout=terminal, stderr=terminal, timeout=60, env=environment(TERM="xterm", **env),
        )  # fmt: skip
        return os.read(own, 1 << 16).decode()
    finally:
        os.close(own)
        os.close(terminal)


def test_colours_only_on_a_terminal_that_wants_them(socket: str) -> None:
    arguments = ("check", *DENY, "--socket", socket)
    assert "\x1b[31mdeny\x1b[0m" in on_a_terminal(*arguments)
    assert "\x1b" not in on_a_terminal(*arguments, NO_COLOR="1")
    assert "\x1b" not in pepcore(*arguments).stdout


def test_check_imports_neither_engine_nor_daemon_nor_event_loop(socket: str) -> None:
    program = (
        "import sys; from pepcore.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'cedarpy', 'asyncio', 'uvloop', 'pepcore.server', 'pepcore.pdp', 'pepcore.cli.serve'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "check", *PERMIT, "--socket", socket]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
