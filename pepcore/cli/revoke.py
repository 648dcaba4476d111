"""`pepcore revoke`: end every answer that hangs on a subject, a resource or a tag, in every process of the host.

Promises: a revoke that names nothing is refused before anything is sent. Never: denies; that is for `pepcore block`.
"""

from __future__ import annotations

import argparse

from .administering import ABOUT_WHO, add_daemon, add_reason, add_wait, entity, sending, settled, tag, tell
from .parser import Parser, Usage, each_once

ABOUT = f"""Cached answers end at once; the next question is decided anew. Whoever the policies still permit is
permitted again: to deny them, use `pepcore block`. A group may be named, too: its members' answers end.
{ABOUT_WHO}"""

EXAMPLES = """  pepcore revoke --subject User::alice
  pepcore revoke --subject Role::auditor --resource Document::roadmap --reason "ticket 4711"
  pepcore revoke --tag payroll                   # what a policy's @tag names; `policy:ID`: its id
  pepcore revoke --all --json
  pepcore revoke --subject="$subject"            # words that come from elsewhere go behind `=`"""

MOST = 1000
"""As many as the daemon takes."""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore revoke [--subject TYPE::ID]... [--resource TYPE::ID]... [--tag TAG]... [--all] [options]"
    parser.add_argument("words", nargs="*", metavar="WORD", help=argparse.SUPPRESS)
    for name in ("subject", "resource"):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="TYPE::ID", help=f"a {name}, or a group of them"
        )
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help="what the `@tag` of a policy names")
    parser.add_argument("--all", action="store_true", help="every answer there is")
    add_reason(parser, "why, for the daemon's record")
    add_wait(parser)
    add_daemon(parser)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    tags = _named(options)
    with sending(options, "revoke") as client:
        ack = client.revoke(tag=tags, all=options.all, reason=options.reason)
        ack = settled(options, client, ack)
    what = "every answer" if options.all else f"what hangs on {', '.join(tags)}"
    return tell(options, ack, f"revoked {what}", "nothing has to be: no answer outlives the daemon")


def _named(options: argparse.Namespace) -> list[str]:
    """The tags to revoke. Raises Usage."""
    if options.words:
        word = options.words[0]
        hint = f"--subject={word}` or `--resource={word}" if "::" in word else f"--tag={word}"
        raise Usage("revoke", f"`{word}` does not say what it is: write `{hint}`")
    tags = [entity(text, "--subject", "revoke") for text in options.subject]
    tags += [entity(text, "--resource", "revoke") for text in options.resource]
    tags = each_once(tags + [tag(text, "revoke") for text in options.tag])
    if options.all and tags:
        raise Usage("revoke", f"--all is everything, `{tags[0]}` too: leave one of them out")
    if not options.all and not tags:
        raise Usage("revoke", "nothing is named: write --subject, --resource or --tag, or --all for everything")
    if len(tags) > MOST:
        raise Usage("revoke", f"{len(tags)} are named: name at most {MOST} at a time")
    return tags
