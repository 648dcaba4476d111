"""Whether this process is still the one that it was: a forked child keeps nothing of its parent's.

Promises: `life[0]` differs in a child from what it was in the parent, also where something else than Python forked it: the
kernel wipes the word (MADV_WIPEONFORK), so that a look costs one load and no system call.
Never: acts on a fork; that is for whoever keeps something.

INVARIANT: a process that nobody told that it is a child reads 0, and keeps nothing.
"""

from libc.stdint cimport uint64_t

import os

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void*, size_t, int, int, int, long)
    int madvise(void*, size_t, int)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS
    void* MAP_FAILED

cdef enum:
    WIPE_ON_FORK = 18           # MADV_WIPEONFORK, Linux 4.14
    ROOM = 4096

cdef uint64_t lives = 1         # survives a fork, unlike the word


cdef uint64_t* word() except NULL:
    cdef void* found = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if found == MAP_FAILED:
        raise MemoryError
    madvise(found, ROOM, WIPE_ON_FORK)      # an older kernel: only Python's own forks are seen
    (<uint64_t*> found)[0] = 1
    return <uint64_t*> found


cdef void told():
    global lives
    lives += 1
    life[0] = lives


def number():
    """Return the number of this life; 0: a child that nobody told."""
    return life[0]


def _forked():
    told()


life = word()
os.register_at_fork(after_in_child=_forked)
