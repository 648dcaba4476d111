"""The counters that end cached decisions.

Promises: `revision` only grows; an answer stamped with an older revision is not served and not cached. `bump` is
called after the new state is active, so that no answer of the old state carries the new revision.
Never: shares its counters. This page is private to the process; every reload bumps the one counter that all
entries depend on. The page that clients map, with tags and a lease, takes this place (DESIGN, D3).

INVARIANT: a stamp is read before the PDP is asked.
"""

cimport cython
from libc.stdint cimport uint64_t


@cython.final
cdef class Page:
    """Private counters. `boot` is a random u64 that names this life of the counters; 0 is refused."""

    def __init__(self, uint64_t boot):
        if boot == 0:
            raise ValueError("boot `0` means closed: pass a random number")
        self.boot = boot

    def bump(self):
        """End every entry that was stamped before. Returns the new revision."""
        self.revision += 1
        return self.revision
