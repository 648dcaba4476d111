"""The slab, seen through the cache: blocks are taken and given back exactly, and nothing fragments."""

import random

import pytest

from pepcore.core.cache import Cache
from tests.unit.test_cache import get, put


def test_storing_needs_exactly_its_blocks_and_gives_them_back():
    cache = Cache(slots=64, slab=64 * 1000, seed=1, quota=1.0)
    for size in range(1, 400):
        put(cache, b"k" * size, b"p" * (400 - size))
        assert cache.usage()["blocks_used"] <= 64 * 7
    put(cache, b"k", b"", expires=200, now=150)
    held = cache.usage()
    assert held["blocks_used"] == cache.owned(1)[1]


@pytest.mark.parametrize("blocks", [1, 2, 9])
def test_any_chain_given_back_is_room_for_any_other(blocks: int):
    cache = Cache(slots=8, slab=64 * blocks, seed=1, quota=1.0)
    r = random.Random(3)
    for n in range(3000):
        size = r.randint(1, 60 * blocks - 4)
        key = b"%04d" % n
        if put(cache, key, bytes([n & 0xFF]) * size):
            assert get(cache, key).payload == bytes([n & 0xFF]) * size
        assert cache.usage()["blocks_used"] <= blocks
        assert cache.usage()["blocks_used"] == cache.owned(1)[1]
    assert cache.usage()["inserts"] == 3000


def test_an_answer_larger_than_the_slab_is_declined_and_its_neighbour_is_kept():
    cache = Cache(slots=8, slab=64 * 4, seed=1, quota=1.0)
    assert not put(cache, b"k", bytes(240))
    assert put(cache, b"k", bytes(239))
    assert cache.usage()["blocks_used"] == 4


def test_chains_of_many_entries_never_mix():
    cache = Cache(slots=256, slab=64 * 600, seed=1, quota=1.0)
    r, known = random.Random(5), {}
    for n in range(5000):
        key = b"%d" % r.randrange(400)
        payload = r.randbytes(r.randrange(200))
        if put(cache, key, payload, id=n):
            known[key] = (n, payload)
        other = b"%d" % r.randrange(400)
        if found := get(cache, other):
            assert (found[1], found.payload) == known[other]
