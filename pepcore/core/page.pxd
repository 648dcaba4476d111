from cpython.buffer cimport Py_buffer
from libc.stdint cimport int64_t, uint16_t, uint64_t

cdef extern from *:
    """
    /* Single aligned words: no odd state, so a daemon killed in the middle of a write hangs nobody. */
    #define pep_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define pep_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t load "pep_load"(const uint64_t*) noexcept nogil
    void store "pep_store"(uint64_t*, uint64_t) noexcept nogil

cdef enum:
    MAGIC = 0                                   # words of the header
    BOOT = 1
    LEASE = 2
    REVISION = 3
    SLOT = 512                                  # word of slot 0: the header has a memory page of its own
    SLOTS = 65536
    EVERY = 0                                   # slot of every entry: bumped by a reload and by `revoke --all`
    TIMED = 1                                   # slot of entries that depend on the wall clock
    STAMPS = 32                                 # most slots of one entry; more: it hangs on the revision itself

cdef extern from *:
    """
    #define PEP_LEASE_NS 100000000LL
    """
    int64_t PEP_LEASE_NS                        # how long a daemon that says nothing is believed


cdef class Page:
    cdef uint64_t* words
    cdef void* own                      # what is freed at the end; NULL where `words` is another's memory
    cdef Py_buffer view                 # what keeps `words` mapped otherwise
    cdef bint viewed
    cdef readonly uint64_t boot         # random per start: another boot is another life
    cdef readonly uint64_t seed         # of the hash from tags to slots; 0: a reader, which hashes nothing
    cdef readonly bint leased           # a reader's: it holds only while the daemon renews it
    cdef int map(self, memory, int flags) except -1
    cdef int writable(self) except -1
    cdef uint64_t write_one(self, uint16_t slot) noexcept


cdef inline bint unchanged(Page page, uint64_t revision) noexcept:
    """True where nothing was revoked or reloaded since `revision`."""
    return load(page.words + REVISION) == revision


cdef inline bint untouched(const uint64_t* words, const unsigned char* stamps, int count, uint64_t since) noexcept nogil:
    """True where none of these slots (u16 each, little-endian) was revoked after `since`; no slots: nothing was."""
    cdef int i
    if count == 0:
        return load(words + REVISION) == since
    for i in range(count):
        if load(words + SLOT + (stamps[2 * i] | stamps[2 * i + 1] << 8)) > since:
            return False
    return True


cdef inline bint live(Page page, int64_t now) noexcept:
    """True where whoever writes this page is there: its lease ends within the next PEP_LEASE_NS.

    One unsigned comparison, so that a deadline far ahead (a clock of another time namespace) is no life either.
    """
    return not page.leased or load(page.words + LEASE) - <uint64_t> now <= <uint64_t> PEP_LEASE_NS
