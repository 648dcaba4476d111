"""A wall clock that a test sets, for the processes that are started with its `env`: `wall.c`, preloaded.

Never: moves this machine's clock, or that of the test.
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
AT_NINE = 1_893_488_400_000_000_000
"""2030-01-01T09:00:00Z."""


class Wall:
    """Where the wall clock of a test stands."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "wall"
        self.file.write_bytes(bytes(4096))
        with self.file.open("r+b") as f:
            self._moved = mmap.mmap(f.fileno(), 4096)
        self.set(AT_NINE)
        library = folder / "wall.so"
        compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "wall.c"], check=True, timeout=60)
        self.env = {**os.environ, "LD_PRELOAD": str(library), "PEPCORE_WALL": str(self.file)}

    def set(self, unix_ns: int) -> None:
        self._moved[:8] = (unix_ns - time.time_ns()).to_bytes(8, "little", signed=True)

    def move(self, ns: int) -> None:
        """Set it so much later, or earlier, than it stands."""
        moved = int.from_bytes(self._moved[:8], "little", signed=True) + ns
        self._moved[:8] = moved.to_bytes(8, "little", signed=True)
