"""What goes, and what stays: no segment without an entry that is on disk."""

from __future__ import annotations

from pathlib import Path

from pepcore.audit import entries
from pepcore.audit.disk import Disk
from pepcore.audit.frames import HEAD, frames
from pepcore.audit.retention import Rules
from pepcore.audit.segments import numbers
from pepcore.audit.verify import verify
from tests.audit.journals import decision, durable, make, writer


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
