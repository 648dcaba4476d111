from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    HEADER = 24
    VERSION = 1
    TRACE = 25                  # trace id 16, span id 8, flags 1

cdef enum Op:
    HELLO = 1
    CHECK = 2
    CHECK_MANY = 3
    LEASE = 4
    END_LEASE = 5
    REVOKE = 6
    BLOCK = 7
    STATS = 8
    EXPLAIN = 9
    MAP = 10
    REPLY = 0x80                # added to the op of a reply
    ERROR = 0xFF

cdef enum Flag:
    HAS_DEADLINE = 1
    HAS_NOT_AFTER = 2
    HAS_MIN_REVISION = 4
    HAS_TRACE = 8
    KNOWN_FLAGS = 15

cdef struct Frame:
    uint32_t length             # of the body
    uint32_t question           # bytes of the body that are the question
    uint8_t version
    uint8_t op
    uint16_t flags
    uint32_t partition          # as numbered by the hellos of the connection
    uint64_t id
    const unsigned char* body

cdef struct Tail:
    uint16_t flags              # which of these the peer sent
    uint32_t deadline_us        # from receipt
    uint64_t not_after          # Unix milliseconds
    uint64_t min_boot
    uint64_t min_revision
    const unsigned char* trace  # TRACE bytes

cdef enum Cut:
    WHOLE = 1
    PARTIAL = 0
    LOST = -1                   # too long or of another version: nothing after it can be read

cdef Cut cut(const unsigned char* at, Py_ssize_t left, uint32_t limit, Frame* out) noexcept nogil
cdef Py_ssize_t tail_size(uint16_t flags) noexcept nogil
cdef void read_tail(const unsigned char* at, uint16_t flags, Tail* out) noexcept nogil
cdef void write_header(unsigned char* at, const Frame* f) noexcept nogil
