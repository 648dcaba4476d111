"""The record of a daemon: who asked what and what was told, hits by count, and permits that wait for the disk."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from journal import decisions, folder, recorded, wait
from raw import Client as Raw
from raw import ask, check
from running import Daemon

import pepcore
from pepcore import cli, metrics
from pepcore.audit import entries
from pepcore.audit.reader import read
from pepcore.audit.segments import Damaged
from pepcore.audit.verify import verify
from pepcore.errors import DeadlinePassed

READERS = '@id("readers") @ttl("60s") permit(principal, action == Action::"read", resource);'
DURABLE = '[points.pay]\nrecord = "durable"\n'
TRACE = "00-" + "11" * 16 + "-" + "22" * 8 + "-01"
FAILS = """
import os
from pepcore.audit.disk import Disk
def _sync(self, file, original=Disk.sync):
    if os.path.exists({file!r}):
        raise OSError(5, "the disk is gone")
    original(self, file)
Disk.sync = _sync
"""
FULL = """
import os
from pepcore.audit.growing import Growing
Growing.room = lambda self, length, original=Growing.room: not os.path.exists({file!r}) and original(self, length)
"""
LATE = """
import asyncio
import pepcore.server.hits as hits, pepcore.server.recording as recording
def soon(self):
    if not self._flushing:
        self._flushing = True
        asyncio.get_running_loop().call_later(0.5, self._flush)
hits.EVERY_S, recording.Recording._soon = 0.05, soon
"""


def connect(daemon: Daemon, point: str | None = None) -> pepcore.Client:
    return pepcore.connect(daemon.socket, deadline=5.0, point=point)


def test_a_decision_is_recorded_with_who_asked_what_was_told_and_why(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS, config='[record]\nplain = ["context.n"]\n')
    with connect(daemon, "shop") as pep, pepcore.traced(TRACE):
        permit = pep.check("User::ann", "read", "Doc::1", {"n": 1, "secret": "hunter2"})
        deny = pep.check("User::ann", "write", "Doc::1")
    assert permit
    assert not deny
    one, other = decisions(daemon, 2)
    assert (one.permit, one.policies, one.point, one.cached) == (True, ("readers",), "shop", False)
    assert (other.permit, other.action, other.policies) == (False, "write", ())
    assert one.subject == ("User", "ann")
    assert one.trace == other.trace == "11" * 16 + "22" * 8 + "01"
    assert one.decision == permit.number
    assert one.attributes["context"]["n"] == 1
    assert b"hunter2" not in b"".join(file.read_bytes() for file in folder(daemon).iterdir())


def test_hits_are_recorded_by_count_those_of_the_daemon_and_those_of_a_client(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    with connect(daemon) as pep:
        number = pep.check("User::ann", "read", "Doc::1").number
        for _ in range(5):
            assert pep.check("User::ann", "read", "Doc::1")
        pep.check_many([("User::ann", "read", "Doc::1")] * 3)
        found = wait(daemon, lambda found: sum(each.count for each in found) >= 8, entries.Hits)
    assert {one for each in found for one, _ in each.served} == {number}
    assert sum(each.count for each in found if each.in_process) == 5
    assert sum(each.count for each in found if not each.in_process) == 3
    assert len(decisions(daemon, 1)) == 1


def test_hits_that_clients_serve_by_themselves_are_seen_in_statistics_metrics_and_top(
    serve: Callable[..., Daemon], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = serve(READERS, config='[points.quiet]\nrecord = "off"\n')
    with connect(daemon) as pep, connect(daemon, "quiet") as quiet:
        for _ in range(1001):
            assert pep.check("User::ann", "read", "Doc::1")
            assert quiet.check("User::ann", "read", "Doc::1")
        until = time.monotonic() + 10
        while (clients := pep.stats()["clients"])["hits"] < 1000:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert clients["hits"] == 1000, "those of a point without a record are not counted"
        assert 0 < clients["per_second"] <= 1100
        assert b"pepcore_client_hits_total 1000.0" in metrics.text(pep.stats())
        ended = threading.Event()

        def ask() -> None:
            while not ended.is_set():
                for _ in range(100):
                    pep.check("User::ann", "read", "Doc::1")
                time.sleep(0.005)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            time.sleep(2.2)
            assert cli.main(["top", "--json", "--socket", str(daemon.socket)]) == 0
        finally:
            ended.set()
            asking.join()
    seen = json.loads(capsys.readouterr().out)
    rate = seen["per_second"]
    assert rate["checks"] >= rate["hits"] >= rate["by_clients"] > 1000
    assert seen["hit_ratio"] > 0.99


def test_what_administrators_do_is_recorded_and_the_whole_is_verified(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    with connect(daemon) as pep:
        with pep.lease("User::ann", "read", "Doc::1"):
            pass
        pep.revoke(subject="User::ann", reason="moved on")
        pep.block("User::bob", reason="gone")
        pep.unblock("User::bob")
    assert wait(daemon, bool, entries.Unblock)[0].tag == "User::bob"
    assert (recorded(daemon, entries.Revoke)[0].tags, recorded(daemon, entries.Block)[0].reason) == (
        ("User::ann",), "gone",
    )  # fmt: skip
    assert recorded(daemon, entries.LeaseStart)[0].lease == recorded(daemon, entries.LeaseEnd)[0].lease
    assert daemon.stop() == 0
    assert isinstance(recorded(daemon, entries.Rare)[0], entries.Start)
    assert len(recorded(daemon, entries.Stop)) == 1
    assert verify(folder(daemon)).findings == []


@pytest.mark.parametrize("many", [False, True])
def test_a_durable_point_gets_a_permit_only_once_it_is_on_disk(
    make: Callable[..., Daemon], tmp_path: Path, many: bool
) -> None:
    fails = tmp_path / "fails"
    daemon = make(READERS, DURABLE, before=FAILS.format(file=str(fails))).ready()
    question = ("User::ann", "read", "Doc::1")
    with connect(daemon, "pay") as pay, connect(daemon) as other:
        again = (lambda: pay.check_many([question])[0]) if many else (lambda: pay.check(*question))
        for _ in range(2):  # each is on disk: none comes from a cache
            told = again()
            assert (bool(told), told.cached) == (True, False)
            assert recorded(daemon)[-1].decision == told.number
        fails.touch()
        denied = again()
        assert not denied
        assert "cannot be: the disk is gone" in denied.error
        assert (other.stats()["record"]["failing"], other.stats()["ready"]) == (1, False)
        assert other.check(*question), "whose point does not wait for the disk"
        fails.unlink()
        end = time.monotonic() + 5
        while not again():
            assert time.monotonic() < end, "it never recovers"
        assert (other.stats()["record"]["failing"], other.stats()["ready"]) == (0, True)


@pytest.mark.parametrize("keep", ["buffered", "lossy"])
def test_a_record_that_cannot_be_written_is_in_the_log_once_when_it_begins_and_once_when_it_ends(
    make: Callable[..., Daemon], tmp_path: Path, keep: str
) -> None:
    fails = tmp_path / "fails"
    config = f'[points.shop]\nrecord = "{keep}"\n'
    before = FULL.format(file=str(fails)) + "import pepcore.server.hits as h; h.EVERY_S = 0.05\n"
    daemon = make(READERS, config, before=before).ready()
    begins = "the record cannot be written: what is not durable goes on, and is counted as lost"
    ends = "the record is written again"
    with connect(daemon, "shop") as pep:
        assert pep.check("User::ann", "read", "Doc::0")
        decisions(daemon, 1)
        fails.touch()
        for n in range(1, 6):
            assert pep.check("User::ann", "read", f"Doc::{n}"), "it goes on"
            said = daemon.wait_for(begins)
            time.sleep(0.1)
        assert (said["level"], said["why"]) == ("error", "the disk is full")
        assert daemon.events(ends) == []
        fails.unlink()
        assert daemon.wait_for(ends)["lost"] >= 5, "also where nobody asks any more"
    assert len(daemon.events(begins)) == len(daemon.events(ends)) == 1


def test_a_point_whose_record_is_off_is_not_recorded(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS, config='[points.quiet]\nrecord = "off"\n')
    with connect(daemon, "quiet") as quiet, connect(daemon) as other:
        assert quiet.check("User::ann", "read", "Doc::1")
        with quiet.lease("User::ann", "read", "Doc::1") as held:
            assert held
        assert other.check("User::bob", "read", "Doc::1")
    assert [each.subject for each in decisions(daemon, 1)] == [("User", "bob")]
    assert daemon.stop() == 0
    assert recorded(daemon, entries.LeaseStart | entries.LeaseEnd) == []


def test_who_ended_a_lease_is_on_record(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    with connect(daemon) as pep:
        one, other = (pep.lease("User::ann", "read", f"Doc::{n}") for n in range(2))
        pep.end_lease(one.number)
        assert one.wait(5)
        other.close()
        found = wait(daemon, lambda found: len(found) >= 2, entries.LeaseEnd)
    assert {(each.lease, each.by) for each in found} == {(one.number, os.getuid()), (other.number, -1)}
    (told,) = daemon.events("a lease was ended")
    assert (told["uid"], told["lease"]) == (os.getuid(), one.number)


def test_the_last_hits_of_a_partition_that_gave_way_to_another_are_counted(make: Callable[..., Daemon]) -> None:
    few = "import pepcore.server.peer as p; p.PARTITIONS_PER_OWNER = 2; import pepcore.server.hits as h; h.EVERY_S = 3"
    daemon = make(READERS, before=few).ready()
    question = ask("User::ann", "read", "Doc::1")
    with Raw(daemon.socket, point="a") as first:
        for number in range(4):
            first.send(check(question, number))
            assert first.read().body[0] == 1
    for point in ("b", "c", "d"):  # each of them lets go of the one before the last
        with Raw(daemon.socket, point=point) as other:
            other.send(check(question, 1))
            assert other.read().body[0] == 1
    assert [(each.point, each.count) for each in wait(daemon, bool, entries.Hits)] == [("a", 3)]


def test_the_journal_stays_below_what_the_config_says(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS, config='[record]\nplain = ["context.*"]\nretain_mib = 8\n')
    with connect(daemon) as pep:
        for n in range(1300):
            assert pep.check("User::ann", "read", f"Doc::{n}", {f"k{i}": "x" * 1000 for i in range(12)})
    assert wait(daemon, bool, entries.Retired)[0].segment == 1
    assert daemon.stop() == 0
    segments = sorted(folder(daemon).glob("*.seg"))
    assert segments[0].name != "0000000001.seg"
    assert sum(each.stat().st_size for each in segments) <= 13 << 20
    assert verify(folder(daemon)).findings == []


def before_the_damage(journal: Path) -> Iterator[object]:
    try:
        yield from read(journal)
    except Damaged:
        return
    raise AssertionError("it is not damaged")


def test_a_damaged_record_is_not_appended_to_and_says_where_it_is_damaged(make: Callable[..., Daemon]) -> None:
    daemon = make(READERS).ready()
    with connect(daemon) as pep:
        for n in range(100):
            assert pep.check("User::ann", "read", f"Doc::{n}")
    assert daemon.stop() == 0
    segment = folder(daemon) / "0000000001.seg"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    damaged = segment.read_bytes()
    assert daemon.start().wait(10) == 3
    said = daemon.log.read_text().splitlines()[-1]
    daemon.log.unlink()
    where = re.search(rf"journal `{segment}` at byte ([0-9]+): the checksum is wrong", said)
    assert where is not None, said
    assert 8000 < int(where[1]) <= 9000
    assert "Move the folder away, and a new record begins" in said
    assert segment.read_bytes() == damaged
    assert 10 < sum(1 for _ in before_the_damage(folder(daemon))) < 100
    folder(daemon).rename(folder(daemon).with_name("kept"))
    daemon.ready()
    with connect(daemon) as pep:
        assert pep.check("User::ann", "read", "Doc::1")


@pytest.mark.parametrize("named", ["socket", "config"])
def test_the_record_is_found_by_what_its_daemon_was_started_with(
    serve: Callable[..., Daemon], capfd: pytest.CaptureFixture[str], named: str
) -> None:
    daemon = serve(READERS)
    with connect(daemon) as pep:
        assert pep.check("User::ann", "read", "Doc::1")
    decisions(daemon, 1)
    path = str(daemon.socket if named == "socket" else daemon.config)
    assert cli.main(["audit", "query", "--kind", "decision", f"--{named}", path]) == 0
    assert "User::ann read Doc::1" in capfd.readouterr().out
    assert cli.main(["replay", "--policies", str(daemon.policies), f"--{named}", path]) == 0
    assert "0 of 1 decisions change" in capfd.readouterr().out


def test_hits_name_a_decision_on_record_whoever_asked_first(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    with connect(daemon) as pep:
        first = pep.check_many([("User::ann", "read", "Doc::1")])[0]
        again = pep.check_many([("User::ann", "read", "Doc::1")])[0]
        assert (first.cached, again.cached) == (False, True)
    (hits,) = wait(daemon, bool, entries.Hits)
    assert [each.decision for each in decisions(daemon, 1)] == [hits.served[0][0]] == [again.number]


def test_hits_stand_behind_the_decisions_that_they_were_served_from(make: Callable[..., Daemon]) -> None:
    daemon = make(READERS, before=LATE).ready()
    questions = [("User::ann", "read", f"Doc::{n}") for n in range(50)]
    with connect(daemon) as pep:
        for _ in range(3):
            assert all(pep.check_many(questions))
        for _ in range(5):
            assert pep.check("User::ann", "read", "Doc::x")
        wait(daemon, lambda found: sum(each.count for each in found) >= 104, entries.Hits)
    assert daemon.stop() == 0
    found = recorded(daemon, entries.Hits)
    assert {each.in_process for each in found} == {True, False}
    decided: set[int] = set()
    for each in recorded(daemon, entries.Hits | entries.Decision):
        if isinstance(each, entries.Decision):
            decided.add(each.decision)
        else:
            assert {number for number, _ in each.served} <= decided
    assert len(decided) == 51


def test_an_answer_that_came_too_late_for_who_asked_is_on_record_where_others_are_served_by_it(
    make: Callable[..., Daemon],
) -> None:
    daemon = make(READERS, before="import pepcore.server.misses as m; m.SMALL = -1").ready()
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    with connect(daemon) as pep, Raw(daemon.socket) as raw:
        late = raw.ask(ask("User::ann", "read", "Doc::1"), deadline_us=50_000)
        assert (late.permit, late.fault) == (False, DeadlinePassed.code)
        os.kill(worker, signal.SIGCONT)
        end = time.monotonic() + 5
        while not daemon.client().stats()["cache"]["entries"]:
            assert time.monotonic() < end, "it is kept for those who come"
        (kept,) = pep.check_many([("User::ann", "read", "Doc::1")])
        assert kept.cached
    (hits,) = wait(daemon, bool, entries.Hits)
    assert hits.served == ((kept.number, 1),)
    assert sorted((each.permit, each.fault) for each in decisions(daemon, 2)) == [(False, "deadline"), (True, "")]
    assert [each.decision for each in decisions(daemon, 2) if each.permit] == [kept.number]


def test_a_value_that_the_engine_quotes_in_its_error_is_not_recorded(serve: Callable[..., Daemon]) -> None:
    wrong = '@id("wrong") forbid(principal, action, resource) when { decimal(context.n).lessThan(decimal("1.0")) };'
    daemon = serve(READERS + wrong, config='[points.trial]\nmode = "shadow"\n')
    told = []
    for point in ("shop", "trial"):
        with connect(daemon, point) as pep:
            told.append(pep.check("User::ann", "read", "Doc::1", {"n": "hunter2"}))
            assert pep.check("User::ann", "read", "Doc::1", {"n": "2.0"})
    assert "hunter2" in told[0].error, "whoever asked brought it"
    failed = [each for each in decisions(daemon, 4) if each.fault]
    why = "pdp: policy `wrong` (forbid) failed: error while evaluating `decimal` extension function"
    assert [(each.point, each.permit, each.reason) for each in failed] == [("shop", False, why), ("trial", False, why)]
    assert daemon.stop() == 0
    assert b"hunter2" not in b"".join(file.read_bytes() for file in folder(daemon).iterdir())
    assert "hunter2" not in daemon.log.read_text()


def test_very_many_hits_are_all_recorded_and_nobody_waits_for_that(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    questions = [("User::ann", "read", f"Doc::{n}") for n in range(20_000)]
    with connect(daemon) as pep:
        for _ in range(3):
            for at in range(0, len(questions), 100):
                assert all(pep.check_many(questions[at : at + 100]))
        asked = decisions(daemon, len(questions))
        cached = 3 * len(questions) - len(asked)
        found = wait(daemon, lambda found: sum(each.count for each in found) >= cached, entries.Hits)
        assert sum(each.count for each in found) == cached
        assert {one for each in found for one, _ in each.served} <= {each.decision for each in asked}
        assert sum(count for each in found for _, count in each.served) == cached
        assert len(found) < len(asked) / 50
        assert pep.stats()["record"]["lost"] == 0
