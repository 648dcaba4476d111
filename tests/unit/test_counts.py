"""What a harvest believes of the memory that a client writes: its own numbers, and those within reason."""

from __future__ import annotations

import pytest

from pepcore.core.counts import COUNTS_BYTES, MOST_HITS, MOST_LOST, Counts

LEFT, MARKS, RING, PAIRS, IN_RING = 2, 64, 192, 192 + 2048, 1024
TOP = (1 << 64) - 1


def shared() -> tuple[Counts, memoryview]:
    """Counts, and the words of their memory."""
    memory = bytearray(COUNTS_BYTES)
    return Counts(memory, 7, made=True), memoryview(memory).cast("Q")


def moved(counts: Counts, ids: range) -> None:
    """Each of these comes to place 0, is hit once and goes into the ring."""
    for id in ids:
        counts.came(0, id)
        counts.hit(0)
    counts.came(0, 0)


@pytest.mark.parametrize("left", [TOP, TOP - IN_RING, 1 << 63, MOST_LOST + 1])
def test_a_ring_that_jumps_is_not_believed_and_the_harvest_goes_on_from_there(left: int) -> None:
    counts, words = shared()
    words[LEFT] = left
    assert counts.harvest() == ([], MOST_LOST)
    assert counts.harvest() == ([], 0), "it is told once"
    moved(counts, range(1, 4))
    assert counts.harvest() == ([(1, 1), (2, 1), (3, 1)], 0), "also where the number begins again at 0"


def test_a_ring_that_goes_back_is_not_believed_either() -> None:
    counts, words = shared()
    moved(counts, range(1, 6))
    assert len(counts.harvest()[0]) == 5
    words[LEFT] -= 1
    assert counts.harvest() == ([], MOST_LOST)
    moved(counts, range(6, 7))
    assert counts.harvest() == ([(6, 1)], 0)


def test_what_left_a_ring_that_was_too_full_is_told_as_lost() -> None:
    counts, _ = shared()
    moved(counts, range(1, IN_RING + 11))
    found, lost = counts.harvest()
    assert (found, lost) == ([(id, 1) for id in range(11, IN_RING + 11)], 10)


def test_more_hits_than_a_client_can_have_are_not_believed() -> None:
    counts, words = shared()
    moved(counts, range(1, 2))
    words[RING + 1] = TOP
    words[PAIRS], words[PAIRS + 1], words[MARKS] = 7, TOP, 1
    assert counts.harvest() == ([(1, MOST_HITS), (7, MOST_HITS)], 0)
    counts.hit(0)
    assert counts.harvest() == ([(7, 1)], 0)
