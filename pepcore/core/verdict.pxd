from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    VERDICT = 40                # bytes of the fixed part of a verdict body

cdef class Verdict:
    cdef readonly bint permit
    cdef readonly bint cached
    cdef readonly uint8_t fault         # fault code, 0: none
    cdef readonly str error             # what is broken, "": nothing
    cdef readonly str reason            # what the policies say about it
    cdef readonly tuple policies        # ids of the determining policies
    cdef tuple held                     # obligations, shared by every verdict of one policy set: copies go out
    cdef tuple runs                     # those of them that are understood here, also on a deny
    cdef readonly uint64_t number       # of the decision, unique in the daemon's life
    cdef readonly uint64_t boot
    cdef readonly uint64_t revision     # read before the PDP was asked
    cdef readonly int64_t expires_ns    # CLOCK_BOOTTIME, 0: not to be kept
    cdef readonly int64_t kept_ns       # until when a table of this process may keep it, 0: not at all
    cdef readonly bytes stamps          # slots of the page that it hangs on, u16 each; none: on the revision itself
    cdef object program                 # compiled payload obligations, None: none

cdef void write_fixed(unsigned char* at, bint permit, uint8_t fault, bint cached, uint8_t stamps,
                      uint32_t lifetime_ms, uint32_t keep_ms, uint32_t payload, uint64_t number, uint64_t boot,
                      uint64_t revision) noexcept nogil
cdef Verdict cached_copy(Verdict v)
