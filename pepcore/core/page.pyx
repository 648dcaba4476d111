"""The page: one revision and 65,536 slots, by which cached decisions end everywhere on the host (DESIGN, D3).

A slot holds the revision at which it was revoked last. An answer is stamped with the revision that was read before the
PDP was asked, and with the slots of its tags. It stands while no slot of its own holds a greater number; a tag that only
the answer names needs no value read in advance, and no list of recent revocations can overflow.

Promises: the revision only grows; slots are written before the revision (release), and read after it (acquire), so
that whoever sees a revision sees every slot that it revoked; a reader's page that fails its checks is refused.
Never: maps memory or looks at a clock (the caller passes both); counts in slots, which could wrap or be reset.

INVARIANT: no slot holds more than the revision; one writer, one thread.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free

from array import array

from .cursor cimport le16

_MAGIC = int.from_bytes(b"PEPPAGE1", "little")
PAGE_BYTES = 8 * (SLOT + SLOTS)
SLOT_EVERY, SLOT_TIMED = EVERY, TIMED
LEASE_NS = PEP_LEASE_NS


@cython.final
cdef class Page:
    """`boot` is a random u64 that names this life of the counters; 0 is refused. `seed` hashes tags to slots.

    `memory` is a buffer of PAGE_BYTES that others map too; None: the counters are private to the process.
    """

    def __init__(self, uint64_t boot, memory=None, *, uint64_t seed=1):
        if boot == 0 or seed == 0:
            raise ValueError("boot and seed `0` mean closed: pass random numbers")
        self.boot, self.seed = boot, seed
        if memory is None:
            self.words = <uint64_t*> calloc(SLOT + SLOTS, 8)
            self.own = self.words
            if self.words == NULL:
                raise MemoryError
        else:
            self.map(memory, PyBUF_WRITABLE)
        self.words[BOOT] = boot
        store(self.words + MAGIC, _MAGIC)

    def __dealloc__(self):
        free(self.own)
        if self.viewed:
            PyBuffer_Release(&self.view)

    cdef int map(self, memory, int flags) except -1:
        PyObject_GetBuffer(memory, &self.view, flags)
        self.viewed = True
        if self.view.len != PAGE_BYTES or <size_t> self.view.buf % 8:
            raise ValueError(f"the page has `{self.view.len}` bytes: it must be {PAGE_BYTES}, aligned to 8")
        self.words = <uint64_t*> self.view.buf
        return 0

    @staticmethod
    def reader(memory, uint64_t boot):
        """The page that a daemon shares, as mapped here (read-only). Raises ValueError where it is not that."""
        cdef Page page = Page.__new__(Page)
        page.map(memory, PyBUF_SIMPLE)
        page.leased = True
        if load(page.words + MAGIC) != <uint64_t> _MAGIC:
            raise ValueError("the page does not begin as one: its magic is wrong")
        if boot == 0 or page.words[BOOT] != boot:
            raise ValueError("the page is of another daemon than the one that sent it: its boot id differs")
        page.boot = boot
        return page

    @property
    def revision(self):
        """Revocations so far."""
        return load(self.words + REVISION)

    @property
    def lease(self):
        """Until when this page is believed, CLOCK_BOOTTIME ns; 0: its daemon has closed it."""
        return load(self.words + LEASE)

    def is_live(self, int64_t now):
        """Whether a reader may believe this page."""
        return live(self, now)

    cdef uint64_t write_one(self, uint16_t slot) noexcept:
        cdef uint64_t revision = self.words[REVISION] + 1
        store(self.words + SLOT + slot, revision)
        store(self.words + REVISION, revision)
        return revision

    def revoke(self, slots):
        """End every answer that hangs on one of these slots. Returns the new revision."""
        cdef uint64_t revision = self.words[REVISION] + 1
        cdef bytes checked = array("H", slots).tobytes()    # a slot that cannot be raises before anything is written
        cdef const uint16_t* at = <const uint16_t*> <const char*> checked
        cdef Py_ssize_t i
        self.writable()
        for i in range(len(checked) // 2):
            store(self.words + SLOT + at[i], revision)
        store(self.words + REVISION, revision)
        return revision

    def bump(self):
        """End every answer: the new state is active. Returns the new revision."""
        self.writable()
        return self.write_one(EVERY)

    def clock_was_set(self):
        """End the answers that were measured on the wall clock. Returns the new revision."""
        self.writable()
        return self.write_one(TIMED)

    def renew(self, uint64_t until):
        """Be believed until then (CLOCK_BOOTTIME ns); 0: no more."""
        self.writable()
        store(self.words + LEASE, until)

    def untouched(self, bytes stamps not None, uint64_t since):
        """Whether none of these slots (u16 each, little-endian) was revoked after `since`; none given: nothing was."""
        return untouched(self.words, <const unsigned char*> <const char*> stamps, len(stamps) // 2, since)

    cdef int writable(self) except -1:
        if self.leased:
            raise TypeError("a reader does not write the page")
        return 0

