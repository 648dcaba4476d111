"""The question on the wire: validation and canonical form.

Promises: `examine` accepts exactly the questions of bindings/README.md and names the place and the reason for the
rest. Canonical bytes (sorted keys, shortest encodings) come back as they are, without a copy; valid bytes that are
not canonical are written again in canonical form. Equal canonical bytes ask the same thing.
Never: accepts bin, ext, NaN, infinities, duplicate or non-string keys, bad UTF-8, trailing bytes; recurses deeper
than the limit; reads more values in properties and context than the limit; allocates by a count that the bytes at hand cannot hold; takes more than depth x size steps.

INVARIANT: examine(examine(x)) is CANONICAL for every x that is not refused.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free

from .cursor cimport Buffer, put
from .msgpack cimport put_array_head
from .values cimport ARRAY, MAX_DEPTH, Name, Token, Walk, mapping, refuse, text, token

from ..errors import BadQuestion


cdef int head(Walk* w, uint64_t items, const char* reason) noexcept nogil:
    cdef Token t
    if token(w, &t) < 0:
        return -1
    if t.kind != ARRAY or t.u != items:
        return refuse(w, reason)
    if not t.shortest:
        w.recode = True
    if w.out != NULL and not put_array_head(w.out, <Py_ssize_t> items):
        return refuse(w, "is too large")
    return 0


cdef int member(Walk* w, const char* name) noexcept nogil:
    """Push a fixed name on the path."""
    w.path[w.depth].at = <const unsigned char*> name
    w.path[w.depth].size = 0
    while name[w.path[w.depth].size] != 0:
        w.path[w.depth].size += 1
    w.depth += 1
    return 0


cdef int named(Walk* w, const char* name) noexcept nogil:
    """A string that may not be empty."""
    cdef Name s
    member(w, name)
    if text(w, &s) < 0:
        return -1
    if s.size == 0:
        return refuse(w, "must not be empty")
    w.depth -= 1
    return 0


cdef int entity(Walk* w, int depth) noexcept nogil:
    cdef Name s
    if head(w, 3, "must be a list of type, id, properties") < 0 or named(w, "type") < 0:
        return -1
    member(w, "id")
    if text(w, &s) < 0:
        return -1
    w.depth -= 1
    member(w, "properties")
    if mapping(w, depth + 1) < 0:
        return -1
    w.depth -= 1
    return 0


cdef int question(Walk* w) noexcept nogil:
    cdef Token t
    cdef uint64_t n
    w.place = "question"
    if head(w, 5, "must be a list of subject, action, resource, context, chain") < 0:
        return -1
    w.place = "subject"
    if entity(w, 2) < 0:
        return -1
    w.place = "action"
    if head(w, 2, "must be a list of name, properties") < 0 or named(w, "name") < 0:
        return -1
    member(w, "properties")
    if mapping(w, 3) < 0:
        return -1
    w.depth -= 1
    w.place = "resource"
    if entity(w, 2) < 0:
        return -1
    w.place = "context"
    if mapping(w, 2) < 0:
        return -1
    w.place = "chain"
    if token(w, &t) < 0:
        return -1
    if t.kind != ARRAY:
        return refuse(w, "must be a list of entities")
    if t.u > MAX_CHAIN:
        return refuse(w, "has more than 16 members")
    if not t.shortest:
        w.recode = True
    if w.out != NULL and not put_array_head(w.out, <Py_ssize_t> t.u):
        return refuse(w, "is too large")
    for n in range(t.u):
        w.path[0].at = <const unsigned char*> n
        w.path[0].size = -1
        w.depth = 1
        if entity(w, 3) < 0:
            return -1
        w.depth = 0
    w.place = "question"
    if w.c.at != w.c.end:
        return refuse(w, "is followed by bytes that do not belong to it")
    return 0


cdef int examine(Walk* w, const unsigned char* data, Py_ssize_t size, int limit, Py_ssize_t most,
                  Buffer* out) noexcept nogil:
    """Verify a question; where it is valid but not canonical, write its canonical form to the empty `out`."""
    w.c.at, w.c.end = data, data + size
    w.out, w.reason, w.depth, w.recode = NULL, NULL, 0, False
    w.limit = limit if limit < MAX_DEPTH else MAX_DEPTH
    w.left = most
    if question(w) < 0:
        return REFUSED
    if not w.recode:
        return CANONICAL
    w.c.at, w.out, w.depth, w.left = data, out, 0, most
    if question(w) < 0:
        return REFUSED
    return REWRITTEN


cdef str place_of(const Walk* w):
    """The place of a refusal, such as `context.args.path`, cut to what an error frame should carry."""
    cdef int i
    parts = [w.place.decode("ascii")]
    for i in range(w.depth):
        if w.path[i].size < 0:
            parts.append(str(<uint64_t> w.path[i].at))
        else:
            name = (<const char*> w.path[i].at)[:w.path[i].size if w.path[i].size < 64 else 64]
            parts.append(name.decode("utf-8", "replace"))
    return ".".join(parts)[:200]


def canonical(bytes data not None, int depth=16, Py_ssize_t values=4096):
    """Return the canonical form of a question (the same object when it is canonical already).

    Raises BadQuestion, which names the place and the reason.
    """
    cdef Walk w
    cdef Buffer out
    cdef int outcome
    out.data, out.size, out.room, out.limit = NULL, 0, 0, 2 * len(data) + 64
    outcome = examine(&w, <const unsigned char*> <const char*> data, len(data), depth, values, &out)
    try:
        if outcome == REFUSED:
            raise BadQuestion(place_of(&w), w.reason.decode("ascii"))
        return data if outcome == CANONICAL else (<const char*> out.data)[:out.size]
    finally:
        free(out.data)
