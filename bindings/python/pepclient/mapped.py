"""The daemon's page, as this process maps it: read-only, and only where it is what it says.

Promises: a page that could be cut or written by anybody who got it, that has another size, magic or boot id, is not
used, and why is logged once; the mapping is read-only and private to nobody: what the daemon writes is seen at once.
Never: raises: without a page a client asks the daemon each time.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import NamedTuple

from pepcore.core.counts import COUNTS_BYTES, Counts
from pepcore.core.page import PAGE_BYTES, Page

F_SEAL_FUTURE_WRITE = 0x10  # fcntl has it from Python 3.13 on
SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL

_told: set[str] = set()


class Shared(NamedTuple):
    """What a daemon shares with a client: its page, and where it fetches the hits that the client serves by itself."""

    page: Page
    counts: Counts | None


def shared(passed: list[int], boot: int) -> Shared | None:
    """What came with a welcome, of which every descriptor is closed; None: nothing is kept here."""
    if not 0 < len(passed) <= 2 or not boot:
        for fd in passed:
            os.close(fd)
        return None
    page = mapped(passed[0], boot)
    counts = counted(passed[1], boot) if len(passed) == 2 else None
    return None if page is None or (len(passed) == 2 and counts is None) else Shared(page, counts)


def mapped(fd: int, boot: int) -> Page | None:
    """The page behind a descriptor, which is closed, or None."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        if seals & SEALS != SEALS:  # a mask: the kernel may add seals of its own (vm.memfd_noexec)
            raise ValueError(f"its seals `{seals:#x}` do not hold its size and content")
        size = os.fstat(fd).st_size
        if size != PAGE_BYTES:
            raise ValueError(f"it has `{size}` bytes, not {PAGE_BYTES}")
        return Page.reader(mmap.mmap(fd, PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ), boot)
    except (OSError, ValueError) as error:
        _tell(f"the daemon's page cannot be used, so answers are not kept in this process: {error}")
        return None
    finally:
        os.close(fd)


def counted(fd: int, boot: int) -> Counts | None:
    """The counts behind a descriptor, which is closed, or None."""
    try:
        if os.fstat(fd).st_size != COUNTS_BYTES or fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SIZE_SEALS != SIZE_SEALS:
            raise ValueError("they have another size, or one that could change")
        return Counts(mmap.mmap(fd, COUNTS_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE), boot)
    except (OSError, ValueError) as error:
        _tell(f"hits cannot be counted for the daemon, so answers are not kept in this process: {error}")
        return None
    finally:
        os.close(fd)


def _tell(why: str) -> None:
    if why not in _told:
        _told.add(why)
        import logging  # a client that is never refused does not pay for it

        logging.getLogger("pepclient").warning("%s", why)
