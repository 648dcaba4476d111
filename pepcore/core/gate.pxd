from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from .cache cimport Cache, Slot
from .cursor cimport Buffer
from .frame cimport Frame, Tail
from .page cimport Page

cdef enum:
    PARTITIONS = 64             # hellos of one connection

cdef class Stream:
    cdef Buffer rest            # bytes of a frame that is not whole yet
    cdef uint32_t partitions[PARTITIONS]
    cdef readonly int count     # partitions made by hellos
    cdef readonly bint lost     # the framing is lost: nothing more is read
    cdef readonly bint more     # feed() stopped early to bound its output: call it again
    cdef readonly list asks     # what the gate cannot answer, for the enforcer
    cdef readonly object peer
    cdef readonly dict faults   # what the gate answered with a fault: {code: (how often, field, local partition)}
    cdef int note(self, int code, str field, uint32_t local) except -1

cdef class Ask:
    cdef readonly uint64_t id
    cdef readonly int op
    cdef readonly uint32_t partition    # interned, of the whole daemon
    cdef readonly uint32_t local        # as the peer numbered it
    cdef readonly bytes question        # canonical (check, explain)
    cdef readonly bytes rest            # body of any other op
    cdef readonly int64_t deadline_ns   # relative to receipt, -1: none sent
    cdef readonly int64_t not_after     # Unix milliseconds, -1: none sent
    cdef readonly uint64_t min_boot, min_revision
    cdef readonly bytes trace

cdef class Gate:
    cdef Cache cache
    cdef Page page
    cdef Buffer out
    cdef uint32_t frame_limit
    cdef int depth
    cdef public uint32_t keep_ms    # for how long clients may keep an answer at most
    cdef Py_ssize_t values      # of a question
    cdef object hello
    cdef Py_ssize_t take(self, Stream s, const unsigned char* data, Py_ssize_t size, int64_t now,
                         int64_t wall_ms) except -1
    cdef int keep(self, Stream s, const unsigned char* at, const unsigned char* end, bint inside) except -1
    cdef Slot* live(self, uint32_t partition, const unsigned char* key, Py_ssize_t size, int64_t now) noexcept
    cdef int ask(self, Stream s, const Frame* f, uint32_t partition, const Tail* t, bytes question,
                 bytes rest) except -1
    cdef int forward(self, Stream s, const Frame* f) except -1
    cdef int greet(self, Stream s, const Frame* f) except -1
    cdef void open_reply(self, const Frame* f, int op, uint32_t length) noexcept
    cdef int check(self, Stream s, const Frame* f, int64_t now, int64_t wall_ms) except -1
    cdef int hit(self, const Frame* f, Slot* s, int64_t left_ms, int64_t now) except -1
    cdef int fault(self, Stream s, const Frame* f, int code, str field, str reason) except -1
    cdef int denied(self, Stream s, const Frame* f, int code, str reason) except -1
    cdef int reply(self, const Frame* f, int op, bytes body) except -1
