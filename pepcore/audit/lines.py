"""Files of JSON lines that stand beside the segments: seals and heads.

Promises: a line is read only if writing it again gives the same bytes, so no bit of it is free; a last line without
its end was never acknowledged, and the writer cuts it.
Never: grows by half a line: what could not be written and synced whole is taken back, where the disk does not let us by
the next line.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from .disk import Disk
from .frames import Broken

T = TypeVar("T", bound=msgspec.Struct)
LONGEST = 65536
_encode = msgspec.json.Encoder().encode


class Lines(Generic[T]):
    """One such file. It is opened for each use: it grows once a minute or less."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self._decode = msgspec.json.Decoder(kind).decode
        self._end: int | None = None
        """Where the next line stands, if what a try has left may stand there."""
        self._named = True

    def read(self) -> tuple[list[tuple[int, T]], Broken | None]:
        """Each line with its offset, up to the first that is wrong. Raises OSError."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return [], None
        found: list[tuple[int, T]] = []
        offset = 0
        while offset < len(data):
            stop = data.find(b"\n", offset)
            if stop < 0:
                return found, Broken(offset, "the last line has no end", True)
            try:
                found.append((offset, self.parse(data[offset:stop])))
            except ValueError as error:
                return found, Broken(offset, str(error))
            offset = stop + 1
        return found, None

    def last(self) -> tuple[int, T | None, Broken | None]:
        """The last whole line with its offset, and what is wrong at the end: all that a writer goes on from.

        Raises OSError.
        """
        try:
            with self.path.open("rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - 2 * LONGEST)
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return 0, None, None
        stop = data.rfind(b"\n")
        broken = Broken(start + stop + 1, "the last line has no end", True) if stop + 1 < len(data) else None
        if stop < 0:
            return 0, None, broken
        begin = data.rfind(b"\n", 0, stop) + 1
        try:
            return start + begin, self.parse(data[begin:stop]), broken
        except ValueError as error:
            return start + begin, None, Broken(start + begin, str(error))

    def parse(self, line: bytes) -> T:
        """Raises ValueError for a line that is not exactly as it was written."""
        try:
            value = self._decode(line) if len(line) < LONGEST else None
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"the line is not understood: {str(error)[:200]}") from None
        if value is None or _encode(value) != line:
            raise ValueError("the line is not as it was written")
        return value

    def append(self, disk: Disk, value: T) -> int:
        """Return where the line stands. Raises OSError; it does not count then, and the next one takes its place."""
        if not self.path.exists():
            self._named, file = False, disk.create(self.path)
        else:
            file = disk.open(self.path)
        try:
            size = os.fstat(file).st_size
            if self._end is not None and self._end < size:
                disk.cut(file, self._end)
                size = self._end
            self._end = size
            try:
                disk.write(file, _encode(value) + b"\n", size)
                disk.sync(file)
            except OSError:
                with contextlib.suppress(OSError):
                    disk.cut(file, size)
                raise
        finally:
            disk.close(file)
        if not self._named:
            disk.sync_folder(self.path.parent)
        self._end, self._named = None, True
        return size

    def take_back(self, offset: int) -> None:
        """The line that stands there is not true any more: the next one takes its place."""
        self._end = offset


def as_line(value: msgspec.Struct) -> str:
    return _encode(value).decode()
