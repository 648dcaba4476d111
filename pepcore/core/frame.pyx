"""Frames: 24 bytes of header and a body (bindings/README.md gives every byte).

Promises: `cut` reads a header only when its 24 bytes are there, and calls a frame whole only when its body is. A
body longer than the limit is found from the header alone, before a byte of it is stored.
Never: allocates; looks into a body.

INVARIANT: a whole frame lies within the bytes that were given to `cut`, and so does its question.
"""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memset

from .cursor cimport le16, le32, le64, put_le16, put_le32, put_le64


cdef Cut cut(const unsigned char* at, Py_ssize_t left, uint32_t limit, Frame* out) noexcept nogil:
    if left < HEADER:
        return PARTIAL
    out.length = le32(at)
    out.question = le32(at + 4)
    out.version = at[8]
    out.op = at[9]
    out.flags = le16(at + 10)
    out.partition = le32(at + 12)
    out.id = le64(at + 16)
    out.body = at + HEADER
    if out.version != VERSION or out.length > limit:
        return LOST
    if left - HEADER < out.length:
        return PARTIAL
    return WHOLE


cdef Py_ssize_t tail_size(uint16_t flags) noexcept nogil:
    """Bytes of the tail that these flags announce, or -1 where a flag is unknown."""
    if flags & ~KNOWN_FLAGS:
        return -1
    return (
        (4 if flags & HAS_DEADLINE else 0)
        + (8 if flags & HAS_NOT_AFTER else 0)
        + (16 if flags & HAS_MIN_REVISION else 0)
        + (TRACE if flags & HAS_TRACE else 0)
    )


cdef void read_tail(const unsigned char* at, uint16_t flags, Tail* out) noexcept nogil:
    """Read a tail of `tail_size(flags)` bytes, which the caller has made sure of."""
    memset(out, 0, sizeof(Tail))
    out.flags = flags
    if flags & HAS_DEADLINE:
        out.deadline_us = le32(at)
        at += 4
    if flags & HAS_NOT_AFTER:
        out.not_after = le64(at)
        at += 8
    if flags & HAS_MIN_REVISION:
        out.min_boot, out.min_revision = le64(at), le64(at + 8)
        at += 16
    if flags & HAS_TRACE:
        out.trace = at


cdef void write_header(unsigned char* at, const Frame* f) noexcept nogil:
    put_le32(at, f.length)
    put_le32(at + 4, f.question)
    at[8] = f.version
    at[9] = f.op
    put_le16(at + 10, f.flags)
    put_le32(at + 12, f.partition)
    put_le64(at + 16, f.id)


def header(int op, unsigned long long request_id, unsigned int length, *, unsigned int question=0,
           unsigned int partition=0, int flags=0):
    """Return the 24 bytes of a header."""
    cdef Frame f
    cdef unsigned char out[HEADER]
    f.length, f.question, f.version, f.op = length, question, VERSION, op
    f.flags, f.partition, f.id = flags, partition, request_id
    write_header(out, &f)
    return (<const char*> out)[:HEADER]
