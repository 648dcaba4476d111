"""The page: one revision, slots that remember when they were revoked, a lease, and readers that may only look."""

import mmap
import struct

import pytest

from pepcore.core.page import PAGE_BYTES, SLOT_EVERY, SLOT_TIMED, Page

MS = 10**6


def shared(boot: int = 9) -> tuple[Page, mmap.mmap]:
    memory = mmap.mmap(-1, PAGE_BYTES)
    return Page(boot, memory), memory


def slots(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


def test_the_revision_only_grows_and_says_so():
    page = Page(7)
    assert [page.boot, page.revision] == [7, 0]
    assert [page.bump(), page.revoke([4, 5]), page.clock_was_set(), page.revoke([])] == [1, 2, 3, 4]
    assert page.revision == 4


def test_a_boot_or_seed_of_zero_is_refused_and_any_other_is_not():
    for boot, seed in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="0"):
            Page(boot, seed=seed)
    assert Page(2**64 - 1, seed=2**64 - 1).boot == 2**64 - 1


def test_a_slot_is_touched_by_its_own_revokes_only():
    page = Page(1)
    asked = page.revision
    page.revoke([7, 65535])
    assert not page.untouched(slots(7), asked)
    assert not page.untouched(slots(3, 65535), asked)
    assert page.untouched(slots(SLOT_EVERY, SLOT_TIMED, 8, 65534), asked)
    assert page.untouched(slots(7, 65535), page.revision)
    assert not page.untouched(b"", asked), "without slots an answer hangs on the revision itself"
    assert page.untouched(b"", page.revision)


def test_a_reload_touches_what_hangs_on_every_slot_and_a_clock_what_is_timed():
    page = Page(1)
    asked = page.revision
    page.clock_was_set()
    assert not page.untouched(slots(SLOT_EVERY, SLOT_TIMED), asked)
    assert page.untouched(slots(SLOT_EVERY), asked)
    page.bump()
    assert not page.untouched(slots(SLOT_EVERY), asked)


def test_a_slot_that_cannot_be_raises_before_anything_is_revoked():
    page = Page(1)
    with pytest.raises(OverflowError):
        page.revoke([5, 65536])
    assert page.revision == 0
    assert page.untouched(slots(5), 0)


def test_a_reader_sees_what_the_daemon_writes_and_writes_nothing():
    page, memory = shared()
    reader = Page.reader(memoryview(memory).toreadonly(), 9)
    page.revoke([70])
    assert (reader.boot, reader.revision) == (9, 1)
    assert not reader.untouched(slots(70), 0)
    assert reader.untouched(slots(71), 0)
    for write in (reader.bump, reader.clock_was_set, lambda: reader.revoke([1]), lambda: reader.renew(1)):
        with pytest.raises(TypeError, match="does not write"):
            write()
    assert reader.revision == 1


def test_a_reader_believes_a_page_only_while_its_lease_ends_within_100_ms():
    page, memory = shared()
    reader = Page.reader(memory, 9)
    now = 10**15
    assert not reader.is_live(now), "a page that was never renewed is not live"
    page.renew(now + 100 * MS)
    assert reader.is_live(now)
    assert reader.is_live(now + 100 * MS)
    assert not reader.is_live(now + 100 * MS + 1)
    assert not reader.is_live(now - 1), "a deadline too far ahead is the clock of another time namespace"
    page.renew(0)
    assert not reader.is_live(now)
    assert page.is_live(now), "private counters need no lease"


def test_a_page_of_another_size_magic_or_boot_is_refused():
    page, memory = shared()
    assert Page.reader(memory, 9).boot == 9
    for wrong, boot, why in (
        (memoryview(memory)[:-8], 9, "bytes"),
        (mmap.mmap(-1, PAGE_BYTES + 8), 9, "bytes"),
        (mmap.mmap(-1, PAGE_BYTES), 9, "magic"),
        (memory, 8, "boot"),
        (memory, 0, "boot"),
    ):
        with pytest.raises(ValueError, match=why):
            Page.reader(wrong, boot)
    assert page.revision == 0


def test_a_page_is_not_made_of_memory_that_cannot_be_written():
    with pytest.raises(BufferError):
        Page(1, bytes(PAGE_BYTES))
    assert Page(1, bytearray(PAGE_BYTES)).boot == 1
