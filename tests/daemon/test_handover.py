"""Hand-over: a successor takes everything, and nobody who asks meanwhile is told anything wrong (invariant 17)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import raw

import pepcore
from pepcore.core.frame import header
from pepcore.errors import Refused

SLOW_DISK = """
import time
from pepcore.server.blockfile import BlockFile
def replace(self, data, original=BlockFile._replace):
    time.sleep(1.5)
    original(self, data)
BlockFile._replace = replace
"""
LONG_FENCE = """
from pepcore.server.administration import Administration
def init(self, service, file, fence_ns, original=Administration.__init__):
    original(self, service, file, fence_ns + 3_000_000_000)
Administration.__init__ = init
"""
NO_GRACE = """
import pepcore.server.administration
pepcore.server.administration.LONGEST_GRACE_MS = 0
"""
READERS = '@id("readers") permit(principal, action == Action::"read", resource);\n'


def succeed(daemon: Any) -> subprocess.Popen[bytes]:
    """Start a successor and wait until the predecessor has gone and it serves."""
    before = len(daemon.events("ready"))
    with daemon.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pepcore", "serve", "--config", str(daemon.config), "--takeover"], stderr=log
        )
    old, daemon.process = daemon.process, process
    assert old.wait(30) == 0
    daemon.wait_for("ready", before + 1)
    return process


@contextmanager
def asking(daemon: Any, seen: list[tuple[bool, str]]) -> Iterator[None]:
    """Threads that ask for what is permitted and what is denied until the block ends; what is wrong goes to `seen`."""
    ended = threading.Event()

    def ask(n: int) -> None:
        with pepcore.connect(daemon.socket, deadline=5.0, point=f"p{n}") as client:
            k = 0
            while not ended.is_set():
                k += 1
                permitted = client.check(f"User::{n}", "read", f"Document::{k % 300}")
                denied = client.check(f"User::{n}", "write", f"Document::{k}")
                seen.append((bool(permitted) and not denied and not denied.error, f"{permitted} {denied}"))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_hand_over_under_load_loses_no_request_and_flips_no_verdict(serve):
    daemon, seen = serve(READERS), []
    with asking(daemon, seen):
        for _ in range(2):
            time.sleep(0.3)
            succeed(daemon)
        time.sleep(0.3)
    assert len(seen) > 100
    assert [text for right, text in seen if not right] == []


def test_a_peer_that_takes_no_replies_does_not_hold_a_hand_over_up(serve):
    daemon, seen = serve(READERS), []
    with raw.Client(daemon.socket, timeout=0.5) as deaf:
        with suppress(TimeoutError):
            while True:
                deaf.send(raw.check(raw.ask("User::deaf"), 1) * 100)
        with asking(daemon, seen):
            time.sleep(0.3)
            began = time.monotonic()
            succeed(daemon)
            took = time.monotonic() - began
            time.sleep(0.2)
    assert [text for right, text in seen if not right] == []
    assert took < 4, "`daemon.drain` is 5 s"


def test_a_plain_restart_under_load_does_lose_some_and_denies_them(serve):
    """The twin: without hand-over, questions come to nobody, and are denied."""
    daemon, seen = serve(READERS), []
    with asking(daemon, seen):
        time.sleep(0.3)
        daemon.stop()
        time.sleep(0.5)
        daemon.ready()
        time.sleep(0.3)
    assert any(not right for right, _ in seen)


def test_a_successor_acknowledges_at_once_and_the_old_page_is_not_believed(serve):
    daemon = serve(READERS)
    client = pepcore.connect(daemon.socket, deadline=5.0)
    client.check("User::ann", "read", "Document::1")
    assert client.check("User::ann", "read", "Document::1").cached
    page = client._kept.page
    succeed(daemon)
    assert not page.is_live(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    assert page.lease == 0
    started = time.monotonic()
    client.revoke(subject="User::ann")
    assert time.monotonic() - started < 2.0
    assert not client.check("User::ann", "read", "Document::1").cached


@pytest.mark.parametrize(("before", "left"), [(LONG_FENCE, 3.0), ("", 0.2)], ids=["not over", "over"])
def test_what_a_predecessor_waited_for_before_it_acknowledges_its_successor_waits_for(serve, before, left):
    """A page of a daemon before it may be believed still: that it has handed over does not end that."""
    daemon = serve(READERS, before=before)
    began = time.monotonic()  # it had its lock a moment before
    succeed(daemon)
    client = pepcore.connect(daemon.socket, deadline=5.0)
    client.revoke(subject="User::ann")
    assert (time.monotonic() - began > 2.5) == (left > 2.5)


@pytest.mark.parametrize(("code", "before"), [("", True), (NO_GRACE, False)], ids=["before", "none before"])
def test_leases_of_daemons_before_both_may_be_held_after_a_hand_over_as_they_might_before(serve, code, before):
    daemon = serve(READERS, before=code)
    client = pepcore.connect(daemon.socket, deadline=5.0)
    assert client.revoke(subject="User::ann").before == before, "it has just started, and knows of none before it"
    succeed(daemon)
    assert client.revoke(subject="User::ann").before == before, "the predecessor's own are among those of the successor"


def test_a_block_that_is_on_its_way_to_the_disk_does_not_undo_one_that_the_successor_acknowledged(serve):
    daemon = serve(READERS, before=SLOW_DISK)
    told: list[Any] = []
    first = threading.Thread(
        target=lambda: told.append(pepcore.connect(daemon.socket, deadline=9.0).block("User::early"))
    )
    first.start()
    time.sleep(0.3)
    succeed(daemon)
    client = pepcore.connect(daemon.socket, deadline=5.0)
    assert client.block("User::eve").durable
    first.join()
    assert [each.durable for each in told] == [True], "a hand-over loses no request of an administrator either"
    time.sleep(1.5)  # whatever is still on its way comes to its end
    daemon.process.kill()
    daemon.process.wait()
    daemon.before = ""
    daemon.ready()
    assert client.check("User::ann", "read", "Document::1")
    assert {b["tag"] for b in client.blocks()} == {"User::early", "User::eve"}
    assert not client.check("User::eve", "read", "Document::1")


def test_leases_and_blocks_go_on_with_the_successor_and_can_be_revoked_there(serve):
    daemon = serve(READERS)
    client = pepcore.connect(daemon.socket, deadline=5.0)
    kept, gone = (client.lease(f"User::{n}", "read", "Document::1") for n in ("kept", "gone"))
    client.block("User::eve", reason="before")
    succeed(daemon)
    until = time.monotonic() + 5
    while len([each for each in client.leases() if not each["lost"]]) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert (bool(kept), bool(gone)) == (True, True)
    assert not client.check("User::eve", "read", "Document::1")
    assert client.check("User::ann", "read", "Document::1")
    client.revoke(subject="User::gone")
    assert gone.wait(2)
    assert kept


def test_a_lease_whose_holder_does_not_come_again_is_counted_until_its_grace_is_over(serve):
    daemon = serve(READERS, config='[leases]\ngrace = "2s"\n')
    client = pepcore.connect(daemon.socket, deadline=5.0)
    code = (
        "import sys, time, pepcore\nc = pepcore.connect(sys.argv[1], deadline=5.0)\n"
        "l = c.lease('User::held', 'read', 'Document::1')\nprint(bool(l), flush=True)\ntime.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(daemon.socket)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"True\n"
        os.kill(holder.pid, signal.SIGSTOP)
        succeed(daemon)
        told = client.revoke(subject="User::held")
        assert told.held == 1
        assert client.revoke(subject="User::nobody").held == 1, "he has not stopped yet, as far as we know"
        time.sleep(2.2)
        assert client.revoke(subject="User::nobody").held == 0
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("way", ["revoke", "block"])
def test_a_holder_who_has_not_stopped_before_a_hand_over_is_still_to_be_told_after_it(serve, way):
    daemon = serve(READERS, config='drain = "300ms"\n[leases]\ngrace = "2s"\n', before=NO_GRACE)
    client = pepcore.connect(daemon.socket, deadline=5.0)
    code = (
        "import sys, time, pepcore\nc = pepcore.connect(sys.argv[1], deadline=5.0)\n"
        "ls = [c.lease('User::held', 'read', f'Document::{n}') for n in range(300)]\nprint(all(ls), flush=True)\n"
        "time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(daemon.socket)], stdout=subprocess.PIPE)
    slow = client.lease("User::held", "read", "Document::1", on_end=lambda _: time.sleep(3.0))
    try:
        assert holder.stdout.readline() == b"True\n"
        os.kill(holder.pid, signal.SIGSTOP)  # what he is sent he does not read; the other one was told, and takes long
        acknowledged = getattr(client, way)(subject="User::held", reason="r" * 1000)
        assert acknowledged.held == 301
        assert slow.wait(2)
        succeed(daemon)
        told = client.untold(acknowledged)
        assert (told.held, told.before) == (301, False), "they have not stopped, as far as we know"
        assert client.untold(acknowledged._replace(revision=0)).held == 301, "revisions of two daemons say nothing"
        assert client.revoke(subject="User::nobody").held == 301
        assert client.leases() == [], "they are held no more"
        assert client.stats()["leases"] == {"held": 0, "started": 301, "ended": 301, "untold": 301}
        time.sleep(2.2)
        assert client.untold(acknowledged).held == 0, "the grace is over: they have stopped by themselves"
        assert client.stats()["leases"] == {"held": 0, "started": 301, "ended": 301, "untold": 0}
    finally:
        holder.kill()
        holder.wait()


def kept_in(daemon: Any) -> list[dict[str, Any]]:
    """The record, oldest first."""
    folder = daemon.folder / "run" / "pepcore.sock.state" / "journal"
    command = [sys.executable, "-m", "pepcore", "audit", "query", "--journal", str(folder), "--json"]
    return [json.loads(line) for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines()]


def test_leases_are_counted_once_and_every_start_on_record_has_one_end_over_hand_over_and_stop(serve):
    daemon = serve(READERS, config='[leases]\ngrace = "1s"\n')
    number = 300
    with pepcore.connect(daemon.socket, deadline=9.0) as client:
        leases = [client.lease("User::ann", "read", f"Document::{n}") for n in range(number)]
        assert all(leases)
        succeed(daemon)
        until = time.monotonic() + 10
        while (seen := client.stats()["leases"]) != {  # each is adopted, asked for again, and its first one ends
            "held": number, "started": 2 * number, "ended": number, "untold": 0
        }:  # fmt: skip
            assert 0 <= seen["held"] == seen["started"] - seen["ended"]
            assert time.monotonic() < until, seen
            time.sleep(0.05)
        client.revoke(resource="Document::1")
        assert daemon.stop() == 0
    found = kept_in(daemon)
    starts = [each["lease"] for each in found if each["kind"] == "lease-start"]
    ends = [each["lease"] for each in found if each["kind"] == "lease-end"]
    assert len(starts) == 2 * number
    assert sorted(starts) == sorted(ends)
    causes = Counter(each["cause"] for each in found if each["kind"] == "lease-end")
    assert causes == {"handed-over": number, "stopped": number - 1, "revoked": 1}


def test_the_record_goes_on_where_the_predecessor_left_it(serve):
    daemon = serve(READERS)
    client = pepcore.connect(daemon.socket, deadline=5.0)
    client.check("User::one", "read", "Document::1")
    succeed(daemon)
    client.check("User::two", "read", "Document::1")
    daemon.stop()
    kinds = [each["kind"] for each in kept_in(daemon)]
    assert kinds.count("start") == kinds.count("stop") == 2
    assert [k for k in kinds if k in ("start", "decision", "stop")] == ["start", "decision", "stop"] * 2


def test_leases_are_looked_after_beside_those_of_a_predecessor_whose_holder_does_not_come(serve):
    daemon = serve(READERS, config='[leases]\ngrace = "10s"\n')
    code = (
        "import pepcore, sys, time\nc = pepcore.connect(sys.argv[1])\nl = c.lease('User::old', 'read', 'Document::1')\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code + "print(bool(l), flush=True)\ntime.sleep(60)", str(daemon.socket)],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"True\n"
        holder.send_signal(signal.SIGSTOP)
        succeed(daemon)
        with pepcore.connect(daemon.socket, deadline=5.0) as client:
            client.block("User::zed")  # whoever is asked about is looked for among the blocks
            kept = client.lease("User::ann", "read", "Document::1")
            over = client.lease("User::ann", "read", "Document::2", not_after=time.time() + 1.5)
            gone = client.lease("User::bob", "read", "Document::1")
            assert kept
            assert over
            assert gone
            daemon.reload(READERS.replace("(principal,", '(principal == User::"ann",'))
            assert gone.wait(5)
            assert over.wait(5)
            assert kept
    finally:
        holder.kill()
        holder.wait()
    assert not daemon.events("an error was not expected")


@pytest.mark.parametrize("ends", [True, False], ids=["and then it is told to stop", "and another one comes"])
def test_a_daemon_whose_successor_goes_in_the_middle_serves_on(serve, ends: bool):
    daemon = serve(READERS, before=SLOW_DISK)
    with pepcore.connect(daemon.socket, deadline=5.0) as client:
        blocking = threading.Thread(target=client.block, args=("User::early",))
        blocking.start()  # what is on its way to the disk holds the hand-over back
        time.sleep(0.3)
        with socket.socket(socket.AF_UNIX) as successor:
            successor.connect(f"{daemon.socket}.admin")
            successor.sendall(header(14, 1, 0))
            daemon.wait_for("handing over")
        daemon.wait_for("the successor has gone: this daemon serves on")
        blocking.join()
        assert client.check("User::ann", "read", "Document::1")
        assert client.revoke(all=True).revision
    if ends:
        assert daemon.stop() == 0
    else:
        succeed(daemon)
        assert pepcore.connect(daemon.socket, deadline=5.0).check("User::ann", "read", "Document::1")


def test_takeover_without_a_predecessor_is_a_start(make):
    daemon = make(READERS)
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-m", "pepcore", "serve", "--config", str(daemon.config), "--takeover"], stderr=log
        )
    daemon.wait_for("ready")
    assert pepcore.connect(daemon.socket, deadline=5.0).check("User::ann", "read", "Document::1")


def test_a_second_daemon_without_takeover_is_refused_and_the_first_serves_on(serve):
    daemon = serve(READERS)
    told = subprocess.run(
        [sys.executable, "-m", "pepcore", "serve", "--config", str(daemon.config)], capture_output=True, text=True
    )
    assert told.returncode == 2
    assert "belongs to a running daemon" in told.stderr
    assert pepcore.connect(daemon.socket, deadline=5.0).check("User::ann", "read", "Document::1")


def test_nobody_of_another_user_takes_over(serve, other_uid):
    config = "[[peers]]\nuser = 12345\nadminister = true\n[[peers]]\nuser = 0\nadminister = true\n"
    daemon = serve(READERS, config=config)
    (daemon.folder / "run" / "pepcore.sock.admin").chmod(0o666)
    code = """
import json, socket
s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(path + ".admin")
from pepcore.core.frame import header
s.sendall(header(14, 1, 0))
print(json.dumps([s.recv(4096)[9]]))
"""
    assert other_uid(daemon, code).wait() == [0xFF]
    assert Refused.code == 4
    assert pepcore.connect(daemon.socket, deadline=5.0).check("User::ann", "read", "Document::1")
    succeed(daemon)
