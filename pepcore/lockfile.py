"""Lock files: what one process at a time has, for its life, or until it passes the descriptor on.

Promises: nobody waits for one, and no two hold the same file; whoever dies has let go. A lock file that somebody
removed, as cleaners of /tmp do, keeps nobody out any more: `in_place` sees that.
Never: removes one; follows a symlink to one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take(path: Path) -> int:
    """The descriptor of a lock, made if it is not there. Raises BlockingIOError where somebody has it, OSError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def is_taken(path: Path) -> bool:
    """Whether somebody has it now."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def in_place(lock: int, path: Path) -> bool:
    """Whether a lock still keeps others out: the file that was locked is the one at `path`. Where somebody removed it,
    as cleaners of /tmp do, the next process locks a new one. A path that cannot be looked at proves nothing."""
    try:
        held = os.fstat(lock)
    except OSError:
        return False
    try:
        there = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return held.st_nlink > 0
    return held.st_nlink > 0 and (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)
