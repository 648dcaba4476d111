from .cursor cimport Buffer
from .values cimport Walk

cdef enum:
    MAX_CHAIN = 16              # members of a principal chain

cdef enum Outcome:
    CANONICAL = 0               # the bytes are the key
    REWRITTEN = 1               # the canonical bytes are in `out`
    REFUSED = -1                # `reason` and `place_of` say why

cdef int examine(Walk* w, const unsigned char* data, Py_ssize_t size, int limit, Py_ssize_t most,
                  Buffer* out) noexcept nogil
cdef str place_of(const Walk* w)
