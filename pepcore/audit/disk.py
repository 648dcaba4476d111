"""What the journal asks of the operating system, in one place.

Promises: every call either did all of what it says or raises OSError. Tests put a failing disk in its place.
Never: retries; a failed sync in particular is not asked again, since Linux marks the pages clean (ATC '20).
"""

from __future__ import annotations

import errno
import os
from functools import cache
from pathlib import Path
from typing import Any

_KEEP_SIZE = 1  # linux/falloc.h: FALLOC_FL_KEEP_SIZE


@cache
def _libc() -> Any:
    import ctypes  # only whoever writes a journal needs it

    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return libc


class Disk:
    def create(self, path: Path) -> int:
        """A new file; what lies there is a draft of ours that nobody finished, and goes."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, 0o640)

    def open(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def write(self, file: int, data: bytes, offset: int) -> None:
        rest = memoryview(data)
        while rest:
            done = os.pwrite(file, rest, offset)
            if done <= 0:
                raise OSError(errno.EIO, "nothing was written")
            rest, offset = rest[done:], offset + done

    def sync(self, file: int) -> None:
        os.fdatasync(file)

    def cut(self, file: int, size: int) -> None:
        os.ftruncate(file, size)

    def cut_file(self, path: Path, size: int) -> None:
        """Drop the end of a file that nobody has open; what is left is on disk."""
        file = self.open(path)
        try:
            self.cut(file, size)
            self.sync(file)
        finally:
            self.close(file)

    def reserve(self, file: int, offset: int, length: int) -> bool:
        """Set blocks aside without making the file longer. False where this file system cannot."""
        import ctypes

        if _libc().fallocate(file, _KEEP_SIZE, offset, length) == 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise OSError(number, os.strerror(number))

    def rename(self, old: Path, new: Path) -> None:
        """Put it in place; for good once the folder is synced, too."""
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def sync_folder(self, path: Path) -> None:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self, file: int) -> None:
        os.close(file)
