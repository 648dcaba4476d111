"""The real daemon while the C library's calls fail (libfiu), and what is on its disk afterwards.

Promises: the daemon that is tested is the product's, under `fiu-run`, and what fails is told to it while it runs
(`fiu-ctrl`); each permit that a durable point was given is looked for on the disk as a power cut would leave it; three
twins, each without one guard, are found out by the same look.
Left out: `write` and `read`, which libuv and the sockets use, and which the journal does not.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journal import folder
from powercut import keeps, restore
from running import Daemon

import pepcore
from pepcore.audit import entries
from pepcore.audit.reader import read
from pepcore.audit.verify import verify
from pepcore.audit.writer import Writer
from pepcore.errors import Fault

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("fiu-run") is None, reason="missing program: fiu-run (Debian: fiu-utils)"),
]
READERS = '@id("readers") @ttl("60s") permit(principal, action == Action::"read", resource);'
DURABLE = '[points.pay]\nrecord = "durable"\n[record]\nheads = "1s"\n'
WHY = "this point's permits must be on record first, and cannot be: "
CLIENTS = 3
EIO = ",failinfo=5"
FAULTS = {
    "write": f"enable_random name=posix/io/rw/pwrite,probability=0.2{EIO}",
    "short write": "enable_random name=posix/io/rw/pwrite/reduce,probability=0.5",
    "sync": f"enable_random name=posix/io/sync/fdatasync,probability=0.2{EIO}",
    "sync of a folder": f"enable_random name=posix/io/sync/fsync,probability=0.3{EIO}",
    "open": "enable_random name=posix/io/oc/open,probability=0.1",
    "rename": "enable_random name=posix/io/dir/rename,probability=0.3",
    "remove": "enable_random name=posix/io/dir/unlink,probability=0.3",
    "cut": "enable_random name=posix/io/rw/ftruncate,probability=0.3",
}
SYNC_IS_DONE = """
from pepcore.audit.growing import Growing as _G
def _done(self, original=_G.sync):
    try:
        original(self)
    except OSError:
        pass
_G.sync = _done
"""
SYNC_AGAIN = """
from pepcore.audit.commit import Commit as _C
_C._give_up = lambda self, error: None
"""
WRITE_IS_DONE = """
from pepcore.audit.growing import Growing as _G
def _done(self, frames, original=_G.write):
    try:
        original(self, frames)
    except OSError:
        self.end += sum(map(len, frames))
_G.write = _done
"""


class Faulty:
    """A daemon under libfiu, those who ask it, and what they were told."""

    def __init__(self, make: Callable[..., Daemon], tmp_path: Path, before: str = "") -> None:
        self._control, self._kept = tmp_path / "control", tmp_path / "kept"
        self._image = tmp_path / "image"
        self.daemon = make(READERS, DURABLE, before=before + keeps(self._kept))
        self.daemon.under = ["fiu-run", "-x", "-f", str(self._control)]
        self.daemon.ready()
        self.permits: set[int] = set()
        self.blocks: set[str] = set()
        self.denies: list[str] = []
        self.longest = 0.0
        self.killed = False
        with self.asking():
            time.sleep(0.5)  # what is imported late is imported now: that a module cannot be opened is another story
        assert not self.denies, self.denies[:3]

    def control(self, *commands: str) -> None:
        words = [word for command in commands for word in ("-c", command)]
        subprocess.run(["fiu-ctrl", "-f", str(self._control), *words, str(self.daemon.pid)], check=True, timeout=10)

    @contextmanager
    def failing(self, *faults: str) -> Iterator[None]:
        """Let these calls fail at random, until the block ends."""
        self.control(*(FAULTS[fault] for fault in faults))
        yield
        names = [FAULTS[fault].split("name=")[1].split(",")[0] for fault in faults]
        self.control(*(f"disable name={name}" for name in names))

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Clients that want permits which must be on record, and an administrator who blocks, until the block ends.

        They are connected when it begins: a hello needs memory of its own, and is refused without.
        """
        ended, connected = threading.Event(), threading.Barrier(CLIENTS + 2)
        failed: list[BaseException] = []

        def client(n: int) -> None:
            with pepcore.connect(self.daemon.socket, deadline=10.0, point="pay") as pep:
                k = len(self.permits) + len(self.denies)
                pep.check("User::nobody", "write", "Document::1")
                connected.wait(10)
                while not ended.is_set():
                    k += 1
                    began = time.monotonic()
                    told = pep.check(f"User::u{n}", "read", f"Document::{k}")
                    self.longest = max(self.longest, time.monotonic() - began)
                    if told:
                        self.permits.add(told.number)
                    else:
                        self.denies.append(told.error or told.reason)

        def administrator() -> None:
            with pepcore.connect(self.daemon.socket, deadline=10.0) as pep:
                pep.leases()
                connected.wait(10)
                while not ended.is_set():
                    name = f"User::b{time.monotonic_ns()}"
                    try:
                        if pep.block(name, reason="test").durable:
                            self.blocks.add(name)
                    except Fault:
                        if not self.killed:
                            raise
                        return
                    ended.wait(0.05)

        def run(work: Callable[..., None], *of: int) -> None:
            try:
                work(*of)
            except BaseException as error:
                failed.append(error)

        works = [threading.Thread(target=run, args=(client, n)) for n in range(CLIENTS)]
        works.append(threading.Thread(target=run, args=(administrator,)))
        for work in works:
            work.start()
        try:
            connected.wait(10)
            yield
        finally:
            ended.set()
            for work in works:
                work.join()
        assert not failed, failed

    def recovers(self) -> bool:
        """Whether permits are given again, soon after nothing fails any more."""
        until = time.monotonic() + 5
        with pepcore.connect(self.daemon.socket, deadline=10.0, point="pay") as pep:
            row = 0
            while row < 20 and time.monotonic() < until:
                told = pep.check("User::again", "read", f"Document::{time.monotonic_ns()}")
                row = row + 1 if told else 0
                if told:
                    self.permits.add(told.number)
        return row == 20

    def cut(self) -> None:
        """The power goes."""
        self.killed = True
        os.kill(self.daemon.pid, signal.SIGKILL)
        assert self.daemon.process is not None
        self.daemon.process.wait()

    def wrong(self) -> list[str]:
        """What is wrong on the disk, once the power went; in the files, too, where it was only the process that did."""
        found = []
        for name, journal in (("file", folder(self.daemon)), ("disk", self.image())):
            try:
                Writer(journal).close()
                said = [each.entry for each in read(journal)]
            except Exception as error:
                found.append(f"{name}: {error}")
                continue
            found += [f"{name}: {finding}" for finding in verify(journal).findings]
            permitted = {e.decision for e in said if isinstance(e, entries.Decision) and e.permit}
            blocked = {e.tag for e in said if isinstance(e, entries.Block)}
            if lost := self.permits - permitted:
                found.append(f"{name}: {len(lost)} of {len(self.permits)} permits are not on record")
            if gone := self.blocks - blocked:
                found.append(f"{name}: {len(gone)} of {len(self.blocks)} blocks are not on record")
        return found

    def image(self) -> Path:
        return restore(self._kept, folder(self.daemon), self._image)


@pytest.mark.parametrize(
    "faults",
    [
        ("write", "short write"),
        ("sync",),
        ("sync", "sync of a folder", "rename", "remove"),
        ("open", "sync"),
        ("write", "sync", "cut"),
        tuple(FAULTS),
    ],
    ids=" and ".join,
)
def test_no_permit_of_a_durable_point_is_lost_while_calls_fail_and_the_daemon_comes_back(
    make: Callable[..., Daemon], tmp_path: Path, faults: tuple[str, ...]
) -> None:
    one = Faulty(make, tmp_path)
    for _ in range(2):
        fine = len(one.permits)
        with one.asking(), one.failing(*faults):
            time.sleep(1.5)
        assert len(one.permits) > fine
        assert one.recovers(), one.daemon.log.read_text()[-2000:]
    assert one.denies, "nothing has failed"
    assert [why for why in one.denies if WHY not in why] == []
    assert one.blocks
    assert one.longest < 2.0
    with one.asking():
        one.control(*(FAULTS[fault] for fault in faults))
        time.sleep(0.5)
        one.cut()
    assert one.wrong() == []


@pytest.mark.parametrize(
    ("guard", "faults", "shows"),
    [
        (SYNC_IS_DONE, ("sync",), "disk: "),
        (SYNC_AGAIN, ("sync",), "disk: "),
        (WRITE_IS_DONE, ("write",), "file: "),
    ],
    ids=["a sync that failed counts as one", "a sync that failed is asked again", "a write that failed counts as one"],
)
def test_a_twin_without_a_guard_is_found_to_have_lost_permits(
    make: Callable[..., Daemon], tmp_path: Path, guard: str, faults: tuple[str, ...], shows: str
) -> None:
    one = Faulty(make, tmp_path, guard)
    with one.asking():
        one.control(*(FAULTS[fault] for fault in faults))
        time.sleep(1.5)
        one.cut()
    found = one.wrong()
    assert [each for each in found if each.startswith(shows)], found
