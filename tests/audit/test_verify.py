"""`verify` finds what was changed. Each of its guards, taken out, lets something pass that these tests then miss."""

from __future__ import annotations

import inspect
import os
import random
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pepcore.audit import entries
from pepcore.audit import heads as heads_module
from pepcore.audit import verify as real
from pepcore.audit.disk import Disk
from pepcore.audit.frames import Broken, frames
from pepcore.audit.heads import Head, heads
from pepcore.audit.reader import read
from pepcore.audit.retention import Rules
from pepcore.audit.segments import held, numbers, path_of
from pepcore.audit.verify import Finding, Report, verify
from tests.audit import damage
from tests.audit.damage import CLEVER, RANDOM, Damage, cut_with_heads
from tests.audit.journals import decision, durable, make, of_kind, places, writer

CASES = int(os.environ.get("PEPCORE_DAMAGES", "40"))
Verify = Callable[..., Report]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "SETTLE", 0.0)


@pytest.fixture(scope="module")
def kept(shm_module: Path) -> tuple[Path, Head]:
    """A journal, and its last head, which is kept elsewhere. Its first segments were deleted by retention."""
    head = make(shm_module / "journal", retention=Rules(segments=5))
    assert numbers(shm_module / "journal")[0] > 1
    return shm_module / "journal", head


def missed(kept: tuple[Path, Head], how: Damage, cases: int, check: Verify = verify, outside: bool = True) -> int:
    """How many of so many damages are not found."""
    journal, head = kept
    found = 0
    for seed in range(cases):
        copy = journal.parent / "copy"
        shutil.copytree(journal, copy)
        try:
            if not how(copy, random.Random(seed)):
                found += 1
                continue
            try:
                report = check(copy, outside=head, key=head.key) if outside else check(copy)
            except OSError:
                found += 1
                continue
            found += bool(report.findings)
        finally:
            shutil.rmtree(copy)
    return cases - found


def test_an_unchanged_record_has_no_findings(kept: tuple[Path, Head]) -> None:
    journal, head = kept
    report = verify(journal, outside=head, key=head.key)
    assert (report.findings, report.size, report.root, report.signed) == ([], head.size, head.root, head.size)
    assert report.limits == []
    assert report.first > 0
    assert missed(kept, lambda folder, random_: True, 1) == 1, "the harness itself finds nothing"


@pytest.mark.parametrize("how", [*RANDOM, *CLEVER, cut_with_heads], ids=lambda how: how.__name__)
def test_any_edit_drop_or_reorder_of_the_record_is_found_and_any_cut_before_a_signed_head_kept_elsewhere(
    kept: tuple[Path, Head], how: Damage
) -> None:
    assert missed(kept, how, CASES * 5 if how in (damage.flip, damage.cut) else CASES) == 0


@pytest.mark.parametrize("how", CLEVER, ids=lambda how: how.__name__)
def test_without_an_outside_head_every_change_before_the_last_signed_one_is_found(
    kept: tuple[Path, Head], how: Damage
) -> None:
    assert missed(kept, how, CASES, outside=False) == 0


def test_what_cannot_be_found_without_an_outside_head_is_not_found_and_is_said(shm: Path) -> None:
    kept = shm / "journal", make(shm / "journal")
    assert missed(kept, cut_with_heads, CASES, outside=False) == CASES
    limits = " ".join(verify(kept[0]).limits)
    assert "cut off together with their heads" in limits
    assert "written anew" in limits
    assert "`--key`" in limits


# ---- weaker verifiers: the harness must see that each misses something ----


def only_checksums(folder: Path, *, outside: Head | None = None, key: str = "") -> Report:
    """The planted weak one: every frame is whole, and that is all it asks."""
    report = Report()
    for number in numbers(folder):
        try:
            data = path_of(folder, number).read_bytes()
            list(frames(data, held(path_of(folder, number), number).start))
        except (Broken, ValueError) as error:
            report.findings.append(Finding("", 0, str(error)))
        except heads_module.ConfigError:
            raise
        except Exception as error:
            report.findings.append(Finding("", 0, str(error)))
    return report


@pytest.mark.parametrize("how", [damage.edit_entry, damage.drop_entry, damage.reorder], ids=lambda how: how.__name__)
def test_a_verifier_of_checksums_alone_misses_edits_drops_and_reorders(kept: tuple[Path, Head], how: Damage) -> None:
    assert missed(kept, how, 5, only_checksums) == 5


GUARDS = {
    "signatures": ("if not genuine(head):\n            return", "if False:\n            return"),
    "roots": ("self.roots.get(head.size, head.root) != head.root", "False"),
    "counts": ("if head.size > self.report.size:", "if False:"),
    "numbers": ("if head.number != number:", "if False:"),
    "outside": ("if self.outside is not None:\n            self._outside", "if False:\n            self._outside"),
    "headers": ("if (header.size, header.root) != (tree.size, tree.root()):", "if False:"),
    "tails": ("if full and offset < len(data):", "if False:"),
    "seals": ('f"the seal of segment {number} is missing")', '"") if False else None'),
    "lines": ("if broken is not None:", "if False:"),
    "retired": ("if number and self.retired", "if False and self.retired"),
    "frames": ("self.find(each.path, broken.offset, broken.reason)\n                    return", "return"),
}
"""Each is a guard of `verify`, and what stands in its place in the twin."""


def twin(name: str) -> Verify:
    source = inspect.getsource(real)
    old, new = GUARDS[name]
    assert old in source, f"the guard `{name}` is not there any more"
    module = types.ModuleType(f"pepcore.audit.verify_without_{name}")
    module.__package__ = "pepcore.audit"
    sys.modules[module.__name__] = module
    exec(compile(source.replace(old, new), module.__name__, "exec"), module.__dict__)
    module.SETTLE = 0.0  # type: ignore[attr-defined]
    return module.verify  # type: ignore[no-any-return, attr-defined]


@pytest.mark.parametrize("name", GUARDS)
def test_a_verifier_without_one_guard_misses_something(kept: tuple[Path, Head], name: str) -> None:
    weaker = twin(name)
    every = [*RANDOM, *CLEVER, cut_with_heads, add_behind, foreign_key, cut_heads_only, delete_oldest]
    assert any(missed(kept, how, 12, weaker) for how in every) or missed(
        kept, damage.drop_line, 12, weaker, outside=False
    ) > missed(kept, damage.drop_line, 12, outside=False)


def add_behind(folder: Path, random_: random.Random) -> bool:
    """Bytes that are no entry behind the last one."""
    path = path_of(folder, numbers(folder)[-1])
    path.write_bytes(path.read_bytes() + random_.randbytes(50))
    return True


def delete_oldest(folder: Path, random_: random.Random) -> bool:
    """As retention would, but it did not."""
    path_of(folder, numbers(folder)[0]).unlink()
    return True


def cut_heads_only(folder: Path, random_: random.Random) -> bool:
    """The newest heads go, and everything that they signed stays."""
    path = heads(folder).path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: random_.randrange(len(lines))]))
    return True


def foreign_key(folder: Path, random_: random.Random) -> bool:
    """Everything is written anew and signed with a key of the forger's own."""
    damage.edit_entry(folder, random_)
    file = heads(folder)
    signed = [head for _, head in file.read()[0]]
    report = verify(folder)
    file.path.unlink()
    key = heads_module.Key(random_.randbytes(32))
    head = msgspec.structs.replace(
        signed[0], number=1, size=report.size, root=report.root, key=key.id, public=key.public.hex(), signature=""
    )
    file.append(Disk(), msgspec.structs.replace(head, signature=key.sign(head.signed())))
    return True


@pytest.mark.parametrize("how", [add_behind, foreign_key, cut_heads_only, delete_oldest], ids=lambda how: how.__name__)
def test_more_that_is_found(kept: tuple[Path, Head], how: Damage) -> None:
    assert missed(kept, how, 10) == 0


def test_a_record_written_anew_with_another_key_is_found_by_the_trusted_key_alone(kept: tuple[Path, Head]) -> None:
    _, head = kept

    def with_key(folder: Path, **_: object) -> Report:
        return verify(folder, key=head.key)

    assert missed(kept, foreign_key, 5, with_key) == 0
    assert missed(kept, foreign_key, 5, outside=False) == 5, "and that is what the limits say"


# ---- single cases ----


def test_findings_name_file_offset_and_reason(kept: tuple[Path, Head], shm: Path) -> None:
    copy = shm / "copy"
    shutil.copytree(kept[0], copy)
    path = path_of(copy, numbers(copy)[1])
    start = places(path)[2][0]
    data = bytearray(path.read_bytes())
    data[start + 12] ^= 4
    path.write_bytes(data)
    first = verify(copy).findings[0]
    assert (first.file, first.offset, first.reason) == (str(path), start, "the checksum is wrong")


def test_an_outside_head_that_is_none_or_of_another_journal_is_told(kept: tuple[Path, Head], shm: Path) -> None:
    journal, head = kept
    forged = msgspec.structs.replace(head, size=head.size + 1)
    assert "its signature is wrong" in verify(journal, outside=forged).findings[-1].reason
    other = make(shm / "other", 1)
    assert any("it is of journal" in each.reason for each in verify(journal, outside=other).findings)


def test_a_head_older_than_what_is_kept_is_compared_where_a_segment_ends_and_else_said_to_be_too_old(
    kept: tuple[Path, Head],
) -> None:
    journal, _ = kept
    first = verify(journal).first
    old = [head for _, head in heads(journal).read()[0] if head.size < first]
    assert old
    limits = [verify(journal, outside=head).limits for head in old]
    assert all(verify(journal, outside=head).findings == [] for head in old)
    assert any(each == [] for each in limits), "heads are signed where segments end"
    assert any(each and "keep a newer one" in each[0] for each in limits)


def test_entries_behind_the_last_head_are_said_to_be_open(shm: Path) -> None:
    with writer(shm / "journal", heads_s=3600, key=shm / "key") as one:
        durable(one, decision(1))
        durable(one, decision(2))
        limits = verify(shm / "journal").limits
    assert "1 entries came after the last signed head" in limits[-1]


def test_a_record_is_verified_while_it_is_written(shm: Path) -> None:
    with writer(shm / "journal", segment=3000, heads_s=0.0, key=shm / "key") as one:
        for batch in range(30):
            durable(one, *(decision(batch * 5 + i) for i in range(5)))
            assert verify(shm / "journal").findings == []


# ---- no heads ----


def without(folder: Path, number: int) -> None:
    """The record is written anew by somebody without the key, without an entry that he does not like."""
    old = [each.entry for each in read(folder)]
    shutil.rmtree(folder)
    with writer(folder) as one:
        for entry in old:
            if getattr(entry, "decision", None) != number:
                durable(one, entry)


def test_a_record_that_a_trusted_key_never_signed_is_found_by_that_key(shm: Path) -> None:
    folder = shm / "journal"
    head = make(folder, 1, segment=1 << 20)
    assert verify(folder, key=head.key).findings == []
    without(folder, 3)
    (found,) = verify(folder, key=head.key).findings
    assert f"no head is there, so none is signed by the trusted key `{head.key}`" in found.reason
    assert any("no head is there" in each.reason for each in verify(folder, outside=head).findings)
    bare = verify(folder)
    assert bare.findings == [], "a journal without a key has none"
    assert bare.limits[0].startswith("no head is there: that whoever can write the journal's files has changed")


def test_deleted_heads_of_a_record_whose_segments_were_retired_are_found_without_a_key(
    kept: tuple[Path, Head], shm: Path
) -> None:
    copy = shm / "copy"
    shutil.copytree(kept[0], copy)
    heads(copy).path.unlink()
    assert any("no head is there, and segments were deleted" in each.reason for each in verify(copy).findings)


def test_a_writer_with_a_key_says_that_no_head_was_there_and_signing_on_does_not_launder(
    shm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, key = shm / "journal", shm / "keys" / "heads.key"
    head = make(folder, 1, segment=1 << 20, key=key)
    with writer(folder, key=key) as one:
        durable(one, decision(100))
    assert (of_kind(folder, entries.Fault), caplog.messages) == ([], [])
    without(folder, 3)
    for _ in range(2):
        with writer(folder, key=key) as one:
            durable(one, decision(101))
    (fault,) = [each.entry for each in of_kind(folder, entries.Fault)]
    assert isinstance(fault, entries.Fault)
    assert (fault.what, "no head is there that signs the 8 entries" in fault.reason) == ("heads", True)
    assert len([each for each in caplog.messages if "has no signed head" in each]) == 1
    report = verify(folder, key=head.key)
    assert report.key == head.key
    assert ["no head was there when entry 8 was written" in each.reason for each in report.findings] == [True]
    assert any("entry 8 says that no head" in each for each in verify(folder).limits)


def test_the_first_head_is_waited_for(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = make(shm / "journal", 1)
    path = heads(shm / "journal").path
    data = path.read_bytes()
    path.unlink()

    def sign(_: float) -> None:
        path.write_bytes(data)

    monkeypatch.setattr(real.time, "sleep", sign)
    assert verify(shm / "journal", key=head.key).findings == []
