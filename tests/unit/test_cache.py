"""The cache: whole-key equality, 8 probes, SIEVE in the set, quotas, fixed memory."""

import random
import struct
from itertools import count
from typing import Any

import pytest
import xxhash

from pepcore.core.cache import Cache, Stored
from pepcore.core.page import Page
from tests.model.pep import Cache as Model

M = (1 << 64) - 1


QUIET, MS = Page(7), 10**6


def put(cache: Cache, key: bytes, payload: bytes = b"", *, owner: int = 1, partition: int = 1, **rest: Any) -> bool:
    fields = {"permit": True, "id": 1, "expires": 100, "revision": 0, "now": 0, "page": QUIET, **rest}
    return cache.put(owner, partition, key, payload, **fields)


def get(cache: Cache, key: bytes, *, partition: int = 1, now: int = 0, page: Page = QUIET) -> Stored | None:
    return cache.get(partition, key, now, page)


def slots(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


@pytest.mark.parametrize("size", [1, 59, 60, 61, 119, 120, 121, 600, 65535])
@pytest.mark.parametrize("payload", [0, 1, 59, 60, 61, 65535])
def test_what_is_put_comes_back_byte_for_byte(size: int, payload: int):
    cache = Cache(slots=8, slab=1 << 20, seed=1, quota=1.0)
    key, data = bytes(i & 0xFF for i in range(size)), bytes(i * 3 & 0xFF for i in range(payload))
    assert put(cache, key, data, permit=False, id=2**64 - 1, expires=77)
    assert get(cache, key) == (False, 2**64 - 1, 77, 0, data, b"", False)
    assert cache.usage()["blocks_used"] == -(-(size + payload) // 60)


def test_an_oversize_question_or_answer_is_not_cached_and_its_neighbour_is():
    cache = Cache(slots=8, slab=1 << 20, seed=1, quota=1.0)
    assert not put(cache, bytes(65536))
    assert not put(cache, b"k", bytes(65536))
    assert not put(cache, b"")
    assert cache.usage()["declined"] == 3
    assert put(cache, bytes(65535), b"")


def test_equality_is_the_full_key():
    cache = Cache(slots=64, slab=65536, seed=3)
    key = bytes(range(200))
    assert put(cache, key, b"yes")
    for i in range(200):
        assert get(cache, key[:i] + bytes([key[i] ^ 1]) + key[i + 1 :]) is None
        assert get(cache, key[:i]) is None
    assert get(cache, key + b"\0") is None
    assert get(cache, key)


def test_a_colliding_hash_never_decides():
    """Two keys in one set with the same tag: found by search under a known seed, never taken for each other."""
    seed, by_tag = 5, {}
    cache = Cache(slots=8, slab=65536, seed=seed, quota=1.0)
    for n in count():
        key = b"%d" % n
        h = xxhash.xxh3_64_intdigest(key, seed) ^ (2 * 0x9E3779B97F4A7C15 & M)
        tag = (h ^ h >> 32) * 0xD6E8FEB86659FD93 & 0xFFFFFFFF
        if (other := by_tag.setdefault((tag, len(key)), key)) != key:
            break
    assert put(cache, other, b"permit", permit=True)
    assert get(cache, key) is None
    assert put(cache, key, b"deny", permit=False)
    assert get(cache, other)[0], get(cache, key)[0] == (True, False)


def test_colliding_keys_cost_eight_probes():
    """However many keys meet in one set, only eight of them are kept, and another set loses nothing."""
    cache, model = Cache(slots=64, slab=1 << 20, seed=9, quota=1.0), Model(64, 1 << 20, 9, 1.0)
    keys = [b"%d" % n for n in range(4000)]
    crowd = [k for k in keys if model.place(1, k) == 0]
    alone = next(k for k in keys if model.place(1, k) == 1)
    assert put(cache, alone)
    assert len(crowd) > 300
    for key in crowd:
        put(cache, key)
    assert sum(get(cache, k) is not None for k in crowd) == 8
    assert get(cache, alone)


def test_nothing_crosses_a_partition():
    cache = Cache(slots=64, slab=65536, seed=1)
    assert put(cache, b"k", b"one", partition=1)
    assert put(cache, b"k", b"two", partition=2, permit=False)
    assert get(cache, b"k", partition=1).payload == b"one"
    assert get(cache, b"k", partition=2).payload == b"two"
    assert get(cache, b"k", partition=3) is None


def test_no_permit_outlives_its_lifetime():
    cache = Cache(slots=8, slab=4096, seed=1)
    assert put(cache, b"k", expires=50)
    assert get(cache, b"k", now=49)
    assert get(cache, b"k", now=50) is None
    assert get(cache, b"k", now=2**62) is None
    assert not put(cache, b"j", expires=10, now=10)
    assert put(cache, b"j", expires=11, now=10)


def test_an_entry_dies_when_one_of_its_own_slots_is_revoked_and_stands_when_another_is():
    page, cache = Page(1), Cache(slots=8, slab=4096, seed=1, quota=1.0)
    assert put(cache, b"k", page=page, stamps=slots(0, 9, 300))
    assert put(cache, b"j", page=page, stamps=slots(0, 10))
    page.revoke([11])
    assert get(cache, b"k", page=page) == (True, 1, 100, 1, b"", slots(0, 9, 300), False)
    page.revoke([300])
    assert get(cache, b"k", page=page) is None
    assert get(cache, b"j", page=page)
    page.bump()
    assert get(cache, b"j", page=page) is None


def test_an_entry_without_slots_hangs_on_the_revision_itself():
    page, cache = Page(1), Cache(slots=8, slab=4096, seed=1, quota=1.0)
    assert put(cache, b"k", page=page)
    assert get(cache, b"k", page=page)
    page.revoke([12345])
    assert get(cache, b"k", page=page) is None


def test_an_answer_that_was_revoked_while_it_was_asked_is_not_kept():
    page, cache = Page(1), Cache(slots=8, slab=4096, seed=1, quota=1.0)
    asked = page.revision
    page.revoke([9])
    assert not put(cache, b"k", page=page, revision=asked, stamps=slots(0, 9))
    assert not put(cache, b"k", page=page, revision=asked)
    assert put(cache, b"k", page=page, revision=asked, stamps=slots(0, 8))
    assert put(cache, b"j", page=page, revision=page.revision, stamps=slots(0, 9))


def test_what_was_revoked_makes_room_before_anything_is_evicted():
    page, cache = Page(1), Cache(slots=8, slab=4096, seed=1, quota=1.0)
    for n in range(8):
        assert put(cache, b"%d" % n, page=page, stamps=slots(0, 100 + n))
    page.revoke([103])
    assert put(cache, b"new", page=page, revision=1, stamps=slots(0))
    assert cache.usage()["evictions"] == 0
    assert [n for n in range(8) if get(cache, b"%d" % n, page=page) is None] == [3]


@pytest.mark.parametrize("stamps", [b"\0", bytes(66)])
def test_stamps_are_whole_slots_and_no_more_than_32(stamps: bytes):
    cache = Cache(slots=8, slab=4096, seed=1)
    with pytest.raises(ValueError, match="stamps are 32 slots"):
        put(cache, b"k", stamps=stamps)
    assert put(cache, b"k", stamps=bytes(64))


def test_a_second_answer_takes_the_place_of_the_first():
    cache = Cache(slots=8, slab=4096, seed=1)
    assert put(cache, b"k", bytes(600), permit=True)
    assert put(cache, b"k", b"", permit=False)
    assert get(cache, b"k")[0] is False
    assert (cache.usage()["entries"], cache.usage()["blocks_used"], cache.owned(1)) == (1, 1, (1, 1))


def test_memory_stays_fixed_under_a_flood_of_keys():
    cache = Cache(slots=256, slab=64 * 500, seed=2, quota=1.0)
    for n in range(20_000):
        put(cache, b"%d" % n, bytes(n % 300))
        if n % 1000 == 0:
            usage = cache.usage()
            assert usage["entries"] <= usage["slots"] == 256
            assert usage["blocks_used"] <= usage["blocks"] == 500
    usage = cache.usage()
    assert usage["evictions"] > 10_000
    assert usage["inserts"] - usage["evictions"] >= usage["entries"]
    assert get(cache, b"19999")


def test_one_peer_cannot_evict_beyond_its_quota():
    cache = Cache(slots=512, slab=64 * 2000, seed=4, quota=0.6)
    mine = [b"mine%d" % n for n in range(150)]
    for key in mine:
        assert put(cache, key, owner=1)
    held = sum(get(cache, key) is not None for key in mine)
    for n in range(20_000):
        put(cache, b"flood%d" % n, owner=2)
    slots, blocks = cache.owned(2)
    assert slots <= 307
    assert blocks <= 1200
    assert sum(get(cache, key) is not None for key in mine) == held
    assert cache.owned(1) == (held, held)


def test_one_peer_cannot_fill_the_slab_beyond_its_quota():
    cache = Cache(slots=1024, slab=64 * 100, seed=4, quota=0.5)
    for n in range(500):
        put(cache, b"%d" % n, bytes(500), owner=2)
    assert cache.owned(2)[1] <= 50
    assert put(cache, b"k", bytes(1000), owner=1)
    assert get(cache, b"k")


def test_a_visited_entry_outlives_one_that_nobody_asked_for():
    cache = Cache(slots=8, slab=4096, seed=1, quota=1.0)
    keys = [b"%d" % n for n in range(8)]
    for key in keys:
        put(cache, key)
    for key in keys[::2]:
        assert get(cache, key)
    for n in range(4):
        put(cache, b"new%d" % n)
    alive = [key for key in keys if get(cache, key)]
    assert alive == keys[::2]


def test_what_is_dead_makes_room_before_what_is_alive():
    cache = Cache(slots=8, slab=4096, seed=1, quota=1.0)
    for n in range(8):
        put(cache, b"%d" % n, expires=10 if n < 3 else 100)
    put(cache, b"new", now=20)
    assert cache.usage()["evictions"] == 0
    assert cache.usage()["entries"] == 6
    assert all(get(cache, b"%d" % n, now=20) for n in range(3, 8))


@pytest.mark.parametrize(
    "wrong",
    [{"slots": 0}, {"slots": (1 << 28) + 1}, {"slab": 63}, {"slab": 0}, {"quota": 0.0}, {"quota": 1.1}, {"quota": -1}],
)
def test_a_size_that_cannot_be_is_refused(wrong: dict):
    with pytest.raises(ValueError, match="a cache needs"):
        Cache(**{"slots": 8, "slab": 64, "seed": 1, **wrong})
    assert Cache(slots=8, slab=64, seed=1)


@pytest.mark.parametrize("owner", [-1, 4096, 2**31 - 1])
def test_an_owner_out_of_range_is_refused(owner: int):
    cache = Cache(slots=8, slab=4096, seed=1)
    with pytest.raises(ValueError, match="out of range"):
        put(cache, b"k", owner=owner)
    with pytest.raises(ValueError, match="out of range"):
        cache.owned(owner)
    assert put(cache, b"k", owner=4095)


@pytest.mark.parametrize("partition", [-1, 2**32])
def test_a_partition_out_of_range_is_refused(partition: int):
    cache = Cache(slots=8, slab=4096, seed=1)
    with pytest.raises(OverflowError):
        put(cache, b"k", partition=partition)
    with pytest.raises(OverflowError):
        get(cache, b"k", partition=partition)
    assert put(cache, b"k", partition=2**32 - 1)


def test_a_flood_below_its_quota_takes_no_set_from_those_who_were_there():
    """The flood may fill holes; in a set that is full it replaces its own, unless others hold most of the set."""
    cache = Cache(slots=4096, slab=1 << 20, seed=11)
    mine = [b"mine %d" % n for n in range(60)]  # at most two meet in one set
    assert all(put(cache, key, owner=1, partition=1) for key in mine)
    flood = [b"flood %d" % n for n in range(20_000)]
    kept = sum(put(cache, key, owner=2, partition=2) for key in flood)
    assert all(get(cache, key) for key in mine)
    assert kept > 15_000  # and the flood is served from what it may hold
    assert get(cache, flood[-1], partition=2)
    assert cache.usage()["evictions"] > 10_000


def test_what_is_served_is_counted_for_the_record_and_harvested_once():
    cache = Cache(slots=64, slab=65536, seed=3)
    for n in range(3):
        assert put(cache, b"%d" % n, id=n, partition=n, expires=10**12)
    get(cache, b"0", partition=0)
    assert cache.harvest(0) == ([], 0), "nothing is counted before it is asked for"
    cache.count_from(1000 * MS)
    for ms in (1, 5, 9):
        get(cache, b"0", partition=0, now=(1000 + ms) * MS)
    get(cache, b"2", partition=2, now=1007 * MS)
    found, lost = cache.harvest(2000 * MS)
    assert sorted(found) == [(0, 0, 3, 1001 * MS, 1009 * MS), (2, 2, 1, 1007 * MS, 1007 * MS)]
    assert lost == 0
    assert cache.harvest(3000 * MS) == ([], 0)
    get(cache, b"2", partition=2, now=3001 * MS)
    assert cache.harvest(4000 * MS) == ([(2, 2, 1, 3001 * MS, 3001 * MS)], 0)


def test_what_an_entry_served_before_it_went_is_harvested_too():
    cache = Cache(slots=8, slab=65536, seed=3, quota=1.0)
    cache.count_from(0)
    assert put(cache, b"k", id=7, expires=10**12)
    get(cache, b"k", now=MS)
    assert put(cache, b"k", id=8, expires=10**12)
    get(cache, b"k", now=2 * MS)
    found, _ = cache.harvest(10 * MS)
    assert sorted(found) == [(7, 1, 1, MS, MS), (8, 1, 1, 2 * MS, 2 * MS)]


def test_no_hit_is_lost_or_counted_twice_whatever_comes_and_goes():
    cache, r = Cache(slots=16, slab=4096, seed=3, quota=1.0), random.Random(5)
    cache.count_from(0)
    hits, told = 0, 0
    for now in range(20_000):
        key = b"%d" % r.randrange(60)
        if r.random() < 0.6:
            hits += get(cache, key, now=now) is not None
        elif r.random() < 0.9:
            put(cache, key, id=now, expires=now + r.choice((5, 500)), now=now)
        else:
            found, lost = cache.harvest(now)
            told += sum(count for _, _, count, _, _ in found) + lost
    found, lost = cache.harvest(20_000)
    told += sum(count for _, _, count, _, _ in found) + lost
    assert hits > 1000
    assert told == hits


def test_hits_are_harvested_in_slices_and_one_that_is_hit_all_the_time_keeps_nobody_waiting():
    cache = Cache(slots=8192, slab=1 << 20, seed=1, quota=1.0)
    cache.count_from(0)
    for n in range(3000):
        put(cache, b"%d" % n, id=n, expires=10**12)
    kept = [n for n in range(3000) if get(cache, b"%d" % n, now=MS)]
    for n in kept:
        assert get(cache, b"%d" % n, now=MS)
    found: dict[int, int] = {}
    for _ in range(len(kept) // 100 + 1):
        some, lost = cache.harvest(2 * MS, 100)
        assert (len(some) < 100 + 8, lost) == (True, 0)
        assert get(cache, b"0", now=2 * MS)
        for number, _partition, many, *_times in some:
            found[number] = found.get(number, 0) + many
    assert len(kept) > 2500
    assert {number: many for number, many in found.items() if number} == dict.fromkeys(kept[1:], 2)
    assert cache.unharvested == 1
