"""A successor that cannot serve refuses, and the daemon that it came to take over from goes on.

Promises: whatever stops the successor, the old daemon answers afterwards, keeps its record, acknowledges a revoke, and
another successor, which can serve, takes over from it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import Daemon
from test_handover import READERS, asking, succeed

import pepcore
from pepcore.core.frame import header
from pepcore.core.page import Page
from pepcore.wire import Op

DIES = """
import os
from pepcore.server.recording import Recording
Recording.open = lambda self: os.kill(os.getpid(), 9)
"""
HANGS = """
import time
import pepcore.server.handover as handover
from pepcore.server.recording import Recording
Recording.open = lambda self: time.sleep(3)
"""
STOPS = """
import os, signal
from pepcore.server.recording import Recording
def opened(self, original=Recording.open):
    original(self)
    os.kill(os.getpid(), signal.SIGSTOP)
Recording.open = opened
"""
IMPATIENT = "import pepcore.server.handover as h; h.PREPARED_S = 1.0\n"


@pytest.fixture
def port() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def journal(daemon: Daemon) -> Path:
    return daemon.folder / "run" / "pepcore.sock.state" / "journal"


def damage(daemon: Daemon) -> None:
    """Turn a bit of an entry that was on disk before a later one was written."""
    first = journal(daemon) / "0000000001.seg"
    data = bytearray(first.read_bytes())
    data[300] ^= 1
    first.write_bytes(data)


def other_is_damaged(daemon: Daemon) -> None:
    folder = daemon.folder / "elsewhere"
    folder.mkdir()
    (folder / "0000000001.seg").write_bytes(b"no journal")


def successor_of(daemon: Daemon, before: str = "") -> tuple[int, str]:
    """Start one that takes over, beside the daemon; how it ends, and what it says."""
    kept = daemon.process, daemon.before, daemon.log
    daemon.before, daemon.log = before, daemon.folder / "log of the successor"
    try:
        process = daemon.start(takeover=True)
        return process.wait(30), daemon.log.read_text()
    finally:
        daemon.process, daemon.before, daemon.log = kept


def page_of(client: pepcore.Client) -> Page:
    client.check("User::ann", "read", "Document::1")
    assert client.check("User::ann", "read", "Document::1").cached
    return client._kept.page


def goes_on(daemon: Daemon) -> None:
    """Whether the old daemon does everything that it did."""
    assert daemon.process is not None
    assert daemon.process.poll() is None
    with pepcore.connect(daemon.socket, deadline=5.0) as client:
        assert client.check("User::ann", "read", "Document::1")
        page = page_of(client)
        until = time.monotonic() + 5
        while not page.is_live(time.clock_gettime_ns(time.CLOCK_BOOTTIME)):
            assert time.monotonic() < until, "its page is believed again"
        assert client.revoke(subject="User::ann").durable
        assert not client.check("User::ann", "read", "Document::1").cached
        assert client.block("User::eve").durable
        assert not client.check("User::eve", "read", "Document::1")
        client.unblock("User::eve")


@pytest.mark.parametrize(
    ("config", "harm", "why"),
    [
        ('[observe]\nlisten = "127.0.0.1:{port}"\n', None, "cannot be bound"),
        ("", damage, "nothing is appended to it"),
        ('[record]\nfolder = "{elsewhere}"\n', other_is_damaged, "nothing is appended to it"),
        ('[record]\nfolder = "/proc/nowhere"\n', None, "cannot be opened"),
        ('[record]\nkeys = "/proc/nowhere"\n', None, "cannot be"),
    ],
    ids=["the address of its metrics is taken", "journal damaged", "another journal, damaged", "no folder", "no keys"],
)
def test_a_successor_that_cannot_serve_refuses_and_the_old_daemon_goes_on(
    serve: Callable[..., Daemon], port: int, config: str, harm: Callable[[Daemon], None] | None, why: str
) -> None:
    daemon = serve(READERS)
    with pepcore.connect(daemon.socket, deadline=5.0) as client:
        for n in range(20):
            client.check(f"User::{n}", "read", "Document::1")
        client.revoke(all=True)  # on disk, with everything before it
        if harm is not None:
            harm(daemon)
        daemon.configure(config.format(port=port, elsewhere=daemon.folder / "elsewhere"))
        ended, said = successor_of(daemon)
        assert ended == 3, "as `running.py` has it for a ConfigError"
        assert why in said
        goes_on(daemon)


def test_nobody_who_asks_meanwhile_is_denied_by_a_hand_over_that_is_given_up(
    serve: Callable[..., Daemon], port: int
) -> None:
    daemon, seen = serve(READERS), []
    daemon.configure(f'[observe]\nlisten = "127.0.0.1:{port}"\n')
    with asking(daemon, seen):
        for _ in range(2):
            time.sleep(0.3)
            assert successor_of(daemon)[0] == 3
        time.sleep(0.3)
    assert len(seen) > 100
    assert [text for right, text in seen if not right] == []


@pytest.mark.parametrize("code", [DIES, HANGS, STOPS], ids=["dies", "hangs", "is stopped with the record in its hands"])
def test_a_successor_that_goes_with_everything_in_its_hands_leaves_the_old_daemon_whole(
    serve: Callable[..., Daemon], code: str
) -> None:
    metrics = f"127.0.0.1:{free()}"
    config = f'[observe]\nlisten = "{metrics}"\n'
    daemon = serve(READERS, config, before=IMPATIENT)
    with pepcore.connect(daemon.socket, deadline=9.0) as client:
        page_of(client)
        ended, _ = successor_of(daemon, before=code)
        assert ended == -9, "what it was given is not its own: it must not serve with that"
        goes_on(daemon)
    with urllib.request.urlopen(f"http://{metrics}/readyz", timeout=5) as ready:
        assert ready.read() == b"ok\n"
    succeed(daemon)
    with pepcore.connect(daemon.socket, deadline=5.0) as client:
        assert client.check("User::ann", "read", "Document::1")
    daemon.stop()
    told = subprocess.run(
        [sys.executable, "-m", "pepcore", "audit", "verify", "--journal", str(journal(daemon))], capture_output=True
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_a_successor_that_takes_nothing_of_a_long_hand_over_is_killed(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS, before=IMPATIENT)
    with pepcore.connect(daemon.socket, deadline=5.0) as client:
        for n in range(400):  # more than a socket holds
            client.block(f"User::{n}", reason="x" * 1000)
    asks = (
        "import socket, sys, time; s = socket.socket(1); s.connect(sys.argv[1]); s.sendall(bytes.fromhex(sys.argv[2]))"
    )
    frame = header(Op.TAKEOVER, 1, 0).hex()
    with subprocess.Popen([sys.executable, "-c", f"{asks}; time.sleep(60)", f"{daemon.socket}.admin", frame]) as deaf:
        assert deaf.wait(15) == -9
    daemon.wait_for("the successor has gone: this daemon serves on")
    goes_on(daemon)


def test_the_page_of_the_old_daemon_is_not_believed_while_a_successor_has_everything(
    serve: Callable[..., Daemon],
) -> None:
    daemon = serve(READERS)
    with pepcore.connect(daemon.socket, deadline=5.0) as client:
        page = page_of(client)
        with socket.socket(socket.AF_UNIX) as successor:
            successor.settimeout(10)
            successor.connect(f"{daemon.socket}.admin")
            successor.sendall(header(Op.TAKEOVER, 1, 0))
            data, fds, _, _ = socket.recv_fds(successor, 1 << 16, 4)
            assert data[9] == Op.TAKEOVER | 0x80
            assert page.lease == 0
            for fd in fds:
                socket.close(fd)
            waiting = threading.Thread(target=goes_on, args=(daemon,))
            waiting.start()
            time.sleep(0.2)
            assert page.lease == 0
        waiting.join()
        goes_on(daemon)
