"""`pepcore policies check`: is this policy set fit to go live?

Promises: what the daemon would refuse to load is an error with file and line; what loads and is still wrong is a
finding (`pdp/cedar_lint`); exit 1 on errors, 0 on warnings only. Never: needs a daemon, or changes a file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .parser import Parser, Usage
from .terminal import as_json, coloured, paint, plain, say

if TYPE_CHECKING:
    from ..pdp.cedar_lint import Finding

ABOUT = r"""Loads the set as the daemon does, then looks for what may load and is still wrong: a forbid that can
fail (error), a policy that never decides, a missing or misspelt annotation, an obligation type that
pepcore does not discharge (warning), entity types that questions may bring (info). PATH is a file, or a
folder of *.cedar files. Where a set does not load, all that is wrong is told at once.

annotations that are read; others are yours
  @id("name")           names the policy in answers and logs; no two have the same
  @reason("text")       told to whoever asks, where this policy decides
  @ttl("30s")           how long its decision may be reused: ms, s, m or h; "0s": not at all
  @tag("[\"team-a\"]")  names that a revoke may hit, as a JSON list
  @obligation("[...]")  what must be done for a permit to stand: a JSON list of
                        {"type": ..., "properties": {...}}, with an "id" if you like

obligation types and their properties (? may be left out)
  redact         fields               null where these JSON Pointers lead: ["/ssn", "/items/*/price"]
  mask           fields style salt?   style is "fixed", "last-4", or "hash" with a salt
  drop           fields               these members, items or columns are gone
  keep           fields               nothing else is left
  limit          rows                 the first so many rows
  set-header     name value           one header of that name and no other
  remove-header  name                 no header of that name
  window         not_before? not_after? daily?
                                      at least one; "2026-01-31T09:00:00Z", in UTC;
                                      daily is {"start": "08:00", "end": "18:00"}
  rate           count per? per_ms?   so many in each "1s", "5m", "1h" or "1d" (or milliseconds)
  notify         to body topic?       a line in the file that the config names
  approve        acr_value? amr_values?
                                      nobody can do that yet: always a deny
  end-session    subject              nobody can do that yet: always a deny
The daemon sees to window, rate and notify. Callers do the others, and say so in `--handles`."""

EXAMPLES = r"""  @id("support-reads") @ttl("30s") @reason("support may look, not see everything")
  @obligation("[{\"type\": \"redact\", \"properties\": {\"fields\": [\"/ssn\"]}}]")
  permit (principal in Role::"support", action == Action::"read", resource is Customer);

  pepcore policies check ./policies
  pepcore policies check ./policies --entities entities.json --schema company.cedarschema
  pepcore policies check ./policies --json | jq '.findings[] | select(.level == "error")'"""

_COLOURS = {"error": "red", "warning": "yellow", "info": "dim"}


def configure(parser: Parser) -> None:
    parser.usage = "pepcore policies check PATH [--entities FILE] [--schema FILE] [--json]"
    parser.add_argument("words", nargs="*", metavar="WORD", help=argparse.SUPPRESS)
    parser.add_argument("--entities", metavar="FILE", help="the entity store, in Cedar's JSON form")
    parser.add_argument("--schema", metavar="FILE", help="the schema, in Cedar's syntax or as JSON")
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    if len(options.words) != 2 or options.words[0] != "check":
        raise Usage("policies", "say what to check, as in `pepcore policies check ./policies`")
    path = existing(options.words[1], "PATH", "policies")
    entities = existing(options.entities, "--entities", "policies") if options.entities is not None else None
    schema = existing(options.schema, "--schema", "policies") if options.schema is not None else None
    from ..core.properties import check
    from ..errors import PolicyError
    from ..pdp.cedar import load
    from ..pdp.cedar_lint import lint

    try:
        cedar = load(path, entities, schema, check_obligation=check)
    except PolicyError as error:
        broken = {"level": "error", "rule": "load", "policy": ""}
        return _report(options.json, 0, [{**broken, "file": f, "line": n, "message": why} for f, n, why in error.each])
    return _report(options.json, len(cedar.policies), [_row(finding) for finding in lint(cedar)])


def existing(name: str, place: str, command: str) -> Path:
    """The path, if something is there. Raises Usage."""
    path = Path(name)
    if not name or not path.exists():
        raise Usage(command, f"{place} `{name}` does not exist: check the path")
    return path


def _row(finding: Finding) -> dict[str, Any]:
    names = ("level", "rule", "file", "line", "policy", "message")
    return {name: getattr(finding, name) for name in names}


def _report(json: bool, policies: int, findings: list[dict[str, Any]]) -> int:
    errors = sum(f["level"] == "error" for f in findings)
    if json:
        say(as_json({"ok": not errors, "policies": policies, "findings": findings}))
        return 1 if errors else 0
    colours = coloured(sys.stdout)
    for f in findings:
        line = f":{f['line']}" if f["line"] else ""
        where = f"{f['file']}{line}: " if f["file"] else ""
        about = f"`{f['policy']}` " if f["policy"] else ""
        level = paint(f["level"], _COLOURS.get(f["level"], "dim"), colours)
        say(f"{plain(where)}{level}: {plain(about + f['message'])} [{f['rule']}]")
    warnings = sum(f["level"] == "warning" for f in findings)
    if any(f["rule"] == "load" for f in findings):
        say("the set does not load: a daemon would keep the one it has")
    else:
        say(f"{policies} policies: {errors} errors, {warnings} warnings")
    return 1 if errors else 0
