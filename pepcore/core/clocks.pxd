"""The two clocks, as compiled code reads them, and whether somebody set one of them.

Promises: `boottime` counts suspends and is moved by nobody; `wall_was_set` sees each step of the wall clock by more
than JUMP_MS, and smaller ones once they add up to it (the base moves only when a jump was seen). Both clocks are slewed
together, so that they do not drift apart by themselves.
Never: decides what a jump ends; is read in the gate, which takes its clocks as arguments (`turn` and `local` pass them).
"""

from libc.stdint cimport int64_t

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec*)
    int CLOCK_BOOTTIME, CLOCK_REALTIME, CLOCK_REALTIME_COARSE

cdef enum:
    JUMP_MS = 1000

cdef struct Clocks:
    int64_t apart               # wall clock minus CLOCK_BOOTTIME, ms, when first read or last set
    bint compared


cdef inline int64_t boottime() noexcept nogil:
    """CLOCK_BOOTTIME in nanoseconds."""
    cdef timespec t
    clock_gettime(CLOCK_BOOTTIME, &t)
    return t.tv_sec * 1000000000LL + t.tv_nsec


cdef inline int64_t unix_ms(int clock) noexcept nogil:
    """A wall clock in milliseconds: CLOCK_REALTIME, or the coarse one where some milliseconds do not matter."""
    cdef timespec t
    clock_gettime(clock, &t)
    return t.tv_sec * 1000LL + t.tv_nsec // 1000000


cdef inline bint wall_was_set(Clocks* c, int64_t now, int64_t wall_ms) noexcept nogil:
    """Whether the wall clock was set since the last call that said so."""
    cdef int64_t apart = wall_ms - now // 1000000
    if c.compared and -JUMP_MS <= apart - c.apart <= JUMP_MS:
        return False
    c.apart = apart
    if c.compared:
        return True
    c.compared = True
    return False
