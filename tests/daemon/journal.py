"""What a daemon of these tests has written into its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from running import Daemon

from pepcore.audit import entries
from pepcore.audit.reader import read


def folder(daemon: Daemon) -> Path:
    return daemon.folder / "run" / "pepcore.sock.state" / "journal"


def recorded(daemon: Daemon, kind: Any = entries.Decision) -> list[Any]:
    return [each.entry for each in read(folder(daemon)) if isinstance(each.entry, kind)]


def wait(daemon: Daemon, enough: Callable[[list[Any]], bool], kind: type[Any] = entries.Decision) -> list[Any]:
    """The entries of a kind, once there are enough."""
    until = time.monotonic() + 10
    while not enough(found := recorded(daemon, kind)):
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found


def decisions(daemon: Daemon, count: int) -> list[entries.Decision]:
    return wait(daemon, lambda found: len(found) >= count)
