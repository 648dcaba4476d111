"""The table in front of a PEP, embedded or a daemon's: a hit costs no more than `functools.lru_cache`.

Promises: an answer is served only for equal strings, a context of equal keys, exact types and values (1 is not True),
and the same chain, before it expires on CLOCK_BOOTTIME, while nothing that it hangs on was revoked and, where the page is a daemon's,
while that daemon renews its lease. A lookup probes one set of 8 whatever the keys are; memory is bounded: long keys and
answers that may not be kept are not. A context with other values than str, int and bool is asked every time, as is
whatever has a `not_after` or a `min_revision`, or names somebody by more than a string.
Never: runs Python code on a hit, so that a hit is atomic under the GIL; keeps a reference to a context that its
caller can change; builds a permit (it keeps what `verdict.settle` built).
`check` is exported as it is: one Python method around it would cost more than the lookup.

INVARIANT: an entry's verdict carries no fault; its revision was read before the PDP was asked, or when its own slots were
found untouched.
"""

cimport cython
from cpython.dict cimport PyDict_Copy
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.list cimport PyList_AsTuple, PyList_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_GET_LENGTH
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from .asked cimport Asked, read, same_rest, same_str
from . cimport forks
from .clocks cimport CLOCK_REALTIME_COARSE, boottime, unix_ms, wall_was_set
from .counts cimport COUNTED, Counts, counted
from .page cimport REVISION, TIMED, Page, live, load, untouched
from .verdict cimport Verdict, cached_copy

cdef enum:
    MAX_TEXT = 1024             # characters of a key, all together
    MAX_SETS = 1 << 20


cdef inline bint is_key(const Entry* e, const Asked* q) noexcept:
    return (
        e.hash == q.hash and e.verdict != NULL and same_str(e.subject, q.subject) and same_str(e.action, q.action)
        and same_str(e.resource, q.resource) and same_rest(e.rest, q)
    )


cdef Py_ssize_t text_of(const Asked* q) except -1:
    """Characters that a key would hold on to; an int counts by its size."""
    cdef Py_ssize_t n = (
        PyUnicode_GET_LENGTH(<object> q.subject) + PyUnicode_GET_LENGTH(<object> q.action)
        + PyUnicode_GET_LENGTH(<object> q.resource)
    )
    if q.chain != NULL:
        for member in <tuple> q.chain:
            n += PyUnicode_GET_LENGTH(member)
    if q.context != NULL:
        for key, value in (<dict> q.context).items():
            n += PyUnicode_GET_LENGTH(key)
            if PyUnicode_CheckExact(value):
                n += PyUnicode_GET_LENGTH(value)
            elif PyLong_CheckExact(value):
                n += value.bit_length() // 8
    return n


cdef void drop(Entry* e) noexcept:
    """Empty an entry. What it held is let go last, since that may run a finalizer."""
    cdef Entry old = e[0]
    memset(e, 0, sizeof(Entry))
    Py_XDECREF(old.subject)
    Py_XDECREF(old.action)
    Py_XDECREF(old.resource)
    Py_XDECREF(old.rest)
    Py_XDECREF(old.verdict)


@cython.final
cdef class Local:
    """`miss(subject, action, resource, context, on_behalf_of, not_after, min_revision)` returns the verdict of what is
    not in the table. `slots` is rounded up to a power of two, at least 8."""

    def __cinit__(self, Page page not None, miss, *, size_t slots=8192):
        cdef size_t sets = 1
        while sets * WAYS < slots and sets < MAX_SETS:
            sets *= 2
        self.page, self.miss, self.mask, self.life = page, miss, sets - 1, forks.life[0]
        self.entries = <Entry*> calloc(sets * WAYS, sizeof(Entry))
        self.sets = <Set*> calloc(sets, sizeof(Set))
        if self.entries == NULL or self.sets == NULL:
            raise MemoryError
        self.compare(boottime(), unix_ms(CLOCK_REALTIME_COARSE))    # now: a clock that is set before the first hit is seen

    def __dealloc__(self):
        cdef size_t i
        if self.entries != NULL:
            for i in range((self.mask + 1) * WAYS):
                drop(&self.entries[i])
        free(self.entries)
        free(self.sets)

    @cython.binding(False)              # as a cyfunction a hit would cost a third more
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def check(self, subject, action, resource, context=None, *, on_behalf_of=(), not_after=None, min_revision=None):
        """Whether `subject` may do `action` on `resource`. The answer is `bool(verdict)`; it never raises."""
        cdef Asked q
        cdef Entry* e
        if PyList_CheckExact(on_behalf_of):
            on_behalf_of = PyList_AsTuple(on_behalf_of)
        if (
            not_after is not None or min_revision is not None
            or not read(&q, <PyObject*> subject, <PyObject*> action, <PyObject*> resource, <PyObject*> context,
                        <PyObject*> on_behalf_of)
        ):
            return self.miss(subject, action, resource, context, on_behalf_of, not_after, min_revision)
        e = self.find(&q)
        if e != NULL:
            self.hits += 1
            return <object> e.verdict
        return self.ask(subject, action, resource, None if q.context == NULL else context, on_behalf_of)

    def look(self, subject, action, resource, context=None, chain=()):
        """The answer that stands here, or None. For callers who ask by themselves, and then `put` what they were told."""
        cdef Asked q
        cdef Entry* e
        if not read(&q, <PyObject*> subject, <PyObject*> action, <PyObject*> resource, <PyObject*> context,
                    <PyObject*> chain):
            return None
        e = self.find(&q)
        if e == NULL:
            self.misses += 1
            return None
        self.hits += 1
        return <object> e.verdict

    def put(self, subject, action, resource, context, Verdict verdict not None, chain=()):
        """Keep what was answered to these, if it may be kept. `context` is a dict that nobody else changes, or None."""
        cdef Asked q
        if (
            read(&q, <PyObject*> subject, <PyObject*> action, <PyObject*> resource, <PyObject*> context,
                 <PyObject*> chain)
            and text_of(&q) <= MAX_TEXT
        ):
            self.keep(&q, verdict)

    cdef Entry* find(self, const Asked* q) noexcept:
        """The entry of this question if it still stands, or NULL."""
        cdef uint64_t set = q.hash & self.mask
        cdef Entry* e = self.entries + set * WAYS
        cdef int64_t now
        cdef int way
        if self.life != forks.life[0]:
            return NULL
        for way in range(WAYS):
            if is_key(e, q):
                now = boottime()
                self.compare(now, unix_ms(CLOCK_REALTIME_COARSE))
                if e.expires <= now or not self.stands(e) or not live(self.page, now):
                    return NULL
                self.sets[set].visited |= 1 << way
                if self.counts is not None:
                    counted(self.counts, set * WAYS + way)
                return e
            e += 1
        return NULL

    cdef bint stands(self, Entry* e) noexcept:
        """Whether nothing that an entry hangs on was revoked; it remembers at which revision that was seen."""
        cdef uint64_t revision = load(self.page.words + REVISION)
        cdef bytes stamps
        if e.revision == revision:
            return True
        stamps = (<Verdict> e.verdict).stamps
        if len(stamps) == 0 or not untouched(self.page.words, <const unsigned char*> <const char*> stamps,
                                             <int> (len(stamps) // 2), e.revision):
            return False
        e.revision = revision
        return True

    cdef void compare(self, int64_t now, int64_t wall_ms) noexcept:
        cdef size_t i
        if not wall_was_set(&self.clocks, now, wall_ms):
            return
        if not self.page.leased:
            self.page.write_one(TIMED)
            return
        # the daemon may be asleep, and sees the jump only when somebody asks: what is kept here ends here
        for i in range((self.mask + 1) * WAYS):
            self.entries[i].expires = 0

    def clocks_read(self, int64_t now, int64_t wall_ms):
        """Tell what the clocks say: a wall clock that was set ends every entry, whose windows were measured on it."""
        self.compare(now, wall_ms)

    cdef object ask(self, object s, object a, object r, object context, object chain):
        """Ask, and keep the answer under a copy of the context that was asked about."""
        cdef object copy = None if context is None else PyDict_Copy(context)
        cdef Asked q
        self.misses += 1
        said = self.miss(s, a, r, copy, chain, None, None)
        if type(said) is Verdict:
            self.put(s, a, r, copy, <Verdict> said, chain)
        return said

    cdef int keep(self, const Asked* q, Verdict v) except -1:
        """Keep an answer that will still be asked for: no fault, some lifetime, at the page's revision."""
        cdef uint64_t set = q.hash & self.mask
        cdef object rest = None
        cdef Verdict shared = cached_copy(v)
        cdef Entry* e
        cdef int64_t now = boottime()
        cdef int place
        if self.life != forks.life[0] or v.fault != 0 or v.kept_ns <= now or v.boot != self.page.boot or not self.page.untouched(v.stamps, v.revision):
            return 0
        if q.chain != NULL:
            rest = (<object> q.chain, None if q.context == NULL else <object> q.context)
        elif q.context != NULL:
            rest = <object> q.context
        place = self.place(q, now)
        e = self.entries + set * WAYS + place
        drop(e)                         # may run a finalizer, and that may have changed the page
        if v.boot != self.page.boot:
            return 0
        self.sets[set].visited &= ~(1 << place)
        if self.counts is not None:
            self.counts.put(set * WAYS + place, v.number)
        Py_INCREF(<object> q.subject)
        Py_INCREF(<object> q.action)
        Py_INCREF(<object> q.resource)
        Py_INCREF(shared)
        if rest is not None:
            Py_INCREF(rest)
        e.hash, e.subject, e.action, e.resource = q.hash, q.subject, q.action, q.resource
        e.rest = NULL if rest is None else <PyObject*> rest
        e.expires, e.revision, e.verdict = v.kept_ns, v.revision, <PyObject*> shared
        return 0

    cdef int place(self, const Asked* q, int64_t now) noexcept:
        """The way for an answer: that of the same question, one that is dead, or what the hand finds not visited."""
        cdef Entry* set = self.entries + (q.hash & self.mask) * WAYS
        cdef Set* state = self.sets + (q.hash & self.mask)
        cdef int way, dead = -1
        for way in range(WAYS):
            if is_key(set + way, q):
                return way
            if set[way].verdict == NULL or set[way].expires <= now or not self.stands(&set[way]):
                dead = way
        if dead >= 0:
            return dead
        self.evictions += 1
        while True:                     # at most twice around: the first turn clears every bit
            way = state.hand
            state.hand = (way + 1) % WAYS
            if not state.visited & (1 << way):
                return way
            state.visited &= ~(1 << way)

    def renew(self, Page page not None, Counts counts=None):
        """Another life of the counters, as in a forked child: start empty. Hits are counted in `counts`, if given."""
        if counts is not None and (self.mask + 1) * WAYS > COUNTED:
            raise ValueError(f"a table of {(self.mask + 1) * WAYS} slots cannot be counted: {COUNTED} can")
        self.clear()                    # first: what it counted belongs to the counts it had
        self.page, self.counts, self.life = page, counts, forks.life[0]
        self.hits = self.misses = self.evictions = 0

    def clear(self):
        """Let go of everything."""
        cdef size_t i
        for i in range((self.mask + 1) * WAYS):
            drop(&self.entries[i])

    def usage(self):
        """Return the counters and what is held."""
        cdef size_t i
        cdef uint64_t held = 0
        for i in range((self.mask + 1) * WAYS):
            held += self.entries[i].verdict != NULL
        return {"hits": self.hits, "misses": self.misses, "evictions": self.evictions, "entries": held,
                "slots": (self.mask + 1) * WAYS}
