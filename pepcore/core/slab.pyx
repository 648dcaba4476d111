"""A slab of 64-byte blocks; what is stored is a chain of them.

Promises: memory is what `slab_open` was told and is touched only as it fills; storing needs exactly
`blocks_for(size)` blocks; nothing fragments, so any chain given back is room for any other.
Never: allocates after it was opened; checks for room (the caller asks `spare_blocks` first).

INVARIANT: blocks in chains + `free_count` == `fresh` <= `blocks`.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from .cursor cimport Buffer, reserve


cdef inline unsigned char* block(const Slab* s, uint32_t i) noexcept nogil:
    return s.data + <size_t> i * BLOCK


cdef inline uint32_t* link(const Slab* s, uint32_t i) noexcept nogil:
    return <uint32_t*> block(s, i)


cdef bint slab_open(Slab* s, size_t size) noexcept nogil:
    s.blocks = <uint32_t> (size // BLOCK)
    s.fresh, s.free_head, s.free_count = 0, NONE, 0
    s.data = <unsigned char*> malloc(<size_t> s.blocks * BLOCK)
    return s.data != NULL


cdef void slab_close(Slab* s) noexcept nogil:
    free(s.data)
    s.data = NULL


cdef uint32_t take(Slab* s) noexcept nogil:
    cdef uint32_t i = s.free_head
    if i != NONE:
        s.free_head = link(s, i)[0]
        s.free_count -= 1
        return i
    s.fresh += 1
    return s.fresh - 1


cdef uint32_t chain_store(Slab* s, const unsigned char* key, uint32_t key_size,
                          const unsigned char* payload, uint32_t payload_size) noexcept nogil:
    """Write key and payload as one chain and return its first block."""
    cdef uint32_t total = key_size + payload_size, at = 0, n, used, i, first = NONE, last = NONE
    while at < total:
        i = take(s)
        if first == NONE:
            first = i
        else:
            link(s, last)[0] = i
        last = i
        link(s, i)[0] = NONE
        used = 0
        while used < CONTENT and at < total:
            if at < key_size:
                n = min(<uint32_t> CONTENT - used, key_size - at)
                memcpy(block(s, i) + 4 + used, key + at, n)
            else:
                n = min(<uint32_t> CONTENT - used, total - at)
                memcpy(block(s, i) + 4 + used, payload + (at - key_size), n)
            used += n
            at += n
    return first


cdef uint32_t chain_free(Slab* s, uint32_t head) noexcept nogil:
    """Give a chain back and return its number of blocks."""
    cdef uint32_t after, n = 0
    while head != NONE:
        after = link(s, head)[0]
        link(s, head)[0] = s.free_head
        s.free_head = head
        n += 1
        head = after
    s.free_count += n
    return n


cdef bint chain_starts_with(const Slab* s, uint32_t head, const unsigned char* key, uint32_t size) noexcept nogil:
    cdef uint32_t n
    while size > 0:
        n = min(<uint32_t> CONTENT, size)
        if memcmp(block(s, head) + 4, key, n) != 0:
            return False
        key += n
        size -= n
        head = link(s, head)[0]
    return True


cdef void chain_read(const Slab* s, uint32_t head, uint32_t skip, uint32_t size, unsigned char* out) noexcept nogil:
    """Copy `size` bytes of a chain, from `skip` on, to where there is room for them."""
    cdef uint32_t n
    while skip >= CONTENT:
        head = link(s, head)[0]
        skip -= CONTENT
    while size > 0:
        n = min(<uint32_t> CONTENT - skip, size)
        memcpy(out, block(s, head) + 4 + skip, n)
        out += n
        size -= n
        skip = 0
        head = link(s, head)[0]


cdef bint chain_copy(const Slab* s, uint32_t head, uint32_t skip, uint32_t size, Buffer* out) noexcept nogil:
    """Append `size` bytes of a chain, from `skip` on. False: there is no room in `out`, and nothing was added."""
    if not reserve(out, size):
        return False
    chain_read(s, head, skip, size, out.data + out.size)
    out.size += size
    return True
