"""`pepcore end`: end one lease by its number. Never: denies what is asked next; that is for `pepcore block`."""

from __future__ import annotations

import argparse

from .administering import add_daemon, sending
from .parser import Parser, Usage, whole
from .terminal import as_json, say

ABOUT = """Ends one lease; its holder is told at once. Whoever the policies still permit may hold another. Only the
daemon's own user may, or a peer that the config lets `administer`."""

EXAMPLES = """  pepcore leases
  pepcore end 570555822812"""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore end LEASE [options]"
    parser.add_argument("words", nargs="*", metavar="LEASE", help="its number, as `pepcore leases` shows it")
    add_daemon(parser)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    if len(options.words) != 1:
        raise Usage("end", "name one LEASE by its number, as `pepcore leases` shows it")
    try:
        number = whole(1, (1 << 64) - 1, "a lease")(options.words[0])
    except argparse.ArgumentTypeError as error:
        raise Usage("end", str(error)) from None
    with sending(options, "end") as client:
        client.end_lease(number)
    say(as_json({"ended": str(number)}) if options.json else f"ended lease {number}")
    return 0
