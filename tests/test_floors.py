"""The floors of DESIGN: imports and cimports point down only, and every unit is small enough to be read whole."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, CLIENT = ROOT / "pepcore", ROOT / "bindings/python/pepclient"
FLOORS = {
    "model": 0, "errors": 0, "version": 0,
    "core": 1,
    "wire": 2, "config": 2, "metrics": 2, "discharge": 2, "flight": 2, "settlement": 2, "freshness": 2, "waiting": 2,
    "answers": 2, "backlog": 2, "batches": 2, "blocks": 2, "revocation": 2, "audit": 2,
    "leases": 2, "lease": 2, "agenda": 2, "latency": 2, "denials": 2,
    "modes": 2, "pointconfig": 2, "recordconfig": 2, "peerconfig": 2, "durations": 2, "leaseroom": 2, "lockfile": 2,
    "recorded": 2,
    "pdp": 3,
    "enforcer": 4, "tenure": 4,
    "server": 5, "points": 5, "inprocess": 5,
    "cli": 6, "__main__": 6,
}  # fmt: skip
LONGEST = 320
SINGLE_HEADER = ROOT / "bindings/c/pepcore.h"


def units() -> list[Path]:
    found = [p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".pyx", ".pxd")]
    return found + [p for p in CLIENT.rglob("*.py")]


def floor(module: str) -> int | None:
    """Of a dotted name within pepcore; None: it has no floor, as the package itself, which imports lazily."""
    parts = module.split(".")
    return FLOORS.get(parts[1]) if len(parts) > 1 else None


def name_of(path: Path) -> str:
    base = CLIENT.parent if CLIENT in path.parents else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(path: Path) -> list[str]:
    """The package that relative imports of a unit count from."""
    name = name_of(path).split(".")
    return name if path.stem == "__init__" else name[:-1]


def absolute(path: Path, level: int, module: str, names: list[str]) -> list[str]:
    """The modules that `from <level dots><module> import <names>` may reach."""
    if level:
        package = package_of(path)
        base = ".".join(package[: len(package) - level + 1])
        module = f"{base}.{module}" if module else base
    return [module] if floor(module) is not None else [f"{module}.{name}" for name in names]


CYTHON = re.compile(r"^\s*from\s+(\.*)([\w.]*)\s+c?import\s+(\([^)]*\)|[^\n#]*)", re.MULTILINE)
PLAIN = re.compile(r"^\s*c?import\s+([\w., ]+)", re.MULTILINE)


def imports(path: Path, text: str | None = None) -> list[str]:
    """Every module of ours that a unit imports or cimports, also inside functions."""
    text = path.read_text() if text is None else text
    found: list[str] = []
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += absolute(path, node.level, node.module or "", [a.name for a in node.names])
    else:
        for dots, module, names in CYTHON.findall(text):
            found += absolute(path, len(dots), module, re.findall(r"\w+", names))
        found += [name.strip() for names in PLAIN.findall(text) for name in names.split(",")]
    return [name for name in found if name.split(".")[0] in ("pepcore", "pepclient")]


def upward(path: Path, text: str | None = None) -> list[str]:
    """What a unit imports and may not."""
    wrong = []
    for target in imports(path, text):
        theirs = floor(target)
        if CLIENT in path.parents:
            allowed = target.startswith(("pepclient", "pepcore.core.")) or theirs == 0
        elif target.startswith("pepclient"):
            allowed = (floor(name_of(path)) or 9) >= 5  # the CLI is a client, too
        else:
            mine = floor(name_of(path))
            allowed = mine is None or theirs is None or theirs <= mine
        if not allowed:
            wrong.append(f"{path.relative_to(ROOT)} imports {target}")
    return wrong


def test_imports_and_cimports_point_down_only():
    assert [wrong for path in units() for wrong in upward(path)] == []


def test_every_unit_has_a_floor():
    names = {name_of(p).split(".")[1] for p in units() if "." in name_of(p) and PACKAGE in p.parents}
    assert names - set(FLOORS) == set()


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("pepcore/core/cache.pyx", "from ..wire import Op\n"),
        ("pepcore/core/cache.pyx", "from .cursor cimport Buffer\nfrom ..server.clock import (\n    now,\n)\n"),
        ("pepcore/errors.py", "from .core.page import Page\n"),
        ("pepcore/errors.py", "def later():\n    from . import wire\n"),
        ("pepcore/wire.py", "import pepcore.enforcer\n"),
        ("pepcore/enforcer.py", "from .server import service\n"),
        ("bindings/python/pepclient/__init__.py", "from pepcore.wire import Op\n"),
        ("pepcore/enforcer.py", "import pepclient\n"),
    ],
)
def test_an_upward_import_is_found(unit: str, text: str):
    assert upward(ROOT / unit, text) != []
    assert upward(ROOT / unit, "from pepcore.errors import Fault\n" if "errors" not in unit else "import re\n") == []


def test_every_unit_is_small_enough_to_be_read_whole():
    long = {p.relative_to(ROOT): n for p in units() if (n := len(p.read_text().splitlines())) > LONGEST}
    assert long == {}
    assert SINGLE_HEADER.exists(), "the one that may be longer: a single header is one file by its nature"


def test_compiled_units_are_joined_by_cimport_never_by_include():
    for path in (PACKAGE / "core").glob("*.p[yx][xd]"):
        assert not re.search(r"^\s*include\s", path.read_text(), re.MULTILINE), path


def test_every_compiled_unit_begins_with_its_promises():
    for path in sorted((PACKAGE / "core").glob("*.pyx")):
        head = path.read_text().split('"""')[1]
        for word in ("Promises:", "Never:"):
            assert word in head, f"{path.name} does not say `{word}`"
