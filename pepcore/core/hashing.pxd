from libc.stdint cimport uint64_t

ctypedef uint64_t (*xxh3_t)(const void*, size_t, uint64_t) noexcept nogil

cdef xxh3_t xxh3
