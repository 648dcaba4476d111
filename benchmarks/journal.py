"""Entries a second that the record takes: buffered, and durable with so many waiting at once.

Promises: the same entry everywhere, made by the recorder with two digested attributes, as a daemon makes it; durable
ones are counted when their callback comes, which is after the sync; the disk is that of the run's folder, and what one
sync of it takes stands beside the figures. Rounds alternate.
Never: a figure of the daemon; `hits` and `misses` measure that, with recording on. PEPCORE_JOURNAL_DISK names a
folder of another disk.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

from pepcore.audit import entries
from pepcore.audit.digest import Recorder
from pepcore.audit.writer import Keep, Plan, Writer
from pepcore.model import Action, Entity, Question

from .plan import Run
from .results import Table, span
from .rounds import spread

ENTRIES = 20_000
AT_ONCE = (1, 64, 1024)
QUESTION = Question(
    Entity("User", "alice", {"department": "sales"}), Action("read"), Entity("Document", "roadmap"), {"ip": "10.0.0.1"}
)


def entry(recorder: Recorder) -> entries.Decision:
    return recorder.decision(
        QUESTION, **entries.times(), uid=1000, gid=1000, point="gate", permit=True, policies=("readers",), boot=1,
        revision=7, latency_us=90, decision=42,
    )  # fmt: skip


def making() -> float:
    """Microseconds to make one entry and pack it, on the caller's thread."""
    recorder = Recorder(b"k" * 32)
    began = time.perf_counter()
    for _ in range(ENTRIES):
        entries.pack(entry(recorder))
    return (time.perf_counter() - began) / ENTRIES * 1e6


def buffered(folder: Path) -> float:
    """Entries a second until all of them are written and synced."""
    one = Writer(folder, Plan(queue=ENTRIES))
    made = entry(Recorder(b"k" * 32))
    began = time.perf_counter()
    for _ in range(ENTRIES):
        assert one.append(made, Keep.buffered)
    handed = time.perf_counter() - began
    assert one.close(60)
    assert handed < time.perf_counter() - began
    return ENTRIES / (time.perf_counter() - began)


def durable(folder: Path, at_once: int) -> float:
    """Acknowledged entries a second with so many waiting at any time."""
    count = min(ENTRIES, 300 * at_once)
    room, ended = threading.Semaphore(at_once), threading.Event()
    failed: list[OSError] = []
    left = [count]

    def done(index: int, error: OSError | None) -> None:
        if error is not None:
            failed.append(error)
        left[0] -= 1
        room.release()
        if not left[0]:
            ended.set()

    one = Writer(folder, Plan(deadline_s=60))
    made = entry(Recorder(b"k" * 32))
    began = time.perf_counter()
    for _ in range(count):
        room.acquire()
        assert one.append(made, Keep.durable, done)
    assert ended.wait(60)
    took = time.perf_counter() - began
    one.close()
    assert not failed
    return count / took


def one_sync(folder: Path) -> float:
    """Milliseconds to append 300 bytes and sync them, without any of ours."""
    folder.mkdir()
    file = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    took = []
    for _ in range(100):
        began = time.perf_counter()
        os.write(file, b"x" * 300)
        os.fdatasync(file)
        took.append((time.perf_counter() - began) * 1000)
    os.close(file)
    return sorted(took)[50]


def journal(run: Run) -> None:
    """The writer alone, on the disk of the run's folder."""
    run.bar.step("journal", 2 * run.plan.rounds)
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="pepcore-journal-", dir=os.environ.get("PEPCORE_JOURNAL_DISK")) as made:
        folder = Path(made)
        for i in range(run.plan.rounds):
            figures.setdefault("make one entry, us", []).append(making())
            figures.setdefault("buffered, entries/s", []).append(buffered(folder / f"b{i}"))
            for at_once in AT_ONCE:
                name = f"durable, {at_once:,} at once, entries/s"
                figures.setdefault(name, []).append(durable(folder / f"d{at_once}-{i}", at_once))
            figures.setdefault("one write and sync of 300 bytes, ms", []).append(one_sync(folder / f"s{i}"))
    rows = [[name, span(spread(found))] for name, found in figures.items()]
    run.found.tables.append(Table("The record: entries that one writer takes", ["what", "measured"], rows))
