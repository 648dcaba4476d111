"""What a user installs: the sdist holds everything, the wheel everything that runs, and both ways of installing work.

Promises: everything is built from a copy of this checkout in a folder of its own, by pip, in environments that hold
nothing else. Never: touches the environment or the compiled units that the tests themselves run on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from pepcore.version import VERSION

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = ("pepcore", "bindings", "tests", "benchmarks", "setup.py", "pyproject.toml", "README.md", "LICENSE",
           "CHANGELOG.md", ".ci")  # fmt: skip
GENERATED = {".so", ".pyc", ".o"}

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, fails: bool = False) -> str:
    """Run a command that knows nothing of this environment; return what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PEPCORE", "VIRT"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert (done.returncode != 0) == fails, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


class Environment:
    """An empty virtual environment, filled by the pip of this machine, as the README does it."""

    def __init__(self, path: Path) -> None:
        self.bin = path / "bin"
        run(sys.executable, "-m", "venv", "--without-pip", path, cwd=path.parent)

    def pip(self, *arguments: str | Path, cwd: Path) -> None:
        run(BASE, "-m", "pip", "--python", self.bin / "python", *arguments, cwd=cwd)


BASE = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def sources(root: Path) -> set[str]:
    """Every file written by hand below `root`, as relative paths."""
    found: set[str] = set()
    for name in SHIPPED:
        top = root / name
        paths = top.rglob("*") if top.is_dir() else [top]
        for path in paths:
            parts = path.relative_to(root).parts
            hidden = any(part == "__pycache__" or (part.startswith(".") and part != ".ci") for part in parts)
            if path.is_file() and not hidden and path.suffix not in GENERATED and parts[:2] != ("benchmarks", "out"):
                found.add(str(path.relative_to(root)))
    return found


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    for name in sources(ROOT):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
        (copy / name).chmod((ROOT / name).stat().st_mode)
    return copy


@pytest.fixture(scope="session")
def sdist(checkout: Path) -> Path:
    builder = Environment(checkout.parent / "builder")
    builder.pip("install", "-q", *PROJECT["build-system"]["requires"], cwd=checkout)
    run(builder.bin / "python", "setup.py", "-q", "sdist", "--dist-dir", "../dist", cwd=checkout)
    (archive,) = (checkout.parent / "dist").glob("*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def wheel(sdist: Path) -> Path:
    """Built from the sdist, so that an sdist that lacks a source fails here."""
    run(BASE, "-m", "pip", "wheel", "-q", "--no-deps", "-w", sdist.parent, sdist, cwd=sdist.parent)
    (path,) = sdist.parent.glob("*.whl")
    return path


def works(environment: Environment, cwd: Path) -> None:
    """Both programs are there, and the compiled core and the client can be imported, from `cwd`."""
    assert run(environment.bin / "pep", "--version", cwd=cwd) == f"pep {VERSION}\n"
    assert run(environment.bin / "pepcore", "--version", cwd=cwd) == f"pepcore {VERSION}\n"
    assert run(environment.bin / "python", "-c", ASK, cwd=cwd) == "True False\n"


ASK = """
import pepcore, pepcore.core.gate, pepclient
pep = pepcore.embedded('@id("read") permit(principal == User::"ann", action == Action::"read", resource);')
print(bool(pep.check("User::ann", "read", "Doc::1")), bool(pep.check("User::bob", "read", "Doc::1")))
"""


def test_the_sdist_holds_every_source_and_nothing_generated(checkout: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    assert sources(checkout) - names == set()
    assert {name for name in names if name.startswith("build/") or Path(name).suffix in GENERATED} == set()


def test_the_wheel_holds_what_runs_and_no_sources_of_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packages = {name for name in names if name.startswith(("pepcore/", "pepclient/"))}
    for name in ("pepcore/py.typed", "pepclient/py.typed", "pepcore/core/gate.pyi", "pepcore/core/gate.pxd",
                 "pepcore/server/units/pepcore.service", "pepcore/server/units/pepcore.socket"):  # fmt: skip
        assert name in packages
    assert {f"pepcore-{VERSION}.data/scripts/pep", f"pepcore-{VERSION}.dist-info/licenses/LICENSE"} <= names
    units = {Path(name).name.partition(".")[0] for name in packages if name.endswith(".so")}
    assert units == {path.stem for path in (ROOT / "pepcore").rglob("*.pyx")}
    assert {name for name in packages if name.endswith((".pyx", ".c"))} == set()
    assert {name.partition("/")[0] for name in names} == {
        "pepcore", "pepclient", f"pepcore-{VERSION}.data", f"pepcore-{VERSION}.dist-info"}  # fmt: skip


def test_a_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv")
    environment.pip("install", "-q", wheel, cwd=tmp_path)
    works(environment, tmp_path)
    assert "what to try next" in run(environment.bin / "pepcore", "demo", cwd=tmp_path)


@pytest.mark.parametrize("how", ["installed", "editable"])
def test_an_install_works_from_the_root_of_the_repository_and_elsewhere(
    checkout: Path, tmp_path: Path, how: str
) -> None:
    environment = Environment(tmp_path / "venv")
    environment.pip("install", "-q", *(["-e"] if how == "editable" else []), ".", cwd=checkout)
    works(environment, checkout)
    works(environment, tmp_path)


def test_a_build_flavour_that_does_not_exist_is_refused(checkout: Path, sdist: Path) -> None:
    builder = sdist.parents[1] / "builder/bin/python"
    run("/usr/bin/env", "PEPCORE_BUILD=fast", builder, "setup.py", "--version", cwd=checkout, fails=True)
    run("/usr/bin/env", "PEPCORE_BUILD=debug", builder, "setup.py", "--version", cwd=checkout)
