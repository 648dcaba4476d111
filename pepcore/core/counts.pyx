"""Hits that a client serves by itself, counted where the daemon can fetch them (DESIGN, D10).

Each client has memory of its own, made and sized by the daemon: a pair of decision id and count for each entry of its table,
and a ring for those that left. The daemon harvests it also when the client was killed.

Promises: a hit is one addition and one bit; a harvest takes each count once, and looks only at pairs that were hit; what
left a ring that was too full is told as lost.
Never: is believed beyond its own client, or beyond reason: whoever can write it can only misstate his own hits, and at
one harvest no more of them than a client could have had.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

from .page cimport load, store

_MAGIC = int.from_bytes(b"PEPHITS1", "little")
MOST_HITS = (1 << 32) - 1
"""Of one decision at one harvest, which comes about once a second: more is no count, and what is above it is not told."""
MOST_LOST = 1 << 24
"""Entries that can leave a table between two harvests."""
COUNTS_BYTES = 8 * (C_PAIRS + 2 * COUNTED)


@cython.final
cdef class Counts:
    """The counts in `memory` (a writable buffer of COUNTS_BYTES). `boot` is written where `made`, else compared."""

    def __init__(self, memory, uint64_t boot, *, bint made=False):
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.viewed = True
        if self.view.len != COUNTS_BYTES or <size_t> self.view.buf % 8:
            raise ValueError(f"the counts have `{self.view.len}` bytes: they must be {COUNTS_BYTES}, aligned to 8")
        self.words = <uint64_t*> self.view.buf
        if made:
            self.words[C_BOOT] = boot
            store(self.words + C_MAGIC, _MAGIC)
        elif load(self.words + C_MAGIC) != <uint64_t> _MAGIC or self.words[C_BOOT] != boot:
            raise ValueError("the counts are not those of the daemon that sent them")

    def __dealloc__(self):
        if self.viewed:
            PyBuffer_Release(&self.view)

    cdef void put(self, uint64_t at, uint64_t id) noexcept:
        """Another entry comes to this place: what the old one served goes into the ring."""
        cdef uint64_t* pair = self.words + C_PAIRS + 2 * at
        cdef uint64_t old = pair[0], count = take(pair + 1), left
        cdef uint64_t* place
        if count:
            left = self.words[C_LEFT]
            place = self.words + C_RING + 2 * (left % RING)
            place[0], place[1] = old, count
            store(self.words + C_LEFT, left + 1)
        store(pair, id)

    def hit(self, uint64_t at):
        """Count a hit of the entry at this place."""
        if at >= COUNTED:
            raise ValueError(f"place `{at}` is not below {COUNTED}")
        counted(self, at)

    def came(self, uint64_t at, uint64_t id):
        """The entry of another decision is at this place from now on."""
        if at >= COUNTED:
            raise ValueError(f"place `{at}` is not below {COUNTED}")
        self.put(at, id)

    def harvest(self):
        """Return what was served since the last time as (decision id, count), and how many entries of it were lost."""
        cdef uint64_t left = load(self.words + C_LEFT), marks, count
        cdef uint64_t gone = left - self.seen  # of a number that went back: very many
        cdef uint64_t* pair
        cdef uint64_t i, bit
        cdef list found = []
        lost = 0
        if gone > MOST_LOST:  # no client of ours wrote that: go on from there, and take nothing from its ring
            lost = MOST_LOST
            self.seen = left
        elif gone > RING:
            lost = gone - RING
            self.seen = left - RING
        while self.seen != left:
            pair = self.words + C_RING + 2 * (self.seen % RING)
            found.append((load(pair), min(load(pair + 1), <uint64_t> MOST_HITS)))
            self.seen += 1
        for i in range(COUNTED // 64):
            if load(self.words + C_MARKS + i) == 0:
                continue
            marks = take(self.words + C_MARKS + i)
            for bit in range(64):
                if marks >> bit & 1:
                    pair = self.words + C_PAIRS + 2 * (64 * i + bit)
                    id = load(pair)
                    count = take(pair + 1)
                    if count:
                        found.append((id, min(count, <uint64_t> MOST_HITS)))
        return found, lost
