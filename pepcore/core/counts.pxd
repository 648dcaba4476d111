from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint64_t

from .page cimport load

cdef extern from *:
    """
    #define pep_add(p) __atomic_fetch_add((p), 1, __ATOMIC_SEQ_CST)
    #define pep_take(p) __atomic_exchange_n((p), 0, __ATOMIC_ACQ_REL)
    #define pep_mark(p, v) __atomic_fetch_or((p), (v), __ATOMIC_RELEASE)
    """
    void add_one "pep_add"(uint64_t*) noexcept nogil
    uint64_t take "pep_take"(uint64_t*) noexcept nogil
    void mark "pep_mark"(uint64_t*, uint64_t) noexcept nogil

cdef enum:
    COUNTED = 8192              # entries of a client's table that are counted, each at its own place
    RING = 1024                 # entries that left the table since the last harvest
    C_MAGIC = 0                 # words of the header
    C_BOOT = 1
    C_LEFT = 2                  # entries ever put into the ring
    C_MARKS = 64                # a bit for each pair that was hit: COUNTED / 64 words
    C_RING = 192                # pairs of decision id and count
    C_PAIRS = 192 + 2 * 1024


cdef class Counts:
    cdef uint64_t* words
    cdef Py_buffer view
    cdef bint viewed
    cdef uint64_t seen          # of the ring, by the harvest
    cdef void put(self, uint64_t at, uint64_t id) noexcept


cdef inline void counted(Counts c, uint64_t at) noexcept:
    """The entry at this place was hit."""
    add_one(c.words + C_PAIRS + 2 * at + 1)
    if not load(c.words + C_MARKS + (at >> 6)) >> (at & 63) & 1:   # after the addition: who takes the bit takes that, too
        mark(c.words + C_MARKS + (at >> 6), <uint64_t> 1 << (at & 63))
