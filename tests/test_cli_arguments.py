"""What the command line does before it asks anybody: arguments, help, policy checks, completion.

Everything runs through the installed program; no daemon is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pepcore.cli import COMMANDS, EXIT_CODES

COMPANY = Path(__file__).parent.parent / "pepcore" / "cli" / "demo" / "company"


def pepcore(*arguments: str) -> subprocess.CompletedProcess[str]:
    hidden = ("PEPCORE_CONFIG", "NO_COLOR", "RUNTIME_DIRECTORY")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [sys.executable, "-m", "pepcore", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=kept | {"PEPCORE_SOCKET": "/nowhere"},
    )  # fmt: skip


# ---- wrong arguments ----


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "usage: pepcore COMMAND"),
        (("cehck",), "`cehck` is not a command: choose one of serve, check"),
        (("check", "User::a", "read"), "SUBJECT, ACTION and RESOURCE are needed"),
        (("check", "alice", "read", "D::x"), "SUBJECT `alice` is not an entity: write it as `Type::id`"),
        (("check", "::alice", "read", "D::x"), "SUBJECT `::alice` is not an entity"),
        (("check", "User::a", "", "D::x"), "ACTION is empty"),
        (("check", "User::a", "read", "x"), "RESOURCE `x` is not an entity"),
        (("check", "User::a", "read", "D::x", "color"), "`color` is not key=json"),
        (("check", "User::a", "read", "D::x", "=1"), "`=1` is not key=json"),
        (("check", "User::a", "read", "D::x", "k=red"), "the value of `k` is not JSON"),
        (("check", "User::a", "read", "D::x", "k=" + "9" * 5000), "has 5000 digits: integers have at most 64 bits"),
        (("check", "User::a", "read", "D::x", "k=1", "k=1"), "`k` stands twice"),
        (("check", "User::a", "read", "D::x", 'k={"a":1,"a":2}'), "the key `a` stands twice"),
        (("check", "User::a", "read", "D::x", "k=NaN"), "`NaN` is no number"),
        (("check", "User::a", "read", "D::x", "k=1e999"), "larger than a number can be"),
        (("check", "User::a", "read", "D::x", 'k="\\ud800"'), "surrogate"),
        (("check", "User::a", "read", "D::x", "k=" + "[" * 40 + "]" * 40), "deep"),
        (("check", "User::a", "read", "D::x", f"k={2**64}"), "64"),
        (("check", "User::a", "read", "D::x", "k=\udcff"), "not valid UTF-8"),
        (("check", "User::a", "read", "D::x", "--on-behalf-of", "bob"), "--on-behalf-of `bob` is not an entity"),
        (("check", "User::a", "read", "D::x", *["--on-behalf-of", "U::b"] * 17), "more than 16 times"),
        (("check", "User::a", "read", "D::x", "--deadline", "0"), "`0` is not a number of milliseconds"),
        (("check", "User::a", "read", "D::x", "--deadline", "1e3"), "`1e3` is not a number of milliseconds"),
        (("check", "User::a", "read", "D::x", "--not-after", "-1"), "`-1` is not a number of Unix milliseconds"),
        (("check", "User::a", "read", "D::x", "--handles", "a,,b"), "--handles has an empty name"),
        (("check", "User::a", "read", "D::x", "--handles", "a" * 65), "pepcore: --handles must be"),
        (("check", "User::a", "read", "D::x", "--point", "p" * 65), "is longer than 64 characters: pass the name"),
        (("check", "User::a", "read", "D::x", "--point", "p" * 65), "pepcore: --point 'ppp"),
        (("check", "User::a", "read", "D::x", "--socket", ""), "--socket is empty"),
        (("check", "User::a", "read", "D::x", "--socket", "/" + "x" * 107), "pepcore: --socket '/xxx"),
        (("check", "User::a", "read", "D::x", "--socket", "/" + "x" * 107), "has 108 bytes, more than a socket's 107"),
        (("check", "User::a", "read", "D::x", "--dead", "9"), "unrecognized arguments: --dead"),
        (("check",), "no question on standard input: write one JSON object a line, or name SUBJECT"),
        (("check", "--json"), "no question on standard input"),
        (("check", "--on-behalf-of", "User::b"), "--on-behalf-of belongs to one question"),
        (("check", "User::a", "read", "D::x", "--help"), "`--help` asks for help only where it stands alone"),
        (("check", "-h", "read", "D::x"), "`-h` asks for help only where it stands alone"),
        (("check", "-hh"), "`-h` asks for help only where it stands alone"),
        (("check", "--json", "--help"), "`--help` asks for help only where it stands alone"),
        (("explain", "--help", "read", "D::x"), "`--help` asks for help only where it stands alone"),
        (("policies", "check", "--help"), "`--help` asks for help only where it stands alone"),
        (("--help", "check"), "`--help` asks for help only where it stands alone"),
        (("check", "--", "--help", "read", "D::x"), "SUBJECT `--help` is not an entity"),
        (("explain", "--", "-h", "read", "D::x"), "SUBJECT `-h` is not an entity"),
        (("check", "--", "User::a", "read", "D::x", "--socket=/x"), "the value of `--socket` is not JSON"),
        (("check", "--point", "--", "--help", "read", "D::x"), "`--point` needs a value"),
        (("check", "--point=--", "User::a", "read", "D::x"), "`--point` cannot be `--`"),
        (("--version", "x"), "`--version` stands alone"),
        (("stats", "--", "--help"), "`--help` is one word too many"),
        (("explain",), "SUBJECT, ACTION and RESOURCE are needed"),
        (("stats", "now"), "unrecognized arguments: now"),
        (("policies",), "say what to check"),
        (("policies", "check", "/nowhere"), "PATH `/nowhere` does not exist"),
        (("policies", "check", str(COMPANY), "--entities", "/nowhere"), "--entities `/nowhere` does not exist"),
        (("serve",), "there are no policies"),
        (("serve", "--policies", "/nowhere"), "--policies `/nowhere` does not exist"),
        (("serve", "--config", "/nowhere"), "`/nowhere` cannot be read"),
        (("serve", "--config", ""), "--config is empty"),
        (("completion", "tcsh"), "name one shell: bash, zsh or fish"),
        (("revoke",), "nothing is named: write --subject, --resource or --tag, or --all for everything"),
        (("revoke", "--json", "--reason", "x"), "nothing is named"),
        (("revoke", "Agent::x"), "`Agent::x` does not say what it is: write `--subject=Agent::x` or `--resource=Ag"),
        (("revoke", "payroll", "--all"), "`payroll` does not say what it is: write `--tag=payroll`"),
        (("revoke", "--all", "--", "x"), "`x` does not say what it is"),
        (("revoke", "--subject", "alice"), "--subject `alice` is not an entity: write it as `Type::id`"),
        (("revoke", "--resource", "::alice"), "--resource `::alice` is not an entity"),
        (("revoke", "--tag", ""), "--tag is empty"),
        (("revoke", "--tag", "x" * 1025), "--tag has 1025 characters"),
        (("revoke", "--all", "--tag", "x"), "--all is everything, `x` too"),
        (("revoke", *(f"--tag={n}" for n in range(1001))), "1001 are named: name at most 1000"),
        (("revoke", "--all", "--reason", "x" * 1025), "--reason: it has 1025 characters"),
        (("revoke", "--all", "--deadline", "4999"), "`4999` is not a number of milliseconds from 5000"),
        (("block",), "SUBJECT is needed, as in `pepcore block Agent::helpdesk`"),
        (("block", "alice"), "SUBJECT `alice` is not an entity"),
        (("block", "Agent::"), "SUBJECT `Agent::` has no id: write it as `Type::id`"),
        (("block", "Agent::x "), "SUBJECT `Agent::x ` has white space around its id"),
        (("unblock", 'Agent::"x'), "begins a quotation and does not end it"),
        (("revoke", "--subject", 'Agent::""'), "has no id"),
        (("revoke", "--resource", " Doc::x"), "--resource ` Doc::x` has white space around its type"),
        (("block", "U::a", "U::b"), "`U::b` is one word too many: name one SUBJECT at a time"),
        (("block", "U::a", "--for", "0s"), "`0s` is not from 1ms to 3650d"),
        (("block", "U::a", "--for", "30"), "`30` is not a duration: write it as `500ms`, `30s`"),
        (("block", "U::a", "--for", "-5m"), "`-5m` is not a duration"),
        (("block", "U::a", "--for", "1.5h"), "`1.5h` is not a duration"),
        (("block", "U::a", "--for", "3651d"), "`3651d` is not from 1ms to 3650d"),
        (("unblock",), "SUBJECT is needed"),
        (("blocks", "all"), "unrecognized arguments: all"),
        (("demo", "revoek"), "`revoek` is not a demo: write `pepcore demo` or `pepcore demo revoke`"),
        (("demo", "revoke", "now"), "`now` is not a demo"),
        (("demo", "revoke", "--seconds", "2"), "--seconds `2` is too short for `revoke`: write 3 or more"),
        (("demo", "--seconds", "0"), "`0` is not a number of seconds"),
    ],
)
def test_wrong_arguments_exit_2_and_say_what_to_do(arguments: tuple[str, ...], why: str) -> None:
    done = pepcore(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert "None" not in done.stderr  # a word of Python, for none of the command line


def test_what_a_terminal_might_obey_is_escaped() -> None:
    done = pepcore("check", "User\x1b[31m\u202e", "read", "D::x")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
    assert "\\x1b[31m\\u202e" in done.stderr


# ---- streams ----


def in_a_shell(words: str, streams: str) -> subprocess.CompletedProcess[bytes]:
    line = f"'{sys.executable}' -m pepcore {words} {streams}"
    env = {name: value for name, value in os.environ.items() if name != "PEPCORE_CONFIG"} | {"PEPCORE_SOCKET": "/no"}
    return subprocess.run(["/bin/sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, env=env)


@pytest.mark.parametrize(
    ("words", "streams", "code"),
    [
        ("check User::a read Doc::b", "2>&-", 3),
        ("check User::a read Doc::b", "2>/dev/full", 3),
        ("check User::a read Doc::b", ">&-", 3),
        ("check User::a read Doc::b", "<&- >&- 2>&-", 3),
        ("check User::a read Doc::b --json", ">&-", 3),
        ("explain User::a read Doc::b", "2>&-", 3),
        ("stats", "2>/dev/full", 3),
        ("check", "2>&-", 2),
        ("check", "<&-", 2),
        ("check User::a", "2>&-", 2),
        ("check User::a", "2>/dev/full", 2),
        ("cehck", "2>&-", 2),
        ("", "2>/dev/full", 2),
        ("serve --config /nowhere", "2>&-", 2),
        ("serve", "<&- >&- 2>&-", 2),
        ("--help", "2>&-", 0),
        ("--help", ">&-", 3),
        ("check --help", ">&-", 3),
        ("--version", ">/dev/full", 3),
        (f"policies check {COMPANY}", "2>&-", 0),
        (f"policies check {COMPANY}", ">&-", 3),
    ],
)
def test_exit_codes_keep_their_meaning_where_a_stream_is_closed_or_full(words: str, streams: str, code: int) -> None:
    done = in_a_shell(words, streams)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr


def test_an_answer_that_cannot_be_written_says_so() -> None:
    done = in_a_shell("--version", ">&-")
    assert done.stderr.startswith(b"pepcore: fault: standard output cannot be written (Bad file descriptor): send it")
    assert in_a_shell("--version", "").returncode == 0


# ---- policies check ----


def test_a_set_that_does_not_load_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "acl.cedar"
    file.write_text('@id("a")\npermit (principal, action, resource);\n\npermit (principal, action);\n')
    done = pepcore("policies", "check", str(file))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{file}:4: error: ")
    assert "does not load" in done.stdout
    data = pepcore("policies", "check", str(file), "--json")
    told = json.loads(data.stdout)
    assert (data.returncode, told["ok"]) == (1, False)
    assert (told["findings"][0]["file"], told["findings"][0]["line"]) == (str(file), 4)


def test_every_load_error_is_a_finding_of_its_own_line(tmp_path: Path) -> None:
    file = tmp_path / "acl.cedar"
    file.write_text("permit (\n  principal,\n  action actoin,\n  resource);\nforbid ();\n")
    done = pepcore("policies", "check", str(file))
    assert [row.partition(" error: ")[0] for row in done.stdout.splitlines()[:-1]] == [f"{file}:3:", f"{file}:5:"]
    told = json.loads(pepcore("policies", "check", str(file), "--json").stdout)
    assert [finding["line"] for finding in told["findings"]] == [3, 5]
    serve = pepcore("serve", "--policies", str(file), "--socket", str(tmp_path / "s"))
    assert [row.partition(": ")[2].partition(": ")[0] for row in serve.stderr.splitlines()] == [
        f"{file}:3",
        f"{file}:5",
    ]
    assert serve.returncode == 2


def test_a_file_that_cannot_be_read_has_no_line(tmp_path: Path) -> None:
    done = pepcore("policies", "check", str(tmp_path))
    assert (done.returncode, done.stdout.startswith(f"{tmp_path}: error: the folder has no *.cedar")) == (1, True)
    config = tmp_path / "pepcore.toml"
    config.write_text('[policies]\npolicies = "gone"\n')
    serve = pepcore("serve", "--config", str(config), "--socket", str(tmp_path / "s"))
    assert serve.stderr.startswith(f"pepcore: {tmp_path / 'gone'}: cannot read: No such file")


def test_an_obligation_that_no_point_could_discharge_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "acl.cedar"
    text = '@id("a")\n@obligation("[{\\"type\\": \\"redact\\", \\"properties\\": {\\"%s\\": [\\"/a\\"]}}]")\n'
    text += "permit (principal, action, resource);\n"
    file.write_text(text % "fields")
    assert pepcore("policies", "check", str(file)).returncode == 0
    file.write_text(text % "feilds")
    done = pepcore("policies", "check", str(file))
    assert done.returncode == 1
    assert "`redact`: fields: is missing" in done.stdout


def test_findings_that_are_errors_exit_1_and_warnings_0(tmp_path: Path) -> None:
    file = tmp_path / "acl.cedar"
    file.write_text("permit (principal, action, resource);\n")
    warned = pepcore("policies", "check", str(file))
    assert (warned.returncode, "[no-id]" in warned.stdout) == (0, True)
    file.write_text('@id("f")\nforbid (principal, action, resource) when { context.amount > 5 };\n')
    wrong = pepcore("policies", "check", str(file))
    assert (wrong.returncode, "[can-raise]" in wrong.stdout) == (1, True)
    data = json.loads(pepcore("policies", "check", str(file), "--json").stdout)
    assert [f["rule"] for f in data["findings"] if f["level"] == "error"] == ["can-raise"] * len(
        [f for f in data["findings"] if f["level"] == "error"]
    )
    assert data["findings"]


# ---- help, completion ----


def test_the_help_lists_every_command_and_the_exit_codes() -> None:
    done = pepcore("--help")
    assert done.returncode == 0
    assert EXIT_CODES in done.stdout
    for command, summary in COMMANDS.items():
        assert any(row.split() == [command, *summary.split()] for row in done.stdout.splitlines())
    for name in ("NO_COLOR", "PEPCORE_SOCKET", "PEPCORE_CONFIG"):
        assert name in done.stdout


@pytest.mark.parametrize("command", ["check", "explain"])
def test_the_help_says_where_foreign_words_go(command: str) -> None:
    said = pepcore(command, "-h")
    assert said.returncode == 0
    assert '-- "$subject" read "$document"' in said.stdout.partition("\nexamples\n")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_teaches(command: str) -> None:
    done = pepcore(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: pepcore {command}")
    assert "\nexamples\n" in done.stdout
    assert f"  pepcore {command}" in done.stdout.partition("\nexamples\n")[2] or command == "completion"
    assert EXIT_CODES in done.stdout
    assert "--json" in done.stdout
    assert all(len(row) <= 110 for row in done.stdout.splitlines() if not row.startswith("/"))  # where it is installed


def test_the_version_is_told() -> None:
    from pepcore.version import VERSION

    assert pepcore("--version").stdout == f"pepcore {VERSION}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("pepcore exp", ["explain"]),
        ("pepcore check --dead", ["--deadline"]),
        ("pepcore bl", ["block", "blocks"]),
        ("pepcore revoke --s", ["--subject", "--socket"]),
        ("pepcore block --f", ["--for"]),
        ("pepcore block --for ", []),
        ("pepcore demo r", ["revoke"]),
        ("pepcore policies ch", ["check"]),
        ("pepcore completion z", ["zsh"]),
        ("pepcore serve --policies ", []),
    ],
)
def test_the_bash_completion_loads_and_completes(tmp_path: Path, typed: str, offered: list[str]) -> None:
    script = tmp_path / "completion"
    script.write_text(pepcore("completion", "bash").stdout)
    program = (
        f"set -eu; source {script}; complete -p pepcore > /dev/null; COMP_LINE='{typed}'; "
        f"read -ra COMP_WORDS <<< \"$COMP_LINE\"; [[ $COMP_LINE != *' ' ]] || COMP_WORDS+=(''); "
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _pepcore; echo ${COMPREPLY[@]+"${COMPREPLY[@]}"}'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_completions_name_every_command_and_parse_where_their_shell_is(shell: str, tmp_path: Path) -> None:
    script = pepcore("completion", shell).stdout
    assert json.loads(pepcore("completion", shell, "--json").stdout) == {"shell": shell, "script": script.rstrip("\n")}
    for command in COMMANDS:
        assert command in script
    assert "on-behalf-of" in script
    if shutil.which(shell):
        file = tmp_path / "completion"
        file.write_text(script)
        assert subprocess.run([shell, "-n", str(file)], timeout=20).returncode == 0
