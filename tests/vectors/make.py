"""Writes the golden frames next to this file.

Promises: `make.py` writes the same bytes everywhere; `make.py --check` fails where a file differs. A binding
builds each frame of requests.json from its description and reads each reply of replies.json; the daemon
examines each question of questions.json (`place` is what its error's field begins with).
Never: takes a byte from the code under test.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

from frames import (
    BLOCK,
    BLOCKS,
    BOOT,
    CHECK,
    CHECK_MANY,
    DECISION,
    END_LEASE,
    EXPLAIN,
    FLOATS,
    HELLO,
    LEASE,
    LEASES,
    MAP,
    NUMBERS,
    PING,
    PLAIN,
    REVISION,
    REVOKE,
    RICH,
    STATS,
    context,
    frame,
    nested,
    pack,
    tail,
    text,
)
from replies import replies

HERE = Path(__file__).parent


def requests() -> list[dict[str, Any]]:
    def check(name: str, question: list[Any], request_id: int, **fields: Any) -> dict[str, Any]:
        flags, end = tail(**fields)
        data = pack(question)
        body = frame(CHECK, request_id, data + end, question=len(data), partition=1, flags=flags)
        return {
            "name": name,
            "op": "check",
            "id": request_id,
            "partition": 1,
            "question": question,
            **fields,
            "hex": body.hex(),
        }

    def hello(name: str, point: str, handles: list[str]) -> dict[str, Any]:
        body = pack({"client": "pepcore.h/0.1.0", "handles": handles, "point": point, "versions": [1]})
        return {
            "name": name,
            "op": "hello",
            "id": 1,
            "client": "pepcore.h/0.1.0",
            "point": point,
            "handles": handles,
            "hex": frame(HELLO, 1, body).hex(),
        }

    trace = "4bf92f3577b34da6a3ce929d0e0e4736" + "00f067aa0ba902b7" + "01"
    flags, end = tail(deadline_us=200000)
    many = [PLAIN, RICH]
    many_body = (
        end + struct.pack("<B3xI", 1, len(many)) + b"".join(struct.pack("<I", len(pack(q))) + pack(q) for q in many)
    )
    plain = pack(PLAIN)
    return [
        hello("hello-bare", "", []),
        hello("hello-with-point-and-obligations", "gateway", ["mask", "redact", "set-header"]),
        check("check-with-nothing-but-the-question", PLAIN, 2),
        check("check-with-a-deadline", PLAIN, 2, deadline_us=200000),
        check(
            "check-with-everything",
            RICH,
            2**64 - 1,
            deadline_us=2**32 - 1,
            not_after=1795000000000,
            min_revision=[BOOT, REVISION],
            trace=trace,
        ),
        check(
            "check-with-all-but-a-trace",
            RICH,
            2**32,
            deadline_us=1,
            not_after=2**64 - 1,
            min_revision=[BOOT, 2**63],
        ),
        check("check-with-not-after", PLAIN, 3, not_after=1795000000000),
        check("check-with-min-revision", PLAIN, 4, min_revision=[BOOT, REVISION]),
        {
            "name": "check-many",
            "op": "check-many",
            "id": 5,
            "partition": 1,
            "questions": many,
            "deadline_us": 200000,
            "semantic": "deny_on_first_deny",
            "hex": frame(CHECK_MANY, 5, many_body, partition=1, flags=flags).hex(),
        },
        {
            "name": "explain",
            "op": "explain",
            "id": 6,
            "partition": 1,
            "question": PLAIN,
            "hex": frame(EXPLAIN, 6, plain, question=len(plain), partition=1).hex(),
        },
        {"name": "stats", "op": "stats", "id": 7, "hex": frame(STATS, 7, b"").hex()},
        {
            "name": "lease",
            "op": "lease",
            "id": 8,
            "partition": 1,
            "question": PLAIN,
            "hex": frame(LEASE, 8, plain, question=len(plain), partition=1).hex(),
        },
        {
            "name": "end-lease",
            "op": "end-lease",
            "id": 9,
            "decision": DECISION,
            "hex": frame(END_LEASE, 9, struct.pack("<Q", DECISION)).hex(),
        },
        {
            "name": "revoke",
            "op": "revoke",
            "id": 10,
            "all": False,
            "tags": ["User::alice"],
            "hex": frame(REVOKE, 10, pack({"all": False, "tags": ["User::alice"]})).hex(),
        },
        {
            "name": "block",
            "op": "block",
            "id": 11,
            "tag": "Agent::a7",
            "until": 1795000000000,
            "reason": "runs amok",
            "lift": False,
            "hex": frame(
                BLOCK,
                11,
                pack({"lift": False, "reason": "runs amok", "tag": "Agent::a7", "until": 1795000000000}),
            ).hex(),
        },
        {
            "name": "map",
            "op": "map",
            "id": 12,
            "partition": 1,
            "event": '{"tool":"shell"}',
            "kind": "agent-hook",
            "hex": frame(MAP, 12, pack({"event": '{"tool":"shell"}', "kind": "agent-hook"}), partition=1).hex(),
        },
        {
            "name": "blocks",
            "op": "blocks",
            "id": 13,
            "after": DECISION,
            "hex": frame(BLOCKS, 13, pack({"after": DECISION})).hex(),
        },
        {
            "name": "leases",
            "op": "leases",
            "id": 14,
            "after": DECISION,
            "list": True,
            "revision": REVISION,
            "hex": frame(LEASES, 14, pack({"after": DECISION, "list": True, "revision": REVISION})).hex(),
        },
        {"name": "ping", "op": "ping", "id": 15, "hex": frame(PING, 15, b"").hex()},
    ]


def ends() -> list[dict[str, Any]]:
    """Frames that nobody asked for: the ends of leases that were request 8 of partition 1."""

    def end(cause: int, name: str, reason: str) -> dict[str, Any]:
        fields = {"lease": DECISION, "boot": BOOT, "revision": REVISION, "cause": name, "reason": reason}
        body = struct.pack("<QQQB7x", DECISION, BOOT, REVISION, cause) + reason.encode()
        return {
            "name": name,
            "id": 8,
            "partition": 1,
            **fields,
            "hex": frame(END_LEASE | 0x80, 8, body, partition=1).hex(),
        }

    return [
        end(1, "revoked", "its key was stolen"),
        end(2, "blocked", ""),
        end(3, "denied", "outside the window of `w` \u2026"),
        end(4, "ended", "ended by an administrator"),
        end(5, "over", "the caller's own permission has ended"),
    ]


def questions() -> list[dict[str, Any]]:
    plain, start = pack(PLAIN), pack(PLAIN)[:-2]  # start: everything before the context
    long = "k" * 40

    def refused(name: str, data: bytes, place: str) -> dict[str, Any]:
        return {"name": name, "hex": data.hex(), "outcome": "refused", "place": place}

    def canonical(name: str, question: list[Any]) -> dict[str, Any]:
        return {"name": name, "hex": pack(question).hex(), "outcome": "canonical", "question": question}

    def rewritten(name: str, data: bytes, question: list[Any]) -> dict[str, Any]:
        return {"name": name, "hex": data.hex(), "outcome": "rewritten", "canonical": pack(question).hex()}

    def value(encoded: bytes) -> bytes:
        return start + b"\x81\xa1v" + encoded + b"\x90"

    chain = [["User", str(i), {}] for i in range(17)]
    return [
        canonical("plain", PLAIN),
        canonical("rich", RICH),
        canonical("numbers", context(NUMBERS)),
        canonical("floats", context(FLOATS)),
        canonical("strings-around-each-width", context(["", "a" * 31, "a" * 32, "a" * 255, "a" * 256])),
        canonical("lists-around-16", context([[0] * 15, [0] * 16])),
        canonical("maps-around-16", context([{f"{i:05}": 0 for i in range(n)} for n in (0, 15, 16)])),
        canonical(
            "keys-sorted-by-utf8-not-utf16",
            context({"\uffff": 1, "\U00010000": 2, "a": 3, "aa": 4, "": 5, "\0": 6}),
        ),
        canonical("empty-id", [["User", "", {}], *PLAIN[1:]]),
        canonical("control-characters", context("\0\t\n\x7f\u0085")),
        canonical("chain-of-16", [*PLAIN[:4], chain[:16]]),
        canonical("depth-16", nested(16)),
        rewritten("keys-unsorted", start + b"\x82\xa1b\x01\xa1a\x02\x90", [*PLAIN[:3], {"a": 2, "b": 1}, []]),
        rewritten("integer-too-wide", value(b"\xcf" + struct.pack(">Q", 5)), context(5)),
        rewritten("positive-integer-as-signed", value(b"\xd0\x05"), context(5)),
        rewritten("negative-integer-too-wide", value(b"\xd3" + struct.pack(">q", -5)), context(-5)),
        rewritten("float32", value(b"\xca" + struct.pack(">f", 1.5)), context(1.5)),
        rewritten("string-too-wide", value(b"\xda\x00\x01a"), context("a")),
        rewritten("list-too-wide", value(b"\xdc\x00\x01\x07"), context([7])),
        rewritten("map-too-wide", value(b"\xdf\x00\x00\x00\x01\xa1k\x07"), context({"k": 7})),
        rewritten(
            "inner-keys-unsorted",
            value(b"\x82" + text(long.encode()) + b"\x01\xa1a\x02"),
            context({"a": 2, long: 1}),
        ),
        refused("empty", b"", "question"),
        refused("not-a-list", b"\x80", "question"),
        refused("four-positions", b"\x94" + plain[1:-1], "question"),
        refused("followed-by-a-byte", plain + b"\xc0", "question"),
        refused("cut", plain[:-1], "chain"),
        refused("subject-without-properties", b"\x95\x92\xa1a\xa1b" + plain[13:], "subject"),
        refused("subject-with-an-empty-type", pack([["", "a", {}], *PLAIN[1:]]), "subject.type"),
        refused("action-with-an-empty-name", pack([PLAIN[0], ["", {}], *PLAIN[2:]]), "action.name"),
        refused("subject-id-a-number", pack([["User", 1, {}], *PLAIN[1:]]), "subject.id"),
        refused("context-a-list", pack([*PLAIN[:3], [], []]), "context"),
        refused("chain-of-17", pack([*PLAIN[:4], chain]), "chain"),
        refused("depth-17", pack(nested(17)), "context"),
        refused("duplicate-key", start + b"\x82\xa1a\x01\xa1a\x01\x90", "context.a"),
        refused("duplicate-key-apart", start + b"\x83\xa1a\x01\xa1b\x01\xa1a\x02\x90", "context.a"),
        refused("key-a-number", start + b"\x81\x01\x01\x90", "context"),
        refused("nan", value(b"\xcb\x7f\xf8" + bytes(6)), "context.v"),
        refused("infinity", value(b"\xcb\x7f\xf0" + bytes(6)), "context.v"),
        refused("float32-nan", value(b"\xca\x7f\xc0\x00\x00"), "context.v"),
        refused("bin", value(b"\xc4\x01a"), "context.v"),
        refused("ext", value(b"\xd4\x01a"), "context.v"),
        refused("timestamp", value(b"\xd6\xff" + bytes(4)), "context.v"),
        refused("reserved-0xc1", value(b"\xc1"), "context.v"),
        refused("utf8-cut", value(b"\xa1\xc3"), "context.v"),
        refused("utf8-overlong", value(b"\xa2\xc0\xaf"), "context.v"),
        refused("utf8-surrogate", value(b"\xa3\xed\xa0\x80"), "context.v"),
        refused("utf8-above-unicode", value(b"\xa4\xf4\x90\x80\x80"), "context.v"),
        refused("string-outside", value(b"\xdb\xff\xff\xff\xff"), "context.v"),
        refused("list-outside", value(b"\xdd\xff\xff\xff\xff"), "context.v"),
        refused("map-outside", value(b"\xdf\xff\xff\xff\xff"), "context.v"),
    ]


VECTORS = (("requests", requests), ("replies", replies), ("questions", questions), ("ends", ends))


def main() -> int:
    stale = []
    for name, build in VECTORS:
        lines = ",\n".join(json.dumps(vector, ensure_ascii=True) for vector in build())
        path, content = HERE / f"{name}.json", f"[\n{lines}\n]\n"
        if "--check" not in sys.argv:
            path.write_text(content)
        elif path.read_text() != content:
            stale.append(path.name)
    if stale:
        print(
            f"{', '.join(stale)}: not what make.py writes: run `python tests/vectors/make.py`",
            file=sys.stderr,
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
