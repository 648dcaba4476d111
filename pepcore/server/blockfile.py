"""Where blocks outlive the daemon: one file in the state directory, replaced as a whole.

Promises: one daemon at a time has a state folder, by a lock for life that a successor is passed; a reader finds the old
list or the new one, never half of one; `save` returns when the new one is on disk, and one that failed is tried again
until it is. An absent file is an empty list; one that cannot be read is told, and then everything is denied until
somebody looks.
Never: decides who is blocked; removes a file that it could not read; makes in the loop what it writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from ..blocks import Block, Blocks, written
from ..errors import ConfigError
from ..lockfile import in_place, take
from . import clock, logs

AGAIN_S = 1.0
"""Between two tries to write a list that the disk did not take."""


class BlockFile:
    """The list of one daemon in `folder`. `unsaved`: why what is in force is not on disk; empty: it is."""

    def __init__(self, folder: Path, blocks: Blocks) -> None:
        self.path, self.blocks = folder / "blocks.json", blocks
        self.lock_path = folder / "state.lock"
        self.lock = -1
        self.unsaved = ""
        self._writing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Task[str] | None = None

    def open(self) -> None:
        """Take the folder, and what is on disk. Raises ConfigError where another daemon has it."""
        what = f"state folder `{self.path.parent}`"
        try:
            self._hold()
        except BlockingIOError:
            why = "belongs to a running daemon: stop it, or give each its own with `daemon.state`"
            raise ConfigError(f"{what} {why}") from None
        except OSError as error:
            raise ConfigError(f"{what} cannot be used: {error.strerror}") from None
        self._read()

    async def succeed(self, lock: int, before: tuple[Block, ...], broken: str) -> None:
        """Go on with the list of a predecessor, and with the lock of his folder where that is ours, too. Raises
        ConfigError: he serves on."""
        blocks = self.blocks
        same = in_place(lock, self.lock_path)
        if same:
            self.lock = lock
            self._read()
        else:
            os.close(lock)
            self.open()
        if broken:
            if not same:
                raise ConfigError(f"the daemon to take over from denies everything: {broken}")
            return
        if blocks.broken:
            raise ConfigError(f"the list of blocks cannot be read: {blocks.broken}")
        kept = tuple(blocks)
        if same:
            blocks.clear()  # what he lifted may not be on disk
        for block in before:
            if blocks.full(block.tag):
                raise ConfigError(f"`{self.path}` and the blocks of the daemon before are more than one list takes")
            blocks.add(block)
        if tuple(blocks) != kept and (why := await self.save()) and not same:
            raise ConfigError(f"the list of blocks cannot be written to `{self.path}`: {why}")

    def _hold(self) -> None:
        """Raises OSError. Also where somebody removed the folder, it is made and taken again."""
        if self.lock >= 0 and in_place(self.lock, self.lock_path):
            return
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = take(self.lock_path)
        if self.lock >= 0:
            os.close(self.lock)
        self.lock = lock

    def _read(self) -> None:
        blocks = self.blocks
        blocks.broken = ""
        try:
            blocks.read(self.path.read_bytes())
        except FileNotFoundError as absent:
            if self.path.is_symlink():
                self._unreadable(absent)
        except (OSError, ValueError) as error:
            self._unreadable(error)

    def _unreadable(self, error: Exception) -> None:
        self.blocks.broken = f"`{self.path}`: {error}"
        logs.error("the list of blocks cannot be read: everything is denied", file=str(self.path), reason=str(error))

    # ---- saving ----

    async def save(self) -> str:
        """Write what is in force now. Returns "", or why it is not on disk. Calls that wait share one write."""
        async with self._writing:
            now = self.blocks.active(clock.wall_ms())
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._replace, now)
            except Exception as error:  # whatever it is: who waits for it is told, and it is tried again
                why = getattr(error, "strerror", None) or str(error) or repr(error)
                if why != self.unsaved:
                    logs.error("the list of blocks cannot be written", file=str(self.path), reason=why)
                self.unsaved = why
                self.go_on()
                return why
            if self.unsaved:
                logs.info("the list of blocks is on disk again", file=str(self.path))
            self.unsaved = ""
            return ""

    def go_on(self) -> None:
        """Try again, until it is on disk what is not."""
        if self.unsaved and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(AGAIN_S, self._again)

    def _again(self) -> None:
        self._timer = None
        if self.unsaved:
            self._saving = asyncio.get_running_loop().create_task(self.save())

    async def settled(self) -> None:
        """Try no more by itself; no such try is on its way to the disk when this returns."""
        if self._saving is not None and not self._saving.done():
            await asyncio.wait([self._saving])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _replace(self, blocks: list[Block]) -> None:
        self._hold()
        folder = self.path.parent
        new = folder / "blocks.json.new"
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            for piece in written(blocks):  # each write lets go of the interpreter: the loop waits for it no longer
                view = memoryview(piece)
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
