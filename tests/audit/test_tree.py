"""The Merkle tree against published roots and proofs, and against RFC 6962 word for word.

The leaves, roots, inclusion and consistency proofs are those of the certificate-transparency test suite
(github.com/google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc; the same in
github.com/transparency-dev/merkle, testonly/constants.go).
"""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from pepcore.audit.tree import Frontier, Span, Tree, consistent, includes, leaf

LEAVES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [bytes.fromhex(text) for text in (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)]  # fmt: skip
CONSISTENCY = {
    (1, 1): (),
    (1, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
INCLUSION = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}


def by_the_rfc(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\1" + by_the_rfc(leaves[:k]) + by_the_rfc(leaves[k:])).digest()


def tree_of(leaves: list[bytes]) -> Tree:
    tree = Tree()
    tree.leaves = [leaf(each) for each in leaves]
    return tree


def test_roots_and_proofs_are_the_published_ones() -> None:
    frontier, tree = Frontier(), tree_of(LEAVES)
    assert frontier.root() == ROOTS[0]
    for size, each in enumerate(LEAVES, 1):
        frontier.append(leaf(each))
        assert frontier.root() == tree.root(size) == ROOTS[size]
    for (old, new), proof in CONSISTENCY.items():
        assert tree.consistency(old, new) == [bytes.fromhex(each) for each in proof]
    for (index, size), path in INCLUSION.items():
        assert tree.inclusion(index, size) == [bytes.fromhex(each) for each in path]


def test_every_proof_of_every_size_holds_and_none_for_another_place() -> None:
    leaves = [bytes([i]) for i in range(40)]
    tree = tree_of(leaves)
    roots = [by_the_rfc(leaves[:size]) for size in range(41)]
    for size in range(1, 41):
        assert tree.root(size) == roots[size]
        for index in range(size):
            path = tree.inclusion(index, size)
            assert includes(roots[size], size, index, leaf(leaves[index]), path)
            assert not includes(roots[size], size, index, leaf(b"other"), path)
            assert not includes(roots[size], size, (index + 1) % size, leaf(leaves[index]), path) or size == 1
            assert not includes(roots[size], size, index, leaf(leaves[index]), [*path, roots[0]])
            assert not path or not includes(roots[size], size, index, leaf(leaves[index]), path[:-1])
        for old in range(1, size + 1):
            proof = tree.consistency(old, size)
            assert consistent(old, roots[old], size, roots[size], proof)
            assert not consistent(old, roots[old - 1], size, roots[size], proof)
            assert not consistent(old, roots[old], size, roots[size], [*proof, roots[0]])
            assert not proof or not consistent(old, roots[old], size, roots[size], proof[:-1])


def test_a_changed_proof_is_not_taken() -> None:
    random_, tree = random.Random(5), tree_of([bytes([i]) for i in range(100)])
    for _ in range(300):
        old = random_.randrange(1, 99)
        proof = tree.consistency(old, 100)
        at, bit = random_.randrange(len(proof)), 1 << random_.randrange(8)
        wrong = list(proof)
        wrong[at] = bytes([wrong[at][0] ^ bit]) + wrong[at][1:]
        assert not consistent(old, tree.root(old), 100, tree.root(100), wrong)


@pytest.mark.parametrize("first", [0, 1, 5, 8, 13, 31])
def test_what_is_left_is_still_proved_after_its_beginning_is_gone(first: int) -> None:
    leaves = [bytes([i]) for i in range(64)]
    whole, before = tree_of(leaves), Frontier()
    for each in leaves[:first]:
        before.append(leaf(each))
    rest = Tree(before)
    rest.leaves = [leaf(each) for each in leaves[first:]]
    for size in range(first, 65):
        assert rest.root(size) == whole.root(size)
        for index in range(first, size):
            assert rest.inclusion(index, size) == whole.inclusion(index, size)
        if first:
            assert rest.consistency(first, size) == whole.consistency(first, size)
    if first > 1:
        with pytest.raises(LookupError, match="no longer kept"):
            rest.inclusion(0, 64)


def test_a_span_leads_over_what_is_gone() -> None:
    for first in range(20):
        frontier = Frontier()
        for i in range(first):
            frontier.append(leaf(bytes([i])))
        span = Span(first)
        for size in range(first + 1, 41):
            span.append(leaf(bytes([size - 1])))
            led = frontier.copy()
            Span(first, span.parts).carry(led)
            assert (led.size, led.root()) == (size, by_the_rfc([bytes([i]) for i in range(size)]))
            assert len(span.parts) <= 2 * size.bit_length()
    with pytest.raises(ValueError, match="begins at 19"):
        span.carry(Frontier())


def test_a_frontier_takes_no_subtree_where_none_can_stand() -> None:
    frontier = Frontier(3, [b"a" * 32, b"b" * 32])
    with pytest.raises(ValueError, match="cannot stand at 3"):
        frontier.append(b"c" * 32, 1)
    with pytest.raises(ValueError, match="2 peaks and not 1"):
        Frontier(3, [b"a" * 32])
