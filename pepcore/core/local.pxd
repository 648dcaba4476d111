from libc.stdint cimport int64_t, uint64_t, uint8_t

from cpython.object cimport PyObject

from .asked cimport Asked
from .clocks cimport Clocks
from .counts cimport Counts
from .page cimport Page
from .verdict cimport Verdict

cdef enum:
    WAYS = 8

cdef struct Entry:              # 64 bytes: one cache line
    uint64_t hash
    PyObject* subject           # all owned; verdict NULL: a hole
    PyObject* action
    PyObject* resource
    PyObject* rest              # a dict of exact str to exact str, int or bool; (chain, that or None); NULL: none
    PyObject* verdict
    int64_t expires             # CLOCK_BOOTTIME
    uint64_t revision           # read before the PDP was asked

cdef struct Set:
    uint8_t visited             # one bit for each way
    uint8_t hand


cdef class Local:
    cdef object __weakref__
    cdef Entry* entries
    cdef Set* sets
    cdef uint64_t mask          # sets - 1
    cdef object miss
    cdef uint64_t life          # of the process, as it was when this table began
    cdef Clocks clocks
    cdef readonly Page page
    cdef Counts counts          # where the daemon fetches hits; None: nobody counts them
    cdef readonly uint64_t hits
    cdef readonly uint64_t misses
    cdef readonly uint64_t evictions
    cdef Entry* find(self, const Asked* q) noexcept
    cdef bint stands(self, Entry* e) noexcept
    cdef void compare(self, int64_t now, int64_t wall_ms) noexcept
    cdef object ask(self, object s, object a, object r, object context, object chain)
    cdef int keep(self, const Asked* q, Verdict v) except -1
    cdef int place(self, const Asked* q, int64_t now) noexcept
