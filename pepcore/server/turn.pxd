from libc.stdint cimport int64_t

from ..core.clocks cimport Clocks
from ..core.gate cimport Gate, Stream

cdef class Served:
    cdef public int owner
    cdef public int64_t others_ns
    cdef public bint contested      # connections of several owners are open
    cdef public object holds
    cdef Clocks clocks

cdef class Share:
    cdef public int64_t spent_ns

cdef class Turn:
    cdef Gate gate
    cdef Stream stream
    cdef Served served
    cdef Share share
    cdef object rest, later, ended
    cdef int fd, owner
    cdef public int passed, passed_too
    cdef public object given
    cdef bint partial               # the stream held half a frame after the last read
    cdef int turn(self, Py_ssize_t size) except -1
    cdef int take(self, Py_ssize_t size, int64_t now) except -1
