"""Exactly one function can build a permit (D5): what is written in the sources, and what Python code can reach."""

import ast
import re
from pathlib import Path

import pytest

from pepcore.core.compose import compose
from pepcore.core.page import Page
from pepcore.core.verdict import Verdict, deny, settle
from pepcore.errors import PdpFault
from pepcore.flight import Flight, Partition, Passed, Times
from pepcore.model import Decision
from pepcore.modes import Modes
from pepcore.revocation import Revocation
from pepcore.settlement import Settlement

PACKAGE = Path(__file__).parents[1] / "pepcore"
CLIENT = PACKAGE.parent / "bindings/python/pepclient"
KEYWORD = re.compile(r"\bVerdict\s*\(\s*[^)\s]")


def writes(text: str) -> list[str]:
    """Every assignment to something's `permit`: tuple targets count, comparisons and keyword arguments do not."""
    found = KEYWORD.findall(text)
    for line in text.splitlines():
        targets, equals, value = line.partition("#")[0].partition("=")
        targets = targets.rpartition(":")[2]
        if equals and not value.startswith("=") and "(" not in targets:
            found += [t.strip() for t in targets.split(",") if t.strip().endswith(".permit")]
    return found


def sources() -> list[Path]:
    return [p for base in (PACKAGE, CLIENT) for p in base.rglob("*") if p.suffix in (".py", ".pyx", ".pxd")]


def function(text: str, name: str) -> str:
    """The text of a top-level function."""
    start = re.search(rf"^c?p?def [\w ]*\b{name}\(", text, re.MULTILINE)
    assert start is not None
    rest = text[start.start() :]
    end = re.search(r"\n(?=\S)", rest[1:].split(":\n", 1)[1])
    return rest[: len(rest) - len(rest[1:].split(":\n", 1)[1]) + end.start()] if end else rest


def test_exactly_one_function_can_build_a_permit():
    found = {p.relative_to(PACKAGE.parent).as_posix(): w for p in sources() if (w := writes(p.read_text()))}
    text = (PACKAGE / "core/verdict.pyx").read_text()
    slot = found.pop("pepcore/core/cache.pyx")  # of a cache entry: `put` copies what the caller settled
    assert slot == ["new.permit"]
    assert set(found) == {"pepcore/core/verdict.pyx"}
    settled, copied = function(text, "settle"), function(text, "cached_copy")
    assert len(found["pepcore/core/verdict.pyx"]) == 2
    assert re.findall(r"\.permit = .*", settled) == [".permit = True"]
    assert "if permit is True:" in settled
    assert "c.permit, c.cached" in copied, "a copy of what `settle` returned, which Python code cannot reach"
    assert "v.permit, True" in copied


@pytest.mark.parametrize(
    "text",
    [
        "    v.permit = True\n",
        "    if ok: verdict.permit = 1\n",
        "    v.permit, v.fault = True, 0\n",
        "Verdict(permit=True)",
        "x = Verdict(1)",
    ],
)
def test_the_rule_finds_a_second_constructor(text: str):
    assert writes(text) != []


def test_the_rule_passes_what_only_reads():
    assert writes("if v.permit == True:\n    return v.permit\n# v.permit = True\nv = Verdict()\n") == []


def opens(text: str) -> list[str]:
    """Every call of `settle` in Python code, and every decision that permits whatever was asked: the function it is in,
    and its first argument."""
    found = []
    for function in ast.walk(tree := ast.parse(text)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            inner = [n for n in ast.walk(function) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            theirs = {id(n) for f in inner if f is not function for n in ast.walk(f)}
            where = getattr(function, "name", "") if function is not tree else ""
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and id(call) not in theirs:
                    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
                    given = [*call.args[:1], *(k.value for k in call.keywords if k.arg == "permit")]
                    first = ast.unparse(given[0]) if given else ""
                    if name == "settle" or (name == "Decision" and first in ("True", "1")):
                        found.append(f"{where}: {name}({first})")
    return sorted(found)


def test_modes_open_up_in_three_places_that_ask_the_one_function_and_nothing_else_does():
    """`shadow` and `off` (D5) add no constructor: they ask `settle` for a permit, here and nowhere else."""
    found = {}
    for path in sources():
        text = path.read_text()
        if path.suffix != ".py" or PACKAGE / "audit" in path.parents:  # its `settle` is of deadlines
            assert path.suffix != ".py" or "core.verdict" not in text
        elif places := opens(text):
            found[path.relative_to(PACKAGE.parent).as_posix()] = places
    assert found == {
        "pepcore/settlement.py": ["preview: settle(permit)", "shared: settle(permit)"],
        "pepcore/modes.py": [": Decision(True)", "_through: settle(True)", "preview: settle(True)"],
    }


@pytest.mark.parametrize(
    "text",
    ["def f():\n    return settle(True, '', (), (), ())", "x = Decision(True)", "x = m.Decision(permit=True)",
     "class A:\n    def f(self):\n        return lambda: verdict.settle(ok)"],
)  # fmt: skip
def test_a_place_that_opens_up_is_found(text: str):
    assert len(opens(text)) == 1
    assert opens("def f(ok):\n    return Decision(ok, reason='x'), Decision(False), settled(True)") == []


def test_a_pass_is_a_permit_of_the_one_function_whose_class_nobody_can_make():
    place = Modes(Settlement(Page(5), Times()), Revocation(Page(5)))
    for mode, permits in (("enforce", False), ("shadow", True)):
        partition = Partition(1, 1, "p", mode=mode, keeps=False)
        told = place.shared(Flight(partition, compose("U::a", "read", "D::1"), {}), Decision(False, reason="no"), 0, 0)
        assert (type(told.verdict), bool(told.verdict)) == (Verdict, permits)
        assert (told.body(0)[0], isinstance(told.body(0), Passed)) == (int(permits), permits)


def test_python_code_cannot_change_a_verdict_or_make_one_that_permits():
    assert not Verdict()
    for verdict in (settle(False, "", (), (), ()), deny(PdpFault("pdp", "down"))):
        for name, value in (("permit", True), ("fault", 0), ("error", ""), ("expires_ns", 1)):
            with pytest.raises(AttributeError):
                setattr(verdict, name, value)
        with pytest.raises(TypeError):
            type("Permit", (Verdict,), {"permit": True})
        with pytest.raises(TypeError, match="ask the question where the action happens"):
            verdict.__reduce__()
        assert not verdict
    assert settle(True, "", (), (), ())
