# Reading and writing raw bytes, with every bound checked here and nowhere else.
#
# Promises: a Cursor never reads at or past `end`; a Buffer never writes past its capacity and never grows past
# its limit; numbers are little-endian in frames and big-endian in msgpack, on any host.
# Never: allocates by a length that a peer sent, unless that length was compared with the bytes at hand before.
#
# INVARIANT: `at <= end` in a Cursor, `size <= room <= limit` in a Buffer.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    uint16_t le16toh(uint16_t)
    uint32_t le32toh(uint32_t)
    uint64_t le64toh(uint64_t)
    uint16_t be16toh(uint16_t)
    uint32_t be32toh(uint32_t)
    uint64_t be64toh(uint64_t)
    uint16_t htole16(uint16_t)
    uint32_t htole32(uint32_t)
    uint64_t htole64(uint64_t)
    uint16_t htobe16(uint16_t)
    uint32_t htobe32(uint32_t)
    uint64_t htobe64(uint64_t)


cdef struct Cursor:
    const unsigned char* at     # next byte to read
    const unsigned char* end    # one past the last byte


cdef struct Buffer:
    unsigned char* data
    Py_ssize_t size             # bytes written
    Py_ssize_t room             # bytes allocated
    Py_ssize_t limit            # bytes it may ever hold


cdef inline bint has(const Cursor* c, Py_ssize_t n) noexcept nogil:
    return n >= 0 and c.end - c.at >= n


# The caller has asked `has` for these.
cdef inline uint16_t le16(const unsigned char* p) noexcept nogil:
    cdef uint16_t v
    memcpy(&v, p, 2)
    return le16toh(v)


cdef inline uint32_t le32(const unsigned char* p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return le32toh(v)


cdef inline uint64_t le64(const unsigned char* p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return le64toh(v)


cdef inline uint16_t be16(const unsigned char* p) noexcept nogil:
    cdef uint16_t v
    memcpy(&v, p, 2)
    return be16toh(v)


cdef inline uint32_t be32(const unsigned char* p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return be32toh(v)


cdef inline uint64_t be64(const unsigned char* p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return be64toh(v)


cdef inline void put_le16(unsigned char* p, uint16_t v) noexcept nogil:
    v = htole16(v)
    memcpy(p, &v, 2)


cdef inline void put_le32(unsigned char* p, uint32_t v) noexcept nogil:
    v = htole32(v)
    memcpy(p, &v, 4)


cdef inline void put_le64(unsigned char* p, uint64_t v) noexcept nogil:
    v = htole64(v)
    memcpy(p, &v, 8)


cdef inline bint reserve(Buffer* b, Py_ssize_t n) noexcept nogil:
    """Make room for n more bytes. False: the limit or the memory is at its end, and nothing changed."""
    cdef Py_ssize_t room
    cdef unsigned char* data
    if n < 0 or n > b.limit - b.size:
        return False
    if n <= b.room - b.size:
        return True
    room = b.room * 2 if b.room > 256 else 512
    if room < b.size + n:
        room = b.size + n
    if room > b.limit:
        room = b.limit
    data = <unsigned char*> realloc(b.data, room)
    if data == NULL:
        return False
    b.data = data
    b.room = room
    return True


cdef inline bint put(Buffer* b, const void* bytes, Py_ssize_t n) noexcept nogil:
    if not reserve(b, n):
        return False
    memcpy(b.data + b.size, bytes, n)
    b.size += n
    return True


cdef inline bint put_byte(Buffer* b, uint8_t v) noexcept nogil:
    if not reserve(b, 1):
        return False
    b.data[b.size] = v
    b.size += 1
    return True


cdef inline bint put_be(Buffer* b, uint8_t lead, uint64_t v, int width) noexcept nogil:
    """One msgpack lead byte and a big-endian number of `width` bytes."""
    cdef uint64_t be = htobe64(v)
    if not reserve(b, 1 + width):
        return False
    b.data[b.size] = lead
    memcpy(b.data + b.size + 1, (<unsigned char*> &be) + (8 - width), width)
    b.size += 1 + width
    return True
