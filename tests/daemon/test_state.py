"""What outlives a daemon: its blocks, through hand-overs, disks that take nothing for a while, and a second daemon."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Daemon
from test_handover import READERS, succeed
from test_handover_refused import successor_of

import pepcore
from pepcore.blocks import Block, Blocks, written
from pepcore.errors import NotAvailable

BROKEN_ENCODER = """
from pepcore.server import blockfile
def written(blocks):
    raise RuntimeError("something else went wrong")
blockfile.written = written
"""
ONE = {"tag": "User::one", "reason": "", "since": 1, "until": 0, "by": "uid 0"}


def sealed(blocks: str) -> str:
    """A list as it is kept on disk, whatever it says."""
    head = f'{{"version":1,"blocks":{blocks}'
    return f'{head},"sha256":"{hashlib.sha256(head.encode()).hexdigest()}"}}'


def state(daemon: Daemon) -> Path:
    return daemon.folder / "run" / "pepcore.sock.state"


def connect(daemon: Daemon) -> pepcore.Client:
    return pepcore.connect(daemon.socket, deadline=9.0)


def tags(file: Path) -> set[str]:
    return {block["tag"] for block in json.loads(file.read_text())["blocks"]}


def configure(daemon: Daemon, folder: Path) -> None:
    daemon.configure()
    daemon.config.write_text(daemon.config.read_text() + f'state = "{folder}"\n')


def kill(daemon: Daemon) -> None:
    assert daemon.process is not None
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.process.wait()


def fill(daemon: Daemon) -> Path:
    """Let no list be written until what is returned is removed."""
    stands = state(daemon) / "blocks.json.new" / "x"
    stands.mkdir(parents=True)
    return stands


def make_room(stands: Path) -> None:
    stands.rmdir()
    stands.parent.rmdir()


def test_blocks_go_on_in_another_state_folder_beside_those_that_are_kept_there(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    elsewhere = daemon.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "blocks.json").write_text(sealed(json.dumps([ONE])))
    with connect(daemon) as client:
        client.block("User::evil", reason="stolen")
        configure(daemon, elsewhere)
        succeed(daemon)
        assert not client.check("User::evil", "read", "Document::1")
        assert not client.check("User::one", "read", "Document::1")
        assert client.check("User::ann", "read", "Document::1")
        assert tags(elsewhere / "blocks.json") == {"User::evil", "User::one"}, "also after kill -9"
        assert {b["reason"] for b in client.blocks()} == {"", "stolen"}


def test_a_list_that_cannot_be_read_in_the_folder_of_a_successor_does_not_end_service(
    serve: Callable[..., Daemon],
) -> None:
    daemon = serve(READERS)
    elsewhere = daemon.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "blocks.json").write_text("{")
    configure(daemon, elsewhere)
    ended, said = successor_of(daemon)
    assert ended == 3
    assert "blocks.json" in said
    with connect(daemon) as client:
        assert client.check("User::ann", "read", "Document::1")


def test_a_block_that_could_not_be_written_is_on_disk_once_there_is_room(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    stands = fill(daemon)
    with connect(daemon) as client:
        told = client.block("User::evil")
        assert (told.durable, bool(told.why)) == (False, True)
        assert not client.check("User::evil", "read", "Document::1")
        time.sleep(1.5)
        make_room(stands)
        daemon.wait_for("the list of blocks is on disk again")
        kill(daemon)
        daemon.ready()
        assert not client.check("User::evil", "read", "Document::1")


def test_what_could_not_be_written_is_in_force_with_a_successor_which_writes_it(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    with connect(daemon) as client:
        client.block("User::early")
        stands = fill(daemon)
        assert not client.block("User::evil").durable
        assert not client.unblock("User::early").durable
        for _ in range(2):
            succeed(daemon)
            assert not client.check("User::evil", "read", "Document::1")
            assert client.check("User::early", "read", "Document::1"), "its lift was acknowledged"
        make_room(stands)
        daemon.wait_for("the list of blocks is on disk again")
        assert tags(state(daemon) / "blocks.json") == {"User::evil"}


def test_one_daemon_at_a_time_has_a_state_folder(serve: Callable[..., Daemon], make: Callable[..., Daemon]) -> None:
    daemon = serve(READERS, '[record]\nkeep = "off"\n')
    second = [sys.executable, "-m", "pepcore", "serve", "--config", str(daemon.folder / "second.toml")]
    (daemon.folder / "second.toml").write_text(
        f'[policies]\npolicies = "{daemon.policies}"\n[record]\nkeep = "off"\n[daemon]\nworkers = 1\n'
        f'socket = "{daemon.folder / "second" / "s.sock"}"\nstate = "{state(daemon)}"\n'
    )
    for _ in range(2):
        told = subprocess.run(second, capture_output=True, text=True, timeout=30)
        assert told.returncode == 2
        assert "belongs to a running daemon: stop it, or give each its own with `daemon.state`" in told.stderr
        succeed(daemon)
    kill(daemon)
    daemon.ready()
    with connect(daemon) as client:
        assert client.block("User::evil").durable
    for file in state(daemon).iterdir():
        file.unlink()
    state(daemon).rmdir()
    with connect(daemon) as client:
        assert client.block("User::other").durable, "a folder that was removed is made again"
    assert tags(state(daemon) / "blocks.json") == {"User::evil", "User::other"}
    assert subprocess.run(second, capture_output=True, timeout=30).returncode == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (sealed('[],"blocks":[]'), "names a member twice"),
        (sealed(json.dumps([ONE]).replace('"since"', '"tag": "User::two", "since"')), "names a member twice"),
        (sealed(json.dumps([ONE, ONE])), "blocks a tag twice"),
        (sealed(json.dumps([ONE | {"tag": "User::\ud800"}])), "block.tag: has a lone surrogate"),
        (sealed(json.dumps([ONE | {"reason": "\ud800"}])), "block.reason: has a lone surrogate"),
        (sealed(json.dumps([ONE | {"by": "\ud800"}])), "block.by: has a lone surrogate"),
        (sealed(json.dumps([ONE | {"until": 99999999999999999999}])), "not a time in Unix milliseconds"),
        (sealed(json.dumps([ONE | {"since": -1}])), "not a time in Unix milliseconds"),
        (sealed(json.dumps([ONE | {"tag": "User:one"}])), "is not a subject"),
        (sealed(json.dumps([ONE | {"reason": "r" * 1025}])), "more than 1024"),
        (sealed(json.dumps([ONE])).replace("::one", "::onf"), "not what was written"),
        (sealed(json.dumps([ONE])).replace('"until": 0', '"until": 1'), "not what was written"),
        (json.dumps({"version": 1, "blocks": [ONE]}), "not what was written"),
    ],
    ids=lambda each: "" if each.startswith("{") else each,
)
def test_a_list_that_nobody_can_have_written_is_damaged_and_denies_everything_also_with_a_successor(
    serve: Callable[..., Daemon], text: str, why: str
) -> None:
    daemon = serve(READERS)
    daemon.stop()
    (state(daemon) / "blocks.json").write_text(text)
    daemon.ready()
    with connect(daemon) as client:
        reason = client.check("User::ann", "read", "Document::1").reason
        assert "the list of blocks cannot be read" in reason
        assert why in reason
        for call in (client.blocks, lambda: client.block("User::two")):
            with pytest.raises(NotAvailable, match="everything is denied"):
                call()
        succeed(daemon)
        assert "the list of blocks cannot be read" in client.check("User::ann", "read", "Document::1").reason
    assert (state(daemon) / "blocks.json").read_text() == text


def test_a_list_of_which_any_byte_changed_is_not_read() -> None:
    blocks = Blocks()
    kept = b"".join(written([Block(**ONE), Block("User::two", "\u00e4", 2, 3, "uid 7")]))
    blocks.read(kept)
    assert [block.tag for block in blocks] == ["User::one", "User::two"]
    for at in range(len(kept)):
        for flipped in (1, 2, 16, 32, 128):
            with pytest.raises(ValueError, match="not what was written"):
                blocks.read(kept[:at] + bytes([kept[at] ^ flipped]) + kept[at + 1 :])
        with pytest.raises(ValueError, match="not what was written"):
            blocks.read(kept[:at])
    assert [block.tag for block in blocks] == ["User::one", "User::two"], "what is in force stays"


def test_a_block_that_cannot_be_written_for_any_cause_is_acknowledged_and_says_so(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS, before=BROKEN_ENCODER)
    with connect(daemon) as client:
        told = client.block("User::evil")
        assert (told.durable, told.why) == (False, "something else went wrong")
        assert not client.check("User::evil", "read", "Document::1")
        assert [each["tag"] for each in client.blocks()] == ["User::evil"]


def test_a_list_that_is_a_link_to_nothing_denies_everything(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS)
    daemon.stop()
    (state(daemon) / "blocks.json").symlink_to("nowhere")
    daemon.ready()
    with connect(daemon) as client:
        assert "the list of blocks cannot be read" in client.check("User::ann", "read", "Document::1").reason
    assert (state(daemon) / "blocks.json").is_symlink()


def test_ten_thousand_of_the_longest_blocks_are_listed_and_hold_nobody_up(serve: Callable[..., Daemon]) -> None:
    daemon = serve(READERS, "[limits]\nqueued = 65536\n")
    daemon.stop()
    blocks = [ONE | {"tag": f"User::{n}".ljust(1024, "\u00e4"), "reason": "\U0001f512" * 1024} for n in range(2000)]
    blocks += [ONE | {"tag": f"User::{n}"} for n in range(2000, 9999)]
    (state(daemon) / "blocks.json").write_text(sealed(json.dumps(blocks)))
    daemon.ready()
    ended, slowest = threading.Event(), [0.0]

    def ping() -> None:
        with connect(daemon) as other:
            while not ended.wait(0.001):
                slowest[0] = max(slowest[0], other.ping())

    pinging = threading.Thread(target=ping)
    pinging.start()
    with connect(daemon) as client:
        assert client.blocks() == blocks
        slowest[0] = 0.0
        assert client.block("User::last").durable
        ended.set()
        pinging.join()
        assert [b["tag"] for b in client.blocks()[-2:]] == ["User::9998", "User::last"]
    assert slowest[0] < 0.1, "a list of 14 MB was written meanwhile"
