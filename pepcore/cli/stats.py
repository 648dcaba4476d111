"""`pepcore stats`: what a running daemon has counted. Never: changes anything in it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from .asking import add_socket, connect
from .parser import Parser
from .terminal import as_json, plain, say

ABOUT = """Prints the daemon's own numbers: questions, hits, misses, denies, faults, connections, memory. Only the
daemon's user, or a peer that the config lets administer, may read them."""

EXAMPLES = """  pepcore stats
  pepcore stats --json | jq .
  pepcore stats --socket /run/pepcore/pepcore.sock"""

NAMES = frozenset({"pid", "boot"})
"""Numbers that are names and no amounts: written as other programs write them, to be searched for and pasted."""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore stats [options]"
    add_socket(parser)
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    stats: dict[str, Any] = connect(options, "stats").stats()
    if options.json:
        say(as_json(stats))
        return 0
    rows = list(_rows(stats, ""))
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        say(plain(f"{name:<{width}}  {value}"))
    return 0


def _rows(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _rows(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, str(value) if name in NAMES else f"{value:,}"
    else:
        yield name, value if isinstance(value, str) else as_json(value)
