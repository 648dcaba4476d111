# Strict UTF-8, eight bytes at a step where the text is ASCII.
#
# Promises: takes exactly what RFC 3629 calls UTF-8.
# Never: reads at or past `end`.

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy


cdef inline bint is_utf8(const unsigned char* p, const unsigned char* end) noexcept nogil:
    """Strict UTF-8 (RFC 3629): no surrogates, no overlong forms, nothing above U+10FFFF."""
    cdef uint64_t eight
    cdef uint8_t b
    while p < end:
        if end - p >= 8:
            memcpy(&eight, p, 8)
            if eight & 0x8080808080808080ULL == 0:
                p += 8
                continue
        b = p[0]
        if b < 0x80:
            p += 1
        elif b < 0xC2:
            return False
        elif b < 0xE0:
            if end - p < 2 or p[1] & 0xC0 != 0x80:
                return False
            p += 2
        elif b < 0xF0:
            if end - p < 3 or p[1] & 0xC0 != 0x80 or p[2] & 0xC0 != 0x80:
                return False
            if (b == 0xE0 and p[1] < 0xA0) or (b == 0xED and p[1] > 0x9F):
                return False
            p += 3
        elif b < 0xF5:
            if end - p < 4 or p[1] & 0xC0 != 0x80 or p[2] & 0xC0 != 0x80 or p[3] & 0xC0 != 0x80:
                return False
            if (b == 0xF0 and p[1] < 0x90) or (b == 0xF4 and p[1] > 0x8F):
                return False
            p += 4
        else:
            return False
    return True
