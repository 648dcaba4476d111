"""The record of the embedded form: what is in it, who may write it, and what happens where nobody can."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pepcore
from pepcore import ConfigError, Embedded
from pepcore.audit import entries
from pepcore.audit.disk import Disk
from pepcore.audit.reader import read
from pepcore.audit.verify import verify
from pepcore.cli import main
from pepcore.core import forks
from pepcore.inprocess import recording
from pepcore.inprocess.recording import Recording
from tests.conftest import POLICIES
from tests.test_embedded import in_child

ANN = ("User::alice", "read", "Document::1")
EVE = ("User::eve", "read", "Document::1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "record"


@pytest.fixture
def pep(folder: Path) -> Iterator[Embedded]:
    with pepcore.embedded(POLICIES, handles=["mask"], record=folder) as made:
        yield made


def recorded(folder: Path, kind: type[Any] = entries.Decision) -> list[Any]:
    return [each.entry for each in read(folder) if isinstance(each.entry, kind)]


def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.005)


def hits(folder: Path) -> dict[int, int]:
    found: dict[int, int] = {}
    for each in recorded(folder, entries.Hits):
        for number, count in each.served:
            found[number] = found.get(number, 0) + count
    return found


def permits(folder: Path) -> int:
    """How many were told, hits included."""
    found, served = [each.decision for each in recorded(folder) if each.permit], hits(folder)
    return sum(1 + served.get(number, 0) for number in found)


# ---- what is in it ----


def test_hits_stand_behind_the_decisions_that_they_were_served_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(self: Recording, told: Any, original: Callable[..., None] = Recording._decision) -> None:
        time.sleep(0.005)
        original(self, told)

    monkeypatch.setattr(Recording, "_decision", slowly)
    monkeypatch.setattr(recording, "EVERY_S", 0.05)
    with pepcore.embedded(POLICIES, handles=["mask"], record=folder) as pep:
        for n in range(100):
            for _ in range(3):
                pep.check("User::alice", "read", f"Document::{n}")
        until(lambda: sum(hits(folder).values()) >= 100)
    decided: set[int] = set()
    for each in recorded(folder, entries.Hits | entries.Decision):
        if isinstance(each, entries.Decision):
            decided.add(each.decision)
        else:
            assert {number for number, _ in each.served} <= decided
    assert len(decided) == 100


def test_a_decision_is_recorded_with_who_asked_what_was_told_and_why(pep: Embedded, folder: Path) -> None:
    trace = "00-" + "11" * 16 + "-" + "22" * 8 + "-01"
    with pepcore.traced(trace):
        permit = pep.check("Service::web", "connect", "Host::db", {"port": 22, "token": "hunter2"})
    deny = pep.check(*EVE)
    assert permit
    assert not deny
    pep.close()
    one, other = recorded(folder)
    assert (one.permit, one.policies, one.cached, one.decision) == (True, ("local",), False, permit.number)
    assert (one.boot, one.uid, one.gid) == (permit.boot, os.geteuid(), os.getegid())
    assert one.trace == "11" * 16 + "22" * 8 + "01"
    assert (other.permit, other.subject, other.action) == (False, ("User", "eve"), "read")
    assert one.attributes == {}
    assert set(one.digests["context"]) == {"port", "token"}
    assert b"hunter2" not in b"".join(file.read_bytes() for file in folder.iterdir())


def test_a_hit_is_recorded_by_count_within_about_a_second_and_at_the_end(pep: Embedded, folder: Path) -> None:
    number = pep.check(*ANN).number
    denied = pep.check(*EVE).number
    for _ in range(5):
        assert pep.check(*ANN).cached
    assert not pep.check(*EVE)
    until(lambda: hits(folder) == {number: 5, denied: 1})
    for _ in range(3):
        assert pep.check(*ANN).cached
    pep.close()
    assert hits(folder) == {number: 8, denied: 1}
    assert len(recorded(folder)) == 2
    assert all(each.in_process for each in recorded(folder, entries.Hits))


def test_what_the_cache_of_the_enforcer_serves_is_counted_too(pep: Embedded, folder: Path) -> None:
    number = pep.check(*ANN).number
    assert pep.check(*ANN, not_after=time.time() + 60).cached
    assert pep.check(*ANN, on_behalf_of=[]).cached
    pep.close()
    assert hits(folder) == {number: 2}
    assert len(recorded(folder)) == 1


def test_a_hit_of_an_entry_that_left_the_table_is_counted(pep: Embedded, folder: Path) -> None:
    first = pep.check(*ANN).number
    assert pep.check(*ANN).cached
    pep.reload(POLICIES)
    second = pep.check(*ANN).number
    assert pep.check(*ANN).cached
    pep.close()
    assert hits(folder) == {first: 1, second: 1}


def test_what_is_single_use_is_an_entry_each_time(pep: Embedded, folder: Path) -> None:
    said = [bool(pep.check("Service::job", "run", "Job::1")) for _ in range(3)]
    pep.close()
    assert [each.permit for each in recorded(folder)] == said == [True, True, False]
    assert recorded(folder)[0].obligations == (("r1", "rate", True),)


def test_a_fault_of_a_question_is_recorded_and_one_that_is_no_question_is_not(pep: Embedded, folder: Path) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("of the engine")

    decide, pep._pdp.decide = pep._pdp.decide, broken  # type: ignore[method-assign]
    assert "RuntimeError" in pep.check(*ANN).error
    pep._pdp.decide = decide  # type: ignore[method-assign]
    assert pep.check("alice", "read", "Document::1").error.startswith("bad-question")
    assert pep.check(*ANN, not_after=time.time() - 1).error.startswith("expired")
    with pep._lock:
        assert pep.check(*ANN).error.startswith("deadline")
    assert pep.check(*ANN)
    pep.close()
    assert [(each.permit, each.fault) for each in recorded(folder)] == [
        (False, "pdp"), (False, "deadline"), (True, ""),
    ]  # fmt: skip


def test_revokes_reloads_leases_start_and_stop_are_recorded_in_their_order(pep: Embedded, folder: Path) -> None:
    with pep.lease(*ANN) as given_up:
        assert given_up
    until(lambda: recorded(folder, entries.LeaseEnd))  # giving up waits for nobody
    lease = pep.lease(*ANN)
    told = pep.revoke(subject="User::alice", reason="moved on")
    assert (told.durable, told.why) == (True, "")
    with pytest.raises(ConfigError):
        pep.reload("permit(principal")
    pep.reload(POLICIES, [])
    pep.close()
    found = [each.entry for each in read(folder)]
    kinds = [type(each).__name__ for each in found if not isinstance(each, entries.Hits)]
    assert kinds == [
        "Start", "Decision", "LeaseStart", "LeaseEnd", "Decision", "LeaseStart", "Revoke", "LeaseEnd", "Reload",
        "Reload", "Stop",
    ]  # fmt: skip
    revoke: Any = found[6]
    assert (revoke.tags, revoke.reason, revoke.revision) == (("User::alice",), "moved on", told.revision)
    ends: list[Any] = recorded(folder, entries.LeaseEnd)
    assert [each.cause for each in ends] == ["ended", "revoked"]
    assert ends[1].lease == lease.number == recorded(folder, entries.LeaseStart)[1].lease
    bad, good = recorded(folder, entries.Reload)
    assert (bad.ok, good.ok, good.policies) == (False, True, 6)
    assert bad.reason


def test_the_record_verifies_and_goes_on_with_the_next_pep(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = set()
    for _ in range(2):
        with pepcore.embedded(POLICIES, record=str(folder)) as pep:
            numbers.add(pep.check(*ANN).number)
            assert not pep.check(*EVE)
    report = verify(folder)
    assert report.findings == []
    assert report.signed == report.size == 8
    assert len(numbers) == 2, "two decisions of one record have one id"
    assert main(["audit", "verify", "--journal", str(folder)]) == 0
    capsys.readouterr()
    segment = folder / "0000000001.seg"
    segment.write_bytes(segment.read_bytes().replace(b"alice", b"mouse"))
    assert verify(folder).findings != []


def test_the_keys_are_beside_the_folder_and_nobody_elses(pep: Embedded, folder: Path) -> None:
    keys = folder.with_name("record.keys")
    assert sorted(each.name for each in keys.iterdir()) == ["digests.key", "heads.key"]
    assert {each.stat().st_mode & 0o777 for each in keys.iterdir()} == {0o600}
    assert not list(folder.glob("*.key"))


# ---- who may write it ----


def test_a_folder_in_use_is_a_config_error_until_its_pep_is_closed(pep: Embedded, folder: Path) -> None:
    with pytest.raises(ConfigError, match="is written by another"):
        pepcore.embedded(POLICIES, record=folder)
    assert pep.check(*ANN)
    pep.close()
    with pepcore.embedded(POLICIES, record=folder) as next_:
        assert next_.check(*ANN)


def test_a_damaged_record_is_a_config_error_that_says_where(folder: Path) -> None:
    with pepcore.embedded(POLICIES, record=folder) as pep:
        assert pep.check(*ANN)
    (folder / "0000000001.seg").rename(folder / "aside")
    with pytest.raises(ConfigError, match="Move the folder away"):
        pepcore.embedded(POLICIES, record=folder)
    (folder / "aside").rename(folder / "0000000001.seg")
    with pepcore.embedded(POLICIES, record=folder) as pep:
        assert pep.check(*ANN)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(5, "record: must be"), ("", "record: must be"), ("/", "no room beside it"), ("a\0b", "NUL character"),
     ("file", "cannot be opened"), ("file/below", "cannot be read")],
)  # fmt: skip
def test_a_record_that_cannot_be_is_a_config_error(
    wrong: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=says):
        pepcore.embedded(POLICIES, record=wrong)
    with pepcore.embedded(POLICIES, record="folder") as pep:
        assert pep.check(*ANN)
    assert (tmp_path / "folder" / "0000000001.seg").exists()


def test_a_key_that_others_can_read_is_refused(folder: Path) -> None:
    pepcore.embedded(POLICIES, record=folder).close()
    key = folder.with_name("record.keys") / "digests.key"
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        pepcore.embedded(POLICIES, record=folder)
    key.chmod(0o600)
    pepcore.embedded(POLICIES, record=folder).close()


def test_policies_that_cannot_be_read_leave_no_folder(folder: Path) -> None:
    with pytest.raises(ConfigError):
        pepcore.embedded("permit(principal", record=folder)
    assert not folder.exists()
    pepcore.embedded(POLICIES, record=folder).close()
    assert folder.exists()


# ---- where nobody can ----


def test_a_forked_child_of_a_recorded_pep_denies_and_may_make_its_own(
    pep: Embedded, folder: Path, tmp_path: Path
) -> None:
    assert pep.check(*ANN)

    def child() -> bool:
        said = pep.check(*ANN)
        held = pep.lease(*ANN)
        told = pep.revoke(all=True)
        pep.close()
        with pepcore.embedded(POLICIES, record=tmp_path / "mine") as mine:
            ours = mine.check(*ANN)
        denied = "forked child" in said.error and "forked child" in held.verdict.error and not held
        return bool(ours) and denied and not said and not told.durable and len(recorded(tmp_path / "mine")) == 1

    assert in_child(child)
    assert in_child(lambda: bool(pepcore.embedded(POLICIES).check(*ANN)))
    assert pep.check(*ANN).cached
    pep.close()
    assert len(recorded(folder)) == 1
    assert verify(folder).findings == []


def test_a_child_whose_fork_nobody_told_denies_too(pep: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "number", lambda: 0)  # what the kernel makes of the word where C code forks
    assert "forked child" in pep.check(*ANN).error
    assert "forked child" in pep.lease(*ANN).verdict.error
    monkeypatch.undo()
    assert pep.check(*ANN)


def test_a_child_that_ends_as_programs_do_leaves_the_record_to_its_parent(folder: Path) -> None:
    program = (
        "import os, sys, pepcore\n"
        f"pep = pepcore.embedded({POLICIES!r}, record={str(folder)!r})\n"
        "pid = os.fork()\n"
        "if pid == 0: sys.exit(0 if not pep.check('User::alice', 'read', 'Document::1') else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "print(bool(pep.check('User::alice', 'read', 'Document::1')))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("0\nTrue\n", "")
    assert [type(each.entry).__name__ for each in read(folder)] == ["Start", "Decision", "Stop"]


def test_a_closed_pep_denies_and_one_without_a_record_goes_on(pep: Embedded, folder: Path) -> None:
    assert pep.check(*ANN)
    pep.close()
    pep.close()
    said = pep.check(*ANN)
    assert (bool(said), said.error.startswith("not-available: record: this PEP was closed")) == (False, True)
    assert [bool(each) for each in pep.check_many([ANN, EVE])] == [False, False]
    assert not pep.lease(*ANN)
    assert not pep.revoke(all=True).durable
    pep.reload(POLICIES)
    assert len(recorded(folder)) == 1
    plain = pepcore.embedded(POLICIES)
    plain.close()
    assert plain.check(*ANN)
    assert plain.revoke(all=True).durable


@pytest.mark.parametrize("end", ["", "import sys; sys.exit(3)", "raise ValueError"])
def test_the_end_of_the_process_writes_what_is_left(folder: Path, end: str) -> None:
    program = (
        "import pepcore\n"
        f"pep = pepcore.embedded({POLICIES!r}, record={str(folder)!r})\n"
        "for _ in range(4): pep.check('User::alice', 'read', 'Document::1')\n"
        f"lease = pep.lease('User::alice', 'read', 'Document::1')\n{end}\n"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert list(hits(folder).values()) == [3]
    assert [each.cause for each in recorded(folder, entries.LeaseEnd)] == ["ended"]
    assert len(recorded(folder, entries.Stop)) == 1
    assert verify(folder).findings == []


def test_a_process_that_is_killed_loses_at_most_its_last_moment(folder: Path) -> None:
    program = (
        "import os, time, pepcore\n"
        f"pep = pepcore.embedded({POLICIES!r}, record={str(folder)!r})\n"
        "pep.check('User::alice', 'read', 'Document::1'); time.sleep(0.5); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -signal.SIGKILL
    assert len(recorded(folder)) == 1
    with pepcore.embedded(POLICIES, record=folder) as pep:
        assert pep.check(*ANN)
    assert verify(folder).findings == []


def test_a_pep_that_nobody_has_any_more_closes_its_record(folder: Path) -> None:
    pep = pepcore.embedded(POLICIES, record=folder)
    check = pep.check
    del pep
    gc.collect()
    assert check(*ANN), "its method is still used"
    del check
    gc.collect()
    until(lambda: len(recorded(folder, entries.Stop)) == 1)
    assert len(recorded(folder)) == 1

    def again() -> bool:
        with contextlib.suppress(ConfigError):
            pepcore.embedded(POLICIES, record=folder).close()
            return True
        return False

    until(again)


def test_what_a_full_disk_does_not_take_is_counted_and_the_count_is_written(
    pep: Embedded, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pep.check(*ANN)
    until(lambda: len(recorded(folder)) == 1)
    write = Disk.write

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Disk, "write", full)
    assert pep.check("User::alice", "read", "Document::2"), "as `buffered` in the daemon: it is counted, not denied"
    until(lambda: pep.unrecorded == 1)
    assert pep.stats()["unrecorded"] == 1
    told = pep.revoke(subject="User::alice")
    assert (told.durable, bool(told.why)) == (False, True)
    monkeypatch.setattr(Disk, "write", write)
    assert pep.check("User::alice", "read", "Document::3")
    pep.close()
    assert [each.resource[1] for each in recorded(folder)] == ["1", "3"]
    assert sum(each.count for each in recorded(folder, entries.Dropped)) == pep.unrecorded == 2
    assert verify(folder).findings == []


def test_an_entry_that_cannot_be_made_is_counted_and_the_next_is_written(
    pep: Embedded, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert pep._recording is not None
    with monkeypatch.context() as broken:
        broken.setattr(pep._recording, "_recorder", None)
        assert pep.check(*EVE).permit is False
        until(lambda: pep.unrecorded == 1)
    assert pep.check(*ANN)
    pep.close()
    assert [each.subject[1] for each in recorded(folder)] == ["alice"]
    assert [each.count for each in recorded(folder, entries.Dropped)] == [1]


def test_many_threads_lose_no_decision_and_no_hit(folder: Path) -> None:
    asked = 2_000
    said: list[bool] = []  # a machine that is overloaded may make one of them too late
    with pepcore.embedded(POLICIES, record=folder) as pep:

        def ask(seed: int) -> None:
            for i in range(asked):
                said.append(bool(pep.check("User::alice", "read", f"Document::{(seed * 7 + i) % 50}")))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pep.unrecorded == 0
    assert len(recorded(folder)) + sum(hits(folder).values()) == 4 * asked
    assert permits(folder) == sum(said) > 3 * asked
    assert verify(folder).findings == []


def test_a_permit_that_is_told_while_the_pep_is_closed_is_in_the_record(folder: Path) -> None:
    for _ in range(5):
        told: list[int] = []
        pep = pepcore.embedded(POLICIES, record=folder)
        before = permits(folder)

        def ask(pep: Embedded, told: list[int], seed: int) -> None:
            i = seed
            while pep.check("User::alice", "read", f"Document::{i % 400}"):
                told.append(i)
                i += 3

        threads = [threading.Thread(target=ask, args=(pep, told, n)) for n in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        pep.close()
        for thread in threads:
            thread.join()
        assert permits(folder) - before == len(told)


def test_nothing_is_permitted_between_the_last_look_at_the_table_and_the_end_of_the_record(
    pep: Embedded, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pep._recording is not None
    assert pep.check(*ANN)
    late: list[pepcore.Verdict] = []
    close = pep._recording.close
    monkeypatch.setattr(pep._recording, "close", lambda: (late.append(pep.check(*ANN)), close()))
    pep.close()
    assert [bool(verdict) for verdict in late] == [False]
    assert len(recorded(folder)) == 1


def test_each_question_is_recorded_where_a_signal_handler_asks_too(pep: Embedded, folder: Path) -> None:
    within: list[pepcore.Verdict] = []
    said: list[pepcore.Verdict] = []

    def handler(*_: Any) -> None:
        within.append(pep.check("User::alice", "read", f"Document::{len(within)}", not_after=time.time() + 60))

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.25)  # one that comes while its own thread decides is denied in 0.2 s
    try:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            said.append(pep.check("User::alice", "read", f"Document::x{len(said)}"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert within
    assert any(said)
    pep.close()
    found = recorded(folder)
    assert pep.unrecorded == 0
    assert hits(folder) == {}
    permits = [verdict.number for verdict in within + said if verdict]
    late = [each for each in found if each.permit and each.decision not in permits]
    assert len(found) == len(within) + len(said) + len(late)
    assert len(late) <= len(within), "the handler made its own thread come too late: what is kept is on record, too"
    assert set(permits) <= {each.decision for each in found}
