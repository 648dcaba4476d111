"""Values in msgpack: tokens, text, maps, lists, numbers; verified, or written again in canonical form.

Promises: with `out` NULL a value is verified and `recode` says whether an encoding was valid but not canonical;
with an `out` the canonical encoding is written (sorted keys, shortest forms, 64-bit floats).
Never: accepts bin, ext, NaN, infinities, duplicate or non-string keys, bad UTF-8; recurses deeper than the limit; reads
more values than the limit (a list of empty lists is one byte a value here, and 3 us a value in a PDP);
allocates by a count that the bytes at hand cannot hold; takes more than depth x size steps.

INVARIANT: `w.depth` is the number of names on the path, and less than the nesting of the value being read.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcmp, memcpy

from .cursor cimport Buffer, Cursor, be16, be32, be64, has, put, put_byte
from .msgpack cimport put_array_head, put_float, put_int, put_map_head, put_str_head, put_uint
from .utf8 cimport is_utf8

cdef extern from "<math.h>" nogil:
    bint isfinite(double)


cdef struct Pair:
    Name key
    const unsigned char* value


# ---- tokens ----------------------------------------------------------------------------------------------------

cdef int token(Walk* w, Token* t) noexcept nogil:
    """Read one lead byte and its number; the bytes of a string, the items of a container stay unread."""
    cdef Cursor* c = &w.c
    cdef uint8_t b
    cdef int width = 0
    cdef uint32_t bits
    cdef float single
    if not has(c, 1):
        return refuse(w, "ends in the middle of a value")
    b = c.at[0]
    c.at += 1
    t.shortest, t.u, t.i, t.f = True, 0, 0, 0
    if b < 0x80:
        t.kind, t.u = UINT, b
        return 0
    if b < 0x90:
        t.kind, t.u = MAP, b & 0x0F
        return 0
    if b < 0xA0:
        t.kind, t.u = ARRAY, b & 0x0F
        return 0
    if b < 0xC0:
        t.kind, t.u = STR, b & 0x1F
        return 0
    if b >= 0xE0:
        t.kind, t.i = INT, <int8_t> b
        return 0
    if b == 0xC0:
        t.kind = NIL
        return 0
    if b == 0xC2 or b == 0xC3:
        t.kind, t.u = BOOL, b & 1
        return 0
    if b == 0xCC or b == 0xD0 or b == 0xD9:
        width = 1
    elif b == 0xCD or b == 0xD1 or b == 0xDA or b == 0xDC or b == 0xDE:
        width = 2
    elif b == 0xCA or b == 0xCE or b == 0xD2 or b == 0xDB or b == 0xDD or b == 0xDF:
        width = 4
    elif b == 0xCB or b == 0xCF or b == 0xD3:
        width = 8
    else:
        return refuse(w, "is binary, an extension or a reserved msgpack type: send text")
    if not has(c, width):
        return refuse(w, "ends in the middle of a number")
    t.u = (c.at[0] if width == 1 else be16(c.at) if width == 2 else be32(c.at) if width == 4 else be64(c.at))
    c.at += width
    if b == 0xCA:
        bits = <uint32_t> t.u
        memcpy(&single, &bits, 4)
        t.kind, t.f, t.shortest = FLOAT, single, False
    elif b == 0xCB:
        memcpy(&t.f, &t.u, 8)
        t.kind = FLOAT
    elif b <= 0xCF:
        t.kind = UINT
        t.shortest = t.u > (0x7F if width == 1 else 0xFF if width == 2 else 0xFFFF if width == 4 else 0xFFFFFFFFU)
    elif b <= 0xD3:
        t.kind = INT
        if width == 1:
            t.i = <int8_t> t.u
            t.shortest = t.i < -32
        elif width == 2:
            t.i = <int16_t> t.u
            t.shortest = t.i < -128
        elif width == 4:
            t.i = <int32_t> t.u
            t.shortest = t.i < -32768
        else:
            t.i = <int64_t> t.u
            t.shortest = t.i < -2147483648LL
        if t.i >= 0:
            t.kind, t.u, t.shortest = UINT, <uint64_t> t.i, False
    elif b <= 0xDB:
        t.kind = STR
        t.shortest = t.u > (31 if width == 1 else 0xFF if width == 2 else 0xFFFF)
    else:
        t.kind = ARRAY if b <= 0xDD else MAP
        t.shortest = t.u > (15 if width == 2 else 0xFFFF)
    return 0


cdef int text(Walk* w, Name* out) noexcept nogil:
    """Read a string and check its UTF-8; write it again where there is an `out`."""
    cdef Token t
    if token(w, &t) < 0:
        return -1
    if t.kind != STR:
        return refuse(w, "must be a string")
    if t.u > <uint64_t> (w.c.end - w.c.at):
        return refuse(w, "is a string that ends outside the question")
    out.at, out.size = w.c.at, <Py_ssize_t> t.u
    w.c.at += out.size
    if not is_utf8(out.at, w.c.at):
        return refuse(w, "is not valid UTF-8")
    if not t.shortest:
        w.recode = True
    return write_text(w, out)


cdef int write_text(Walk* w, const Name* s) noexcept nogil:
    if w.out != NULL and not (put_str_head(w.out, s.size) and put(w.out, s.at, s.size)):
        return refuse(w, "is too large")
    return 0


# ---- values ----------------------------------------------------------------------------------------------------

cdef int value(Walk* w, int depth) noexcept nogil:
    cdef Token t
    cdef Name s
    cdef bint done = True
    cdef const unsigned char* start = w.c.at
    w.left -= 1
    if w.left < 0:
        return refuse(w, "is one value more than `limits.values` of the daemon allows: ask with fewer")
    if token(w, &t) < 0:
        return -1
    if t.kind == STR:
        w.c.at = start
        return text(w, &s)
    if t.kind == MAP:
        w.c.at = start
        return mapping(w, depth)
    if t.kind == ARRAY:
        return array(w, depth, &t)
    if t.kind == FLOAT and not isfinite(t.f):
        return refuse(w, "is not a finite number")
    if not t.shortest:
        w.recode = True
    if w.out != NULL:
        if t.kind == NIL:
            done = put_byte(w.out, 0xC0)
        elif t.kind == BOOL:
            done = put_byte(w.out, <uint8_t> (0xC2 | t.u))
        elif t.kind == UINT:
            done = put_uint(w.out, t.u)
        elif t.kind == INT:
            done = put_int(w.out, t.i)
        else:
            done = put_float(w.out, t.f)
    return 0 if done else refuse(w, "is too large")


cdef int array(Walk* w, int depth, const Token* t) noexcept nogil:
    cdef uint64_t n
    if depth > w.limit:
        return refuse(w, "is nested too deep")
    if t.u > <uint64_t> (w.c.end - w.c.at):
        return refuse(w, "is a list that ends outside the question")
    if not t.shortest:
        w.recode = True
    if w.out != NULL and not put_array_head(w.out, <Py_ssize_t> t.u):
        return refuse(w, "is too large")
    for n in range(t.u):
        w.path[w.depth].at = <const unsigned char*> n
        w.path[w.depth].size = -1
        w.depth += 1
        if value(w, depth + 1) < 0:
            return -1
        w.depth -= 1
    return 0


cdef int mapping(Walk* w, int depth) noexcept nogil:
    """A map with string keys. Verifying, keys must ascend or the map is written again, sorted, by `sorted_map`."""
    cdef Token t
    cdef Name key, last
    cdef uint64_t n
    cdef int order
    if token(w, &t) < 0:
        return -1
    if t.kind != MAP:
        return refuse(w, "must be a map")
    if depth > w.limit:
        return refuse(w, "is nested too deep")
    if t.u > <uint64_t> (w.c.end - w.c.at) // 2:
        return refuse(w, "is a map that ends outside the question")
    if not t.shortest:
        w.recode = True
    if w.out != NULL:
        return sorted_map(w, depth, <Py_ssize_t> t.u)
    last.at, last.size = NULL, 0
    for n in range(t.u):
        if text(w, &key) < 0:
            return refuse(w, "has a key that is not valid text")
        w.path[w.depth] = key
        w.depth += 1
        if n > 0:
            order = compare(&last, &key)
            if order == 0:
                return refuse(w, "is a key that occurs twice")
            if order > 0:
                w.recode = True     # a duplicate further on is found when the map is sorted
        if value(w, depth + 1) < 0:
            return -1
        w.depth -= 1
        last = key
    return 0


cdef int sorted_map(Walk* w, int depth, Py_ssize_t n) noexcept nogil:
    """Read n pairs, sort them by key, refuse duplicates, write them. Each level reads its bytes twice at most."""
    cdef Pair* pairs
    cdef Py_ssize_t i
    cdef const unsigned char* after
    cdef Buffer* out = w.out
    cdef int result = 0
    if not put_map_head(out, n):
        return refuse(w, "is too large")
    if n == 0:
        return 0
    pairs = <Pair*> malloc(n * sizeof(Pair))    # n is at most half of the bytes at hand
    if pairs == NULL:
        return refuse(w, "found no memory")
    w.out = NULL
    for i in range(n):
        result = text(w, &pairs[i].key)
        if result < 0:
            break
        pairs[i].value = w.c.at
        result = skip(w, depth + 1)
        if result < 0:
            break
    w.out = out
    after = w.c.at
    if result == 0:
        qsort(pairs, n, sizeof(Pair), &compare_pairs)
        for i in range(n):
            w.path[w.depth] = pairs[i].key
            w.depth += 1
            if i > 0 and compare(&pairs[i - 1].key, &pairs[i].key) == 0:
                result = refuse(w, "is a key that occurs twice")
                break
            w.c.at = pairs[i].value
            if write_text(w, &pairs[i].key) < 0 or value(w, depth + 1) < 0:
                result = -1
                break
            w.depth -= 1
    free(pairs)
    w.c.at = after
    return result


cdef int skip(Walk* w, int depth) noexcept nogil:
    """Step over one value that the verifying pass has already seen whole."""
    cdef Token t
    cdef uint64_t n
    if token(w, &t) < 0:
        return -1
    if t.kind == STR:
        if t.u > <uint64_t> (w.c.end - w.c.at):
            return refuse(w, "is a string that ends outside the question")
        w.c.at += t.u
    elif t.kind == ARRAY or t.kind == MAP:
        if depth > w.limit:
            return refuse(w, "is nested too deep")
        for n in range(t.u * (2 if t.kind == MAP else 1)):
            if skip(w, depth + 1) < 0:
                return -1
    return 0


cdef int compare(const Name* a, const Name* b) noexcept nogil:
    cdef int order = memcmp(a.at, b.at, a.size if a.size < b.size else b.size)
    if order != 0:
        return order
    return (a.size > b.size) - (a.size < b.size)


cdef int compare_pairs(const void* a, const void* b) noexcept nogil:
    return compare(&(<const Pair*> a).key, &(<const Pair*> b).key)
