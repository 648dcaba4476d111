"""Where the record is, for the commands that read it: as the daemon itself would place it.

Promises: with the flags, the environment and the config file of a daemon, the folder is that daemon's journal; what is
there is only looked at. Never: asks a daemon: the record can be read when none is there.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .parser import Parser, Usage

if TYPE_CHECKING:
    from ..config import Config


def add_journal(parser: Parser) -> None:
    """Where the journal is."""
    parser.add_argument("--journal", metavar="FOLDER", help="the journal's folder (else where a daemon with this "
                        "--config and --socket keeps it)")  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="the daemon's pepcore.toml (default: PEPCORE_CONFIG)")
    parser.add_argument(
        "--socket", metavar="PATH", help="the daemon's socket (default: PEPCORE_SOCKET, then the config)"
    )


def add_span(parser: Parser) -> None:
    """Which part of the record."""
    parser.add_argument("--since", metavar="TIME", default="", help="from then on; 2026-01-31T09:00:00Z, or 15m ago")
    parser.add_argument("--until", metavar="TIME", default="", help="only before; as --since")


def span(options: argparse.Namespace, command: str) -> tuple[int | None, int | None]:
    """From and before when, in Unix ns; None: no such bound. Raises Usage."""
    from ..audit.query import instant

    now = time.time_ns()
    found: list[int | None] = []
    for name in ("since", "until"):
        text = getattr(options, name)
        try:
            found.append(instant(text, now) if text else None)
        except ValueError as error:
            raise Usage(command, f"--{name}: {error}") from None
    return found[0], found[1]


def journal(options: argparse.Namespace, config: Config, command: str) -> Path:
    """The folder of the journal, if there is one. Raises Usage."""
    from ..audit.segments import numbers
    from ..server.place import journal_of, state_of

    if options.journal == "":
        raise Usage(command, "--journal is empty: name a path")
    if options.journal is not None:
        folder, called = Path(options.journal), "--journal"
    else:
        socket = config.daemon.socket
        folder = journal_of(config.record.folder, state_of(config.daemon.state, Path(socket), bool(socket)))
        called = "the journal"
    try:
        there = bool(numbers(folder))
    except OSError as error:
        asked = options.journal is None and not (options.config or os.environ.get("PEPCORE_CONFIG"))
        hint = (
            ": if the daemon's config places it (`record.folder`, `daemon.state`), pass --config FILE" if asked else ""
        )
        raise Usage(command, f"{called} `{folder}` cannot be read: {error.strerror}{hint}") from None
    if not there:
        raise Usage(
            command,
            f"{called} `{folder}` holds no segments: name the folder of `0000000001.seg` (--journal), or what its "
            "daemon was started with (--config, --socket)",
        )
    return folder
