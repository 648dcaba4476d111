"""`pepcore blocks`: who is blocked, why, since and until when. Never: changes anything."""

from __future__ import annotations

import argparse
import time

from .administering import add_daemon, rows
from .asking import connect
from .parser import Parser
from .terminal import as_json, say

ABOUT = """Lists the blocks in force, the oldest first, in local time. With --json, `since` and `until` are Unix
milliseconds; `until` 0 is a block without end. Only the daemon's own user may, or a peer that the config lets
`administer`."""

EXAMPLES = """  pepcore blocks
  pepcore blocks --json | jq -r '.blocks[].tag'"""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore blocks [options]"
    add_daemon(parser)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    found = connect(options, "blocks").blocks()
    if options.json:
        say(as_json({"blocks": found}))
        return 0
    for line in rows(found, time.time_ns() // 1_000_000) or ["no blocks"]:
        say(line)
    return 0
