"""Processes of a demo that a test has started: with an environment of their own, by which they are found again."""

from __future__ import annotations

import os
import time
from pathlib import Path


def environment(folder: Path, **more: str) -> dict[str, str]:
    hidden = ("PEPCORE_SOCKET", "PEPCORE_CONFIG", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"TMPDIR": str(folder), **more}


def running(folder: Path) -> list[int]:
    """The processes whose TMPDIR is this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                settings = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"TMPDIR=" + bytes(folder) in settings:
                found.append(int(entry.name))
    return found


def nothing_left(folder: Path) -> bool:
    """Whether all processes and files are gone, soon."""
    for _ in range(250):
        if not running(folder) and not list(folder.iterdir()):
            return True
        time.sleep(0.02)
    return False
