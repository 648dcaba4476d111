"""After a crash: what was acknowledged is there, what was torn is cut and told, what was damaged is refused.

`killed` ends a child process with SIGKILL in the middle of a write, at a byte that the test chose.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from pepcore.audit import commit, recovery, segments
from pepcore.audit.disk import Disk
from pepcore.audit.entries import Cut
from pepcore.audit.frames import HEAD, SYNCED, frame
from pepcore.audit.heads import heads
from pepcore.audit.recovery import rehearse
from pepcore.audit.segments import Damaged, numbers, path_of
from pepcore.audit.verify import verify
from pepcore.audit.waiting import Item
from pepcore.audit.writer import Keep, Plan, Writer
from tests.audit.journals import Answer, decision, decisions, durable, last_segment, make, of_kind, places, writer

KILLS = 500


class Killing(Disk):
    """Kills its own process once so many bytes were written."""

    def __init__(self, after: int) -> None:
        self.left = after

    def write(self, file: int, data: bytes, offset: int) -> None:
        if len(data) >= self.left:
            os.pwrite(file, data[: self.left], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(file, data, offset)
        self.left -= len(data)


def killed(folder: Path, after: int, batches: int = 6, of: int = 5) -> list[int]:
    """Write durable decisions in a child until it is killed. Return the numbers that it was told are on disk."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(told)
        try:
            plan = Plan(segment=1500, heads_s=0.0, key=folder.parent / "keys" / "heads.key", deadline_s=30)
            one = Writer(folder, plan, disk=Killing(after))
            for batch in range(batches):
                answer = Answer()
                for number in range(batch * of, batch * of + of):

                    def done(index: int, error: OSError | None, number: int = number, answer: Answer = answer) -> None:
                        if error is None:
                            os.write(tell, b"%d\n" % number)
                        answer(index, error)

                    one.append(decision(number), Keep.durable, done)
                if batch % 2:  # some groups are large, some are one by one
                    answer.wait()
            one.close(30)
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return [int(line) for line in text.split("\n")[:-1]]


def lost_after_kills(folder: Path, cases: int, seed: int) -> int:
    """How many acknowledged permits are not in the record afterwards. Whatever happens, the record must be usable."""
    random_ = random.Random(seed)
    lost = torn = 0
    for case in range(cases):
        journal = folder / f"{case}" / "journal"
        acknowledged = killed(journal, random_.randrange(200, 9000))
        if not journal.exists() or not numbers(journal):
            assert acknowledged == []
            continue
        with writer(journal) as one:
            durable(one, decision(999_999))
        found = decisions(journal)
        lost += len(set(acknowledged) - set(found))
        torn += len(of_kind(journal, Cut))
        before = found[:-1]
        assert before == sorted(before), "one caller's entries keep their order"
        assert found[-1] == 999_999
        assert verify(journal).findings == []
        shutil.rmtree(journal.parent)
    assert torn > cases / 10, "too few kills hit the middle of an entry"
    return lost


def test_a_permit_whose_record_must_be_durable_survives_kill_9(shm: Path) -> None:
    assert lost_after_kills(shm, KILLS, 1) == 0


def test_the_kills_find_a_writer_that_acknowledges_before_it_writes(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = commit.Commit._append

    def early(self: commit.Commit, segment: object, items: list[Item]) -> None:
        self._deadlines.settle(items, None)
        real(self, segment, items)  # type: ignore[arg-type]

    monkeypatch.setattr(commit.Commit, "_append", early)
    assert lost_after_kills(shm, 60, 1) > 0


# ---- a torn tail ----


def test_a_tail_that_is_cut_anywhere_ends_at_the_last_good_entry_and_that_is_recorded(shm: Path) -> None:
    with writer(shm / "journal") as one:
        durable(one, *(decision(i) for i in range(6)))
    data, path = last_segment(shm / "journal").read_bytes(), last_segment(shm / "journal")
    ends = [stop for _, stop in places(path)]
    for length in range(ends[2], len(data)):
        path.write_bytes(data[:length])
        whole = sum(stop <= length for stop in ends)
        with writer(shm / "journal") as one:
            durable(one, decision(100))
        assert decisions(shm / "journal") == [*range(whole), 100]
        cuts = of_kind(shm / "journal", Cut)
        assert len(cuts) == (length not in ends)
        assert all(
            (each.entry.offset, each.entry.bytes) == (ends[whole - 1], length - ends[whole - 1]) for each in cuts
        )
        assert verify(shm / "journal").findings == []


def flip(path: Path, offset: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


def two_groups(folder: Path) -> Path:
    """Entries 0 to 3 in a group that was synced before that of 4 to 7 was written."""
    with writer(folder) as one:
        durable(one, *(decision(i) for i in range(4)))
        durable(one, *(decision(i) for i in range(4, 8)))
    return last_segment(folder)


def test_a_hole_in_what_was_synced_is_damage_and_nothing_is_changed(shm: Path) -> None:
    path = two_groups(shm / "journal")
    start = places(path)[1][0]
    flip(path, start + HEAD + 3)
    before = path.read_bytes()
    with pytest.raises(Damaged, match="on disk already") as damaged:
        Writer(shm / "journal")
    assert (damaged.value.file, damaged.value.offset) == (path, start)
    assert path.read_bytes() == before
    assert decisions_until_damage(shm / "journal") == [0]


def test_the_hole_is_lost_in_silence_without_that_test(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = two_groups(shm / "journal")
    flip(path, places(path)[1][0] + HEAD + 3)
    monkeypatch.setattr(recovery, "synced_behind", lambda data, offset: -1)
    with writer(shm / "journal"):
        pass
    assert decisions(shm / "journal") == [0], "seven acknowledged entries are gone"


def test_a_hole_in_the_last_group_is_a_torn_write(shm: Path) -> None:
    """Its pages may come to the disk in any order when the power goes, and nobody was told that they are there."""
    path = two_groups(shm / "journal")
    flip(path, places(path)[5][0] + HEAD + 3)
    with writer(shm / "journal") as one:
        durable(one, decision(100))
    assert decisions(shm / "journal") == [0, 1, 2, 3, 4, 100]


def decisions_until_damage(folder: Path) -> list[int]:
    from pepcore.audit.reader import read

    found: list[int] = []
    with pytest.raises(Damaged):
        found.extend(each.entry.decision for each in read(folder))  # type: ignore[union-attr]
    return found


# ---- damage elsewhere ----


@pytest.fixture
def journal(shm: Path) -> Path:
    make(shm / "journal")
    return shm / "journal"


def refused(folder: Path, match: str) -> Damaged:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(Damaged, match=match) as damaged:
        Writer(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "a refusal changes nothing"
    return damaged.value


def test_a_broken_entry_of_an_older_segment_is_named(journal: Path) -> None:
    path = path_of(journal, 2)
    start = places(path)[1][0]
    flip(path, start + HEAD + 3)
    damaged = refused(journal, "the checksum is wrong")
    assert (damaged.file, damaged.offset) == (path, start)


def test_older_segments_are_not_read_where_that_was_left_to_verify(journal: Path) -> None:
    flip(path_of(journal, 2), places(path_of(journal, 2))[1][0] + HEAD + 3)
    with writer(journal, whole=False):
        pass
    assert any("checksum" in each.reason for each in verify(journal).findings)


def test_a_missing_segment_is_named(journal: Path) -> None:
    path_of(journal, 3).unlink()
    assert refused(journal, "the file is missing").file == path_of(journal, 3)


def test_a_missing_last_segment_is_named(journal: Path) -> None:
    last_segment(journal).unlink()
    refused(journal, "entries are gone that a signed head counts|seals of the last")


def test_a_cut_of_what_a_head_counts_is_no_torn_tail(journal: Path) -> None:
    path = last_segment(journal)
    path.write_bytes(path.read_bytes()[: places(path)[-1][0] + 3])
    refused(journal, "1 entries are gone that a signed head counts")


def test_a_broken_header_is_named(journal: Path) -> None:
    flip(path_of(journal, 2), 20)
    refused(journal, "the header is broken")


def test_exchanged_segments_are_named(journal: Path) -> None:
    one, other = path_of(journal, 2).read_bytes(), path_of(journal, 3).read_bytes()
    path_of(journal, 2).write_bytes(other)
    path_of(journal, 3).write_bytes(one)
    refused(journal, "files were exchanged")


def test_a_header_that_does_not_fit_itself_is_refused(journal: Path) -> None:
    path = path_of(journal, 2)
    each = segments.held(path, 2)
    forged = segments.Header(each.header.journal, 2, each.header.size + 1, each.header.root, each.header.peaks)
    path.write_bytes(forged.framed() + path.read_bytes()[each.start :])
    refused(journal, "does not fit itself")


def test_deleted_segments_beside_heads_are_damage_and_not_a_new_journal(journal: Path) -> None:
    for number in numbers(journal):
        path_of(journal, number).unlink()
    refused(journal, "the record was deleted")


@pytest.mark.parametrize("name", ["sealed.jsonl", "heads.jsonl"])
def test_a_flipped_bit_beside_the_segments_is_damage(journal: Path, name: str) -> None:
    data = (journal / name).read_bytes()
    flip(journal / name, data.rindex(b"\n", 0, -1) + 3)  # of heads, only the last is read when a journal is opened
    assert refused(journal, "line").file == journal / name


def test_half_a_head_is_cut(journal: Path) -> None:
    file = heads(journal)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + b'{"journal":')
    with writer(journal):
        pass
    assert file.path.read_bytes() == whole


def test_a_seal_whose_successor_was_never_made_goes(journal: Path) -> None:
    last = numbers(journal)[-1]
    each = segments.held(path_of(journal, last), last)
    seal = segments.Seal(last, each.header.size, each.header.size, each.header.root, ())
    segments.seals(journal).append(Disk(), seal)
    with writer(journal) as one:
        durable(one, decision(100))
    assert verify(journal).findings == []


def test_drafts_of_segments_are_removed(journal: Path) -> None:
    draft = journal / ".0000000099.seg.new"
    draft.write_bytes(b"half")
    with writer(journal):
        assert not draft.exists()


def test_a_frame_that_lies_about_its_length_is_torn_and_reads_nothing_behind_the_file(shm: Path) -> None:
    with writer(shm / "journal") as one:
        durable(one, decision(0))
    path = last_segment(shm / "journal")
    path.write_bytes(path.read_bytes() + (SYNCED - 1).to_bytes(4, "big") + frame(b"x")[4:])
    with writer(shm / "journal") as one:
        durable(one, decision(1))
    assert decisions(shm / "journal") == [0, 1]


def test_a_rehearsal_changes_nothing_and_tells_damage_from_what_a_crash_left(tmp_path: Path) -> None:
    rehearse(tmp_path / "none", False)
    with writer(tmp_path) as one:
        durable(one, *map(decision, range(20)))
        rehearse(tmp_path, True)
    last = last_segment(tmp_path)
    last.write_bytes(torn := last.read_bytes()[:-3])
    rehearse(tmp_path, False)
    assert last.read_bytes() == torn
    with pytest.raises(Damaged, match="in what its writer had written whole"):
        rehearse(tmp_path, True)
