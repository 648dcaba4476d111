"""What was changed in a record, and what nobody could tell.

Promises: every byte of segments and seals hangs on the tree, and the tree on the signed heads: an edit, a drop, a
reorder, a splice before the last head is found without the key, whatever else was made to fit it; where a key is
trusted, so is a record that it never signed; with a head that was kept elsewhere every cut before it, and a record
written anew with a stolen key. `limits` says in words what this run could not find.
Never: takes the journal's own word for a key where a trusted one was given; writes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct, field

from . import entries
from .frames import HEAD, Broken, frames, leaf
from .heads import Head, genuine, heads
from .lines import Lines, as_line
from .recovery import UNHEADED, fault_of
from .segments import Damaged, Held, Seal, content, follow, held, numbers, path_of, seals
from .tree import Frontier

STOPPED_NS = 3600 * 10**9
"""How much newer than the last head an entry is where signing has stopped."""
SETTLE, LOOKS = 0.2, 5
"""Seconds and times to look again at an entry that may just be written."""


class Finding(Struct, frozen=True):
    file: str
    offset: int
    reason: str


class Report(Struct):
    """`first`: index of the oldest entry that is kept. Nothing is wrong if `findings` is empty."""

    size: int = 0
    root: str = ""
    first: int = 0
    segments: int = 0
    heads: int = 0
    signed: int = 0
    """Entries before the last head that is genuine and fits."""
    key: str = ""
    findings: list[Finding] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)


def verify(folder: Path, *, outside: Head | None = None, key: str = "") -> Report:
    """Test all of it. `outside` is a head kept elsewhere, `key` the id of a key to trust. Raises OSError."""
    return _Check(folder, outside, key or (outside.key if outside else "")).run()


class _Check:
    def __init__(self, folder: Path, outside: Head | None, key: str) -> None:
        self.folder, self.outside, self.key = folder, outside, key
        self.report = Report()
        self.roots: dict[int, str] = {0: Frontier().root().hex()}
        """Of the sizes that a head names, and of those between segments."""
        self.journal = ""
        self.retired: dict[int, int] = {}
        """Segments that the record says were deleted, and the index of the entry that says so."""
        self.unheaded: list[int] = []
        """Entries that say that no head was there, and should have been."""
        self.failed: set[int] = set()
        """Segments whose sync failed, as a later entry says: what lies behind their end does not count."""
        self.newest = self.headed = 0
        """When the newest entry was made, and the last head that fits (Unix ns)."""
        self.behind: list[tuple[int, Path, int, int]] = []

    def find(self, file: Path, offset: int, reason: str) -> None:
        self.report.findings.append(Finding(str(file), offset, reason))

    def run(self) -> Report:
        signed = heads(self.folder)
        lines, broken = self._signed(signed)
        if broken is not None:
            self.find(signed.path, broken.offset, broken.reason)
        wanted = {head.size for _, head in lines} | ({self.outside.size} if self.outside else set())
        tree = self._segments(wanted)
        self.report.size, self.report.root = tree.size, tree.root().hex()
        self._heads(signed.path, lines)
        self._deleted()
        if self.outside is not None:
            self._outside(signed.path, [head for _, head in lines])
        self._say_limits()
        return self.report

    def _signed(self, file: Lines[Head]) -> tuple[list[tuple[int, Head]], Broken | None]:
        """The heads. Where one is due and none is there, a writer at work may be about to sign its first."""
        found = file.read()
        for _ in range(LOOKS if self.key else 0):
            if found == ([], None):
                time.sleep(SETTLE)
                found = file.read()
        return found

    def _segments(self, wanted: set[int]) -> Frontier:
        there = numbers(self.folder)
        sealed = self._seals()
        wanted |= {seal.size for seal in sealed.values()}
        tree = Frontier()
        if not there:
            self.find(self.folder, 0, "there are no segments")
            return tree
        for number in range(1, there[0]):
            seal = sealed.get(number)
            if seal is None:
                self.find(seals(self.folder).path, 0, f"the seal of segment {number} is missing, and so is the segment")
                break
            self._over(tree, seal)
        self.report.first, self.report.segments = tree.size, len(there)
        found: dict[int, Held] = {}
        for number in range(there[0], there[-1] + 1):
            try:
                found[number] = held(path_of(self.folder, number), number)
            except FileNotFoundError:
                self.find(path_of(self.folder, number), 0, "the file is missing")
            except Damaged as damaged:
                self.find(damaged.file, damaged.offset, damaged.reason)
        for number, each in found.items():
            following = found.get(number + 1)
            tree = self._segment(tree, each, following, number == there[-1], wanted)
            seal = sealed.pop(number, None)
            end = tree.size if seal is None or number != there[-1] else seal.size  # its successor may not be made yet
            if seal is not None and (seal.first, seal.size, seal.root.hex()) != (
                each.header.size,
                end,
                self.roots.get(end),
            ):
                self.find(seals(self.folder).path, 0, f"the seal of segment {number} does not fit it")
            elif seal is not None:
                self._over(each.header.frontier(), seal)
            elif number != there[-1]:
                self.find(seals(self.folder).path, 0, f"the seal of segment {number} is missing")
        for number, path, offset, length in self.behind:
            if number not in self.failed:
                self.find(path, offset, f"{length} bytes stand behind its last entry")
        for number in sealed:
            if number > there[-1] and not path_of(self.folder, number).exists():
                self.find(path_of(self.folder, number), 0, "the file is missing, and its seal is there")
        return tree

    def _seals(self) -> dict[int, Seal]:
        file = seals(self.folder)
        lines, broken = file.read()
        if broken is not None:
            self.find(file.path, broken.offset, broken.reason)
        for i, (offset, seal) in enumerate(lines):
            if seal.segment != i + 1:
                self.find(file.path, offset, f"the seal of segment {i + 1} should stand here")
        return {seal.segment: seal for _, seal in lines}

    def _over(self, tree: Frontier, seal: Seal) -> None:
        """Lead the tree over a deleted segment."""
        try:
            follow(tree, seal, seals(self.folder).path, 0)
        except Damaged as damaged:
            self.find(damaged.file, damaged.offset, f"segment {seal.segment}: {damaged.reason}")
        self.roots[tree.size] = tree.root().hex()

    def _segment(self, tree: Frontier, each: Held, after: Held | None, last: bool, wanted: set[int]) -> Frontier:
        header = each.header
        self.journal = self.journal or header.journal.hex()
        if header.journal.hex() != self.journal:
            self.find(each.path, 0, "the segment is of another journal")
        if (header.size, header.root) != (tree.size, tree.root()):
            self.find(each.path, 0, f"it does not follow: the record before it has {tree.size} entries or another root")
            tree = header.frontier()  # to find what else is wrong
        offset, newest = each.start, b""
        data = content(each.path)
        for framed in self._frames(each, data, last) if after is None or after.header.size > tree.size else ():
            if b"retired" in framed:
                self._retired(framed, tree.size)
            if fault := fault_of(framed):
                if fault.given_up:
                    self.failed.add(fault.given_up)
                elif fault.what == UNHEADED:
                    self.unheaded.append(tree.size)
            tree.append(leaf(framed))
            offset += len(framed)
            newest = framed
            if tree.size in wanted:
                self.roots[tree.size] = tree.root().hex()
            if after is not None and tree.size == after.header.size:
                break
        self.roots[tree.size] = tree.root().hex()
        with contextlib.suppress(msgspec.DecodeError):
            self.newest = getattr(entries.read(newest[HEAD:]), "wall_ns", 0) if newest else self.newest
        full = after is not None and tree.size == after.header.size
        if full and offset < len(data):
            self.behind.append((header.segment, each.path, offset, len(data) - offset))
        return tree

    def _retired(self, framed: bytes, index: int) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            entry = entries.read(framed[HEAD:])
            if isinstance(entry, entries.Retired):
                self.retired[entry.segment] = index

    def _deleted(self) -> None:
        """The newest of the deleted segments must have been deleted by the writer; that of others may be gone, too."""
        number = min(numbers(self.folder), default=1) - 1
        if number and self.retired.get(number, self.report.size) >= (self.report.signed or self.report.size):
            self.find(path_of(self.folder, number), 0, "the file is missing, and no signed entry says that it was due")

    def _frames(self, each: Held, data: bytes, last: bool) -> Iterator[bytes]:
        """Each entry; a writer at work may be about to end the last one."""
        offset = each.start
        for look in range(LOOKS):
            try:
                for start, offset in frames(data, offset):  # noqa: B020
                    yield data[start:offset]
                return
            except Broken as broken:
                if not (last and broken.short and look < LOOKS - 1):
                    self.find(each.path, broken.offset, broken.reason)
                    return
                time.sleep(SETTLE)
                data = content(each.path)

    def _heads(self, path: Path, lines: list[tuple[int, Head]]) -> None:
        report = self.report
        before: Head | None = None
        linked: set[str] = set()
        for i, (offset, head) in enumerate(lines):
            wrong = self._wrong(i + 1, head, before)
            if wrong:
                self.find(path, offset, wrong)
            elif head.size in self.roots:
                report.signed, self.headed = head.size, head.wall_ns
            linked.add(head.key)
            before = head
        report.heads = len(lines)
        report.key = before.key if before else ""
        if self.key and lines and self.key not in linked:
            self.find(path, 0, f"no head is signed by the trusted key `{self.key}`, but by `{report.key}`")
        if not lines and report.size:
            self._unsigned(path)
        for index in self.unheaded if self.key else ():
            self.find(path, 0, f"no head was there when entry {index} was written: those before it were never signed, "
                      "or their heads were deleted")  # fmt: skip

    def _unsigned(self, path: Path) -> None:
        """Who has a key signs the first group of entries, at once."""
        if self.key:
            self.find(path, 0, f"no head is there, so none is signed by the trusted key `{self.key}`")
        elif self.report.first or self.retired:
            self.find(path, 0, "no head is there, and segments were deleted, which only a signed entry may say")

    def _wrong(self, number: int, head: Head, before: Head | None) -> str:
        if head.number != number:
            return f"head {number} should stand here and not {head.number}"
        if not genuine(head):
            return "its signature is wrong"
        if self.journal and head.journal != self.journal:
            return "the head is of another journal"
        if before is not None and head.size < before.size:
            return f"the record was longer before: {before.size} entries and not {head.size}"
        if before is not None and head.key != before.key and head.previous != before.public:
            return f"the key `{head.key}` is new, and the one before it has not signed that"
        return self._compared(head)

    def _compared(self, head: Head) -> str:
        """What does not fit between a head and the record."""
        if head.size > self.report.size:
            return f"it counts {head.size} entries, and {self.report.size} are there: the end was cut off"
        if self.roots.get(head.size, head.root) != head.root:
            return f"the first {head.size} entries are not those that were signed"
        return ""

    def _outside(self, path: Path, inside: list[Head]) -> None:
        head = self.outside
        assert head is not None
        if not genuine(head):
            self.find(Path("--head"), 0, "its signature is wrong: it is no head, or was not kept well")
            return
        if head.journal != self.journal:
            self.find(Path("--head"), 0, f"it is of journal `{head.journal}`, and this one is `{self.journal}`")
            return
        wrong = self._compared(head)
        if wrong:
            self.find(Path("--head"), 0, wrong)
        if head.number > len(inside):
            self.find(path, 0, f"head {head.number} was kept elsewhere and is not here: the heads were cut, too")
        elif as_line(inside[head.number - 1]) != as_line(head):
            self.find(path, 0, f"head {head.number} is not the one that was kept elsewhere")

    def _say_limits(self) -> None:
        report, say = self.report, self.report.limits.append
        if not report.heads and report.size and self.outside is None:
            say("no head is there: that whoever can write the journal's files has changed, cut or written anew all of "
                "it, without any key, cannot be found (where a key is named, `--key`, it is a finding)")  # fmt: skip
            return
        if self.outside is None:
            say("without a head that was kept elsewhere (`--head`), it cannot be found that the newest entries were "
                "cut off together with their heads (and others written behind an older head), or that all was written "
                "anew by who has the key")  # fmt: skip
        elif self.outside.size not in self.roots:
            say(f"the head kept elsewhere counts {self.outside.size} entries, and those before {report.first} are no "
                "longer kept: its root cannot be compared, so keep a newer one")  # fmt: skip
        if self.unheaded and not self.key:
            say(f"entry {self.unheaded[-1]} says that no head was there when its writer began: what came before may "
                "have been changed, and its heads deleted")  # fmt: skip
        if not self.key:
            say("no key was named (`--key`): heads were tested with the key that they bring, so a record and its heads "
                "that were written anew with another key look right")  # fmt: skip
        if report.size > report.signed:
            if report.signed and self.newest - self.headed > STOPPED_NS:
                say(f"the record is signed no more: its newest entry is {(self.newest - self.headed) / 3.6e12:.1f} "
                    "hours newer than its last head, and the daemon's log says why")  # fmt: skip
            say(f"{report.size - report.signed} entries came after the last signed head: whoever can write the "
                "journal's files can still change or cut these")  # fmt: skip
