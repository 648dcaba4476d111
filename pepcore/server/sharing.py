"""The page in memory that every client may map and none may write (DESIGN, D3).

Promises: size and writability are sealed before anybody gets the descriptor, so that no reader can cut the page under
another one's feet, or write it. Where the kernel has no sealed memory the counters are private, and clients do without.
Never: puts a name of a subject or a policy into the page: whoever maps it sees only that something was revoked.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets

from ..core.counts import COUNTS_BYTES, Counts
from ..core.page import PAGE_BYTES, Page

F_SEAL_FUTURE_WRITE = 0x10  # fcntl has it from Python 3.13 on
SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL


def make() -> tuple[Page, int, str]:
    """The page of this daemon, its descriptor (-1: it cannot be shared), and why it cannot."""
    boot, seed = secrets.randbits(64) | 1, secrets.randbits(64) | 1
    try:
        memory, fd = _sealed("pepcore-page", PAGE_BYTES, SEALS)
    except OSError as error:
        return Page(boot, seed=seed), -1, error.strerror or str(error)
    return Page(boot, memory, seed=seed), fd, ""


def make_counts(boot: int) -> tuple[Counts, int]:
    """Memory in which a client counts the hits that it serves by itself, and a descriptor to close. Raises OSError.

    Its size is sealed: a client that cuts it cannot hurt whoever harvests it.
    """
    memory, fd = _sealed("pepcore-hits", COUNTS_BYTES, SIZE_SEALS)
    return Counts(memory, boot, made=True), fd


def _sealed(name: str, size: int, seals: int) -> tuple[mmap.mmap, int]:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return memory, fd
    except BaseException:
        os.close(fd)
        raise
