"""From tags to slots of the page: what a revoke hits.

A tag is text. Every answer hangs on its subject, on each member of its chain and on its resource, as `Type::id`, and on
whatever the PDP named besides (ancestors, policies, `@tag`). Tags that share a slot end together: that costs a question
to the PDP, never a stale permit.

Promises: `stamps` gives the slots of all tags of an answer, each once, slot 0 first; where they are more than STAMPS, one cannot
be hashed, or the key is no question, it gives none, which hangs the answer on the revision itself. `slot` gives the one to revoke, or
slot 0, which ends everything, where it cannot be hashed.
Never: lets a client hash (only the daemon knows the seed).
"""

from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport free

from .cursor cimport Buffer, put, put_le16
from .hashing cimport xxh3
from .page cimport EVERY, SLOTS, STAMPS, TIMED, Page
from .values cimport MAX_DEPTH, Name, Token, Walk, mapping, text, token

cdef struct Found:
    uint16_t slots[STAMPS]
    int count                   # -1: too many, or one is not known


cdef inline uint16_t place(uint64_t seed, const unsigned char* tag, Py_ssize_t size) noexcept nogil:
    """The slot of a tag, past the two with a meaning of their own; EVERY where hashing failed."""
    cdef uint64_t h = xxh3(tag, size, seed)
    return <uint16_t> (TIMED + 1 + h % (SLOTS - TIMED - 1)) if h else <uint16_t> EVERY


cdef void add(Found* f, uint16_t slot, bint known) noexcept nogil:
    cdef int i
    if f.count < 0 or not known:
        f.count = -1
        return
    for i in range(f.count):
        if f.slots[i] == slot:
            return
    if f.count == STAMPS:
        f.count = -1
        return
    f.slots[f.count] = slot
    f.count += 1


cdef int entity(Walk* w, Buffer* b, uint64_t seed, Found* f) noexcept nogil:
    """Read one entity and add its slot."""
    cdef Token t
    cdef Name kind, id
    cdef uint16_t slot
    if token(w, &t) < 0 or text(w, &kind) < 0 or text(w, &id) < 0 or mapping(w, 1) < 0:
        return -1
    b.size = 0
    if not (put(b, kind.at, kind.size) and put(b, b"::", 2) and put(b, id.at, id.size)):
        return -1
    slot = place(seed, b.data, b.size)
    add(f, slot, slot != EVERY)
    return 0


cdef int question(Walk* w, Buffer* b, uint64_t seed, Found* f) noexcept nogil:
    """Read a canonical question and add the slots of its entities."""
    cdef Token t
    cdef Name name
    cdef uint64_t i
    if token(w, &t) < 0 or entity(w, b, seed, f) < 0:
        return -1
    if token(w, &t) < 0 or text(w, &name) < 0 or mapping(w, 1) < 0:
        return -1
    if entity(w, b, seed, f) < 0 or mapping(w, 1) < 0 or token(w, &t) < 0:
        return -1
    for i in range(t.u):
        if entity(w, b, seed, f) < 0:
            return -1
    return 0


def stamps(Page page not None, bytes key not None, tuple tags=(), bint timed=False):
    """Return the slots that an answer to this canonical question hangs on, u16 each, little-endian; none: on all."""
    cdef Walk w
    cdef Buffer b
    cdef Found f
    cdef unsigned char out[2 * STAMPS]
    cdef bytes tag
    cdef uint16_t slot
    cdef int i, failed
    f.count = 0
    add(&f, EVERY, True)
    if timed:
        add(&f, TIMED, True)
    w.c.at = <const unsigned char*> <const char*> key
    w.c.end = w.c.at + len(key)
    w.out, w.reason, w.place, w.depth, w.recode, w.limit = NULL, NULL, "question", 0, False, MAX_DEPTH
    w.left = len(key)               # values: no more than there are bytes, since who made the key has counted them
    b.data, b.size, b.room, b.limit = NULL, 0, 0, 2 * len(key) + 64
    failed = question(&w, &b, page.seed, &f)
    free(b.data)
    if failed < 0:
        return b""
    for text_of in tags:
        tag = (<str> text_of).encode("utf-8", "surrogatepass")
        slot = place(page.seed, <const unsigned char*> <const char*> tag, len(tag))
        add(&f, slot, slot != EVERY)
    if f.count < 0:
        return b""
    for i in range(f.count):
        put_le16(out + 2 * i, f.slots[i])
    return (<const char*> out)[:2 * f.count]


def slot(Page page not None, str tag not None):
    """Return the slot that a revoke of this tag has to end."""
    cdef bytes encoded = tag.encode("utf-8", "surrogatepass")
    return place(page.seed, <const unsigned char*> <const char*> encoded, len(encoded))
