"""The replies of replies.json: permits, denies, and one of each way to be malformed."""

from __future__ import annotations

from typing import Any

from frames import BOOT, CHECK, DECISION, ERROR, EXPLAIN, HELLO, REVISION, frame, pack, text, verdict


def replies() -> list[dict[str, Any]]:
    """What a client reads that said hello (request 1) and asked one check (request 2) with `handles`."""
    welcome = {
        "boot": BOOT,
        "limits": {"depth": 16, "frame": 65536, "many": 1000},
        "partition": 1,
        "revision": REVISION,
        "server": "pepcore/0.1.0",
        "version": 1,
    }
    good_hello = frame(HELLO | 0x80, 1, pack(welcome))
    mask: list[Any] = ["o1", "mask", {"fields": ["/ssn", "/card"], "style": "last-4"}]
    redact: list[Any] = ["o2", "redact", {"fields": ["/salary"]}]
    full = {"policies": ["p1", "p2"], "reason": "owner may read", "obligations": [mask, redact]}
    out: list[dict[str, Any]] = []

    def add(name: str, data: bytes, **expect: Any) -> None:
        fields = {
            "permit": False,
            "fault": 0,
            "cached": False,
            "lifetime_ms": 0,
            "id": 0,
            "boot": 0,
            "revision": 0,
            "reason": "",
            "policies": [],
            "obligations": [],
            **expect,
        }
        out.append({"name": name, "handles": ["mask", "redact"], "hex": data.hex(), "expect": fields})

    def reply(name: str, body: bytes, *, expect: dict[str, Any], **header: Any) -> None:
        fields = {"op": CHECK | 0x80, "request_id": 2, "partition": 1, **header}
        add(name, good_hello + frame(fields.pop("op"), fields.pop("request_id"), body, **fields), **expect)

    ids = {"id": DECISION, "boot": BOOT, "revision": REVISION}
    bad: dict[str, Any] = {"fault": 1}
    permit = verdict(1)
    reply("permit", permit, expect={"permit": True, **ids})
    reply("deny", verdict(0), expect=ids)
    reply(
        "permit-with-everything",
        verdict(1, full, flags=1, lifetime=1500, keep=1000, stamps=[0, 65535]),
        expect={
            "permit": True,
            "cached": True,
            "lifetime_ms": 1500,
            "reason": full["reason"],
            "policies": full["policies"],
            "obligations": full["obligations"],
            **ids,
        },
    )
    reply(
        "deny-with-a-reason",
        verdict(0, {"reason": "not yours", "policies": ["f1"]}, lifetime=1000),
        expect={"reason": "not yours", "policies": ["f1"], "lifetime_ms": 1000, **ids},
    )
    reply("permit-with-an-empty-payload", verdict(1, b"\x80"), expect={"permit": True, **ids})
    done = [
        ["d1", "notify", {"to": "security", "body": "read"}],
        ["d2", "rate", {"count": 5, "per": "1m"}],
        ["d3", "window", {"not_after": "2099-01-01T00:00:00Z"}],
    ]
    reply(
        "permit-with-obligations-that-the-daemon-discharged",
        verdict(1, {"obligations": done}),
        expect={"permit": True, "obligations": done, **ids},
    )
    reply(
        "permit-with-32-stamps",
        verdict(1, stamps=list(range(32))),
        expect={"permit": True, **ids},
    )
    reply(
        "fault-in-a-verdict",
        verdict(0, {"reason": "pdp timed out"}, fault=8),
        expect={"fault": 8, "reason": "pdp timed out", **ids},
    )
    foreign = [["o3", "approve", {}]]
    reply(
        "permit-with-an-obligation-not-handled",
        verdict(1, {"obligations": foreign}),
        expect={"fault": 9, "obligations": foreign, **ids},
    )
    reply(
        "error-frame",
        pack({"code": 2, "field": "context.v", "reason": "is binary"}),
        op=ERROR,
        expect={"fault": 2},
    )
    reply(
        "error-frame-of-a-code-to-come",
        pack({"code": 200, "field": "", "reason": ""}),
        op=ERROR,
        expect={"fault": 200},
    )
    # hostile or broken: each is one step from a permit above
    reply("decision-is-2", verdict(2), expect=bad)
    reply("decision-is-255", verdict(255), expect=bad)
    reply("permit-with-a-fault", verdict(1, fault=8), expect=bad)
    reply("unknown-verdict-flag", verdict(1, flags=2), expect=bad)
    reply("33-stamps", verdict(1, stamps=list(range(33))), expect=bad)
    reply("stamps-cut", verdict(1, stamps=[1])[:-1], expect=bad)
    reply("kept-for-longer-than-it-stands", verdict(1, lifetime=5, keep=6), expect=bad)
    reply("stamps-miscounted", verdict(1, count=1), expect=bad)
    reply("verdict-of-39-bytes", permit[:39], expect=bad)
    reply("verdict-empty", b"", expect=bad)
    reply("verdict-followed-by-a-byte", permit + b"\0", expect=bad)
    reply("payload-longer-than-the-body", verdict(1, size=1), expect=bad)
    reply("payload-length-wraps", verdict(1, size=0xFFFFFFF4, stamps=[1]), expect=bad)
    reply("payload-not-a-map", verdict(1, b"\xc0"), expect=bad)
    reply("payload-with-an-unknown-key", verdict(1, {"permit": True}), expect=bad)
    reply("payload-twice-the-same-key", verdict(1, b"\x82" + (text(b"reason") + text(b"a")) * 2), expect=bad)
    reply(
        "payload-keys-unsorted",
        verdict(1, b"\x82" + text(b"reason") + text(b"a") + text(b"policies") + b"\x90"),
        expect=bad,
    )
    reply("payload-followed-by-a-byte", verdict(1, pack({"reason": "a"}) + b"\xc0"), expect=bad)
    reply("payload-bad-utf8", verdict(1, b"\x81" + text(b"reason") + text(b"\xed\xa0\x80")), expect=bad)
    reply("payload-bin", verdict(1, b"\x81" + text(b"reason") + b"\xc4\x01a"), expect=bad)
    reply("payload-string-not-shortest", verdict(1, b"\x81" + text(b"reason") + b"\xd9\x01a"), expect=bad)
    reply("payload-string-outside", verdict(1, b"\x81" + text(b"reason") + b"\xdb\xff\xff\xff\xff"), expect=bad)
    reply("policies-not-strings", verdict(1, {"policies": [1]}), expect=bad)
    reply(
        "policies-count-outside",
        verdict(1, b"\x81" + text(b"policies") + b"\xdd\xff\xff\xff\xff"),
        expect=bad,
    )
    reply("obligation-of-two", verdict(1, {"obligations": [["o1", "mask"]]}), expect=bad)
    reply("obligation-properties-not-a-map", verdict(1, {"obligations": [["o1", "mask", []]]}), expect=bad)
    reply(
        "obligation-nan",
        verdict(
            1,
            b"\x81"
            + text(b"obligations")
            + b"\x91\x93"
            + text(b"o")
            + text(b"mask")
            + b"\x81"
            + text(b"n")
            + b"\xcb\x7f\xf8"
            + bytes(6),
        ),
        expect=bad,
    )
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    reply("obligation-too-deep", verdict(1, {"obligations": [["o1", "mask", {"d": deep}]]}), expect=bad)
    reply("wrong-request-id", permit, request_id=3, expect=bad)
    reply("wrong-partition", permit, partition=2, expect=bad)
    reply("wrong-version", permit, version=2, expect=bad)
    reply("reply-to-another-op", permit, op=EXPLAIN | 0x80, expect=bad)
    reply("request-instead-of-a-reply", permit, op=CHECK, expect=bad)
    reply("reply-with-a-question-length", permit, question=1, expect=bad)
    reply("reply-with-flags", permit, flags=1, expect=bad)
    reply("reply-of-4-gib", permit, length=0xFFFFFFFF, expect=bad)
    reply("error-frame-empty", b"", op=ERROR, expect=bad)
    reply("error-frame-with-code-0", pack({"code": 0, "field": "", "reason": ""}), op=ERROR, expect=bad)
    reply("error-frame-that-says-permit", pack({"code": 2, "field": "", "permit": True}), op=ERROR, expect=bad)
    cut = good_hello + frame(CHECK | 0x80, 2, permit, partition=1)
    add("cut-in-the-body", cut[:-1], fault=10)
    add("cut-in-the-header", cut[: len(good_hello) + 23], fault=10)
    add("cut-after-the-hello", good_hello, fault=10)
    add("nothing", b"", fault=10)
    add("two-verdicts", cut + frame(CHECK | 0x80, 2, permit, partition=1), fault=1)
    end = frame(CHECK | 0x80, 2, permit, partition=1)
    add("verdict-without-hello", end, fault=1)
    for name, change in (
        ("hello-of-version-2", {"version": 2}),
        ("hello-of-partition-2", {"partition": 2}),
        ("hello-with-a-boot-of-text", {"boot": "x"}),
    ):
        add(name, frame(HELLO | 0x80, 1, pack({**welcome, **change})) + end, fault=1)
    add(
        "hello-with-a-field-to-come",
        frame(HELLO | 0x80, 1, pack({**welcome, "zone": [1, {"a": 2}]})) + end,
        permit=True,
        **ids,
    )
    add(
        "hello-refused",
        frame(ERROR, 1, pack({"code": 4, "field": "point", "reason": "not yours"}))
        + frame(ERROR, 2, pack({"code": 3, "field": "partition", "reason": "unknown"}), partition=1),
        fault=4,
    )
    return out
