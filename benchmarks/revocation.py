"""Taking access away: what an acknowledgement costs, when holders hear of it, what the record costs those who hit.

Promises: one blocking socket in Python on both sides of a ratio, frames encoded before; rounds alternate; with the
record and without it, side by side.
Never: leaves out the disk: a revoke is acknowledged when its record is on it, and a bare fdatasync stands beside.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec

import pepcore
from pepcore.core.frame import header

from . import corpus
from .hits import HOT, Trio, cached
from .plan import Run
from .processes import Server
from .results import Table, Target, span
from .rounds import Figures, alternate

CALLS = 200
ANYBODY = '@id("p") permit (principal, action == Action::"read", resource);'


class Asker:
    """One connection, one frame, its reply."""

    def __init__(self, path: str, first: bytes, frame: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(path)
        self._frame = frame
        if first:
            self._ask(first)

    def _ask(self, frame: bytes) -> bytes:
        self._socket.sendall(frame)
        data = b""
        while len(data) < 24 or len(data) < 24 + struct.unpack_from("<I", data)[0]:
            data += self._socket.recv(65536)
        if data[9] == 0xFF:
            raise AssertionError(f"an error frame: {data!r}")
        return data

    def timed(self) -> Figures:
        """Microseconds of a call, the median of many."""
        took = []
        for _ in range(CALLS):
            began = time.perf_counter_ns()
            self._ask(self._frame)
            took.append(time.perf_counter_ns() - began)
        return {"us": median(took) / 1000}


def revoke_frame() -> bytes:
    body = msgspec.msgpack.encode({"all": False, "reason": "", "tags": ["User::nobody"]})
    return header(6, 2, len(body)) + body


def synced(folder: Path) -> Callable[[], Figures]:
    """A bare append and fdatasync of as many bytes as a revoke's entry has."""
    file = os.open(folder / "synced", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def timed() -> Figures:
        took = []
        for _ in range(CALLS):
            began = time.perf_counter_ns()
            os.write(file, b"x" * 100)
            os.fdatasync(file)
            took.append(time.perf_counter_ns() - began)
        return {"us": median(took) / 1000}

    return timed


def lease_end(server: Server) -> Callable[[], Figures]:
    """From the call of a revoke to the end of a lease in its holder."""
    client = pepcore.connect(server.path, deadline=5.0)

    def timed() -> Figures:
        took = []
        for n in range(20):
            ended = threading.Event()
            at: list[int] = []

            def over(_lease: object, at: list[int] = at, ended: threading.Event = ended) -> None:
                at.append(time.perf_counter_ns())
                ended.set()

            subject = f"User::{n}"
            with client.lease(subject, "read", "Document::roadmap", on_end=over) as lease:
                if not lease:
                    raise AssertionError(f"the lease is not permitted: {lease.verdict}")
                began = time.perf_counter_ns()
                client.revoke(subject=subject)
                ended.wait(5)
            took.append(at[0] - began)
        return {"us": median(took) / 1000}

    return timed


def revocation(run: Run) -> None:
    run.bar.step("revokes", 1 + run.plan.rounds / 4)
    plain = run.stage.daemon(run.small, record="off")
    recorded = run.stage.daemon(run.small)
    hello, key = corpus.hello_frame(), corpus.question(run.small.asked[0])
    check = corpus.check_frame(key)
    candidates = {
        "cached check": Asker(str(plain.path), hello, check).timed,
        "revoke, no record": Asker(f"{plain.path}.admin", b"", revoke_frame()).timed,
        "revoke, recorded on disk": Asker(f"{recorded.path}.admin", b"", revoke_frame()).timed,
        "fdatasync of 100 bytes": synced(recorded.path.parent),
        "revoke to the end of a lease, recorded": lease_end(run.stage.daemon_of(ANYBODY)),
    }
    rounds = alternate(run.plan.rounds, candidates)
    ratio = rounds.ratio("revoke, no record", "cached check", "us")
    sync = span(rounds.figure("fdatasync of 100 bytes", "us"))
    durable = span(rounds.figure("revoke, recorded on disk", "us"))
    run.found.targets.append(
        Target(
            "revoke, call to acknowledgement, p50, over a cached check", 2, measured=ratio,
            note=f"without a record; with it {durable} us, of which a bare fdatasync is {sync} us",
        )
    )  # fmt: skip
    rows = [[name, span(rounds.figure(name, "us"))] for name in candidates]
    run.found.tables.append(Table("Taking access away, one Python socket", ["what", "us"], rows))


def recording(run: Run, trio: Trio) -> None:
    """Hits with the record on and off, in alternating rounds."""
    options = ["--in-flight", 64, "--duration", run.plan.seconds, "--warm", HOT]
    run.bar.step("hits with and without a record", 2 * (run.plan.rounds + 1) * run.plan.seconds)
    daemons = {name: run.stage.daemon(run.small, record=keep) for name, keep in (("off", "off"), ("on", "buffered"))}
    rounds = alternate(
        run.plan.rounds,
        {name: lambda d=daemon: cached(run, d, trio.keys, *options) for name, daemon in daemons.items()},
    )
    what = "cached checks per second, 64 in flight, recorded, over not recorded"
    run.found.targets.append(
        Target(
            what, 0.9, at_least=True, measured=rounds.ratio("on", "off", "rate"), note="all figures here are recorded"
        )
    )
    rows = [[name, span(rounds.figure(name, "rate"), 1000), span(rounds.figure(name, "p50"), 1000)] for name in daemons]
    run.found.tables.append(Table("Hits with and without a record", ["record", "1000/s", "p50 us"], rows))
