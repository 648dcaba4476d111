from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from .page cimport Page
from .slab cimport Slab
from .tally cimport Tally

cdef enum:
    WAYS = 8
    OWNERS = 4096
    SWEEP = 16                  # sets looked at for room when the slab is full

cdef struct Slot:
    int64_t expires             # CLOCK_BOOTTIME ns
    uint64_t revision           # at which it is known to stand: first that of before the PDP was asked
    uint64_t id                 # of the decision
    uint32_t tag                # low half of the hash
    uint32_t head               # first block, NONE: the slot is empty
    uint32_t partition
    uint32_t served             # hits since the last harvest
    uint32_t first              # ms of the first and the last of them, from the last harvest on
    uint32_t last
    uint16_t key                # bytes of the key
    uint16_t payload            # bytes of the encoded answer, after the key in the chain; its stamps come last
    uint16_t owner
    uint8_t permit
    uint8_t visited
    uint8_t stamps              # slots of the page that it hangs on; 0: on the revision itself
    uint8_t kept                # whether a client may keep it, too

cdef struct Owner:
    uint32_t slots
    uint32_t blocks

cdef struct Table:
    Slot* slots
    uint8_t* hands              # one SIEVE hand a set
    Tally tally
    Owner* owners
    Slab slab
    uint32_t sets, slot_quota, block_quota, swept
    int way_quota               # entries of one set, where it is full
    uint64_t seed
    uint64_t hits, misses, inserts, evictions, declined

cdef Slot* find(Table* t, uint32_t partition, const unsigned char* key, Py_ssize_t size) noexcept nogil
cdef void served(Table* t, Slot* s, int64_t now) noexcept nogil
cdef bint stands(Table* t, Slot* s, const uint64_t* words) noexcept nogil
cdef bint insert(Table* t, const Slot* new, const unsigned char* key, const unsigned char* payload,
                 int64_t now, const uint64_t* words) noexcept nogil

cdef class Cache:
    cdef Table table
