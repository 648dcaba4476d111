"""XXH3 bound from the wheel: equal to the wheel's own, whatever the length and seed."""

import pytest
import xxhash

from pepcore.core.hashing import NATIVE, digest


@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 1024, 70_000])
@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_digest_equals_that_of_the_wheel(size: int, seed: int):
    data = bytes(i * 7 & 0xFF for i in range(size))
    assert digest(data, seed) == xxhash.xxh3_64_intdigest(data, seed)


def test_the_seed_changes_the_place():
    assert len({digest(b"question", seed) for seed in range(64)}) == 64


def test_the_symbol_of_the_wheel_is_used_here():
    assert NATIVE is True


@pytest.mark.parametrize("wrong", ["text", None, bytearray(b"x")])
def test_only_bytes_are_hashed(wrong: object):
    with pytest.raises(TypeError):
        digest(wrong, 1)  # type: ignore[arg-type]
    assert digest(b"x", 1)
