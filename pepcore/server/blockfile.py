"""Where blocks outlive the daemon: one file in the state directory, replaced as a whole.

Promises: a reader finds the old list or the new one, never half of one; `save` returns when the new one is on disk. An
absent file is an empty list; one that cannot be read is told, and then everything is denied until somebody looks.
Never: decides who is blocked; removes a file that it could not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from ..blocks import Blocks
from . import clock, logs


class BlockFile:
    """The list of one daemon in `folder`."""

    def __init__(self, folder: Path, blocks: Blocks) -> None:
        self.path, self.blocks = folder / "blocks.json", blocks
        self._writing = asyncio.Lock()
        self.read()

    def read(self) -> None:
        """Take over what is on disk."""
        blocks = self.blocks
        try:
            blocks.read(self.path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            blocks.broken = f"`{self.path}`: {error}"
            logs.error(
                "the list of blocks cannot be read: everything is denied", file=str(self.path), reason=str(error)
            )

    async def save(self) -> str:
        """Write what is in force now. Returns "", or why it is not on disk. Calls that wait share one write."""
        async with self._writing:
            data = self.blocks.written(clock.wall_ms())
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._replace, data)
            except OSError as error:
                logs.error("the list of blocks cannot be written", file=str(self.path), reason=str(error))
                return error.strerror or str(error)
            return ""

    def _replace(self, data: bytes) -> None:
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = folder / "blocks.json.new"
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        new.replace(self.path)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(held)
        finally:
            os.close(held)
