"""The compiled core runs the golden frames of tests/vectors, as every binding does."""

import json
import socket
import struct
from pathlib import Path
from typing import Any

import msgspec
import pepclient.leases
import pytest
from pepclient.link import Ended, Link

from pepcore.core.cache import Cache
from pepcore.core.compose import compose
from pepcore.core.gate import Gate, Stream
from pepcore.core.page import Page
from pepcore.core.question import canonical
from pepcore.core.verdict import body, payload, read
from pepcore.errors import BadQuestion, BadRequest
from pepcore.flight import Partition
from pepcore.lease import Cause, Lease
from pepcore.model import Action, Entity
from pepcore.server.leasing import end_of, number_in
from pepcore.wire import read_blocks, read_hello, read_leases, read_many, reply

VECTORS = Path(__file__).parent / "vectors"
CHECK_REPLY = 0x82


def load(name: str) -> list[Any]:
    cases = json.loads((VECTORS / f"{name}.json").read_text())
    return [pytest.param(case, id=case["name"]) for case in cases]


@pytest.mark.parametrize("case", load("questions"))
def test_questions_are_taken_rewritten_or_refused_as_the_vectors_say(case: dict[str, Any]):
    data = bytes.fromhex(case["hex"])
    if case["outcome"] == "refused":
        with pytest.raises(BadQuestion) as error:
            canonical(data)
        assert error.value.field.startswith(case["place"])
    elif case["outcome"] == "rewritten":
        assert canonical(data) == bytes.fromhex(case["canonical"])
        assert canonical(canonical(data)) == canonical(data)
    else:
        assert canonical(data) is data
        subject, action, resource, context, chain = case["question"]
        chain = [Entity(*member) for member in chain]
        assert compose(Entity(*subject), Action(*action), Entity(*resource), context, chain) == data


@pytest.mark.parametrize("case", load("requests"))
def test_requests_are_read_as_the_fields_that_they_were_made_of(case: dict[str, Any]):
    greeted: list[bytes] = []

    def hello(stream: Stream, local: int, content: bytes) -> tuple[int, bytes]:
        greeted.append(content)
        return 40 + local, b""

    gate, stream = Gate(Cache(slots=8, slab=4096, seed=1), Page(1), hello), Stream()
    for _ in range(case.get("partition", 0)):
        gate.feed(stream, struct.pack("<IIBBHIQ", 0, 0, 1, 1, 0, 0, 0), 0, 0)
    out = gate.feed(stream, bytes.fromhex(case["hex"]), 0, 0)
    if case["op"] == "hello":
        asked = read_hello(greeted[-1])
        assert (asked.client, asked.point, list(asked.handles)) == (case["client"], case["point"], case["handles"])
        assert out is not None
        assert struct.unpack_from("<Q", out, 16)[0] == case["id"]
        return
    assert out is None
    (ask,) = stream.asks
    assert (ask.id, ask.local) == (case["id"], case.get("partition", 0))
    least = case.get("min_revision", [0, 0])
    assert [ask.min_boot, ask.min_revision] == least
    assert ask.deadline_ns == case.get("deadline_us", -0.001) * 1000
    assert ask.not_after == min(case.get("not_after", -1), 2**63 - 1)
    if "trace" in case:
        assert ask.trace == bytes.fromhex(case["trace"])
    if "question" in case:
        assert msgspec.msgpack.decode(ask.question) == case["question"]
    if "questions" in case:
        semantic, items = read_many(ask.rest, 16)
        assert case["semantic"] in (semantic.value, semantic.name)
        assert [msgspec.msgpack.decode(item) for item in items if isinstance(item, bytes)] == case["questions"]
    if case["op"] == "blocks":
        assert read_blocks(ask.rest).after == case["after"]
    if case["op"] == "leases":
        wanted = read_leases(ask.rest)
        assert (wanted.after, wanted.list, wanted.revision) == (case["after"], case["list"], case["revision"])
    if case["op"] == "end-lease":
        assert number_in(ask) == case["decision"]


@pytest.mark.parametrize("case", load("ends"))
def test_ends_of_leases_are_written_and_read_as_the_vectors_say(case: dict[str, Any]):
    lease = Lease(
        case["lease"], None, 1, case["id"], case["partition"], Partition(1, 1), b"", (), "", "", 0,
        cause=Cause[case["cause"].upper()], reason=case["reason"], revision=case["revision"],
    )  # fmt: skip
    data = bytes.fromhex(case["hex"])
    assert end_of(lease, case["boot"]) == data
    theirs, ours = socket.socketpair()
    with theirs, ours:
        link, held = Link.__new__(Link), pepclient.leases.Lease(None, b"", (0, b""))
        link._socket, link._in, link._expected, link.held = ours, bytearray(), {}, {case["lease"]: held}
        theirs.sendall(data)
        assert link.read() == ([Ended(held, case["lease"], case["cause"], case["reason"])], "")
        assert link.held == {}
        theirs.sendall(data)
        assert link.read() == ([], ""), "of one that is not held it is no news"


def verdicts() -> list[Any]:
    """The replies whose header is that of a check reply: what `verdict.read` is given the body of."""
    found = []
    for case in json.loads((VECTORS / "replies.json").read_text()):
        data, frames = bytes.fromhex(case["hex"]), []
        while len(data) >= 24 and len(data) - 24 >= (length := struct.unpack_from("<I", data)[0]):
            frames.append(data[: 24 + length])
            data = data[24 + length :]
        well = len(frames) == 2 and not data and frames[1][:24] == reply(2, 2, 1, frames[1][24:])[:24]
        if well and "hello-of" not in case["name"] and "hello-with-a-boot" not in case["name"]:
            found.append(pytest.param(case, frames[1][24:], id=case["name"]))
    return found


@pytest.mark.parametrize(("case", "data"), verdicts())
def test_verdicts_are_read_as_the_vectors_say_and_in_one_form_only(case: dict[str, Any], data: bytes):
    expect = case["expect"]
    if expect["fault"] == 1:
        with pytest.raises(BadRequest):
            read(data, case["handles"], 0)
        return
    v = read(data, case["handles"], 0)
    assert (v.permit, v.fault, v.cached) == (expect["permit"], expect["fault"], expect["cached"])
    assert (v.number, v.boot, v.revision) == (expect["id"], expect["boot"], expect["revision"])
    assert v.expires_ns == expect["lifetime_ms"] * 1_000_000
    assert (v.error if v.fault and not v.obligations else v.reason) == expect["reason"]
    assert list(v.policies) == expect["policies"]
    assert [[o.id, o.type, o.properties] for o in v.obligations] == expect["obligations"]
    if not v.fault and data[3] == 0:
        assert read(body(v, payload(v), 0), case["handles"], 0).permit == v.permit


def test_every_way_to_be_malformed_is_among_the_vectors():
    names = {param.id for param in verdicts()}
    assert {"decision-is-2", "33-stamps", "payload-keys-unsorted", "payload-twice-the-same-key", "permit"} <= names
    assert len(names) > 35
