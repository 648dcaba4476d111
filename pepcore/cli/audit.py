"""`pepcore audit`: read, search, test and export the record.

Promises: reads the journal's files, so it works without a daemon and beside a running one; what stands in an entry is
data: escaped on a terminal, ASCII in JSON; `verify` exits 1 on findings and says in words what it cannot find.
Never: writes to the journal.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .configured import config_of
from .parser import Parser, Usage, whole
from .record import add_journal, add_span, journal, span
from .terminal import as_json, coloured, paint, plain, say

if TYPE_CHECKING:
    from ..audit.heads import Head
    from ..audit.query import Query
    from ..audit.reader import Recorded

ABOUT = """
  tail     the newest entries; -f goes on as they come
  query    the entries that meet every condition given
  verify   test that nothing was changed: each entry against the Merkle tree, the tree against signed heads;
           --head also finds any cut before a head that you kept elsewhere; --key names the key to trust:
           a record that it never signed is a finding
  export   every entry (or those that meet the conditions) as JSON lines, or as OpenTelemetry logs (--otlp)
  head     the newest signed head, one line: keep it where whoever can write the journal cannot

An entry of hits names decisions by their id, and no subject, action or resource: look the ids up
with --decision. In JSON ids are text, since many programs round numbers of 64 bits.

Attribute values are in the record only where the config names them; otherwise as keyed digests. To change the
signing key, put its file aside as `heads.key.previous` and restart: the first head of the new key is signed
by both."""

EXAMPLES = """  pepcore audit tail -f
  pepcore audit query --subject 'Agent::*' --deny --since 2h
  pepcore audit query --kind revoke --kind block --json | jq .
  pepcore audit head > /mnt/elsewhere/head.json
  pepcore audit verify --head /mnt/elsewhere/head.json
  pepcore audit export --otlp --since 24h > logs.jsonl"""

WORDS = ("tail", "query", "verify", "export", "head")
POLL = 0.2


def configure(parser: Parser) -> None:
    parser.usage = f"pepcore audit {'|'.join(WORDS)} [options]"
    parser.add_argument("words", nargs="*", metavar="WORD", help=argparse.SUPPRESS)
    add_journal(parser)
    parser.add_argument("-n", "--last", type=whole(0, 100_000, "entries"), help="tail: how many; 20 if not given")
    parser.add_argument("-f", "--follow", action="store_true", help="tail: go on as entries come")
    for name, about in (("subject", "pattern of Type::id, or of a chain member"), ("action", "pattern of its name"),
                        ("resource", "pattern of Type::id"), ("point", "pattern of the point")):  # fmt: skip
        parser.add_argument(f"--{name}", metavar="PATTERN", default="", help=f"{about}; * stands for anything")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--permit", action="store_true", help="only permits")
    which.add_argument("--deny", action="store_true", help="only denies")
    parser.add_argument("--kind", action="append", default=[], metavar="KIND", help="only this kind; may be repeated")
    parser.add_argument("--decision", type=whole(0, (1 << 64) - 1, "a decision"), help="only the decision of this id")
    add_span(parser)
    parser.add_argument("--head", metavar="HEAD", help="verify: a head kept elsewhere, as a file or as it is")
    parser.add_argument("--key", metavar="ID", help="verify: id of the key to trust, or its key file")
    parser.add_argument("--otlp", action="store_true", help="export: OpenTelemetry logs in OTLP/JSON")
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    if len(options.words) != 1 or options.words[0] not in WORDS:
        raise Usage("audit", f"say what to do with the record: {', '.join(WORDS)}")
    word: str = options.words[0]
    _only(options, word)
    folder = journal(options, config_of(options, "audit"), "audit")
    return {"tail": _tail, "query": _query, "verify": _verify, "export": _query, "head": _head}[word](options, folder)


def _only(options: argparse.Namespace, word: str) -> None:
    """An option that this word does not read is a mistake, not a wish to be ignored."""
    conditions = ("subject", "action", "resource", "point", "permit", "deny", "kind", "decision", "since", "until")
    allowed = {
        "tail": ("last", "follow", *conditions), "query": conditions, "export": ("otlp", *conditions),
        "verify": ("head", "key"), "head": (),
    }[word]  # fmt: skip
    for name in ("last", "follow", "otlp", "head", "key", *conditions):
        if getattr(options, name) not in (None, False, "", []) and name not in allowed:
            raise Usage("audit", f"`--{name}` means nothing to `{word}`: leave it out")


def _conditions(options: argparse.Namespace) -> Query:
    from ..audit.entries import KINDS
    from ..audit.query import Query

    for kind in options.kind:
        if kind not in KINDS:
            raise Usage("audit", f"--kind `{kind}` is none: choose of {', '.join(KINDS)}")
    since, until = span(options, "audit")
    return Query(
        subject=options.subject,
        action=options.action,
        resource=options.resource,
        point=options.point,
        permit=True if options.permit else False if options.deny else None,
        kinds=tuple(options.kind),
        since_ns=since,
        until_ns=until,
        decision=options.decision,
    )


def _show(options: argparse.Namespace, recorded: Recorded) -> None:
    from ..audit import export, words

    if options.otlp:
        say(export.as_otlp(recorded))
    elif options.json or options.words[0] == "export":
        say(export.as_line(recorded))
    else:
        text = plain(words.line(recorded))
        permit = getattr(recorded.entry, "permit", None)
        colour = "dim" if permit is None else "green" if permit else "red"
        say(paint(text, colour, coloured(sys.stdout)))


def _tail(options: argparse.Namespace, folder: Path) -> int:
    from ..audit.reader import tail

    wanted = _conditions(options)
    found, cursor, damage = tail(folder, 20 if options.last is None else options.last)
    while True:
        for recorded in found:
            if wanted.matches(recorded):
                _show(options, recorded)
        if damage is not None:
            raise damage
        if not options.follow or cursor is None:
            return 0
        sys.stdout.flush()
        found = cursor.more()
        if not found:
            time.sleep(POLL)


def _query(options: argparse.Namespace, folder: Path) -> int:
    from ..audit.reader import read

    wanted = _conditions(options)
    shown = 0
    for recorded in read(folder):
        if wanted.matches(recorded):
            _show(options, recorded)
            shown += 1
    return 0 if shown or options.words[0] == "export" else 1


def _given(text: str) -> Head:
    """A head, from the words themselves or from a file that holds them."""
    from ..audit.heads import heads

    what = text
    if not text.lstrip().startswith("{"):
        try:
            what = Path(text).read_text("utf-8")
        except (OSError, ValueError):
            raise Usage("audit", f"--head `{text}` is neither a head nor a file that can be read") from None
    try:
        return heads(Path()).parse(what.strip().encode())
    except ValueError as error:
        raise Usage("audit", f"--head holds no head as `pepcore audit head` prints it: {error}") from None


def _key_id(text: str) -> str:
    from ..audit import heads, keys

    if len(text) == 32 and not set(text) - set("0123456789abcdef"):
        return text
    try:
        return heads.Key(keys.load(Path(text))).id
    except FileNotFoundError:
        raise Usage("audit", f"--key `{text}` is neither an id of 32 hex digits nor a key file") from None


def _verify(options: argparse.Namespace, folder: Path) -> int:
    import msgspec

    from ..audit.verify import verify

    head = _given(options.head) if options.head is not None else None
    report = verify(folder, outside=head, key=_key_id(options.key) if options.key else "")
    wrong = bool(report.findings)
    if options.json:
        say(as_json({"ok": not wrong, **msgspec.to_builtins(report)}))
        return int(wrong)
    colours = coloured(sys.stdout)
    for each in report.findings:
        say(f"{plain(each.file)} at byte {each.offset}: {paint('wrong', 'red', colours)}: {plain(each.reason)}")
    kept = f" (from {report.first} on are kept)" if report.first else ""
    say(f"{report.size} entries{kept} in {report.segments} segments, {report.heads} heads, root {report.root}")
    if report.key:
        say(f"heads are signed by key {report.key}")
    for limit in report.limits:
        say(paint(f"not tested: {plain(limit)}", "yellow", colours))
    say(f"{len(report.findings)} findings" if wrong else "nothing was changed, as far as this can be tested")
    return int(wrong)


def _head(options: argparse.Namespace, folder: Path) -> int:
    from ..audit.heads import heads
    from ..audit.lines import as_line
    from ..audit.segments import Damaged

    file = heads(folder)
    lines, broken = file.read()
    if broken is not None and not broken.short:
        raise Damaged(file.path, broken.offset, broken.reason)
    if not lines:
        raise FileNotFoundError(f"journal `{folder}` has no signed head yet: the daemon signs one at an interval")
    say(as_line(lines[-1][1]))  # the same with --json: it is to be kept as it is
    return 0
