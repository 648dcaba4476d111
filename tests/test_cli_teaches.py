"""What help, tables and the sample config teach is what the code takes: nothing in them can rot."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pepcore.cli.policies import ABOUT, EXAMPLES
from pepcore.config import Config, Peer, Point, Policies
from pepcore.config import load as load_config
from pepcore.core.properties import builtin, check
from pepcore.errors import ObligationFault
from pepcore.pdp.cedar import load
from pepcore.pdp.cedar_annotations import KNOWN
from pepcore.pdp.cedar_lint import TYPES, lint
from pepcore.server.changes import FIXED

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "pepcore" / "core" / "OBLIGATIONS.md").read_text("utf-8")


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def table() -> dict[str, tuple[list[str], list[str], dict[str, Any]]]:
    """Type, what it needs, what it may have, and the example of each row of the page."""
    rows = re.findall(r"^\| (`[a-z-]+`) \| (.*?) ?\| ?(.*?) ?\| `(\{.*\})` \|$", PAGE, re.MULTILINE)
    return {names(t)[0]: (names(needs), names(may), json.loads(example)) for t, needs, may, example in rows}


def known(type_: str, properties: dict[str, Any]) -> set[str]:
    """The names that the core knows for a type, which it tells where it meets another one."""
    with pytest.raises(ObligationFault) as refused:
        check(type_, {**properties, "zzz": 1})
    return set(names(str(refused.value).partition("known are")[2]))


def test_the_page_names_every_type() -> None:
    assert sorted(table()) == TYPES
    assert all(builtin(type_) for type_ in table())
    assert not builtin("redactt")


@pytest.mark.parametrize("type_", TYPES)
def test_the_page_names_the_properties_that_are_taken_and_its_example_loads(type_: str) -> None:
    needs, may, example = table()[type_]
    check(type_, example)
    assert known(type_, example) == {*needs, *may}
    for name in needs:
        with pytest.raises(ObligationFault, match=f"^{name}: is missing"):
            check(type_, {key: value for key, value in example.items() if key != name})
    text = json.dumps(json.dumps([{"type": type_, "properties": example}]))
    cedar = load(f'@id("p") @obligation({text}) permit(principal, action, resource);', check_obligation=check)
    assert cedar.policies[0].notes.obligations[0].properties == example


def test_the_help_names_the_same_types_and_properties() -> None:
    rows = ABOUT.partition("(? may be left out)\n")[2].partition("\nThe daemon")[0]
    told = re.findall(r"^  ([a-z-]+) +((?:[a-z_]+\?? ?)+?)(?: {2,}.*)?$", rows, re.MULTILINE)
    assert {type_: sorted(words.split()) for type_, words in told} == {
        type_: sorted([*needs, *(f"{name}?" for name in may)]) for type_, (needs, may, _) in table().items()
    }


@pytest.mark.parametrize("text", [ABOUT.partition("obligation types")[0], PAGE.partition("## In a policy")[2]])
def test_every_annotation_is_taught(text: str) -> None:
    assert set(re.findall(r"^(?:  |\| `)@([a-z]+)\(", text, re.MULTILINE)) == KNOWN


@pytest.mark.parametrize("text", [EXAMPLES, PAGE.partition("```cedar\n")[2]])
def test_the_example_loads_and_nothing_is_wrong_with_it(text: str) -> None:
    policy = text.partition(";\n")[0] + ";"
    cedar = load(policy, check_obligation=check)
    assert (cedar.policies[0].id, cedar.policies[0].notes.obligations[0].type) == ("support-reads", "redact")
    assert [finding.rule for finding in lint(cedar) if finding.level != "info"] == []


# ---- the sample config ----

SAMPLE = ROOT / "pepcore" / "server" / "units" / "pepcore.toml"


def lines(commented: bool) -> str:
    """The sample's tables with the keys that are commented out, or with those that are not."""
    text = SAMPLE.read_text("utf-8")
    if not commented:
        return text
    shown = [line.removeprefix("#") for line in text.splitlines() if re.match(r"#?\[|#\w+ = ", line)]
    return "\n".join(shown)


def test_the_sample_config_has_every_key_with_its_default() -> None:
    told = tomllib.loads(lines(True))
    assert set(told) == set(Config.__struct_fields__)
    for section in msgspec.structs.fields(Config):
        kind = {"peers": Peer, "points": Point}.get(section.name, section.type)
        table = told[section.name]
        if section.name in ("peers", "points"):
            table = next(iter(table.values() if section.name == "points" else table))
        assert set(table) == {key.name for key in msgspec.structs.fields(kind)}
        for key in msgspec.structs.fields(kind):
            if key.default is not None:  # TOML has no word for a value that is not given: an example stands there
                assert table[key.name] == json.loads(json.dumps(key.default)), f"{section.name}.{key.name}"
    msgspec.convert(told, Config)


def test_the_sample_config_serves_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "pepcore.toml").write_text(lines(False))
    config = load_config(tmp_path / "pepcore.toml")
    assert config.policies.policies == str(tmp_path / "policies")
    assert config == msgspec.structs.replace(Config(), policies=config.policies)
    assert config.policies == Policies(policies=config.policies.policies)


def test_the_sample_config_names_what_needs_a_restart() -> None:
    head = SAMPLE.read_text("utf-8").partition("[daemon]")[0].partition("a restart is needed for")[2]
    assert sorted(names(head)) == sorted(f"{section}.{key}" for section, keys in FIXED.items() for key in keys)
