"""Each stub of the compiled core agrees with its module: the same public names, and the same parameters."""

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from pepcore import errors

CORE = Path(__file__).parents[1] / "pepcore/core"
STUBS = sorted(path.stem for path in CORE.glob("*.pyi"))


def stub(name: str) -> dict[str, ast.AST]:
    """Public names that a stub defines, or imports `as` themselves."""
    found: dict[str, ast.AST] = {}
    for node in ast.parse((CORE / f"{name}.pyi").read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.ImportFrom):
            found |= {a.name: node for a in node.names if a.asname == a.name}
    return found


def members(node: ast.ClassDef) -> dict[str, ast.AST]:
    named = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
    return named | {
        n.target.id: n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }


def own(module: Any) -> set[str]:
    """Public names that a module made itself: what it imported has another home."""
    found = set()
    for name, value in vars(module).items():
        home = getattr(value, "__module__", None)
        imported = getattr(errors, name, None) is value
        if name[0] != "_" and not inspect.ismodule(value) and not imported and home in (None, module.__name__):
            found.add(name)
    return found


def parameters(node: ast.FunctionDef, *, method: bool) -> list[tuple[str, bool]]:
    """(name, whether it may be left out) of a stub's function, without self."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    optional = [False] * (len(positional) - len(a.defaults)) + [True] * len(a.defaults)
    both = [(p.arg, o) for p, o in zip(positional, optional, strict=True)][1 if method else 0 :]
    return both + [(p.arg, d is not None) for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]


def real_parameters(value: Any, *, method: bool) -> list[tuple[str, bool]]:
    found = list(inspect.signature(value).parameters.values())[1 if method else 0 :]
    return [(p.name, p.default is not p.empty) for p in found]


def disagreements(name: str, text: dict[str, ast.AST]) -> list[str]:
    module = importlib.import_module(f"pepcore.core.{name}")
    wrong = [f"{n} is not in the stub" for n in sorted(own(module) - set(text))]
    for public, node in text.items():
        if not hasattr(module, public):
            wrong.append(f"{public} is not in the module")
        elif isinstance(node, ast.FunctionDef):
            if parameters(node, method=False) != real_parameters(getattr(module, public), method=False):
                wrong.append(f"{public} has other parameters")
        elif isinstance(node, ast.ClassDef):
            kind, told = getattr(module, public), members(node)
            real = {n for n in vars(kind) if not n.startswith("_")}
            wrong += [f"{public}.{n} is only in one of them" for n in real ^ {n for n in told if n[0] != "_"}]
            for n in real & set(told):
                function = told[n]
                if isinstance(function, ast.FunctionDef) and not function.decorator_list:
                    try:
                        given = real_parameters(getattr(kind, n), method=True)
                    except ValueError:  # a slot wrapper tells nothing about itself
                        continue
                    if parameters(function, method=True) != given:
                        wrong.append(f"{public}.{n} has other parameters")
    return wrong


@pytest.mark.parametrize("name", STUBS)
def test_stubs_agree_with_modules(name: str):
    assert disagreements(name, stub(name)) == []


def test_every_compiled_unit_with_public_names_has_a_stub():
    for path in CORE.glob("*.pyx"):
        if path.stem not in STUBS:
            assert own(importlib.import_module(f"pepcore.core.{path.stem}")) == set(), path.stem


def test_a_stub_that_disagrees_is_found():
    text = stub("verdict")
    assert isinstance(text["deny"], ast.FunctionDef)
    text["deny"].args.kwonlyargs.pop()
    text["deny"].args.kw_defaults.pop()
    del text["read"]
    assert isinstance(text["Verdict"], ast.ClassDef)
    text["Verdict"].body.pop()
    text["missing"] = text["deny"]
    assert len(disagreements("verdict", text)) == 4
