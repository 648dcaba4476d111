"""What `import pepcore` offers: every name there, none loaded before it is used, the same to a type checker."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pepclient
import pytest

import pepcore
from pepcore.core.local import Local
from pepcore.inprocess import Embedded

SOURCE = Path(pepcore.__file__).read_text()


@pytest.mark.parametrize("name", pepcore.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pepcore, name) is not None
    assert name in dir(pepcore)


def test_type_checkers_see_the_same_names() -> None:
    block = next(node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    seen = {alias.asname or alias.name for node in ast.walk(block) for alias in getattr(node, "names", [])}
    assert seen | {"__version__"} == set(pepcore.__all__)
    assert sorted(pepcore.__all__) == pepcore.__all__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="`nonsense`"):
        _ = pepcore.nonsense


def test_the_version_is_that_of_the_package_and_of_the_hello() -> None:
    assert pepcore.__version__ == importlib.metadata.version("pepcore")
    assert f"pepclient/{pepcore.__version__}" == pepclient.frames.CLIENT


def test_nothing_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, pepcore; before = sorted(m for m in sys.modules if m.startswith(('pepcore', 'pepclient')));"
        "pepcore.Entity('User', 'alice');"
        "print(before, 'pepcore.core.verdict' in sys.modules, 'msgspec' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['pepcore', 'pepcore.version'] False True"


def test_the_function_stays_callable_whichever_unit_is_imported_first() -> None:
    code = (
        "import pepcore.inprocess, pepcore; from pepcore import embedded; assert embedded is pepcore.embedded; print(1)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_the_three_forms_take_the_same_arguments() -> None:
    def shape(function: object) -> list[tuple[str, object, object]]:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
        return [(p.name, p.kind, p.default) for p in parameters if p.name != "self"]

    for name in ("check", "check_many", "enforce", "guard", "stats", "explain"):
        blocking = shape(getattr(pepcore.connect("/nowhere"), name))
        assert shape(getattr(pepcore.AsyncClient, name)) == blocking, name
        assert shape(getattr(Local if name == "check" else Embedded, name)) == blocking, name
    assert shape(pepcore.connect) == shape(pepcore.aconnect)
    for name in ("lease", "revoke"):
        assert shape(getattr(Embedded, name)) == shape(getattr(pepcore.connect("/nowhere"), name)), name
    for name in ("lease", "leases", "end_lease", "untold", "revoke", "block", "unblock", "blocks"):
        assert shape(getattr(pepcore.AsyncClient, name)) == shape(getattr(pepcore.connect("/nowhere"), name)), name


@pytest.mark.parametrize("package", ["pepcore", "pepclient"])
def test_the_packages_say_that_they_are_typed(package: str) -> None:
    assert (Path(__import__(package).__file__).parent / "py.typed").exists()
