"""What goes, and what stays: no segment without an entry that is on disk, and none that somebody changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pepcore.audit import entries
from pepcore.audit.disk import Disk
from pepcore.audit.entries import Fault, Retired
from pepcore.audit.frames import HEAD, frame, frames
from pepcore.audit.reader import read
from pepcore.audit.retention import Rules
from pepcore.audit.segments import held, numbers, path_of
from pepcore.audit.verify import verify
from tests.audit.journals import decision, durable, make, places, writer


class Refuses(Disk):
    """Does not take the first entries that say that a segment goes; notes of which it has taken one, and what went."""

    def __init__(self) -> None:
        self.left = 2
        self.said: set[int] = set()
        self.gone: list[int] = []

    def write(self, file: int, data: bytes, offset: int) -> None:
        if self.left and b"retired" in data:
            self.left -= 1
            raise OSError(5, "the disk is gone")
        super().write(file, data, offset)
        if b"retired" in data:
            each = [entries.read(data[start + HEAD : stop]) for start, stop in frames(data, 0)]
            self.said |= {one.segment for one in each if isinstance(one, entries.Retired)}

    def remove(self, path: Path) -> None:
        if path.suffix == ".seg":
            self.gone.append(int(path.stem))
        super().remove(path)


def test_no_segment_goes_before_an_entry_that_says_so_is_written(shm: Path) -> None:
    journal, disk = shm / "journal", Refuses()
    make(journal, 6)
    with writer(journal, disk, segment=2000, retention=Rules(segments=3), key=shm / "keys" / "heads.key") as one:
        for i in range(12):
            durable(one, *(decision(i * 7 + j) for j in range(7)))
    assert disk.left == 0
    assert len(numbers(journal)) == 3
    assert disk.gone == sorted(disk.said)
    assert verify(journal).findings == []


def pad(path: Path) -> None:
    os.truncate(path, 1 << 20)


def edit(path: Path) -> None:
    """Another subject, in a frame whose checksum fits."""
    whole = path.read_bytes()
    start, stop = places(path)[2]
    other = msgspec.structs.replace(entries.read(whole[start + HEAD : stop]), subject=("User", "x9"))  # type: ignore[type-var]
    path.write_bytes(whole[:start] + frame(entries.pack(other), False) + whole[stop:])


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


@pytest.mark.parametrize("damage", [pad, edit, cut, os.unlink], ids=lambda each: each.__name__)
def test_a_segment_that_is_not_what_was_sealed_is_not_retired_and_an_entry_says_so_once(
    shm: Path, damage: Callable[[Path], None]
) -> None:
    journal = shm / "journal"
    make(journal, 9)
    there = numbers(journal)
    doubtful = path_of(journal, there[0])
    if damage is not os.unlink:  # which a journal would not be opened without
        damage(doubtful)
    rules = Rules(segments=3)
    with writer(journal, segment=2000, retention=rules, key=shm / "keys" / "heads.key", whole=False) as one:
        if damage is os.unlink:
            damage(doubtful)
        for i in range(9):
            durable(one, *(decision(i * 7 + j) for j in range(7)))
        assert doubtful.name in one.doubt
    said = [each.entry for each in read(journal, held(path_of(journal, there[1]), there[1]).header.size)]
    assert [(each.what, each.segment) for each in said if isinstance(each, Fault)] == [("kept", there[0])]
    assert not any(isinstance(each, Retired) for each in said)
    assert numbers(journal)[:2] == (there[1:3] if damage is os.unlink else there[:2])
    assert verify(journal).findings != []


class NeverCut(Disk):
    """Fails one sync of a segment, and every cut."""

    fails = False

    def sync(self, file: int) -> None:
        if self.fails and os.readlink(f"/proc/self/fd/{file}").endswith(".seg"):
            self.fails = False
            raise OSError(5, "the disk is gone")
        super().sync(file)

    def cut(self, file: int, size: int) -> None:
        raise OSError(5, "the disk is gone")


def test_a_segment_that_was_given_up_goes_with_what_stands_behind_its_end(shm: Path) -> None:
    journal, disk = shm / "journal", NeverCut()
    with writer(journal, disk, segment=2000, retention=Rules(segments=3), key=shm / "keys" / "heads.key") as one:
        durable(one, decision(1))
        disk.fails = True
        durable(one, decision(2))
        durable(one, decision(3))
        assert path_of(journal, 1).stat().st_size > places(path_of(journal, 1))[0][1]
        for i in range(9):
            durable(one, *(decision(i * 7 + j) for j in range(7)))
        assert one.doubt == ""
    assert len(numbers(journal)) <= 3
    assert verify(journal).findings == []
