"""`pepcore block`: deny a subject, whatever the policies say. The kill switch.

Never: waits for anything before the block is in force.
"""

from __future__ import annotations

import argparse
import time

from .administering import (
    ABOUT_WHO,
    add_daemon,
    add_reason,
    add_wait,
    left,
    local,
    named,
    one_subject,
    sending,
    settled,
    span,
    tell,
)
from .parser import Parser

ABOUT = f"""Denies the subject, and everybody who acts on its behalf, from now on, until `pepcore unblock` or for
the time that --for says. It stands in front of the policies and outlives a restart of the daemon.
{ABOUT_WHO}"""

EXAMPLES = """  pepcore block Agent::helpdesk --reason "answers nonsense since noon"
  pepcore block User::alice --for 30m
  pepcore block -- "$subject"                    # words that come from elsewhere go behind `--`"""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore block SUBJECT [--for TIME] [--reason TEXT] [options]"
    parser.add_argument("words", nargs="*", metavar="SUBJECT", help=argparse.SUPPRESS)
    parser.add_argument("--for", dest="span", type=span, metavar="TIME", help="how long, as 500ms, 30s, 5m, 2h or 1d "
                        "(default: until it is lifted)")  # fmt: skip
    add_reason(parser, "why; whoever is denied is told")
    add_wait(parser)
    add_daemon(parser)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    subject = one_subject(options, "block")
    seconds = None if options.span is None else options.span / 1000
    with sending(options, "block") as client:
        began, began_ms = time.monotonic_ns(), time.time_ns() // 1_000_000
        ack = client.block(named(subject), for_=seconds, reason=options.reason)
        took_us = (time.monotonic_ns() - began) // 1000
        ack = settled(options, client, ack)
    ends = "until it is lifted"
    if options.span is not None:
        ends = f"until {local(began_ms + options.span)}, {left(options.span)}"
    return tell(options, ack, f"blocked {subject} {ends} (acknowledged after {took_us:,} us)", "yes")
