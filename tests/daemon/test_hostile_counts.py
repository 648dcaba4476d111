"""Clients that write what they like into the memory in which they count their hits."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from frames import HELLO
from journal import decisions, recorded, wait
from raw import Client, Verdict, ask, frame, pack
from running import NOBODY, Daemon

from pepcore import cli
from pepcore.audit import entries

DURABLE = '[points.pay]\nrecord = "durable"\n'
LEFT, MARKS, PAIRS = 2, 64, 192 + 2048
TOP = (1 << 64) - 1


@contextlib.contextmanager
def counting(daemon: Daemon, point: str = "") -> Iterator[tuple[Client, memoryview]]:
    """A connection, and the words of the memory that it was given to count in."""
    body = {"client": "raw", "handles": [], "page": True, "point": point, "versions": [1]}
    with Client(daemon.socket, greet=False) as client:
        client.send(frame(HELLO, next(client.ids), pack(body)))
        client.rest, fds, _, _ = socket.recv_fds(client.socket, 65536, 8)
        client.read()
        page, counts = fds
        memory = mmap.mmap(counts, os.fstat(counts).st_size)
        os.close(page)
        os.close(counts)
        yield client, memoryview(memory).cast("Q")


def lost(daemon: Daemon) -> int:
    with daemon.client(greet=False) as client:
        return int(client.stats()["record"]["lost"])


def test_counts_without_reason_end_neither_the_record_nor_the_statistics(serve: Callable[..., Daemon]) -> None:
    daemon = serve(config=DURABLE)
    with counting(daemon) as (one, words), counting(daemon) as (_, others):
        one.ask()
        for each in (words, others):
            each[LEFT] = TOP
            each[PAIRS], each[PAIRS + 1], each[MARKS] = 7, TOP, 1
        wait(daemon, lambda found: len(found) >= 2, entries.Hits)
        for each in (words, others):
            each[LEFT] = TOP - 1
        until = time.monotonic() + 10
        while lost(daemon) < 1 << 26:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert lost(daemon) < 1 << 32
    with daemon.client(point="pay") as pay:
        told = pay.ask(ask(resource="Document::b"))
        assert isinstance(told, Verdict)
        assert told.permit, "what must be on disk first gets there"
    assert len(decisions(daemon, 2)) >= 2
    assert daemon.events("the record ends: nothing more is written") == []
    assert daemon.stop() == 0
    assert sum(each.count for each in recorded(daemon, entries.Dropped)) == 4 << 24


def test_hits_of_decisions_that_another_point_was_told_change_nothing_in_a_replay(
    serve: Callable[..., Daemon], capfd: pytest.CaptureFixture[str]
) -> None:
    daemon = serve()
    with daemon.client(point="shop") as client:
        client.ask()
    (theirs,) = decisions(daemon, 1)
    with counting(daemon, "mine") as (one, words):
        one.ask(ask(resource="Document::b"))
        mine = decisions(daemon, 2)[1]
        words[PAIRS], words[PAIRS + 1] = theirs.decision, 1000
        words[PAIRS + 2], words[PAIRS + 3] = mine.decision, 10
        words[PAIRS + 4], words[PAIRS + 5] = mine.decision, 20
        words[MARKS] = 7
        (hits,) = wait(daemon, bool, entries.Hits)
    assert (sorted(hits.served), hits.count) == (sorted([(theirs.decision, 1000), (mine.decision, 30)]), 1030)
    daemon.policies.write_text(NOBODY)
    assert cli.main(["replay", "--policies", str(daemon.policies), "--config", str(daemon.config)]) == 1
    said = capfd.readouterr().out
    assert "2 of 2 decisions change (32 of 32 with" in said
    assert "1000 hits name a decision of another peer, and are left out" in said
