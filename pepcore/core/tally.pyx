"""Which entries of the cache were hit, and how often, until the record fetches it (DESIGN, D10).

Promises: a hit costs a few stores, a harvest looks only at sets that were hit; what an entry served before it went is kept
for the next harvest, or counted as lost where too many went; memory is fixed at the start.
Never: looks at a clock; says who asked: an entry has one partition.

INVARIANT: a set is listed in `touched` if and only if `is_touched` says so.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memmove


cdef bint tally_open(Tally* t, uint32_t sets) noexcept nogil:
    """False: there is no memory. `tally_close` is due in either case."""
    t.touched_count = t.left_count = 0
    t.lost = t.harvested = 0
    t.counting = False
    t.touched = <uint32_t*> malloc(<size_t> sets * sizeof(uint32_t))
    t.is_touched = <uint8_t*> calloc(sets, 1)
    t.left = <Served*> malloc(LEFT * sizeof(Served))
    return t.touched != NULL and t.is_touched != NULL and t.left != NULL


cdef void tally_close(Tally* t) noexcept nogil:
    free(t.touched)
    free(t.is_touched)
    free(t.left)


cdef void tally_left(Tally* t, uint64_t id, uint32_t partition, uint32_t count, uint32_t first,
                     uint32_t last) noexcept nogil:
    """An entry goes that was hit since the last harvest."""
    cdef Served* one
    if t.left_count == LEFT:
        t.lost += count
        return
    one = &t.left[t.left_count]
    one.id, one.partition, one.count, one.first, one.last = id, partition, count, first, last
    t.left_count += 1


cdef tuple tally_taken(Tally* t, uint32_t done, int64_t now):
    """What was collected, as `Cache.harvest` returns it; `done` of the sets that were hit are not listed any more."""
    cdef int64_t since = t.harvested
    cdef uint32_t i
    cdef Served* one
    found = []
    for i in range(t.left_count):
        one = &t.left[i]
        first, last = since + one.first * 1000000LL, since + one.last * 1000000LL
        found.append((one.id, one.partition, one.count, first, last))
    lost, t.lost = t.lost, 0
    t.left_count = 0
    t.touched_count -= done
    memmove(t.touched, t.touched + done, t.touched_count * sizeof(uint32_t))
    if not t.touched_count:  # what is still to come counts its times from the one before
        t.harvested = now
    return found, lost
