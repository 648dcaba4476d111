"""The Merkle tree of RFC 6962, section 2.1: what was recorded cannot change without its root changing.

Promises: appending costs one or two hashes and holds at most 64 (the frontier: the roots of the perfect subtrees that
the size's bits count); the root is there at any size; inclusion and consistency proofs are those of RFC 6962, and
are tested as RFC 9162, sections 2.1.3.2 and 2.1.4.2, says. A tree whose first leaves are gone is still proved over what
is left, from the frontier at that place; a span is what such a gap needs to be crossed.
Never: a proof that is longer than it should be, or has anything left over, is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

EMPTY = sha256(b"").digest()


def leaf(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree of which only the roots of its perfect subtrees are kept, largest first."""

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if len(peaks) != size.bit_count():
            raise ValueError(f"a tree of {size} has {size.bit_count()} peaks and not {len(peaks)}")
        self.size, self.peaks = size, list(peaks)

    def append(self, hash_: bytes, level: int = 0) -> None:
        """Add the hash of a leaf, or of a perfect subtree of 2^level. Raises ValueError where that cannot stand."""
        rest = self.size >> level
        if rest << level != self.size:
            raise ValueError(f"a subtree of {1 << level} cannot stand at {self.size}")
        while rest & 1:
            hash_ = node(self.peaks.pop(), hash_)
            rest >>= 1
        self.peaks.append(hash_)
        self.size += 1 << level

    def root(self) -> bytes:
        if not self.peaks:
            return EMPTY
        hash_ = self.peaks[-1]
        for peak in self.peaks[-2::-1]:
            hash_ = node(peak, hash_)
        return hash_

    def copy(self) -> Frontier:
        return Frontier(self.size, self.peaks)


class Span:
    """Leaves from `first` on as the fewest perfect subtrees: what leads a frontier at `first` to one behind them."""

    __slots__ = ("first", "parts", "size")

    def __init__(self, first: int, parts: Sequence[tuple[int, bytes]] = ()) -> None:
        self.first, self.parts = first, list(parts)
        self.size = first + sum(1 << level for level, _ in parts)

    def append(self, hash_: bytes) -> None:
        level, self.size = 0, self.size + 1
        end = self.size
        while self.parts and self.parts[-1][0] == level and end - (2 << level) >= self.first and not end % (2 << level):
            hash_ = node(self.parts.pop()[1], hash_)
            level += 1
        self.parts.append((level, hash_))

    def carry(self, frontier: Frontier) -> None:
        """Lead the frontier over these leaves. Raises ValueError where it does not stand at `first`."""
        if frontier.size != self.first:
            raise ValueError(f"the tree has {frontier.size} leaves, and the span begins at {self.first}")
        for level, hash_ in self.parts:
            frontier.append(hash_, level)

    def copy(self) -> Span:
        return Span(self.first, self.parts)


class Tree:
    """All leaves' hashes from some place on, to make proofs from."""

    def __init__(self, before: Frontier | None = None) -> None:
        self.first = before.size if before else 0
        self._peaks: dict[tuple[int, int], bytes] = {}
        self.leaves: list[bytes] = []
        start = 0
        for peak in before.peaks if before else ():
            length = 1 << ((self.first - start).bit_length() - 1)
            self._peaks[start, start + length] = peak
            start += length

    @property
    def size(self) -> int:
        return self.first + len(self.leaves)

    def root(self, size: int | None = None) -> bytes:
        """Raises LookupError where that needs leaves that are gone."""
        return self._hash(0, self.size if size is None else size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The path from a leaf to the root of the first `size` leaves."""
        if not 0 <= index < size <= self.size:
            raise LookupError(f"leaf {index} is not in a tree of {size}")
        proof, start, end = [], 0, size
        while end - start > 1:
            split = start + _split(end - start)
            if index < split:
                proof.append(self._hash(split, end))
                end = split
            else:
                proof.append(self._hash(start, split))
                start = split
        return proof[::-1]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """That the first `old` leaves are the beginning of the first `new`."""
        if not 0 <= old <= new <= self.size:
            raise LookupError(f"a tree of {old} cannot be compared with one of {new}")
        if old in (0, new):
            return []
        proof, start, end, known = [], 0, new, True
        while old != end:
            split = start + _split(end - start)
            if old <= split:
                proof.append(self._hash(split, end))
                end = split
            else:
                proof.append(self._hash(start, split))
                start, known = split, False
        return ([] if known else [self._hash(start, end)]) + proof[::-1]

    def _hash(self, start: int, end: int) -> bytes:
        if start == end:
            return EMPTY
        if (start, end) in self._peaks:
            return self._peaks[start, end]
        if end - start == 1:
            if start < self.first:
                raise LookupError(f"entry {start} is no longer kept: the record begins at {self.first}")
            return self.leaves[start - self.first]
        split = start + _split(end - start)
        return node(self._hash(start, split), self._hash(split, end))


def _split(length: int) -> int:
    """The largest power of two below it."""
    return int(1 << ((length - 1).bit_length() - 1))


def includes(root: bytes, size: int, index: int, hash_: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that this leaf stands there (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last = index, size - 1
    for each in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            hash_ = node(each, hash_)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            hash_ = node(hash_, each)
        at, last = at >> 1, last >> 1
    return last == 0 and hash_ == root


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the new tree begins with the old one (RFC 9162, section 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old in (0, new):
        return not proof and (old_root == new_root if old == new else old_root == EMPTY)
    path = list(proof)
    if not old & (old - 1):
        path.insert(0, old_root)
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for each in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node(each, first), node(each, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node(second, each)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root
