"""The decision cache: 8-way sets, whole-key equality, memory fixed at the start.

Promises: a lookup compares the partition and every byte of the key, and touches one set of 8 slots whatever the
keys are; memory is what the constructor was told; an owner at its quota, of all or of one set that is full, replaces
only its own entries, so that a flood leaves what others keep hot.
Eviction is SIEVE within the set: slots are kept newest first, the hand walks from old to new, skips and clears
visited entries, and stays where it evicted (SIEVE, NSDI'24; hit ratios in benchmarks/README.md).
An entry stands at the revision that it remembers; at a newer one its own slots are read again, and if none of them was
revoked it remembers the newer one.
Never: decides by the hash; looks at a clock (the caller passes `now`); keeps an entry longer than asked for.

INVARIANT: an owner's counters equal the slots and blocks that carry its number.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memmove, memset

from typing import NamedTuple

from .hashing cimport xxh3
from .page cimport REVISION, STAMPS, Page, load, untouched
from .slab cimport (
    BLOCK, NONE, blocks_for, chain_free, chain_read, chain_starts_with, chain_store, slab_close, slab_open,
    spare_blocks,
)
from .tally cimport LEFT, Tally, tally_close, tally_left, tally_ms, tally_open, tally_taken, tally_touch


cdef inline uint64_t spread(uint64_t hash, uint32_t partition) noexcept nogil:
    """Mix the partition into the hash, so that peers do not meet in one set by asking the same question."""
    hash ^= (<uint64_t> partition + 1) * 0x9E3779B97F4A7C15ULL
    hash ^= hash >> 32
    return hash * 0xD6E8FEB86659FD93ULL


cdef inline Slot* set_of(Table* t, uint64_t hash) noexcept nogil:
    return t.slots + <size_t> ((hash >> 32) * t.sets >> 32) * WAYS


cdef inline bint is_key(const Table* t, const Slot* s, uint64_t hash, uint32_t partition,
                        const unsigned char* key, Py_ssize_t size) noexcept nogil:
    return (
        s.tag == <uint32_t> hash and s.head != NONE and s.partition == partition and s.key == size
        and chain_starts_with(&t.slab, s.head, key, <uint32_t> size)
    )


cdef bint crossed(Table* t, Slot* s, const uint64_t* words, uint64_t revision) noexcept nogil:
    """Something was revoked since this entry was looked at. True: not one of its own slots, so it stands."""
    cdef unsigned char stamps[2 * STAMPS]
    if s.stamps == 0:
        return False
    chain_read(&t.slab, s.head, <uint32_t> s.key + s.payload, 2 * <uint32_t> s.stamps, stamps)
    if not untouched(words, stamps, s.stamps, s.revision):
        return False
    s.revision = revision
    return True


cdef bint stands(Table* t, Slot* s, const uint64_t* words) noexcept nogil:
    """Whether nothing that this entry hangs on was revoked."""
    cdef uint64_t revision = load(words + REVISION)
    return s.revision == revision or crossed(t, s, words, revision)


cdef inline bint dead(Table* t, Slot* s, int64_t now, const uint64_t* words) noexcept nogil:
    return s.head != NONE and (s.expires <= now or not stands(t, s, words))


cdef Slot* find(Table* t, uint32_t partition, const unsigned char* key, Py_ssize_t size) noexcept nogil:
    """The slot of this key, or NULL. Whether it is still alive is for the caller to say."""
    cdef uint64_t hash = spread(xxh3(key, size, t.seed), partition)
    cdef Slot* s = set_of(t, hash)
    cdef int way
    for way in range(WAYS):
        if is_key(t, s, hash, partition, key, size):
            return s
        s += 1
    return NULL


cdef void served(Table* t, Slot* s, int64_t now) noexcept nogil:
    """Count a hit for the record."""
    if t.tally.counting:
        s.last = tally_ms(&t.tally, now)
        if s.served == 0:
            s.first = s.last
            tally_touch(&t.tally, <uint32_t> ((s - t.slots) // WAYS))
        s.served += 1


cdef void drop(Table* t, Slot* s) noexcept nogil:
    if s.served:
        tally_left(&t.tally, s.id, s.partition, s.served, s.first, s.last)
    t.owners[s.owner].slots -= 1
    t.owners[s.owner].blocks -= chain_free(&t.slab, s.head)
    s.head = NONE


cdef int victim(Slot* set, uint8_t* hand, uint16_t owner, bint own) noexcept nogil:
    """The SIEVE choice among all entries of a set, or among the owner's own; -1 where there is none."""
    cdef int step, at = hand[0]
    for step in range(2 * WAYS):
        if set[at].head != NONE and (not own or set[at].owner == owner):
            if not set[at].visited:
                hand[0] = at
                return at
            set[at].visited = False
        at = at - 1 if at > 0 else WAYS - 1
    return -1


cdef bint sweep(Table* t, uint32_t need, const Slot* spare, int64_t now, const uint64_t* words) noexcept nogil:
    """The slab is full: free what is dead, then one SIEVE victim, in each of the next sets, at most SWEEP."""
    cdef Slot* set
    cdef int way, turn
    for turn in range(SWEEP):
        t.swept = t.swept + 1 if t.swept + 1 < t.sets else 0
        set = t.slots + <size_t> t.swept * WAYS
        if set == spare:
            continue
        for way in range(WAYS):
            if dead(t, &set[way], now, words):
                drop(t, &set[way])
        if spare_blocks(&t.slab) < need:
            way = victim(set, &t.hands[t.swept], 0, False)
            if way >= 0:
                drop(t, &set[way])
                t.evictions += 1
        if spare_blocks(&t.slab) >= need:
            return True
    return False


cdef bint insert(Table* t, const Slot* new, const unsigned char* key, const unsigned char* payload,
                 int64_t now, const uint64_t* words) noexcept nogil:
    """Keep an answer that stands; `payload` ends with its stamps.

    False: it does not fit, or its owner is at the quota and has nothing of its own in the set to give.
    """
    cdef uint64_t hash = spread(xxh3(key, new.key, t.seed), new.partition)
    cdef Slot* set = set_of(t, hash)
    cdef uint8_t* hand = &t.hands[(set - t.slots) // WAYS]
    cdef Owner* owner = &t.owners[new.owner]
    cdef uint32_t size = <uint32_t> new.payload + 2 * new.stamps
    cdef uint32_t need = blocks_for(<uint32_t> new.key + size)
    cdef int way, hole, own
    cdef bint over
    for way in range(WAYS):     # the same key, and what is dead already, make room first
        if dead(t, &set[way], now, words) or is_key(t, &set[way], hash, new.partition, key, new.key):
            drop(t, &set[way])
    while True:
        over = owner.slots + 1 > t.slot_quota or owner.blocks + need > t.block_quota
        hole = own = 0
        while hole < WAYS and set[hole].head != NONE:
            own += set[hole].owner == new.owner
            hole += 1
        if hole < WAYS and not over:
            break
        way = victim(set, hand, new.owner, over or own >= t.way_quota)
        if way < 0:
            t.declined += 1
            return False
        drop(t, &set[way])
        t.evictions += 1
    if spare_blocks(&t.slab) < need and not sweep(t, need, set, now, words):
        t.declined += 1
        return False
    memmove(set + 1, set, hole * sizeof(Slot))
    set[0] = new[0]
    set[0].tag = <uint32_t> hash
    set[0].visited = False
    set[0].head = chain_store(&t.slab, key, new.key, payload, size)
    owner.slots += 1
    owner.blocks += need
    t.inserts += 1
    return True


class Stored(NamedTuple):
    """What is kept of a decision."""

    permit: bool
    id: int
    expires: int
    revision: int
    payload: bytes
    stamps: bytes
    kept: bool


@cython.final
cdef class Cache:
    """`slots` is rounded up to whole sets, `slab` is bytes, `quota` the share of both that one owner may hold."""

    def __cinit__(self, *, uint32_t slots, size_t slab, uint64_t seed, double quota=0.6):
        cdef Table* t = &self.table
        cdef size_t i
        t.sets = (slots + WAYS - 1) // WAYS
        if t.sets == 0 or slots > 1 << 28 or slab < BLOCK or slab // BLOCK >= NONE or not 0 < quota <= 1:
            raise ValueError("a cache needs 1 to 2^28 slots, at least one block of 64 bytes, a quota in (0, 1]")
        if not slab_open(&t.slab, slab):
            raise MemoryError
        t.slot_quota = <uint32_t> (t.sets * WAYS * quota)
        t.block_quota = <uint32_t> (t.slab.blocks * quota)
        t.way_quota = <int> ceil(WAYS * quota)
        t.seed = seed
        t.slots = <Slot*> malloc(<size_t> t.sets * WAYS * sizeof(Slot))
        t.hands = <uint8_t*> malloc(t.sets)
        t.owners = <Owner*> calloc(OWNERS, sizeof(Owner))
        if not tally_open(&t.tally, t.sets) or t.slots == NULL or t.hands == NULL or t.owners == NULL:
            raise MemoryError
        for i in range(<size_t> t.sets * WAYS):
            t.slots[i].head = NONE
        memset(t.hands, WAYS - 1, t.sets)

    def __dealloc__(self):
        free(self.table.slots)
        free(self.table.hands)
        free(self.table.owners)
        tally_close(&self.table.tally)
        slab_close(&self.table.slab)

    def put(self, int owner, unsigned int partition, bytes key not None, bytes payload not None, *, bint permit,
            unsigned long long id, long long expires, unsigned long long revision, long long now, Page page not None,
            bytes stamps not None=b"", bint kept=False):
        """Keep an encoded answer until `expires`, unless what it hangs on was revoked since `revision`.

        `stamps` are slots of the page, u16 each, little-endian; none: it hangs on the revision itself. `kept`: a client
        may keep it, too.
        """
        cdef Slot new
        if not 0 <= owner < OWNERS:
            raise ValueError(f"owner `{owner}` is out of range: pass 0 to {OWNERS - 1}")
        if len(stamps) > 2 * STAMPS or len(stamps) % 2:
            raise ValueError(f"stamps are {STAMPS} slots of 2 bytes at most: {len(stamps)} bytes are given")
        if expires <= now or not page.untouched(stamps, revision):
            return False
        if len(key) > 0xFFFF or len(payload) > 0xFFFF or len(key) == 0:
            self.table.declined += 1
            return False
        memset(&new, 0, sizeof(Slot))
        new.expires, new.revision, new.id, new.partition = expires, revision, id, partition
        new.key, new.payload, new.owner, new.permit = len(key), len(payload), owner, permit
        new.stamps, new.kept = len(stamps) // 2, kept
        payload += stamps
        return insert(&self.table, &new, <const unsigned char*> <const char*> key,
                      <const unsigned char*> <const char*> payload, now, page.words)

    def get(self, unsigned int partition, bytes key not None, long long now, Page page not None):
        """Return a live entry as Stored, or None. Counts a hit or a miss."""
        cdef Slot* s = find(&self.table, partition, <const unsigned char*> <const char*> key, len(key))
        cdef bytes rest
        if s == NULL or dead(&self.table, s, now, page.words):
            self.table.misses += 1
            return None
        self.table.hits += 1
        s.visited = True
        served(&self.table, s, now)
        rest = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> s.payload + 2 * s.stamps)
        chain_read(&self.table.slab, s.head, s.key, <uint32_t> s.payload + 2 * <uint32_t> s.stamps,
                   <unsigned char*> <char*> rest)
        return Stored(bool(s.permit), s.id, s.expires, s.revision, rest[:s.payload], rest[s.payload:], bool(s.kept))

    def count_from(self, int64_t now):
        """Count hits for the record from now on."""
        self.table.tally.counting, self.table.tally.harvested = True, now

    def harvest(self, int64_t now, uint32_t most=LEFT):
        """Return what was served since the last harvest, and how many hits could not be told apart.

        A list of (decision id, partition, count, first, last), times in CLOCK_BOOTTIME ns, to the millisecond. About
        `most` at once; `unharvested` says whether there are more.
        """
        cdef Tally* t = &self.table.tally
        cdef Slot* s
        cdef uint32_t i, done = 0
        cdef int way
        while done < t.touched_count and t.left_count < most and t.left_count + WAYS <= LEFT:
            i = t.touched[done]
            done += 1
            t.is_touched[i] = False
            s = self.table.slots + <size_t> i * WAYS
            for way in range(WAYS):
                if s.head != NONE and s.served:
                    tally_left(t, s.id, s.partition, s.served, s.first, s.last)
                    s.served = 0
                s += 1
        return tally_taken(t, done, now)

    @property
    def unharvested(self):
        """In how many sets there are hits that were not harvested."""
        return self.table.tally.touched_count

    def usage(self):
        """Return the counters and what is held. Looks at the owners, not at the slots: this is asked every second."""
        cdef Table* t = &self.table
        cdef size_t i
        cdef uint64_t entries = 0
        for i in range(OWNERS):
            entries += t.owners[i].slots
        return {
            "hits": t.hits, "misses": t.misses, "inserts": t.inserts, "evictions": t.evictions,
            "declined": t.declined, "entries": entries, "slots": t.sets * WAYS,
            "blocks": t.slab.blocks, "blocks_used": t.slab.fresh - t.slab.free_count,
        }

    def owned(self, int owner):
        """Return (slots, blocks) that an owner holds."""
        if not 0 <= owner < OWNERS:
            raise ValueError(f"owner `{owner}` is out of range: pass 0 to {OWNERS - 1}")
        return self.table.owners[owner].slots, self.table.owners[owner].blocks
