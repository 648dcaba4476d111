"""The writer: order, classes, counts, deadlines, and what it does with a disk that fails.

Disks fail here in three ways: an object in place of `Disk`, the C library's calls through LD_PRELOAD, and a small
tmpfs that is full.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pepcore.audit import entries
from pepcore.audit.commit import Commit
from pepcore.audit.disk import Disk
from pepcore.audit.entries import Dropped, Fault, Retired
from pepcore.audit.frames import LONGEST
from pepcore.audit.growing import Growing
from pepcore.audit.reader import read
from pepcore.audit.retention import Rules
from pepcore.audit.segments import Damaged, numbers, path_of
from pepcore.audit.tree import Frontier
from pepcore.audit.verify import verify
from pepcore.audit.waiting import Item
from pepcore.audit.writer import Keep, Plan, Writer
from pepcore.errors import ConfigError
from tests.audit.journals import Answer, decision, decisions, durable, make, of_kind, writer


class Failing(Disk):
    """Fails, or hangs, in the calls that it is told to."""

    def __init__(self) -> None:
        self.write_error: OSError | None = None
        self.syncs: list[OSError | None] = []
        """What the next syncs do; then all are fine."""
        self.hang = threading.Event()
        self.hang.set()
        self.calls: list[str] = []
        self.full = False

    def write(self, file: int, data: bytes, offset: int) -> None:
        self.hang.wait()
        self.calls.append("write")
        if self.write_error:
            os.pwrite(file, data[: len(data) // 2], offset)
            raise self.write_error
        super().write(file, data, offset)

    def sync(self, file: int) -> None:
        self.hang.wait()
        self.calls.append("sync")
        if self.syncs and (error := self.syncs.pop(0)):
            raise error
        super().sync(file)

    def reserve(self, file: int, offset: int, length: int) -> bool:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().reserve(file, offset, length)


EIO = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def disk() -> Iterator[Failing]:
    one = Failing()
    yield one
    one.hang.set()


def ask(one: Writer, number: int, permit: bool = True) -> Answer:
    answer = Answer()
    assert one.append(decision(number, permit), Keep.durable, answer)
    return answer


# ---- order, classes, counts ----


def test_entries_of_one_caller_keep_their_order_whatever_their_class(shm: Path) -> None:
    with writer(shm / "journal", segment=20_000) as one:

        def caller(base: int) -> None:
            for i in range(500):
                assert one.append(decision(base + i), [Keep.lossy, Keep.buffered, Keep.durable][i % 3])

        threads = [threading.Thread(target=caller, args=(base,)) for base in (0, 10_000, 20_000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = decisions(shm / "journal")
    assert len(found) == 1500
    for base in (0, 10_000, 20_000):
        mine = [number for number in found if base <= number < base + 10_000]
        assert mine == list(range(base, base + 500))
    assert verify(shm / "journal").findings == []


def test_done_is_called_with_the_index_and_only_after_the_sync(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk) as one:
        disk.calls.clear()
        seen: list[list[str]] = []
        answer = Answer()
        one.append(
            decision(0), Keep.durable, lambda index, error: (seen.append(list(disk.calls)), answer(index, error))
        )
        assert answer.wait().index == 0
        assert "sync" in seen[0]
        disk.calls.clear()
        seen.clear()
        answer = Answer()
        one.append(
            decision(1), Keep.buffered, lambda index, error: (seen.append(list(disk.calls)), answer(index, error))
        )
        assert answer.wait().index == 1
        assert seen[0] == ["write"]


def test_many_entries_share_one_sync(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk) as one:
        disk.hang.clear()
        answers = [ask(one, i) for i in range(200)]
        disk.calls.clear()
        disk.hang.set()
        assert [answer.wait().index for answer in answers] == list(range(200))
        assert disk.calls.count("sync") <= 2


def test_a_buffered_entry_is_on_disk_after_a_moment(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk, sync_s=0.05) as one:
        disk.calls.clear()
        one.append(decision(0), Keep.buffered)
        until = time.monotonic() + 5
        while "sync" not in disk.calls:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_what_does_not_fit_in_the_queue_is_refused_and_counted_lossy_first(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk, queue=100, deadline_s=30) as one:
        disk.hang.clear()
        first = ask(one, 0)
        while one.waiting:
            time.sleep(0.01)
        lossy = sum(one.append(decision(i), Keep.lossy) for i in range(1, 101))
        buffered = sum(one.append(decision(i), Keep.buffered) for i in range(101, 201))
        assert (lossy, buffered) == (50, 50)
        assert not one.append(decision(300), Keep.durable, Answer()), "the caller denies"
        assert one.lost == 101
        disk.hang.set()
        first.wait()
    assert sum(each.entry.count for each in of_kind(shm / "journal", Dropped)) == 101  # type: ignore[union-attr]
    assert len(decisions(shm / "journal")) == 101


def test_append_never_waits_for_the_disk(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk, deadline_s=30) as one:
        disk.hang.clear()
        began = time.monotonic()
        for i in range(1000):
            one.append(decision(i), Keep.durable, Answer())
        assert time.monotonic() - began < 1
        disk.hang.set()


def test_an_entry_that_is_longer_than_a_frame_is_refused(shm: Path) -> None:
    with writer(shm / "journal") as one, pytest.raises(ValueError, match="make decisions with `Recorder`"):
        one.append(decision(0, reason="x" * (LONGEST + 1)), Keep.lossy)


def test_callbacks_run_where_their_owner_wants_them(shm: Path) -> None:
    calls: list[Any] = []
    one = Writer(shm / "journal", deliver=calls.append)
    answers = [Answer(), Answer()]
    for i, answer in enumerate(answers):
        one.append(decision(i), Keep.durable, answer)
    one.close()
    assert [answer.calls for answer in answers] == [0, 0]
    for call in calls:
        call()
    assert [(answer.calls, answer.index) for answer in answers] == [(1, 0), (1, 1)]


def test_a_callback_that_fails_harms_neither_the_others_nor_the_record(shm: Path) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug of the caller")

    with writer(shm / "journal") as one:
        one.append(decision(0), Keep.durable, broken)
        assert ask(one, 1).wait().index == 1
    closed = Writer(shm / "journal", deliver=broken)
    closed.append(decision(2), Keep.durable, broken)
    closed.append(decision(3), Keep.durable, broken)
    assert closed.close()
    assert decisions(shm / "journal") == [0, 1, 2, 3]


def test_one_process_writes_a_journal(shm: Path) -> None:
    with writer(shm / "journal"), pytest.raises(ConfigError, match="is written by another process"):
        Writer(shm / "journal")
    with writer(shm / "journal"):
        pass


@pytest.mark.parametrize("looks", [True, False])
def test_a_journal_whose_lock_file_was_removed_is_left_to_whoever_locks_it_next(
    shm: Path, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    """Without the look, the twin writes over what the other one was promised is on disk."""
    if not looks:
        monkeypatch.setattr("pepcore.audit.writer.in_place", lambda lock, path: True)
    one = Writer(shm / "journal")
    assert ask(one, 0).wait().index == 0
    (shm / "journal" / "lock").unlink()
    with writer(shm / "journal") as other:
        kept = [ask(other, 100 + i).wait().index for i in range(3)]
        assert min(kept) == 1
        refused = ask(one, 1).wait()
        one.close()
    assert (refused.error is not None) == looks
    if looks:
        assert "its lock file was removed" in str(refused.error)
        assert one.lost == 1
        assert decisions(shm / "journal") == [0, 100, 101, 102]
    else:
        with pytest.raises((Damaged, AssertionError)):
            assert decisions(shm / "journal") == [0, 100, 101, 102]


def test_a_forked_child_holds_no_record_and_no_lock(shm: Path) -> None:
    one = Writer(shm / "journal")
    hold, go = os.pipe()
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(go)
        code = 1
        try:
            taken = one.append(decision(1), Keep.durable, Answer())
            code = 2 if taken or not one.close() else 0
            os.write(tell, b"x")
            os.read(hold, 1)  # lives on while the parent lets go of the journal
        finally:
            os._exit(code)
    os.read(ready, 1)
    assert ask(one, 2).wait().index == 0
    one.close()
    with writer(shm / "journal") as again:  # the child does not keep the lock
        assert ask(again, 3).wait().index == 1
    os.write(go, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert decisions(shm / "journal") == [2, 3]


def test_retention_keeps_the_newest_and_says_what_it_deleted(shm: Path) -> None:
    make(shm / "journal", 20, retention=Rules(segments=3))
    there = numbers(shm / "journal")
    assert len(there) == 3
    assert max(each.entry.segment for each in of_kind(shm / "journal", Retired)) == there[0] - 1  # type: ignore[union-attr]
    report = verify(shm / "journal")
    assert (report.findings, report.first > 0) == ([], True)


def fill(folder: Path, rules: Rules) -> None:
    with writer(folder, segment=2000, retention=rules, key=folder.with_name("keys") / "heads.key") as one:
        for i in range(5):
            durable(one, *(decision(i * 7 + j) for j in range(7)))


def test_retention_by_bytes(shm: Path) -> None:
    make(shm / "journal", 9)
    fill(shm / "journal", Rules(segments=0, bytes=6000))
    assert len(numbers(shm / "journal")) == 3
    assert verify(shm / "journal").findings == []


def test_retention_by_age_counts_from_a_head_of_our_key(shm: Path) -> None:
    fill(shm / "journal", Rules(segments=0))
    before = numbers(shm / "journal")
    assert len(before) > 2
    fill(shm / "journal", Rules(segments=0, seconds=3600))
    assert numbers(shm / "journal")[0] == before[0], "none is so old"
    time.sleep(1.1)
    fill(shm / "journal", Rules(segments=0, seconds=1))
    assert numbers(shm / "journal")[0] >= before[-1]
    assert verify(shm / "journal").findings == []


@pytest.mark.parametrize("rules", [Rules(segments=0, bytes=40_000), Rules(segments=0, seconds=3600)])
def test_no_file_that_somebody_changed_is_deleted_by_us(shm: Path, rules: Rules) -> None:
    """Whoever can write the journal and has no key would have the writer sign that his evidence went in order."""
    folder = shm / "journal"
    fill(folder, Rules(segments=0))
    first = path_of(folder, numbers(folder)[0])
    os.truncate(first, 10 << 20)
    os.utime(first, (1, 1))
    with writer(folder, segment=2000, retention=rules, key=shm / "keys" / "heads.key", whole=False) as one:
        for i in range(5):
            durable(one, *(decision(i * 7 + j) for j in range(7)))
    assert first.exists()
    assert [finding.file for finding in verify(folder).findings] == [str(first)]


def test_a_segment_goes_once_where_no_head_can_be_signed(shm: Path) -> None:
    """It stays, and one entry says that it goes, not one with each segment that is begun."""
    folder, keys = shm / "journal", shm / "keys"
    fill(folder, Rules(segments=0))
    (keys / "heads.key").unlink()
    for _ in range(2):
        fill(folder, Rules(segments=2))
    told = [each.entry.segment for each in of_kind(folder, Retired)]  # type: ignore[union-attr]
    assert numbers(folder)[0] == 1
    assert 1 <= told.count(1) <= 2, "once in each life of a writer"


# ---- a failing disk ----


def test_a_failed_sync_denies_and_everything_unsynced_is_in_a_new_segment(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk, sync_s=60) as one:
        assert ask(one, 0).wait().index == 0
        one.append(decision(1), Keep.buffered, answer := Answer())
        assert answer.wait().index == 1
        disk.syncs = [EIO]
        failed = ask(one, 2).wait()
        assert (failed.index, failed.error) == (-1, EIO)
        assert ask(one, 3).wait().index == 4
    assert decisions(shm / "journal") == [0, 1, 2, 3]
    (fault,) = of_kind(shm / "journal", Fault)
    assert (fault.index, fault.segment) == (3, 2)
    assert fault.entry.denied == (2,)  # type: ignore[union-attr]
    assert verify(shm / "journal").findings == []


def test_a_second_sync_of_the_same_segment_is_never_asked(shm: Path, disk: Failing) -> None:
    """Linux marks the pages clean: a second sync would succeed, and the data would not be there."""
    files: list[int] = []
    real = disk.sync

    def sync(file: int) -> None:
        files.append(os.fstat(file).st_ino)
        real(file)

    disk.sync = sync  # type: ignore[method-assign]
    with writer(shm / "journal", disk=disk) as one:
        ask(one, 0).wait()
        files.clear()
        disk.syncs = [EIO]
        ask(one, 1).wait()
        ask(one, 2).wait()
    assert files.count(files[0]) == 1


def test_a_segment_whose_successor_cannot_be_made_grows_on_and_its_seal_with_it(shm: Path, disk: Failing) -> None:
    def rename(old: Path, new: Path) -> None:
        raise EIO

    disk.rename = rename  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="Input/output error"):
        Writer(shm / "journal", disk=disk)
    del disk.rename  # type: ignore[method-assign]
    with writer(shm / "journal", disk=disk, segment=1000) as one:
        disk.rename = rename  # type: ignore[method-assign]
        for i in range(20):
            assert ask(one, i).wait().error is None
        assert numbers(shm / "journal") == [1]
        assert verify(shm / "journal").findings == []
        del disk.rename  # type: ignore[method-assign]
        for i in range(20, 40):
            assert ask(one, i).wait().error is None
    assert len(numbers(shm / "journal")) > 1
    assert verify(shm / "journal").findings == []
    with writer(shm / "journal"):
        pass
    assert decisions(shm / "journal") == list(range(40))


def test_a_sync_that_fails_when_a_segment_is_full_makes_one_new_segment_and_not_two(shm: Path, disk: Failing) -> None:
    """The second one was put in the place of the first, with everything that had been appended to it again."""
    with writer(shm / "journal", disk=disk, segment=1000, sync_s=60) as one:
        for i in range(3):
            one.append(decision(i), Keep.buffered, answer := Answer())
            answer.wait()
        disk.syncs = [EIO]
        one.append(decision(3, reason="x" * 1000), Keep.buffered, answer := Answer())
        answer.wait()
        for i in range(4, 8):
            assert ask(one, i).wait().error is None
    assert decisions(shm / "journal") == list(range(8))
    assert [each.entry.segment for each in of_kind(shm / "journal", Fault)] == [1]  # type: ignore[union-attr]
    (found,) = verify(shm / "journal").findings
    assert "no head is there, and segments were deleted" in found.reason, "it has no key: nothing else is wrong"


class Stubborn(Failing):
    """Fails in the calls that are named, each as often as it says."""

    def __init__(self, **times: int) -> None:
        super().__init__()
        self.left = times

    def _fails(self, call: str) -> None:
        if self.left.get(call, 0) > 0:
            self.left[call] -= 1
            raise EIO

    def sync_folder(self, path: Path) -> None:
        self._fails("sync_folder")
        super().sync_folder(path)

    def remove(self, path: Path) -> None:
        self._fails("remove")
        super().remove(path)

    def cut(self, file: int, size: int) -> None:
        self._fails("cut")
        super().cut(file, size)


def test_a_segment_that_was_half_made_is_made_again_and_the_one_before_it_grows_no_more(shm: Path) -> None:
    """Whoever finds it after a crash goes on from there: what the one before it took later would not count."""
    with writer(shm / "journal", disk=(disk := Stubborn()), segment=1000) as one:
        told: list[bool] = []
        while not all(
            path_of(shm / "journal", number).exists() for number in (1, 2)
        ):  # a first roll: the seals are there
            told.append(ask(one, len(told)).wait().error is None)
        disk.left = {"sync_folder": 3, "remove": 3}
        while not told or told[-1]:
            told.append(ask(one, len(told)).wait().error is None)
            assert len(told) < 100
        crashed = shutil.copytree(shm / "journal", shm / "crashed")
        until = time.monotonic() + 5
        while ask(one, 100).wait().error is not None:
            assert time.monotonic() < until
    permitted = [number for number, fine in enumerate(told) if fine]
    assert set(permitted) <= set(decisions(crashed))
    for each in (crashed, shm / "journal"):
        Writer(each).close()
        assert set(permitted) <= set(decisions(each))
        assert verify(each).findings == []


@pytest.mark.parametrize("call", ["sync_folder", "cut"])
def test_a_head_that_could_not_be_signed_for_good_is_signed_again_in_its_place(shm: Path, call: str) -> None:
    disk = Stubborn()
    with writer(shm / "journal", disk=disk, key=shm / "keys" / "heads.key", heads_s=0.01) as one:
        disk.left = {call: 1}
        if call == "cut":
            disk.syncs = [None, EIO]  # of the entry, and of the head
        for i in range(5):
            assert ask(one, i).wait().error is None
            time.sleep(0.05)
        assert disk.left[call] == 0
        assert one.unsigned == ""
    report = verify(shm / "journal")
    assert report.findings == []
    assert report.heads > 2


def test_what_stands_behind_segments_that_were_given_up_is_told_also_by_whoever_comes_after_a_crash(shm: Path) -> None:
    class Torn(Stubborn):
        def write(self, file: int, data: bytes, offset: int) -> None:
            if b"fault" in data and self.left["cut"]:
                os.pwrite(file, data[: len(data) // 2], offset)
                raise EIO
            super().write(file, data, offset)

    with writer(shm / "journal", disk=(disk := Torn(cut=0))) as one:
        assert ask(one, 0).wait().error is None
        disk.left["cut"], disk.syncs = 1000, [EIO]
        assert ask(one, 1).wait().error is not None
        until = time.monotonic() + 5
        while len(numbers(shm / "journal")) < 3:
            assert ask(one, 2).wait().error is not None
            assert time.monotonic() < until
        disk.hang.clear()  # the process goes no further
        crashed = shutil.copytree(shm / "journal", shm / "crashed")
        disk.left["cut"] = 0
        disk.hang.set()
    for each in (crashed, shm / "journal"):
        with writer(each) as other:
            assert ask(other, 3).wait().error is None
        assert verify(each).findings == []
        assert decisions(each)[0] == 0
    assert {1, 2} <= {fault.entry.segment for fault in of_kind(crashed, Fault)}  # type: ignore[attr-defined]


def test_a_segment_is_never_made_in_the_place_of_another(shm: Path) -> None:
    make(shm / "journal", 1)
    with pytest.raises(FileExistsError, match="segment 1 is there already"):
        Growing.create(Disk(), shm / "journal", b"j" * 16, 1, Frontier())


def test_a_disk_whose_every_sync_fails_denies_at_once_and_comes_back(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk) as one:
        disk.syncs = [EIO] * 50
        for i in range(5):
            began = time.monotonic()
            assert ask(one, i).wait().error is not None
            assert time.monotonic() - began < 0.4
        assert one.error is not None
        disk.syncs = []
        until = time.monotonic() + 5
        while ask(one, 100).wait().error is not None:
            assert time.monotonic() < until
        assert one.error is None
    assert decisions(shm / "journal")[-1] == 100
    assert verify(shm / "journal").findings == []
    lost = sum(each.entry.count for each in of_kind(shm / "journal", Dropped))  # type: ignore[union-attr]
    assert lost >= 3


def test_a_failed_write_leaves_nothing_behind_and_is_counted(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk) as one:
        ask(one, 0).wait()
        disk.write_error = EIO
        assert ask(one, 1).wait().error is EIO
        disk.write_error = None
        assert ask(one, 2).wait().index == 2, "behind the entry that counts what was dropped"
    assert decisions(shm / "journal") == [0, 2]
    assert [each.entry.count for each in of_kind(shm / "journal", Dropped)] == [1]  # type: ignore[union-attr]
    assert verify(shm / "journal").findings == []


def test_a_hanging_disk_denies_within_the_deadline_and_the_record_says_so_later(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk, deadline_s=0.1) as one:
        disk.hang.clear()
        began = time.monotonic()
        answer = ask(one, 0).wait()
        assert time.monotonic() - began < 0.5
        assert answer.error is not None
        assert answer.error.errno == errno.ETIMEDOUT
        disk.hang.set()
        assert ask(one, 1).wait().index >= 1
    assert answer.calls == 1
    (fault,) = of_kind(shm / "journal", Fault)
    assert (fault.entry.what, fault.entry.denied) == ("late", (0,))  # type: ignore[union-attr]


def test_a_full_disk_denies_permits_and_still_takes_denies(shm: Path, disk: Failing) -> None:
    with writer(shm / "journal", disk=disk, segment=1 << 30) as one:
        ask(one, 0).wait()
        disk.full = True
        big = "x" * 60_000
        while ask(one, 1).error is None:  # fill what was set aside
            answer = Answer()
            one.append(decision(1, reason=big), Keep.durable, answer)
            if answer.wait().error is not None:
                break
        assert answer.error is not None
        assert answer.error.errno == errno.ENOSPC
        assert ask(one, 2, permit=False).wait().error is None
        assert ask(one, 3, permit=False).wait().error is None
        disk.full = False
        assert ask(one, 4).wait().error is None
    assert [number for number in decisions(shm / "journal") if number != 1] == [0, 2, 3, 4]
    assert verify(shm / "journal").findings == []


def test_on_a_full_disk_what_is_dropped_takes_nothing_of_the_room_for_denies(shm: Path, disk: Failing) -> None:
    def dropped() -> list[int]:
        return [each.entry.count for each in of_kind(shm / "journal", Dropped)]  # type: ignore[union-attr]

    with writer(shm / "journal", disk=disk, segment=1 << 30) as one:
        ask(one, 0).wait()
        disk.full = True
        while ask(one, 1).wait().error is None:  # fill what was set aside
            durable(one, *(decision(1, reason="x" * 60_000) for _ in range(3)))
        before, lost = one.written, one.lost
        for _ in range(500):  # one group each
            assert ask(one, 2).wait().error is not None
        assert (one.written, one.lost) == (before, lost + 500)
        assert ask(one, 3, permit=False).wait().error is None
        assert dropped() == []
        disk.full = False
        assert ask(one, 4).wait().error is None
        assert dropped() == [one.lost], "one entry says it, once there is room"
        disk.full = True
        while ask(one, 5).wait().error is None:
            durable(one, *(decision(5, reason="x" * 60_000) for _ in range(3)))
    assert sum(dropped()) == one.lost, "the end is said while the disk is full, too"
    assert len(dropped()) == 2
    assert verify(shm / "journal").findings == []


def test_closing_on_a_broken_disk_tells_everyone(shm: Path, disk: Failing) -> None:
    one = Writer(shm / "journal", Plan(sync_s=60), disk=disk)
    disk.syncs = [EIO] * 50
    answers = [ask(one, i) for i in range(10)]
    assert one.close()
    assert all(answer.wait().error is not None for answer in answers)


def test_a_mistake_in_the_thread_denies_everyone_and_is_logged(
    shm: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = Writer(shm / "journal", Plan(deadline_s=30))

    def group(self: Commit, items: list[Item]) -> None:
        if items:
            raise RuntimeError("a bug")

    monkeypatch.setattr(Commit, "group", group)
    answer = ask(one, 0).wait()
    assert "has failed: RuntimeError('a bug')" in str(answer.error)
    assert not one.append(decision(1), Keep.durable, Answer())
    assert one.error is not None
    assert one.close()
    (said,) = caplog.records
    assert (said.levelname, said.getMessage()) == ("ERROR", "the record ends: nothing more is written")
    assert said.fields["why"].startswith("RuntimeError at test_writer.py:")  # type: ignore[attr-defined]


def test_a_count_that_has_grown_beyond_an_entry_stops_growing(shm: Path) -> None:
    most = (1 << 63) - 1
    with writer(shm / "journal") as one:
        for _ in range(4):
            one.missed("very many", 1 << 63)
        assert one.lost == most
        assert ask(one, 0).wait().error is None
    assert {each.entry.count for each in of_kind(shm / "journal", Dropped)} == {most}  # type: ignore[union-attr]


def test_an_entry_that_cannot_be_packed_is_counted_and_the_record_goes_on(
    shm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with writer(shm / "journal") as one:
        answer = Answer()
        assert not one.append(decision(1 << 65), Keep.durable, answer), "the caller denies"
        assert ask(one, 1).wait().error is None
        assert (answer.calls, one.lost) == (0, 1)
    assert [each.entry.count for each in of_kind(shm / "journal", Dropped)] == [1]  # type: ignore[union-attr]
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("ERROR", "an entry of the record cannot be packed")
    ]


def test_a_loss_that_cannot_be_written_down_does_not_end_the_record(
    shm: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Commit, why: str, number: int) -> Item:
        raise OverflowError(why)

    monkeypatch.setattr(Commit, "_dropped", broken)
    with writer(shm / "journal") as one:
        one.missed("a secret", 3)
        assert ask(one, 0).wait().error is None
        assert one.lost == 3
    (said,) = caplog.records
    assert (said.levelname, said.fields["count"]) == ("ERROR", 3)  # type: ignore[attr-defined]
    assert said.fields["why"].startswith("OverflowError at test_writer.py:")  # type: ignore[attr-defined]


# ---- a real disk that is full, and calls that really fail ----


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "pepcore-test", str(tmp_path)], capture_output=True
    )
    if mount.returncode:
        pytest.skip("needs root that may mount")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_on_a_small_tmpfs_permits_are_denied_when_it_is_full_denies_still_fit_and_nothing_hangs(tmpfs: Path) -> None:
    with writer(tmpfs / "journal", deadline_s=5) as one:
        permitted, number = 0, 0
        while True:
            number += 1
            answer = Answer()
            assert one.append(decision(number, reason="x" * 20_000), Keep.durable, answer)
            if answer.wait(6).error is not None:
                break
            permitted += 1
            assert number < 1000, "3 MiB were never full"
        assert answer.error is not None
        assert answer.error.errno == errno.ENOSPC
        for deny in range(20):
            assert ask(one, 5000 + deny, permit=False).wait().error is None
        assert ask(one, 6000).wait().error is not None
    found = decisions(tmpfs / "journal")
    assert found[:permitted] == list(range(1, permitted + 1))
    assert [number for number in found if number >= 5000] == list(range(5000, 5020))
    assert verify(tmpfs / "journal").findings == []


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>
static int due(const char *name) {
    static __thread unsigned seed;
    const char *every = getenv(name);
    if (!seed) seed = (unsigned)getpid();
    return every && rand_r(&seed) % atoi(every) == 0;
}
int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    if (due("FAIL_SYNC")) { errno = EIO; return -1; }
    return real(file);
}
ssize_t pwrite64(int file, const void *data, size_t n, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite64");
    if (due("FAIL_WRITE")) { errno = EIO; return -1; }
    if (due("SHORT_WRITE")) n = n / 2 + 1;
    return real(file, data, n, at);
}
ssize_t pwrite(int file, const void *data, size_t n, off_t at) { return pwrite64(file, data, n, at); }
"""
PROGRAM = """
import sys, time
from pathlib import Path
from pepcore.audit.writer import Keep, Plan, Writer
from tests.audit.journals import Answer, decision
one = Writer(Path(sys.argv[1]), Plan(segment=1000, deadline_s=5, heads_s=0, key=Path(sys.argv[1] + ".key")))
fine, failed = [], []
for i in range(2000):
    answer = Answer()
    if one.append(decision(i), Keep.durable, answer):
        if answer.wait(6).error:
            failed.append(i)
            time.sleep(0.03)
        else:
            fine.append(i)
    if len(fine) == 100:
        break
one.close()
print(len(failed), *fine)
"""


def lost_nothing(shm: Path, environment: dict[str, str], *under: str) -> int:
    """Run the program where calls fail, look for what it was promised; return how many entries were refused."""
    environment = {**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(50):  # it may fail already when it is opened
        done = subprocess.run(
            [*under, sys.executable, "-c", PROGRAM, str(shm / "journal")],
            env=environment,
            capture_output=True,
            timeout=60,
        )
        if not done.returncode:
            break
    words = done.stdout.split()
    assert done.returncode == 0, done.stderr.decode()
    failed, fine = int(words[0]), {int(word) for word in words[1:]}
    assert len(fine) == 100
    with writer(shm / "journal"):
        pass
    assert fine <= set(decisions(shm / "journal"))
    assert verify(shm / "journal").findings == []
    return failed


@pytest.mark.parametrize("fault", ["FAIL_SYNC=10", "FAIL_WRITE=10", "SHORT_WRITE=3", "FAIL_SYNC=15 FAIL_WRITE=15"])
def test_no_acknowledged_entry_is_lost_where_calls_of_the_c_library_fail(shm: Path, fault: str) -> None:
    (shm / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shm / "shim.so", shm / "shim.c", "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(shm / "shim.so"), **dict(word.split("=") for word in fault.split())}
    assert lost_nothing(shm, environment) > 0 or "SHORT" in fault


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fiu-run") is None, reason="missing program: fiu-run (Debian: fiu-utils)")
@pytest.mark.parametrize(
    ("calls", "probability", "denies"),
    [
        ("sync/*", 0.1, True),
        ("rw/pwrite", 0.1, True),
        ("sync/* dir/rename dir/unlink rw/ftruncate rw/pwrite", 0.1, True),
        ("sync/fsync dir/rename dir/unlink rw/ftruncate", 0.5, False),
    ],
)
def test_no_acknowledged_entry_is_lost_while_segments_are_closed_and_calls_fail(
    shm: Path, calls: str, probability: float, denies: bool
) -> None:
    """Under libfiu, with a segment every few entries; the daemon is tested in `tests/daemon/test_io_errors.py`."""
    random_ = f",probability={probability}"
    faults = [word for name in calls.split() for word in ("-c", f"enable_random name=posix/io/{name}{random_}")]
    failed = lost_nothing(shm, {}, "fiu-run", "-x", "-f", str(shm / "control"), *faults)
    assert failed > 0 or not denies


# ---- single words ----


def test_a_journal_that_cannot_be_made_is_a_config_error(shm: Path) -> None:
    (shm / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Writer(shm / "file")


def test_a_damaged_journal_is_not_written_and_still_read(shm: Path) -> None:
    make(shm / "journal")
    path = shm / "journal" / "0000000002.seg"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(Damaged, match="ends 3 bytes behind the file"):
        Writer(shm / "journal")
    found = []
    with pytest.raises(Damaged) as damaged:
        found.extend(each.index for each in read(shm / "journal"))
    assert damaged.value.file == path
    assert entries.KINDS


def test_what_comes_while_a_writer_with_nothing_to_do_is_closed_is_written(
    shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Writer(shm / "journal")
    group = one._commit.group
    taken = []

    def late(items: list[Item]) -> None:
        group(items)
        if not items and not taken:
            taken.append(one.append(decision(1), Keep.buffered))
            one._intake.close()

    monkeypatch.setattr(one._commit, "group", late)
    one._thread.join(5)
    assert one.close()
    assert taken == [True]
    assert decisions(shm / "journal") == [1]
    assert one.lost == 0


def test_appending_after_close_is_refused_and_counted(shm: Path) -> None:
    one = Writer(shm / "journal")
    assert one.append(decision(0), Keep.durable, Answer())
    one.close()
    assert not one.append(decision(1), Keep.durable, Answer())
    assert one.lost == 1
    assert decisions(shm / "journal") == [0]
