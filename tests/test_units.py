"""The systemd units that the wheel ships: understood by systemd in every line, and hardened as they promise.

Promises: each unit is checked by systemd's own programs, offline, with the command of this environment in the place of
the installed one. Never: starts a unit, or needs systemd to be running.
"""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sysconfig
from importlib.resources import files
from pathlib import Path

import pytest

ANALYZE = shutil.which("systemd-analyze")
UNITS = ("pepcore.service", "pepcore.socket")
EXPOSURE = 10
"""The bound on systemd's exposure level, in tenths of its scale from 0 to 100."""

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="missing program: systemd-analyze (Debian: systemd)")


def text(name: str) -> str:
    return (files("pepcore.server") / "units" / name).read_text("utf-8")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they would be installed for this environment."""
    command = Path(sysconfig.get_path("scripts")) / "pepcore"
    assert command.exists(), f"{command} is missing: install this project first"
    for name in UNITS:
        (tmp_path / name).write_text(text(name).replace("/opt/pepcore/bin/pepcore", str(command)))
    return tmp_path


def verify(*paths: Path) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    # Other units of this machine are looked at too, and may be wrong; only what is said of ours counts.
    return subprocess.run([ANALYZE, "verify", *paths], capture_output=True, text=True)


def about_ours(run: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in run.stderr.splitlines() if "pepcore" in line]


@needs_systemd
def test_systemd_understands_every_line_of_the_units(units: Path) -> None:
    run = verify(*(units / name for name in UNITS))
    assert about_ours(run) == []
    assert run.returncode == 0, run.stderr


@needs_systemd
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("WatchdogSec=10", "WatchdogSec=ten"), ("ProtectHome=yes", "ProtectHouse=yes"), ("/pepcore serve", "/none serve")],
)
def test_a_wrong_line_is_found(units: Path, right: str, wrong: str) -> None:
    service = units / "pepcore.service"
    assert right in service.read_text()
    service.write_text(service.read_text().replace(right, wrong))
    assert about_ours(verify(service))


@needs_systemd
def test_the_service_exposes_little(units: Path) -> None:
    assert ANALYZE is not None
    command = [ANALYZE, "security", "--offline=yes", f"--threshold={EXPOSURE}", str(units / "pepcore.service")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    bare = units / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert subprocess.run([*command[:-1], str(bare)], capture_output=True).returncode != 0


def test_the_units_say_what_the_daemon_relies_on() -> None:
    def options(name: str) -> configparser.ConfigParser:
        parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=", comment_prefixes="#")
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text(name))
        return parser

    service, listener = options("pepcore.service")["Service"], options("pepcore.socket")["Socket"]
    assert service["Type"] == "notify"
    assert float(service["WatchdogSec"]) > 0
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryMode"]) == ("pepcore", "0750")
    assert listener["ListenStream"] == "/run/pepcore/pepcore.sock"
    assert (listener["SocketMode"], listener["DirectoryMode"]) == ("0660", "0750")
    assert listener["SocketGroup"] == service["Group"] == "pepcore"
    # A user namespace of its own would turn every peer's uid into the overflow uid.
    assert "PrivateUsers" not in service
    assert service["RestrictAddressFamilies"] == "AF_UNIX"
    for option in ("NoNewPrivileges", "MemoryDenyWriteExecute", "PrivateNetwork", "RestrictNamespaces"):
        assert service[option] == "yes", option
    assert service["ProtectSystem"] == "strict"
    assert re.search(r"^SystemCallFilter=@system-service$", text("pepcore.service"), re.M)


def test_the_account_of_the_units_is_the_one_that_is_shipped() -> None:
    assert re.search(r"^u pepcore - ", text("pepcore.sysusers"), re.M)
