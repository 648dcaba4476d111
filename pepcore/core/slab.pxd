from libc.stdint cimport uint32_t

from .cursor cimport Buffer

cdef enum:
    BLOCK = 64                  # bytes of a block: 4 of link, 60 of content
    CONTENT = 60
    NONE = 0xFFFFFFFF           # no block

cdef struct Slab:
    unsigned char* data
    uint32_t blocks
    uint32_t fresh              # blocks ever handed out: those above were never touched
    uint32_t free_head          # list of those given back
    uint32_t free_count

cdef inline uint32_t spare_blocks(const Slab* s) noexcept nogil:
    return s.free_count + s.blocks - s.fresh

cdef inline uint32_t blocks_for(uint32_t size) noexcept nogil:
    return (size + CONTENT - 1) // CONTENT

cdef bint slab_open(Slab* s, size_t size) noexcept nogil
cdef void slab_close(Slab* s) noexcept nogil
cdef uint32_t chain_store(Slab* s, const unsigned char* key, uint32_t key_size,
                          const unsigned char* payload, uint32_t payload_size) noexcept nogil
cdef uint32_t chain_free(Slab* s, uint32_t head) noexcept nogil
cdef bint chain_starts_with(const Slab* s, uint32_t head, const unsigned char* key, uint32_t size) noexcept nogil
cdef void chain_read(const Slab* s, uint32_t head, uint32_t skip, uint32_t size, unsigned char* out) noexcept nogil
cdef bint chain_copy(const Slab* s, uint32_t head, uint32_t skip, uint32_t size, Buffer* out) noexcept nogil
