"""Exactly one function can build a permit (D5): what is written in the sources, and what Python code can reach."""

import re
from pathlib import Path

import pytest

from pepcore.core.verdict import Verdict, deny, settle
from pepcore.errors import PdpFault

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
