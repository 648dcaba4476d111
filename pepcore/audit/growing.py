"""The one segment that grows.

Promises: what was written is whole entries or nothing (a short write is taken back); `synced` is where the last sync
that succeeded ended, with the tree at that place; blocks for the next entries are set aside before they are needed,
and the last of them only for what must still fit on a full disk.
Never: goes on after a sync that failed. It is given up then, cut back to what was synced where the disk lets us. Goes
on once its successor may be there: whoever opens the journal next goes on from that one.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from .disk import Disk
from .frames import leaf
from .segments import Damaged, Header, Seal, held, path_of
from .tree import Frontier, Span

AHEAD, KEPT = 1 << 20, 1 << 18
"""Bytes that are set aside ahead, and those of them that only essential entries may use."""


class HalfMade(OSError):
    """A segment has its name, and its folder could not be synced: after a crash it is there, or it is not."""


class Growing:
    def __init__(self, disk: Disk, path: Path, file: int, header: Header, end: int, tree: Frontier, span: Span) -> None:
        self._disk, self._file, self.path, self.header = disk, file, path, header
        self.end, self.tree, self.span = end, tree, span
        self.synced = end
        self._synced_tree, self._synced_span = tree.copy(), span.copy()
        self._left = False
        """Whether what a write that failed has left may stand behind the end."""
        self._reserved: int | None = end
        """Up to where blocks are set aside; None: this file system cannot."""

    @classmethod
    def create(cls, disk: Disk, folder: Path, journal: bytes, segment: int, tree: Frontier) -> Growing:
        """Raises OSError; no segment is there then, but for HalfMade."""
        header = Header(journal, segment, tree.size, tree.root(), tuple(tree.peaks))
        path, data = path_of(folder, segment), header.framed()
        if path.exists() and not _only_begun(path, header):  # it would be put in its place
            raise FileExistsError(errno.EEXIST, f"segment {segment} is there already")
        draft = folder / f".{path.name}.new"
        file = disk.create(draft)
        try:
            disk.write(file, data, 0)
            disk.sync(file)
            disk.rename(draft, path)
        except OSError:
            disk.close(file)
            with contextlib.suppress(OSError):
                disk.remove(draft)
            raise
        try:
            disk.sync_folder(folder)
        except OSError as error:
            disk.close(file)
            raise HalfMade(error.errno, error.strerror) from error
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
            self._left = True
            with contextlib.suppress(OSError):  # where this fails, too, the next write goes over it
                self._disk.cut(self._file, self.end)
                self._left = False
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

    def close(self) -> bool:
        """Give back the file, and what was set aside. False: something may still stand behind what was synced."""
        done = True
        if self._file >= 0:
            try:
                self._disk.cut(self._file, self.synced)
            except OSError:
                done = self.end == self.synced and not self._left
            self.forget()
        return done

    def forget(self) -> None:
        """Give back the file alone, as a forked child does: nothing in it changes."""
        with contextlib.suppress(OSError):
            self._disk.close(self._file)
        self._file = -1  # its number may soon be another file's


def _only_begun(path: Path, header: Header) -> bool:
    """Whether a segment has no entries: it is a try of ours that came as far as its name."""
    try:
        there = held(path, header.segment)
    except Damaged:
        return False
    return there.header.journal == header.journal and path.stat().st_size == there.start
