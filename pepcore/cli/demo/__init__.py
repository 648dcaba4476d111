"""`pepcore demo`: a small company's services, CI jobs, agents and database roles, decided by one daemon.

Promises: the daemon, the policies, the questions and the obligations are real; every answer is compared with what
the company expects; all that is started is ended, however the demo ends; without a terminal it is short and plain.
Never: touches a running daemon or leaves a file: it has a run directory of its own.
"""

from __future__ import annotations

import argparse

from ..parser import Parser, Usage, whole

ABOUT = """Starts a daemon of its own on the bundled policies and four processes that ask it, one for each point:
an API gateway, CI, agents, a database proxy. Shows permits, denies with their reasons, obligations applied
to payloads, hit ratio and latency. Ctrl-C ends it; where there is no terminal it ends after 5 seconds.

`pepcore demo revoke` starts one agent instead, whose loop runs on permits kept in its own process, and blocks
it: after how many microseconds the loop is denied, and why. Block it yourself from another terminal, with the
command that it shows, before it does."""

EXAMPLES = """  pepcore demo
  pepcore demo revoke
  pepcore demo --seconds 10 | cat
  pepcore demo revoke --json | jq .block
  pepcore demo --json | jq .hit_ratio"""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore demo [revoke] [--seconds N] [--json]"
    parser.add_argument("words", nargs="*", metavar="WORD", help=argparse.SUPPRESS)
    parser.add_argument(
        "--seconds",
        type=whole(1, 86_400, "seconds"),
        metavar="N",
        help="how long to run (default 60 on a terminal, else 5; `revoke`: 30, else 6)",
    )
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    if options.words:
        if options.words != ["revoke"]:
            raise Usage("demo", f"`{options.words[-1]}` is not a demo: write `pepcore demo` or `pepcore demo revoke`")
        from . import revoke

        if options.seconds is not None and options.seconds < revoke.LEAST:
            short = f"--seconds `{options.seconds}` is too short for `revoke`: write {revoke.LEAST} or more"
            raise Usage("demo", short)
        return revoke.show(options.seconds, options.json)
    from .show import show

    return show(options.seconds, options.json)
