"""The gate: a connection's bytes in, replies out, and what it cannot answer as a list of asks.

Promises: the hits of one read are answered with one bytes object, however many are pipelined in it, and build no
Python object of their own. A question that does not hit as it came is validated, made canonical and looked up
once more before it is asked. A malformed frame gets an error frame that names the field; the connection stays
usable unless the framing is lost. Output per call is bounded; the rest of the input waits in the stream.
Never: builds a permit (it copies the one that was settled and cached); looks at a clock; calls the PDP.

INVARIANT: a hit is served only in the partition it was cached in, before it expires, while nothing that it hangs on was
revoked, and not past the request's own `not_after`.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memmove, memset

import msgspec

from .cache cimport Cache, Slot, find, served, stands
from .cursor cimport Buffer, put, reserve
from .frame cimport (
    CHECK, CHECK_MANY, ERROR, EXPLAIN, HAS_DEADLINE, HAS_MIN_REVISION, HAS_NOT_AFTER, HAS_TRACE, HEADER, HELLO,
    LEASE, LOST, PARTIAL, REPLY, TRACE, VERSION, Cut, Frame, Tail, cut, read_tail, tail_size, write_header,
)
from .page cimport Page
from .question cimport CANONICAL, REFUSED, examine, place_of
from .slab cimport chain_copy
from .values cimport Walk
from .verdict cimport VERDICT, write_fixed

from ..errors import NAMES, Fault

cdef enum:
    OUT_PER_FEED = 262144       # bytes of replies after which feed() pauses
    COLD_PER_FEED = 16          # frames that did not hit, after which it pauses too: each costs as much as many hits
    OUT_LIMIT = 1 << 26         # a single reply above this cannot be

cdef object _pack = msgspec.msgpack.Encoder(order="sorted").encode


@cython.final
cdef class Stream:
    """What a connection keeps between two reads."""

    def __cinit__(self, peer=None):
        self.asks = []
        self.peer = peer

    def __dealloc__(self):
        free(self.rest.data)

    @property
    def waiting(self):
        """Bytes of a frame that is not whole yet."""
        return self.rest.size

    def close(self):
        """The connection is gone: let go of what was read, and of the peer, which holds this stream."""
        free(self.rest.data)
        self.rest.data, self.rest.size, self.rest.room = NULL, 0, 0
        self.lost, self.more, self.asks, self.peer = True, False, [], None

    def take_asks(self):
        asks, self.asks = self.asks, []
        return asks

    def take_faults(self):
        faults, self.faults = self.faults, None
        return faults

    cdef int note(self, int code, str field, uint32_t local) except -1:
        self.faults = self.faults or {}
        self.faults[code] = (self.faults.get(code, (0,))[0] + 1, field, local)
        return 0


@cython.final
@cython.freelist(256)
cdef class Ask:
    """A request that only the enforcer can answer."""


@cython.final
cdef class Gate:
    """`hello(stream, body) -> (interned partition, reply body)` makes a partition, or raises a Fault."""

    def __cinit__(self, Cache cache not None, Page page not None, hello, *, uint32_t frame_limit=65536,
                  int depth=16, Py_ssize_t values=4096, uint32_t keep_ms=0):
        self.cache, self.page, self.hello = cache, page, hello
        self.frame_limit, self.depth, self.values, self.keep_ms = frame_limit, depth, values, keep_ms
        self.out.limit = OUT_LIMIT

    def __dealloc__(self):
        free(self.out.data)

    def feed(self, Stream s not None, bytes data not None, int64_t now, int64_t wall_ms):
        """Take what was read; return the replies as one bytes object, or None.

        `now` is CLOCK_BOOTTIME ns, `wall_ms` Unix ms. Afterwards look at `s.asks`, `s.lost` and `s.more`.
        """
        if self.take(s, <const unsigned char*> <const char*> data, len(data), now, wall_ms) == 0:
            return None
        return PyBytes_FromStringAndSize(<char*> self.out.data, self.out.size)

    cdef Py_ssize_t take(self, Stream s, const unsigned char* data, Py_ssize_t size, int64_t now,
                         int64_t wall_ms) except -1:
        """`feed` for compiled callers: the replies are the first bytes of `self.out`, as many as this returns."""
        cdef const unsigned char* at = data
        cdef const unsigned char* end = data + size
        cdef Py_ssize_t kept = s.rest.size
        cdef Frame f
        cdef Cut whole
        cdef uint64_t hits = self.cache.table.hits
        cdef int frames = 0
        self.out.size = 0
        if s.lost:
            return 0
        if kept > 0:
            s.rest.limit = kept + size
            if not put(&s.rest, data, size):
                raise MemoryError
            at, end = s.rest.data, s.rest.data + s.rest.size
        s.more = False
        while True:
            whole = cut(at, end - at, self.frame_limit, &f)
            if whole == PARTIAL:
                break
            if whole == LOST:
                s.lost = True
                if f.version != VERSION:
                    self.fault(s, &f, 1, "version", f"`{f.version}` is not spoken here: send {VERSION}")
                else:
                    self.fault(s, &f, 1, "length", f"`{f.length}` is over the limit of {self.frame_limit} bytes")
                break
            if f.op == CHECK or f.op == EXPLAIN or f.op == LEASE:
                self.check(s, &f, now, wall_ms)
            elif f.op == HELLO:
                self.greet(s, &f)
            else:
                self.forward(s, &f)
            at += HEADER + f.length
            frames += 1
            if self.out.size >= OUT_PER_FEED or frames - <int> (self.cache.table.hits - hits) >= COLD_PER_FEED:
                s.more = True
                break
        self.keep(s, at, end, kept > 0)
        return self.out.size

    cdef int keep(self, Stream s, const unsigned char* at, const unsigned char* end, bint inside) except -1:
        """Keep the bytes that belong to a frame that is not whole, or that were not reached yet."""
        cdef Py_ssize_t left = 0 if s.lost else end - at
        if inside:
            memmove(s.rest.data, at, left)
            s.rest.size = left
            if left == 0:
                free(s.rest.data)
                s.rest.data, s.rest.room = NULL, 0
        elif left > 0:
            s.rest.limit = left
            if not put(&s.rest, at, left):
                raise MemoryError
        return 0

    # ---- check, explain and lease ----

    cdef int check(self, Stream s, const Frame* f, int64_t now, int64_t wall_ms) except -1:
        cdef Py_ssize_t tail = tail_size(f.flags)
        cdef const unsigned char* key = f.body
        cdef Py_ssize_t size = f.question
        cdef int64_t left_ms = -1
        cdef uint32_t partition
        cdef Slot* slot
        cdef Tail t
        cdef Walk w
        cdef Buffer canonical
        cdef int outcome
        if tail < 0:
            return self.fault(s, f, 3, "flags", f"`{f.flags}` has a flag that is not known here")
        if <Py_ssize_t> f.length != size + tail:
            return self.fault(s, f, 3, "length", f"`{f.length}` is not question ({size}) plus what the flags announce ({tail})")
        if f.partition == 0 or f.partition > <uint32_t> s.count:
            return self.fault(s, f, 3, "partition", f"`{f.partition}` was not made by a hello of this connection")
        partition = s.partitions[f.partition - 1]
        read_tail(f.body + size, f.flags, &t)
        if t.flags & HAS_NOT_AFTER:
            left_ms = <int64_t> t.not_after - wall_ms if t.not_after <= 0x7FFFFFFFFFFFFFFFULL else 0x7FFFFFFFFFFFFFFF
            if left_ms <= 0:
                return self.denied(s, f, 13, "expired: not_after: the caller's own permission has ended")
        if t.flags & HAS_MIN_REVISION and t.min_boot == self.page.boot and t.min_revision > self.page.revision:
            return self.denied(s, f, 12, "stale: min_revision: this daemon has not seen that revision yet")
        if f.op == CHECK:
            slot = self.live(partition, key, size, now)
            if slot != NULL:
                return self.hit(f, slot, left_ms, now)
        canonical.data, canonical.size, canonical.room = NULL, 0, 0
        canonical.limit = 2 * size + 64
        outcome = examine(&w, key, size, self.depth, self.values, &canonical)
        try:
            if outcome == REFUSED:
                return self.fault(s, f, 2, place_of(&w), w.reason.decode("ascii"))
            if outcome != CANONICAL:
                key, size = canonical.data, canonical.size
                if f.op == CHECK:
                    slot = self.live(partition, key, size, now)
                    if slot != NULL:
                        return self.hit(f, slot, left_ms, now)
            if f.op == CHECK:
                self.cache.table.misses += 1
            self.ask(s, f, partition, &t, (<const char*> key)[:size], None)
        finally:
            free(canonical.data)
        return 0

    cdef Slot* live(self, uint32_t partition, const unsigned char* key, Py_ssize_t size,
                           int64_t now) noexcept:
        cdef Slot* slot = find(&self.cache.table, partition, key, size)
        if slot != NULL and (slot.expires <= now or not stands(&self.cache.table, slot, self.page.words)):
            return NULL
        return slot

    cdef int hit(self, const Frame* f, Slot* slot, int64_t left_ms, int64_t now) except -1:
        cdef int64_t lifetime = (slot.expires - now) // 1000000
        cdef Buffer* out = &self.out
        cdef uint32_t size = <uint32_t> slot.payload + 2 * <uint32_t> slot.stamps
        if not slot.visited:
            slot.visited = True
        self.cache.table.hits += 1
        served(&self.cache.table, slot, now)
        if 0 <= left_ms < lifetime:
            lifetime = left_ms
        if not reserve(out, HEADER + VERDICT + size):
            raise MemoryError
        self.open_reply(f, CHECK | REPLY, VERDICT + size)
        write_fixed(out.data + out.size, slot.permit, 0, True, slot.stamps, <uint32_t> min(lifetime, 0xFFFFFFFF),
                    self.keep_ms if slot.kept else 0, slot.payload, slot.id, self.page.boot, slot.revision)
        out.size += VERDICT
        chain_copy(&self.cache.table.slab, slot.head, slot.key, size, out)
        return 0

    cdef int ask(self, Stream s, const Frame* f, uint32_t partition, const Tail* t, bytes question,
                 bytes rest) except -1:
        cdef Ask a = Ask.__new__(Ask)
        a.id, a.op, a.partition, a.local, a.question, a.rest = f.id, f.op, partition, f.partition, question, rest
        a.deadline_ns = <int64_t> t.deadline_us * 1000 if t.flags & HAS_DEADLINE else -1
        a.not_after = <int64_t> min(t.not_after, 0x7FFFFFFFFFFFFFFFULL) if t.flags & HAS_NOT_AFTER else -1
        if t.flags & HAS_MIN_REVISION:
            a.min_boot, a.min_revision = t.min_boot, t.min_revision
        if t.flags & HAS_TRACE:
            a.trace = (<const char*> t.trace)[:TRACE]
        s.asks.append(a)
        return 0

    # ---- everything else ----

    cdef int forward(self, Stream s, const Frame* f) except -1:
        """Hand a body to the enforcer as it is; check-many brings its tail first."""
        cdef Tail t
        cdef Py_ssize_t tail
        cdef uint32_t partition = 0
        cdef uint16_t flags = f.flags
        memset(&t, 0, sizeof(Tail))
        tail = tail_size(flags) if f.op == CHECK_MANY else (0 if flags == 0 else -1)
        if tail < 0:
            return self.fault(s, f, 3, "flags", f"`{f.flags}` has a flag that does not belong to this op")
        if tail > <Py_ssize_t> f.length:
            return self.fault(s, f, 3, "length", f"`{f.length}` is less than what the flags announce ({tail})")
        if f.question != 0:
            return self.fault(s, f, 3, "question length", "must be 0 for this op")
        if 0 < f.partition <= <uint32_t> s.count:
            partition = s.partitions[f.partition - 1]
        elif f.partition != 0 or f.op == CHECK_MANY:
            return self.fault(s, f, 3, "partition", f"`{f.partition}` was not made by a hello of this connection")
        read_tail(f.body, flags, &t)
        return self.ask(s, f, partition, &t, None, (<const char*> f.body)[tail:f.length])

    cdef int greet(self, Stream s, const Frame* f) except -1:
        if f.flags or f.question or f.partition:
            return self.fault(s, f, 3, "header", "a hello has no flags, no question and partition 0")
        if s.count >= PARTITIONS:
            return self.fault(s, f, 6, "partition", f"this connection has {PARTITIONS} already: open another")
        try:
            partition, body = self.hello(s, s.count + 1, (<const char*> f.body)[:f.length])
        except Fault as fault:
            return self.fault(s, f, fault.code, fault.field, fault.reason)
        s.partitions[s.count] = partition
        s.count += 1
        return self.reply(f, HELLO | REPLY, body)

    cdef void open_reply(self, const Frame* f, int op, uint32_t length) noexcept:
        """Write a header into room that is reserved already."""
        cdef Frame r
        r.length, r.question, r.version, r.op, r.flags = length, 0, VERSION, op, 0
        r.partition, r.id = f.partition, f.id
        write_header(self.out.data + self.out.size, &r)
        self.out.size += HEADER

    cdef int reply(self, const Frame* f, int op, bytes body) except -1:
        if not reserve(&self.out, HEADER + len(body)):
            raise MemoryError
        self.open_reply(f, op, len(body))
        put(&self.out, <const char*> body, len(body))
        return 0

    cdef int fault(self, Stream s, const Frame* f, int code, str field, str reason) except -1:
        """An error frame that names the field and the reason."""
        s.note(code, field, f.partition)
        return self.reply(f, ERROR, _pack({"code": code, "field": field, "reason": reason}))

    cdef int denied(self, Stream s, const Frame* f, int code, str reason) except -1:
        """A deny that needs no PDP: the request's own bounds are not met."""
        cdef unsigned char fixed[VERDICT]
        cdef bytes payload
        if f.op == EXPLAIN:
            return self.fault(s, f, code, "", reason)
        s.note(code, "", f.partition)
        payload = _pack({"reason": reason})
        write_fixed(fixed, False, code, False, 0, 0, 0, len(payload), 0, self.page.boot, self.page.revision)
        return self.reply(f, f.op | REPLY, (<const char*> fixed)[:VERDICT] + payload)
