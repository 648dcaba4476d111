"""`pepcore unblock`: lift a block. Never: permits; the policies decide again."""

from __future__ import annotations

import argparse

from ..errors import NotAvailable
from .administering import ABOUT_WHO, add_daemon, named, one_subject, sending, tell
from .parser import Parser

ABOUT = f"""Lifts the block of a subject, so that the policies decide about it again. It is no fault if there is none.
{ABOUT_WHO}"""

EXAMPLES = """  pepcore unblock Agent::helpdesk
  pepcore unblock -- "$subject"                  # words that come from elsewhere go behind `--`"""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore unblock SUBJECT [options]"
    parser.add_argument("words", nargs="*", metavar="SUBJECT", help=argparse.SUPPRESS)
    add_daemon(parser)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    subject = one_subject(options, "unblock")
    with sending(options, "unblock") as client:
        try:
            found = any(block["tag"] == subject for block in client.blocks())
        except NotAvailable:  # a list that cannot be read: the daemon says what it makes of it
            found = True
        ack = client.unblock(named(subject))
    return tell(options, ack, f"unblocked {subject}" if found else f"there was no block of {subject}", "yes")
