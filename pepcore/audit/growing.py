"""The one segment that grows.

Promises: what was written is whole entries or nothing (a short write is taken back); `synced` is where the last sync
that succeeded ended, with the tree at that place; blocks for the next entries are set aside before they are needed,
and the last of them only for what must still fit on a full disk.
Never: goes on after a sync that failed. It is given up then, cut back to what was synced where the disk lets us.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from .disk import Disk
from .frames import leaf
from .segments import Header, Seal, path_of
from .tree import Frontier, Span

AHEAD, KEPT = 1 << 20, 1 << 18
"""Bytes that are set aside ahead, and those of them that only essential entries may use."""


class Growing:
    def __init__(self, disk: Disk, path: Path, file: int, header: Header, end: int, tree: Frontier, span: Span) -> None:
        self._disk, self._file, self.path, self.header = disk, file, path, header
        self.end, self.tree, self.span = end, tree, span
        self.synced = end
        self._synced_tree, self._synced_span = tree.copy(), span.copy()
        self._reserved: int | None = end
        """Up to where blocks are set aside; None: this file system cannot."""

    @classmethod
    def create(cls, disk: Disk, folder: Path, journal: bytes, segment: int, tree: Frontier) -> Growing:
        """Raises OSError; no segment is there then."""
        header = Header(journal, segment, tree.size, tree.root(), tuple(tree.peaks))
        path, data = path_of(folder, segment), header.framed()
        if path.exists():  # it would be put in its place
            raise FileExistsError(errno.EEXIST, f"segment {segment} is there already")
        draft = folder / f".{path.name}.new"
        file = disk.create(draft)
        try:
            disk.write(file, data, 0)
            disk.sync(file)
            disk.rename(draft, path)
        except OSError:
            disk.close(file)
            for each in (draft, path):  # a rename whose folder was not synced did not happen
                with contextlib.suppress(OSError):
                    disk.remove(each)
            raise
        return cls(disk, path, file, header, len(data), tree.copy(), Span(tree.size))

    @property
    def synced_size(self) -> int:
        return self._synced_tree.size

    @property
    def synced_root(self) -> bytes:
        return self._synced_tree.root()

    def room(self, length: int) -> bool:
        """Whether so many bytes fit, and what is kept free stays free."""
        reserved = self._reserved
        if reserved is None or self.end + length + KEPT <= reserved:
            return True
        for more in (AHEAD, 0):
            wanted = self.end + length + KEPT + more
            try:
                if not self._disk.reserve(self._file, reserved, wanted - reserved):
                    self._reserved = None
                    return True
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                continue
            self._reserved = wanted
            return True
        return False

    def fits_in_what_is_kept(self, length: int) -> bool:
        return self._reserved is not None and self.end + length <= self._reserved

    def write(self, frames: list[bytes]) -> None:
        """Append whole frames. Raises OSError; none of them is there then."""
        data = b"".join(frames)
        try:
            self._disk.write(self._file, data, self.end)
        except OSError:
            with contextlib.suppress(OSError):  # where this fails, too, the next write goes over it
                self._disk.cut(self._file, self.end)
                if self._reserved is not None:
                    self._reserved = min(self._reserved, self.end)
            raise
        self.end += len(data)

    def grow(self, framed: bytes) -> int:
        """Enter a frame that was written into the tree. Return its index."""
        hash_ = leaf(framed)
        self.tree.append(hash_)
        self.span.append(hash_)
        return self.tree.size - 1

    def sync(self) -> None:
        """Raises OSError; the segment must be given up then."""
        self._disk.sync(self._file)
        self.synced, self._synced_tree, self._synced_span = self.end, self.tree.copy(), self.span.copy()

    def seal(self) -> Seal:
        """Of what was synced."""
        parts = tuple(self._synced_span.parts)
        return Seal(self.header.segment, self.header.size, self.synced_size, self.synced_root, parts)

    def successor(self, folder: Path) -> Growing:
        """A new segment behind what was synced here. Raises OSError."""
        return Growing.create(self._disk, folder, self.header.journal, self.header.segment + 1, self._synced_tree)

    def close(self) -> None:
        """Give back the file, and what was set aside."""
        if self._file < 0:
            return
        with contextlib.suppress(OSError):
            self._disk.cut(self._file, self.synced)
        self.forget()

    def forget(self) -> None:
        """Give back the file alone, as a forked child does: nothing in it changes."""
        with contextlib.suppress(OSError):
            self._disk.close(self._file)
        self._file = -1  # its number may soon be another file's
