"""The trace of a request comes to whoever waits for its decision, so that the record can hold it."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journal import decisions, folder
from raw import ask, check, many
from running import Daemon

from pepcore.audit import entries, export
from pepcore.audit.reader import read
from pepcore.core.cache import Cache
from pepcore.core.compose import compose
from pepcore.core.page import Page
from pepcore.enforcer import Enforcer
from pepcore.flight import Partition
from pepcore.wire import Semantic

A, B = "11" * 16 + "22" * 8 + "01", "33" * 16 + "44" * 8 + "00"
LEASE = 4
RECORD = """
from pepcore.waiting import Waiting
enter = Waiting.enter
def recorded(self, flight, waiter):
    with open(FILE, "a") as out:
        out.write(waiter.trace.hex() + "\\n")
    return enter(self, flight, waiter)
Waiting.enter = recorded
"""


@pytest.mark.parametrize("kind", ["check", "many", "lease"])
def test_the_trace_of_a_request_is_that_of_who_waits(serve: Callable[..., Daemon], tmp_path: Path, kind: str) -> None:
    seen = tmp_path / "seen"
    daemon = serve(before=f"FILE = {str(seen)!r}\n" + RECORD)
    with daemon.client() as c:
        one, other = ask(resource="Document::1"), ask(resource="Document::2")
        if kind == "check":  # two at once: one that is alone waits for nobody
            sent = [check(one, 1, trace=A), check(other, 2, trace=B), check(ask(resource="Document::3"), 3)]
            wanted = [A, B, ""]
        elif kind == "many":
            sent, wanted = [many([one, other], 1, trace=A), many([ask(resource="Document::3")], 2)], [A, A, ""]
        else:
            sent, wanted = [check(one, 1, op=LEASE, trace=B), check(other, 2, op=LEASE)], [B, ""]
        c.send(b"".join(sent))
        for _ in sent:
            c.read()
    until = time.monotonic() + 5
    while not seen.exists() or seen.read_text().count("\n") < len(wanted):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert sorted(seen.read_text().splitlines()) == sorted(wanted)


def test_each_follower_keeps_its_own() -> None:
    enforcer = Enforcer(Cache(slots=8, slab=4096, seed=1), Page(5))
    partition, key, to = Partition(1, 1), compose("U::1", "read", "D::1"), object()
    options: dict[str, Any] = {"now": 1, "wall_ms": 1}
    enforcer.ask(partition, to, 1, 1, key, **options, trace=b"a" * 25)
    enforcer.ask(partition, to, 2, 1, key, **options, trace=b"b" * 25)
    enforcer.ask(partition, to, 3, 1, key, **options)
    enforcer.ask_many(partition, to, 4, 1, Semantic.execute_all, [key, key], **options, trace=b"c" * 25)
    flight = enforcer.next_flight(1, 1)
    assert flight is not None
    found = [(w.request, w.trace[:1]) for w in flight.waiters]
    assert found == [(1, b"a"), (2, b"b"), (3, b""), (4, b"c"), (4, b"c")]


def test_one_of_the_wrong_length_is_a_fault_of_that_request(serve: Callable[..., Daemon]) -> None:
    daemon = serve()
    with daemon.client() as c:
        answer = c.ask(trace=A[:-2])
        assert (answer.permit, "length" in str(answer)) == (False, True)
        assert c.ask(trace=A).permit
    assert struct.calcsize("25s") == len(bytes.fromhex(A))


def test_a_traced_question_is_exported_with_its_trace_and_span(serve: Callable[..., Daemon]) -> None:
    daemon = serve()
    with daemon.client() as c:
        assert c.ask(trace=A).permit
        assert c.ask(ask(resource="Document::2"), trace="00" * 25).permit
        assert c.ask(ask(resource="Document::3")).permit
    decisions(daemon, 3)
    found = [
        json.loads(export.as_otlp(each))["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
        for each in read(folder(daemon))
        if isinstance(each.entry, entries.Decision)
    ]
    ids = [{name: each[name] for name in ("traceId", "spanId", "flags") if name in each} for each in found]
    assert ids == [{"traceId": "11" * 16, "spanId": "22" * 8, "flags": 1}, {}, {}], "ids of zeros are none"
