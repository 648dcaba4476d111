"""`pep`: exit status, arguments, what it prints, where it finds the socket."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import frames
import msgspec
import pytest
from harness import COMPILER, ROOT, SANITIZE, Peer, compile_c, read_frame, verdict, welcome

Run = Callable[..., subprocess.CompletedProcess[str]]
Serve = Callable[..., Peer]
QUESTION = ("check", "User::alice", "read", "Document::roadmap")


@pytest.fixture(params=["pep", "pep-sanitized"])
def pep(request: pytest.FixtureRequest, programs: dict[str, Path]) -> Run:
    def run(
        *arguments: str | bytes, preexec_fn: Callable[[], None] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if key not in ("PEPCORE_SOCKET", "XDG_RUNTIME_DIR")}
        command = [programs[request.param], *arguments]
        env = {**clean, **environment}
        return subprocess.run(command, capture_output=True, text=True, env=env, preexec_fn=preexec_fn)

    return run


def answers(permit: int, **payload: Any) -> Callable[[socket.socket, int], None]:
    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        _, request_id, _ = read_frame(peer)
        peer.sendall(welcome() + verdict(request_id, permit, **payload))

    return behave


def test_the_exit_status_is_the_answer(pep: Run, serve: Serve, tmp_path: Path) -> None:
    permit = serve(answers(1, reason="owner", policies=["p1", "p2"]), "permit").path
    deny = serve(answers(0), "deny").path
    odd = serve(answers(2), "odd").path
    done = {path: pep(*QUESTION, "--socket", str(path)) for path in (permit, deny, odd, tmp_path / "none")}
    assert [run.returncode for run in done.values()] == [0, 1, 3, 3]
    assert done[permit].stdout == "permit: owner (by p1, p2)\n"
    assert done[deny].stdout == "deny: no policy permits this\n"
    assert done[odd].stdout == ""
    assert "(bad-frame), so deny: the daemon's verdict is malformed" in done[odd].stderr
    none = f"(unreachable), so deny: no daemon at `{tmp_path / 'none'}`: No such file or directory: "
    advice = "start it with `pepcore serve`, or name its socket in PEPCORE_SOCKET\n"
    assert done[tmp_path / "none"].stderr == f"pep: no verdict {none}{advice}"


def test_the_question_is_what_the_arguments_say(pep: Run, serve: Serve) -> None:
    seen: list[tuple[Any, Any]] = []

    def behave(peer: socket.socket, _: int) -> None:
        hello = msgspec.msgpack.decode(read_frame(peer)[2])
        body = read_frame(peer)[2]
        seen.append((hello["point"], body))
        peer.sendall(welcome() + verdict(2))

    path = str(serve(behave).path)
    options = ["--on-behalf-of", "User::bob", "--on-behalf-of=Group::x::y", "--not-after", "1795000000000"]
    run = pep(*QUESTION, 'dept="eng"', "n=[1,2.5]", *options, "--point", "ci", "--deadline=1500", "--socket", path)
    assert run.returncode == 0
    chain = [["User", "bob", {}], ["Group", "x::y", {}]]
    context = {"dept": "eng", "n": [1, 2.5]}
    question = frames.pack([["User", "alice", {}], ["read", {}], ["Document", "roadmap", {}], context, chain])
    point, body = seen[0]
    assert (point, body[: len(question)]) == ("ci", question)
    deadline = int.from_bytes(body[len(question) : len(question) + 4], "little")
    assert 500_000 < deadline <= 1_500_000
    assert body[len(question) + 4 :] == (1795000000000).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "a command is needed"),
        (("ask",), "`ask` is not a command"),
        (("check",), "SUBJECT, ACTION and RESOURCE are needed"),
        (("check", "alice", "read", "D::b"), "subject `alice` has no type"),
        ((*QUESTION, "dept"), "`dept` is not key=json"),
        ((*QUESTION, "=1"), "`=1` has no key"),
        ((*QUESTION, "dept=eng"), "a string needs quotes of its own: 'key=\"text\"'"),
        ((*QUESTION, "k=1", "k=2"), "`k` is given twice in context"),
        ((*QUESTION, "k=NaN"), "is not valid JSON"),
        ((*QUESTION, "--colour"), "`--colour` is not an option"),
        ((*QUESTION, "--point"), "`--point` needs a value"),
        ((*QUESTION, "--deadline", "0"), "is not a number of milliseconds"),
        ((*QUESTION, "--deadline", "-5"), "is not a number of milliseconds"),
        ((*QUESTION, "--not-after", "18446744073709551616"), "is not a number of Unix milliseconds"),
        ((*QUESTION, "--on-behalf-of", "bob"), "on-behalf-of `bob` has no type"),
        ((*QUESTION, "--point", "p" * 65), f"point `{'p' * 20}...` has 65 characters, more than 64: use a shorter one"),
        ((*QUESTION, "--point", b"\xff"), "point is not valid UTF-8"),
        ((*QUESTION, "--socket", "/" + "x" * 200), "the socket's path has over 107 bytes"),
        ((*QUESTION, "--socket", ""), "--socket is empty"),
        (("check", b"User::\xff", "read", "D::b"), "subject is not valid UTF-8"),
        (("--help", "check"), "`--help` stands alone"),
        ((*QUESTION, "--help"), "`--help` asks for help only where it stands alone"),
        (("check", "-h", "read", "D::b"), "`-h` asks for help only where it stands alone"),
        (("check", "--json", "-h"), "`-h` asks for help only where it stands alone"),
        (("check", "--", "--help", "read", "D::b"), "subject `--help` has no type"),
        ((*QUESTION, "--point", "--", "--socket=/x"), "`--point` needs a value"),
    ],
)
def test_wrong_arguments_ask_nothing(pep: Run, serve: Serve, arguments: tuple[str, ...], complaint: str) -> None:
    peer = serve()
    run = pep(*arguments, PEPCORE_SOCKET=str(peer.path))
    assert (run.returncode, run.stdout, peer.connections) == (2, "", 0)
    assert complaint in run.stderr
    assert "try `pep --help`" in run.stderr
    assert pep(*QUESTION, "k=1", PEPCORE_SOCKET=str(peer.path)).returncode == 0


def test_the_value_of_an_option_is_a_value_and_no_option_stands_behind_two_dashes(pep: Run, serve: Serve) -> None:
    points: list[str] = []

    def behave(peer: socket.socket, _: int) -> None:
        points.append(msgspec.msgpack.decode(read_frame(peer)[2])["point"])
        read_frame(peer)
        peer.sendall(welcome() + verdict(2))

    permits = str(serve(behave).path)
    denies = str(serve(answers(0), "deny").path)
    for words in (("--point", "--help"), ("--point=--",), ("--point", "-h")):
        assert pep(*QUESTION, *words, "--socket", permits).returncode == 0
        assert pep(*QUESTION, *words, "--socket", denies).returncode == 1
    assert points == ["--help", "--", "-h"]
    for subject, action in (("-x::a", "--help"), ("User::a", "-h")):
        assert pep("check", "--socket", permits, "--", subject, action, "D::b").returncode == 0
        assert pep("check", "--socket", denies, "--", subject, action, "D::b").returncode == 1
    moved = pep("check", "--socket", denies, "--", *QUESTION[1:], f"--socket={permits}")
    assert (moved.returncode, moved.stdout) == (2, "")


def test_the_socket_is_found_by_argument_then_environment_then_run_directory(
    pep: Run, serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "pepcore").mkdir()
    argument, variable, run = serve(name="a"), serve(name="v"), serve(name="pepcore/pepcore.sock")
    environment = {"PEPCORE_SOCKET": str(variable.path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert pep(*QUESTION, "--socket", str(argument.path), **environment).returncode == 0
    assert pep(*QUESTION, **environment).returncode == 0
    assert pep(*QUESTION, **{**environment, "PEPCORE_SOCKET": ""}).returncode == 0
    assert (argument.connections, variable.connections, run.connections) == (1, 1, 1)
    assert "/run/pepcore/pepcore.sock" in pep(*QUESTION, XDG_RUNTIME_DIR=str(tmp_path / "other")).stderr


def test_json_shows_the_whole_verdict(pep: Run, serve: Serve) -> None:
    obligations = [["o1", "mask", {"fields": ["ssn"], "keep": 4, "rate": 0.1}]]
    path = serve(answers(1, reason="r\u00e9", policies=["p"], obligations=obligations)).path
    run = pep(*QUESTION, "--json", "--socket", str(path))
    shown = json.loads(run.stdout)
    assert run.returncode == 3, "pep discharges no obligation"
    assert (shown["permit"], shown["fault"], shown["reason"], shown["policies"]) == (
        False,
        "obligation",
        "r\u00e9",
        ["p"],
    )
    assert shown["obligations"] == [{"id": "o1", "type": "mask", "properties": obligations[0][2]}]
    assert shown["id"] == str(frames.DECISION)
    plain = pep(*QUESTION, "--json", "--socket", str(serve(answers(1), "permit").path))
    assert (plain.returncode, json.loads(plain.stdout)["permit"], json.loads(plain.stdout)["fault"]) == (0, True, None)


def test_the_name_of_a_fault_stands_once_beside_its_error(pep: Run, serve: Serve) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        _, number, _ = read_frame(peer)
        payload = frames.pack({"reason": "refused: subject: may not be asked for"})
        body = frames.verdict(0, payload)
        peer.sendall(welcome() + frames.frame(frames.CHECK | 0x80, number, body[:1] + b"\x04" + body[2:], partition=1))

    path = str(serve(behave).path)
    told = json.loads(pep(*QUESTION, "--json", "--socket", path).stdout)
    assert (told["permit"], told["fault"], told["error"]) == (False, "refused", "subject: may not be asked for")
    text = pep(*QUESTION, "--socket", path)
    assert (text.returncode, text.stderr) == (3, "pep: no verdict (refused), so deny: subject: may not be asked for\n")
    assert pep(*QUESTION, "--socket", str(serve(answers(1), "permit").path)).returncode == 0


def test_quiet_prints_nothing(pep: Run, serve: Serve, tmp_path: Path) -> None:
    for path, status in ((serve().path, 0), (tmp_path / "none", 3)):
        run = pep(*QUESTION, "--quiet", "--socket", str(path))
        assert (run.returncode, run.stdout, run.stderr) == (status, "", "")


def test_text_from_the_daemon_cannot_drive_a_terminal(pep: Run, serve: Serve) -> None:
    path = serve(answers(0, reason="\x1b[2J\u009b2J\r\nplain \u00e9", policies=["\x07"])).path
    run = pep(*QUESTION, "--socket", str(path))
    assert run.stdout == "deny: \\u001b[2J\\u009b2J\\u000d\\u000aplain \u00e9 (by \\u0007)\n"


def test_an_answer_that_could_not_be_written_is_no_permit(programs: dict[str, Path], serve: Serve) -> None:
    command = [programs["pep"], *QUESTION, "--socket", str(serve().path)]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, stdout=full).returncode == 3
    with Path(os.devnull).open("w") as null:
        assert subprocess.run(command, stdout=null).returncode == 0


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_with_standard_streams_closed_nothing_is_written_into_the_socket(
    pep: Run, serve: Serve, closed: tuple[int, ...]
) -> None:
    """Whoever waits for the answer on a closed stdout does not get it: then the status must not say permit."""
    after: list[bytes] = []

    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        read_frame(peer)
        peer.sendall(welcome() + verdict(2))
        after.append(peer.recv(4096))

    path = str(serve(behave).path)

    def close() -> None:
        for number in closed:
            os.close(number)

    for more, status in (((), 3 if 1 in closed else 0), (("--quiet",), 0), (("--json",), 3 if 1 in closed else 0)):
        assert pep(*QUESTION, *more, "--socket", path, preexec_fn=close).returncode == status
    assert pep("--help", preexec_fn=close).returncode == (3 if 1 in closed else 0)
    assert pep("nonsense", preexec_fn=close).returncode == 2
    assert after == [b""] * 3


def test_help_teaches_and_version_tells(pep: Run) -> None:
    for arguments in (("--help",), ("-h",), ("check", "--help"), ("check", "-h")):
        run = pep(*arguments)
        assert run.returncode == 0
        assert all(word in run.stdout for word in ("exit status", "examples", "--on-behalf-of", "PEPCORE_SOCKET"))
        assert '-- "$subject" read' in run.stdout
        assert all(len(line) <= 100 for line in run.stdout.splitlines())
    assert pep("--version").stdout == "pep 0.1.0\n"


def test_the_header_is_cplusplus_too(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source = tmp_path / "x.cc"
    source.write_text('#define PEPCORE_IMPLEMENTATION\n#include "pepcore.h"\nint main() { return 0; }\n')
    command = [compiler, "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/bindings/c", str(source), "-o", str(tmp_path / "x")]
    subprocess.run(command, check=True)


def test_the_example_of_the_readme_compiles_and_permits(tmp_path: Path, serve: Serve) -> None:
    readme = (ROOT / "bindings/c/README.md").read_text()
    source = tmp_path / "example.c"
    source.write_text(readme.split("```c\n", 1)[1].split("```", 1)[0])
    program = compile_c(source, tmp_path / "example", *SANITIZE)
    for path, status in ((serve().path, 0), (tmp_path / "none", 1)):
        environment = {**os.environ, "PEPCORE_SOCKET": str(path)}
        assert subprocess.run([program], env=environment).returncode == status


def test_two_files_share_one_implementation(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text('#define PEPCORE_IMPLEMENTATION\n#include "pepcore.h"\n')
    (tmp_path / "b.c").write_text('#include "pepcore.h"\nint main(void) { return pep_fault_name(0) == 0; }\n')
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/bindings/c", "-o", str(tmp_path / "two")]
    assert COMPILER is not None
    subprocess.run([COMPILER, tmp_path / "a.c", tmp_path / "b.c", *flags], check=True)
    subprocess.run([tmp_path / "two"], check=True)


@pytest.mark.parametrize(
    ("given", "carried"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", False),
        ("00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01", False),
        ("", False),
        ("x" * 5000, False),
    ],
)
def test_a_trace_is_carried_and_one_that_is_malformed_ignored(pep: Run, serve: Serve, given: str, carried: bool):
    seen: list[bytes] = []

    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        _, request_id, body = read_frame(peer)
        seen.append(body)
        peer.sendall(welcome() + verdict(request_id, 1))

    path = str(serve(behave).path)
    run = pep(*QUESTION, "--traceparent", given, "--not-after", "1795000000000", "--socket", path)
    assert (run.returncode, run.stderr) == (0, "")
    trace = bytes.fromhex(given[3:].replace("-", "")) if carried else b""
    limit = (1795000000000).to_bytes(8, "little")
    assert seen[0].endswith(limit + trace)


def test_a_trace_costs_no_question_its_room(pep: Run, serve: Serve) -> None:
    """One that fits a frame without its trace, and not with it, is asked without."""
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    seen: list[int] = []

    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        _, request_id, body = read_frame(peer)
        seen.append(len(body))
        peer.sendall(welcome() + verdict(request_id, 1))

    path = str(serve(behave).path)
    for size in (65000, 65450):
        run = pep(*QUESTION, f'a="{"x" * size}"', "--traceparent", traceparent, "--socket", path)
        assert run.returncode == 0, run.stderr
    bare = seen[0] - 25 - 65000
    assert (seen[1] - 65450 - bare) in (0, 25)
    size = 65536 - bare - 24
    assert pep(*QUESTION, f'a="{"x" * size}"', "--traceparent", traceparent, "--socket", path).returncode == 0
    assert seen[2] == size + bare
    size -= 1
    assert pep(*QUESTION, f'a="{"x" * size}"', "--traceparent", traceparent, "--socket", path).returncode == 0
    assert seen[3] == size + bare + 25
