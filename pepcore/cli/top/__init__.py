"""`pepcore top`: what a running daemon does right now, drawn again every second.

Promises: rates are of the last second, so nothing is drawn before two readings; where there is no terminal it prints
once and ends; a daemon that goes away is said so and looked for again. Never: changes anything in the daemon.
"""

from __future__ import annotations

import argparse
import sys
import time

from ..asking import add_socket, connect
from ..live import Ending, Screen, is_wanted
from ..parser import Parser
from ..terminal import as_json, coloured, say

ABOUT = """Shows checks, hits (with those that clients serve by themselves and count, where there is a record) and
misses a second, the hit ratio, how long misses take, who was denied most in the last minute and why, leases
and blocks, once a second; Ctrl-C ends it. Where there is no terminal, with --once and
with --json it prints once, after one second. Only the daemon's user, or a peer that the config lets
administer, may look."""

EXAMPLES = """  pepcore top
  pepcore top --once | mail -s pepcore ops
  pepcore top --json | jq .hit_ratio
  pepcore top --socket /run/pepcore/pepcore.sock"""

SECOND = 1.0
NAP = 0.05
"""So often a signal is looked for."""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore top [--once] [options]"
    parser.add_argument("--once", action="store_true", help="print once and end")
    add_socket(parser)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    from ...errors import Fault
    from .reading import Reading, view
    from .table import lines

    client = connect(options, "top")
    before = Reading(client, time.monotonic())
    if options.json or options.once or not is_wanted():
        time.sleep(SECOND)
        seen = view(before, Reading(client, time.monotonic()))
        if options.json:
            say(as_json(seen))
        else:
            for line in lines(seen, coloured(sys.stdout)):
                say(line.rstrip())
        return 0
    ending = Ending()
    with ending.on_signals(), Screen(sys.stdout) as screen:
        seen = view(before, before)
        while not ending.wanted:
            screen.draw(lines(seen, coloured(sys.stdout)))
            until = time.monotonic() + SECOND
            while not ending.wanted and time.monotonic() < until:
                time.sleep(NAP)
            try:
                after = Reading(client, time.monotonic())
                seen, before = view(before, after), after
            except Fault as fault:
                seen = {**seen, "fault": str(fault)}
    return 0
