"""What a client answers by itself is on record to the last one, however the daemon or its part of it ends.

Promises: a busy client counts what it was permitted, the record says the same: over a stop, a hand-over, a reload that
changes the peers and turns everybody away.
Never: asks for what a kill -9 loses, which is what was served since the last harvest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Daemon
from test_handover import READERS, succeed

from pepcore.audit import entries
from pepcore.audit.reader import read

BUSY = """
import sys, time, pepcore
client = pepcore.connect(sys.argv[1], deadline=5.0)
permits, ends = 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < ends:
    for _ in range(1000):
        permits += bool(client.check("User::ann", "read", "Document::1"))
print(permits, flush=True)
sys.stdin.read()
"""
PEERS = f"[[peers]]\nuser = {os.getuid()}\nadminister = true\n"
SLOW = """
import time
from pepcore.server.connection import Connection
def drop(self, original=Connection.drop):
    original(self)
    time.sleep(0.02)  # its client does not know yet, and goes on
Connection.drop = drop
"""
RACE = 2
"""Hits of a thread that had read the lease before it was taken back, and counted after the last harvest."""


def on_record(journal: Path) -> int:
    """Permits in a record."""
    total = 0
    for one in read(journal):
        if isinstance(one.entry, entries.Decision):
            total += one.entry.permit
        elif isinstance(one.entry, entries.Hits):
            total += one.entry.count
        assert not isinstance(one.entry, entries.Dropped), one.entry
    return total


def stop(daemon: Daemon) -> None:
    daemon.stop()


def reload_peers(daemon: Daemon) -> None:
    daemon.configure(f'{PEERS}subjects = ["*"]\nshare = "x"\n')
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("reloaded")


@pytest.mark.parametrize("change", [stop, succeed, reload_peers], ids=["stop", "hand-over", "reload"])
def test_every_hit_of_a_busy_client_is_on_record(
    serve: Callable[..., Daemon], change: Callable[[Daemon], object]
) -> None:
    daemon = serve(READERS, PEERS, before=SLOW)
    journal = daemon.folder / "run" / "pepcore.sock.state" / "journal"
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(daemon.socket), "1.5"],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    ) as client:
        time.sleep(0.7)
        change(daemon)
        assert client.stdout is not None
        permits = int(client.stdout.readline())
        client.stdin.close()
    if daemon.process.poll() is None:
        daemon.stop()
    assert permits > 10_000
    assert 0 <= permits - on_record(journal) <= RACE
