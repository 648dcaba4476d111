"""`pepcore replay`: which verdicts on record would other policies have changed, and why?

Promises: needs no daemon, and changes nothing; every question is decided again as of the time when it was asked; what
could not be decided again is counted and said, with the attributes that hide it. Exit 0 only where all of the record
could be read and nothing in it changes.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .configured import config_of
from .parser import Parser, Usage
from .policies import existing
from .record import add_journal, add_span, journal, span
from .terminal import as_json, coloured, paint, plain, say

if TYPE_CHECKING:
    from ..audit.query import Query
    from ..audit.replay import Change, Report, Side

ABOUT = """Decides the questions of the record once more, with the policies, entities and schema given here, and shows
which verdicts change: grouped by old and new policies and reasons, each with examples and with how often
it was served. Give the entities that are in use, too, unless they are to change: without --entities there are
none. Of the daemon's --config it takes where the record is, and the types that requests may bring.

A question can be decided again where the record has all of it: attributes that the config's `record.plain`
does not name are digests, and what they hide is counted. Blocks, deadlines, rates and what a point can
discharge are no policies: what they decided is counted apart. Obligations are compared by type.
Exit 1 where something changes; a damaged record is read up to its damage, and then nothing is exit 0."""

EXAMPLES = """  pepcore replay --policies ./policies.new --entities entities.json
  pepcore replay --policies ./policies --entities entities.json --since 24h --point payments
  pepcore replay --policies new.cedar --subject 'Agent::*' --journal /var/lib/pepcore/journal --json"""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore replay --policies PATH [options]"
    parser.add_argument("--policies", metavar="PATH", help="the new policies: a file, or a folder of *.cedar files")
    parser.add_argument("--entities", metavar="FILE", help="the entity store, in Cedar's JSON form")
    parser.add_argument("--schema", metavar="FILE", help="the schema, in Cedar's syntax or as JSON")
    add_journal(parser)
    add_span(parser)
    parser.add_argument("--point", metavar="PATTERN", default="", help="pattern of the point; * stands for anything")
    parser.add_argument("--subject", metavar="PATTERN", default="", help="pattern of Type::id, or of a chain member")
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    if options.policies is None:
        raise Usage("replay", "say which policies: pass `--policies PATH`")
    paths = [
        None if (given := getattr(options, name)) is None else existing(given, f"--{name}", "replay")
        for name in ("policies", "entities", "schema")
    ]
    config = config_of(options, "replay")
    folder = journal(options, config, "replay")
    wanted = _wanted(options)
    from ..audit.reader import read
    from ..audit.replay import Replay
    from ..core.properties import check
    from ..pdp.cedar import load

    policies = paths[0]
    assert policies is not None, "it was given"
    named = config.policies.open_types
    cedar = load(policies, *paths[1:], open_types=None if named is None else frozenset(named), check_obligation=check)
    report = Replay(lambda question, wall_ms: cedar.decide([question], wall_ms)[0], wanted).run(read(folder))
    _show(report, options.json, filtered=any((options.since, options.until, options.point, options.subject)))
    return 1 if report.changed else 3 if report.damaged else 0


def _wanted(options: argparse.Namespace) -> Query:
    from ..audit.query import Query

    since, until = span(options, "replay")
    return Query(
        kinds=("decision",), subject=options.subject, point=options.point, since_ns=since,
        until_ns=until,
    )  # fmt: skip


def _show(report: Report, json: bool, filtered: bool) -> None:
    import msgspec

    if json:
        return say(as_json(msgspec.to_builtins(report)))
    for change in report.changes:
        _show_change(change)
    if report.more:
        say(f"{report.more} more decisions change in other ways")
    if report.hidden:
        names = sorted(report.hidden_by.items(), key=lambda each: -each[1])
        what = ", ".join(f"{name} ({count})" for name, count in names[:10])
        what += f" and {len(names) - 10} more" if len(names) > 10 else ""
        say(plain(f"{report.hidden} could not be replayed: the record has no values of {what}"))
    for why, count in sorted(report.undecided.items()):
        say(plain(f"{count} were not decided by policies alone, and are left out: {why}"))
    if report.unknown_hits and not filtered:
        say(f"{report.unknown_hits} hits are of decisions that the record no longer has")
    if report.foreign_hits:
        say(f"{report.foreign_hits} hits name a decision of another peer, and are left out")
    if report.damaged:
        say(plain(f"the record could be read only up to here: {report.damaged}"))
    say(
        f"{report.changed} of {report.replayed} decisions change ({report.changed_times} of {report.times} with the "
        "hits that were served from them)"
    )


def _show_change(change: Change) -> None:
    colours = coloured(sys.stdout)
    new = paint(change.new.verdict, "green" if change.new.verdict == "permit" else "red", colours)
    duties = change.new.obligations != change.old.obligations
    then = plain(_of(change.new, duties))
    old = plain(change.old.verdict + _of(change.old, duties))
    say(f"{change.entries} decisions, {change.times} times: {old} -> {new}{then}")
    for each in change.examples:
        at = f" at {each['point']}" if each["point"] else ""
        say(plain(f"      {each['subject']} {each['action']} {each['resource']}{at} (entry {each['index']})"))


def _of(side: Side, obligations: bool) -> str:
    """Who decided, and why."""
    text = f" by {', '.join(side.policies)}" if side.policies else ""
    if obligations:
        text += f" with {', '.join(side.obligations) or 'no obligations'}"
    why = side.reason or ("" if side.policies else "no policy permits this")
    return f"{text} ({why})" if why else text
