# Canonical msgpack: the shortest encoding of each value, written in one place.
#
# Promises: the writers below give the one canonical encoding of a number, a string header, an array header and a
# map header (msgpack specification, "formats": the smallest format that holds the value). Floats are always 64 bit.
# Never: writes bin, ext or a 32-bit float. Source: github.com/msgpack/msgpack spec.md.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from .cursor cimport Buffer, put_be, put_byte


cdef inline bint put_uint(Buffer* b, uint64_t v) noexcept nogil:
    if v < 0x80:
        return put_byte(b, <uint8_t> v)
    if v <= 0xFF:
        return put_be(b, 0xCC, v, 1)
    if v <= 0xFFFF:
        return put_be(b, 0xCD, v, 2)
    if v <= 0xFFFFFFFFU:
        return put_be(b, 0xCE, v, 4)
    return put_be(b, 0xCF, v, 8)


cdef inline bint put_int(Buffer* b, int64_t v) noexcept nogil:
    if v >= 0:
        return put_uint(b, <uint64_t> v)
    if v >= -32:
        return put_byte(b, <uint8_t> (v & 0xFF))
    if v >= -128:
        return put_be(b, 0xD0, <uint64_t> v, 1)
    if v >= -32768:
        return put_be(b, 0xD1, <uint64_t> v, 2)
    if v >= -2147483648LL:
        return put_be(b, 0xD2, <uint64_t> v, 4)
    return put_be(b, 0xD3, <uint64_t> v, 8)


cdef inline bint put_float(Buffer* b, double v) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &v, 8)
    return put_be(b, 0xCB, bits, 8)


cdef inline bint put_str_head(Buffer* b, Py_ssize_t n) noexcept nogil:
    if n < 32:
        return put_byte(b, <uint8_t> (0xA0 | n))
    if n <= 0xFF:
        return put_be(b, 0xD9, n, 1)
    if n <= 0xFFFF:
        return put_be(b, 0xDA, n, 2)
    return put_be(b, 0xDB, n, 4)


cdef inline bint put_array_head(Buffer* b, Py_ssize_t n) noexcept nogil:
    if n < 16:
        return put_byte(b, <uint8_t> (0x90 | n))
    if n <= 0xFFFF:
        return put_be(b, 0xDC, n, 2)
    return put_be(b, 0xDD, n, 4)


cdef inline bint put_map_head(Buffer* b, Py_ssize_t n) noexcept nogil:
    if n < 16:
        return put_byte(b, <uint8_t> (0x80 | n))
    if n <= 0xFFFF:
        return put_be(b, 0xDE, n, 2)
    return put_be(b, 0xDF, n, 4)
