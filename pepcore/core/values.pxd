from libc.stdint cimport int64_t, uint64_t

from .cursor cimport Buffer, Cursor

cdef enum:
    MAX_DEPTH = 32              # hard ceiling of the configurable depth

cdef enum Kind:
    NIL, BOOL, UINT, INT, FLOAT, STR, ARRAY, MAP

cdef struct Token:
    Kind kind
    bint shortest               # the encoding is the canonical one
    uint64_t u                  # UINT, BOOL, or the number of bytes, items, pairs
    int64_t i                   # INT, always negative
    double f

cdef struct Name:
    const unsigned char* at
    Py_ssize_t size             # -1: `at` is the index of a list item

cdef struct Walk:
    Cursor c
    Buffer* out                 # NULL while only verifying
    int limit                   # nesting allowed
    Py_ssize_t left             # values that may still come
    bint recode                 # something valid but not canonical was seen
    const char* reason          # NULL while all is well
    const char* place           # subject, action, resource, context, chain
    int depth                   # names on the path
    Name path[MAX_DEPTH]

cdef inline int refuse(Walk* w, const char* reason) noexcept nogil:
    w.reason = reason
    return -1

# Each returns 0, or -1 with `reason` set.
cdef int token(Walk* w, Token* t) noexcept nogil
cdef int text(Walk* w, Name* out) noexcept nogil
cdef int value(Walk* w, int depth) noexcept nogil
cdef int mapping(Walk* w, int depth) noexcept nogil
cdef int compare(const Name* a, const Name* b) noexcept nogil
