from libc.stdint cimport uint64_t


cdef class Page:
    cdef readonly uint64_t boot         # random per start: another boot is another life
    cdef readonly uint64_t revision     # only grows


cdef inline bint unchanged(Page page, uint64_t revision) noexcept:
    """True where nothing was revoked or reloaded since `revision`."""
    return page.revision == revision
