"""The README does what it says: two set-up commands, examples that run, links and paths that lead somewhere.

The set-up commands themselves are run by .ci/run (the second, word for word) and on a bare Debian by hand.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SCRIPTS = Path(sysconfig.get_path("scripts"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


EMBEDDED, CONNECTED = blocks("python")
SHELL = blocks("sh")[-1]


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """A daemon on the policies of the README's first example."""
    (policies,) = re.findall(r'"""(.*?)"""', EMBEDDED, re.S)
    (tmp_path / "acl.cedar").write_text(policies)
    path = tmp_path / "s"
    command = [SCRIPTS / "pepcore", "serve", "--policies", tmp_path / "acl.cedar", "--socket", path]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as daemon:
        until = time.monotonic() + 20
        while not path.exists():
            assert daemon.poll() is None, daemon.stderr and daemon.stderr.read().decode()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield path
        daemon.terminate()
        daemon.communicate(timeout=20)


def test_there_are_exactly_two_set_up_commands_of_one_line_each() -> None:
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("&& .venv/bin/pepcore demo")
    assert commands[1].endswith("&& .venv/bin/python -m pytest -m 'not slow'")
    for command in commands:
        assert f"```sh\n{command}\n```\n" in README
        assert " && python3 -m pip --python .venv/bin/python install -e " in command


def test_a_newcomer_is_told_where_the_programs_and_the_policies_come_from() -> None:
    used = README.partition("**Use it.**")[2].partition("## ")[0]
    before, served, _ = used.partition("`pepcore serve --policies acl.cedar`")
    assert served
    assert "`. .venv/bin/activate`" in before
    assert '`"""` above as `acl.cedar`' in before


def test_the_embedded_example_prints_what_it_says() -> None:
    says = re.findall(r"# (True .*)$", EMBEDDED, re.M)
    run = subprocess.run([sys.executable, "-c", EMBEDDED], capture_output=True, text=True)
    assert run.stdout.splitlines() == [*says, "not for bob"], run.stderr


def test_the_connected_example_permits_ann_and_denies_bob(socket: Path) -> None:
    program = f"import pepcore\n{CONNECTED}\nprint(open_document('ann', 'x'))\n"
    program += "try: open_document('bob', 'x')\nexcept pepcore.Denied: print('denied')\n"
    environment = {"PEPCORE_SOCKET": str(socket)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert run.stdout == "None\ndenied\n", run.stderr


def test_the_shell_example_permits_ann_and_denies_bob(socket: Path, tmp_path: Path) -> None:
    (tmp_path / "roadmap").write_text("the roadmap\n")
    environment = {"PEPCORE_SOCKET": str(socket), "PATH": f"{SCRIPTS}:/usr/bin:/bin"}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run(SHELL).stdout.endswith("the roadmap\n")
    denied = run(SHELL.replace("ann", "bob"))
    assert (denied.returncode, "roadmap\n" in denied.stdout) == (1, False)
    environment["PEPCORE_SOCKET"] = str(tmp_path / "none")
    assert run(SHELL).returncode == 3


def test_what_the_readme_names_is_there() -> None:
    targets = re.findall(r"\]\((?!https:)([^)#]+)", README)
    (tree,) = re.findall(r"^## What is where\n(.*?)^## ", README, re.M | re.S)
    for line in re.findall(r"^    (\S.*)$", tree, re.M):
        targets += [word for word in line.split("  ")[0].split() if word != "..."]
    assert len(targets) > 12
    folder = ROOT
    for target in targets:
        if "/" in target:
            folder = (ROOT / target).parent
        assert (ROOT / target).exists() or (folder / target).exists(), target


def test_each_guarantee_names_a_test_that_is_there() -> None:
    (said,) = re.findall(r"^## What is guaranteed\n(.*?)^## ", README, re.M | re.S)
    guarantees = said.split("\n- ")[1:]
    written = "\n".join(p.read_text("utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    assert len(guarantees) >= 12
    for guarantee in guarantees:
        named = re.findall(r"`(test_\w+)`", guarantee)
        assert named, guarantee
        assert [name for name in named if f"def {name}(" not in written] == []
