"""`pepcore leases`: the permits that are held, by whom, of what, since when. Never: changes anything."""

from __future__ import annotations

import argparse

from .administering import add_daemon, local
from .asking import connect
from .parser import Parser
from .terminal import as_json, plain, say

ABOUT = """Lists the leases that are held, the oldest first. `lost` is one whose holder has no connection any more:
it stops by itself within its grace. `pepcore end LEASE` ends one. Only the daemon's own user may, or a peer
that the config lets `administer`."""

EXAMPLES = """  pepcore leases
  pepcore leases --json | jq -r '.leases[] | select(.subject == "Agent::x").lease'"""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore leases [options]"
    add_daemon(parser)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    found = connect(options, "leases").leases()
    if options.json:
        say(as_json({"leases": [{**each, "lease": str(each["lease"])} for each in found]}))
        return 0
    for each in found:
        who = each["subject"] + "".join(f" for {member}" for member in each["chain"])
        where = f" at {each['point']}" if each["point"] else ""
        say(plain(f"{each['lease']}  {who} {each['action']} {each['resource']}{where}"))
        say(f"  since {local(each['since'])}, uid {each['uid']}{', lost' if each['lost'] else ''}")
    if not found:
        say("no leases")
    return 0
