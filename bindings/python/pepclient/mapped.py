"""The daemon's page, as this process maps it: read-only, and only where it is what it says.

Promises: a page that could be cut or written by anybody who got it, that has another size, magic or boot id, is not
used, and why is logged once; the mapping is read-only and private to nobody: what the daemon writes is seen at once.
Never: raises: without a page a client asks the daemon each time.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from pepcore.core.page import PAGE_BYTES, Page

F_SEAL_FUTURE_WRITE = 0x10  # fcntl has it from Python 3.13 on
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL

_told: set[str] = set()


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


def _tell(why: str) -> None:
    if why not in _told:
        _told.add(why)
        import logging  # a client that is never refused does not pay for it

        logging.getLogger("pepclient").warning("%s", why)
