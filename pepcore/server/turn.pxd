from libc.stdint cimport int64_t

from ..core.gate cimport Gate, Stream

cdef class Served:
    cdef public int owner
    cdef public int64_t others_ns
    cdef int64_t apart              # wall clock minus CLOCK_BOOTTIME at the last read, ms
    cdef bint compared
    cdef bint set_since(self, int64_t now, int64_t wall_ms) noexcept

cdef class Turn:
    cdef Gate gate
    cdef Stream stream
    cdef Served served
    cdef object rest, ended
    cdef int fd, owner
    cdef bint partial               # the stream held half a frame after the last read
    cdef int take(self, Py_ssize_t size) except -1
