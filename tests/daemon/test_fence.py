"""A daemon whose lock file somebody removes, as cleaners of /tmp do: it ends, before its successor promises anything.

Promises: each guard is seen to matter by a daemon without it (`BLIND`, `LOOKS_AWAY`), which does what must not happen.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from journal import decisions, folder
from raw import Client as Raw
from raw import Verdict, ask, check
from running import Daemon
from test_handover import succeed

import pepcore
from pepcore.audit.verify import verify
from pepcore.core.page import LEASE_NS, Page
from pepcore.errors import Fault
from pepcore.server.fence import REMOVED
from pepcore.server.hits import TAKEN

READERS = '@id("readers") @ttl("60s") permit(principal, action == Action::"read", resource);'
OFF = '[record]\nkeep = "off"\n'
QUESTION = ("User::ann", "read", "Document::1")
BLIND = """
import os as _os, pepcore.server.service as _service
from pepcore.server.renewal import Renewal as _Renewal
class _Blind:
    def __init__(self, page):
        self._renewal = _Renewal(page)
    def start(self, lock, path, tell):
        self._renewal.start(_os.open("/dev/null", _os.O_RDONLY), b"/dev/null", tell)
    def stop(self):
        self._renewal.stop()
_service.Renewal = _Blind
"""
"""The thread that renews the lease looks at another file than the lock."""
STALLED = """
import pepcore.server.service as _service
class _Stalled:
    def __init__(self, page):
        pass
    def start(self, lock, path, tell):
        pass
    def stop(self):
        pass
_service.Renewal = _Stalled
"""
"""That thread gets no time."""
LOOKS_AWAY = """
from pepcore.server.place import Place as _Place
_Place.holds = True
"""
"""Nobody looks before an answer or an acknowledgement."""
LONG_FENCE = "import pepcore.server.service as _s; _s.LEASE_NS = 500_000_000\n"


def lock_of(daemon: Daemon) -> Path:
    return daemon.socket.with_name(daemon.socket.name + ".lock")


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def kept(pep: pepcore.Client) -> Page:
    """The page of the daemon whose answer this client keeps."""
    assert pep.check(*QUESTION)
    assert pep.check(*QUESTION).cached
    return pep._kept.page


def replace(lock: Path) -> None:
    new = lock.with_name("new")
    new.touch()
    new.replace(lock)


@pytest.mark.parametrize(
    "remove",
    [
        Path.unlink,
        lambda lock: lock.rename(lock.with_name("elsewhere")),
        replace,
        lambda lock: lock.parent.rename(lock.parent.with_name("elsewhere")),
    ],
    ids=["unlinked", "renamed", "replaced", "with its folder"],
)
def test_a_daemon_whose_lock_file_is_gone_stops_within_two_leases_and_says_why(
    serve: Callable[..., Daemon], remove: Callable[[Path], None]
) -> None:
    daemon = serve(READERS)
    with pepcore.connect(daemon.socket, deadline=5.0) as pep, Raw(daemon.socket) as raw:
        page = kept(pep)
        assert raw.ask(ask(*QUESTION)).permit
        remove(lock_of(daemon))
        removed = now()
        with pytest.raises(EOFError):
            raw.read()
        assert now() - removed < 2 * LEASE_NS
        assert not page.is_live(now())
    assert daemon.process is not None
    assert daemon.process.wait(10) == 3
    assert [e["level"] for e in daemon.events(REMOVED)] == ["error"]


@pytest.mark.parametrize(
    "change",
    [
        Path.touch,
        lambda lock: lock.with_name("other").hardlink_to(lock),
        lambda lock: lock.with_name("pepcore.sock.admin").unlink(),
    ],
    ids=["touched", "linked", "another one removed"],
)
def test_a_daemon_whose_lock_file_is_in_its_place_goes_on(
    serve: Callable[..., Daemon], change: Callable[[Path], None]
) -> None:
    daemon = serve(READERS)
    with pepcore.connect(daemon.socket, deadline=5.0) as pep:
        page = kept(pep)
        change(lock_of(daemon))
        time.sleep(0.3)
        until = time.monotonic() + 5
        while not page.is_live(now()):
            assert time.monotonic() < until
        assert daemon.permits(ask(*QUESTION))


def test_a_daemon_whose_journal_has_lost_its_lock_file_ends_and_the_next_one_goes_on_with_it(
    serve: Callable[..., Daemon],
) -> None:
    daemon = serve(READERS, '[points.pay]\nrecord = "durable"\n')
    with pepcore.connect(daemon.socket, deadline=5.0, point="pay") as pay:
        first = pay.check(*QUESTION)
        assert first
        (folder(daemon) / "lock").unlink()
        assert "its lock file was removed" in pay.check(*QUESTION).error
        assert daemon.process is not None
        assert daemon.process.wait(10) == 3
    assert len(daemon.events(TAKEN)) == 1
    daemon.ready()
    with pepcore.connect(daemon.socket, deadline=5.0, point="pay") as pay:
        second = pay.check(*QUESTION)
    assert [each.decision for each in decisions(daemon, 2)] == [first.number, second.number]
    assert daemon.stop() == 0
    assert verify(folder(daemon)).findings == []


def test_a_successor_that_took_over_stops_too(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    process = succeed(daemon)
    lock_of(daemon).unlink()
    assert process.wait(10) == 3


class Beside:
    """A daemon that was stopped when its lock file went, and another one that has acknowledged a revoke since."""

    def __init__(self, make: Callable[..., Daemon], before: str, name: str = "d") -> None:
        self.old = make(READERS, OFF, before=before, name=name).ready()
        self.pep = pepcore.connect(self.old.socket, deadline=5.0)
        self.page = kept(self.pep)
        self.raw = Raw(self.old.socket)
        self.raw.ask(ask(*QUESTION))
        os.kill(self.old.pid, signal.SIGSTOP)
        lock_of(self.old).unlink()
        state = self.old.folder / "another state"  # that of the old one is locked still
        self.new = make(READERS, f'state = "{state}"\n{OFF}', name=name)
        self.new.log = self.new.folder / "log2"
        self.new.ready()
        with pepcore.connect(self.new.socket, deadline=5.0) as administrator:
            administrator.revoke(subject="User::ann")
        assert not self.page.is_live(now())
        self.raw.send(check(ask(*QUESTION), 9))

    def told(self) -> Verdict | None:
        """What the old one says, once it goes on, to what was asked after that."""
        os.kill(self.old.pid, signal.SIGCONT)
        try:
            return self.raw.answer()
        except (EOFError, OSError):
            return None

    def revives(self) -> bool:
        """Whether anybody who has the old one's page may believe it again."""
        until = time.monotonic() + 0.3
        while not (live := self.page.is_live(now())) and time.monotonic() < until:
            time.sleep(0.001)
        return live

    def both_live(self) -> bool:
        assert self.old.process is not None
        assert self.new.process is not None
        return self.old.process.poll() is None and self.new.process.poll() is None


def test_a_daemon_that_was_stopped_when_its_lock_went_answers_nothing_beside_its_successor(
    make: Callable[..., Daemon],
) -> None:
    beside = Beside(make, "")
    assert beside.told() is None
    assert not beside.revives()
    assert beside.old.process is not None
    assert beside.old.process.wait(10) == 3
    assert beside.new.permits(ask(*QUESTION)), "the one before must not have taken its socket"


def test_a_daemon_whose_thread_does_not_come_to_look_looks_before_it_answers(make: Callable[..., Daemon]) -> None:
    assert Beside(make, STALLED).told() is None
    assert isinstance(Beside(make, STALLED + LOOKS_AWAY, "twin").told(), Verdict)


def test_the_thread_is_enough_for_the_page_where_nobody_looks_before_an_answer(make: Callable[..., Daemon]) -> None:
    beside = Beside(make, LOOKS_AWAY)
    beside.told()
    assert not beside.revives()
    assert beside.old.process is not None
    assert beside.old.process.wait(10) == 3


def test_a_twin_without_both_lives_beside_its_successor_and_serves_what_was_revoked_there(
    make: Callable[..., Daemon],
) -> None:
    beside = Beside(make, BLIND + LOOKS_AWAY)
    told = beside.told()
    assert isinstance(told, Verdict)
    assert (told.permit, told.cached) == (True, True)
    assert beside.revives()
    assert beside.both_live()


@pytest.mark.parametrize("looks", [True, False])
def test_nothing_is_acknowledged_once_the_lock_is_lost(make: Callable[..., Daemon], looks: bool) -> None:
    daemon = make(READERS, OFF, before=LONG_FENCE + BLIND + ("" if looks else LOOKS_AWAY)).ready()
    with pepcore.connect(daemon.socket, deadline=5.0) as pep:
        kept(pep)
        lock_of(daemon).unlink()
        if looks:
            with pytest.raises(Fault):
                pep.revoke(subject="User::ann")
            assert daemon.process is not None
            assert daemon.process.wait(10) == 3
        else:
            assert pep.revoke(subject="User::ann").revision
