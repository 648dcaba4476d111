"""Journals for the tests: made quickly in memory-backed folders, with several segments and heads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pepcore.audit import entries
from pepcore.audit.disk import Disk
from pepcore.audit.frames import HEAD, frames
from pepcore.audit.heads import Head, heads
from pepcore.audit.reader import Recorded, read
from pepcore.audit.segments import held, numbers, path_of
from pepcore.audit.writer import Keep, Plan, Writer


def decision(number: int, permit: bool = True, **more: Any) -> entries.Decision:
    members = {"subject": ("User", f"u{number}"), "action": "read", "resource": ("Document", "roadmap")} | more
    return entries.Decision(**entries.times(), permit=permit, decision=number, **members)


class Answer:
    """What `done` was called with."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.index, self.error, self.calls = -2, None, 0

    def __call__(self, index: int, error: OSError | None) -> None:
        self.index, self.error = index, error
        self.calls += 1
        self._event.set()

    def wait(self, seconds: float = 5.0) -> Answer:
        assert self._event.wait(seconds), "the callback did not come"
        return self


@contextlib.contextmanager
def writer(folder: Path, disk: Disk | None = None, **plan: Any) -> Iterator[Writer]:
    one = Writer(folder, Plan(**plan), disk=disk)
    try:
        yield one
    finally:
        one.close()


def durable(one: Writer, *which: entries.Entry) -> list[Answer]:
    """Append these in one go, and wait for the last."""
    answers = [Answer() for _ in which]
    for entry, answer in zip(which, answers, strict=True):
        assert one.append(entry, Keep.durable, answer)
    for answer in answers:
        answer.wait()
    return answers


def make(folder: Path, batches: int = 13, of: int = 7, **plan: Any) -> Head:
    """A journal of several segments and heads, closed. Return its last head, to be kept elsewhere."""
    settings = {"segment": 2000, "heads_s": 0.0, "key": folder.parent / "keys" / "heads.key"} | plan
    with writer(folder, **settings) as one:
        for batch in range(batches):
            durable(one, *(decision(batch * of + i) for i in range(of)))
        durable(one, decision(batches * of))
    return heads(folder).read()[0][-1][1]


def decisions(folder: Path) -> list[int]:
    """The numbers of the decisions that are in the record, in its order."""
    return [each.entry.decision for each in read(folder) if isinstance(each.entry, entries.Decision)]


def of_kind(folder: Path, kind: type[entries.Entry]) -> list[Recorded]:
    return [each for each in read(folder) if isinstance(each.entry, kind)]


def last_segment(folder: Path) -> Path:
    return path_of(folder, numbers(folder)[-1])


def places(path: Path) -> list[tuple[int, int]]:
    """Where each entry of a segment begins and ends."""
    return list(frames(path.read_bytes(), held(path, int(path.stem)).start))


def bodies(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[start + HEAD : stop] for start, stop in places(path)]
