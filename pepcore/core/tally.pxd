from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    LEFT = 16384                # entries with hits that may go between two harvests

cdef struct Served:             # hits of one entry between two harvests
    uint64_t id
    uint32_t partition, count
    uint32_t first, last        # ms of the first and the last of them, from the last harvest on

cdef struct Tally:
    uint32_t* touched           # sets with hits since the last harvest, each once
    uint8_t* is_touched
    uint32_t touched_count
    Served* left                # of entries that went since the last harvest
    uint32_t left_count
    uint64_t lost               # hits of those that did not fit there
    int64_t harvested           # CLOCK_BOOTTIME ns of the last harvest
    bint counting

cdef bint tally_open(Tally* t, uint32_t sets) noexcept nogil
cdef void tally_close(Tally* t) noexcept nogil
cdef void tally_left(Tally* t, uint64_t id, uint32_t partition, uint32_t count, uint32_t first,
                     uint32_t last) noexcept nogil

cdef tuple tally_taken(Tally* t, uint32_t done, int64_t now)

cdef inline uint32_t tally_ms(const Tally* t, int64_t now) noexcept nogil:
    """Milliseconds since the last harvest."""
    return <uint32_t> ((now - t.harvested) // 1000000)

cdef inline void tally_touch(Tally* t, uint32_t set) noexcept nogil:
    """A set has a hit to be harvested."""
    if not t.is_touched[set]:
        t.is_touched[set] = True
        t.touched[t.touched_count] = set
        t.touched_count += 1
