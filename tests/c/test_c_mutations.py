"""Mutated replies: the C client and an independent reader in Python must agree on every one of them.

Promises: a seeded mutator reaches behind the length fields, under sanitizers; each guard in TWINS, compiled
out, is found missing. `judge` decodes, encodes again and compares: it shares no thought with the C code.
"""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import frames
import msgspec
import pytest
from harness import ROOT, SANITIZE, compile_c

HANDLES = ("mask", "redact")
DISCHARGED = ("window", "rate", "notify")
PROPERTIES = {"k": [1, -200, 0.5, None, True, "\u00e9" * 20], "l": {"a": 1, "b": 2, "c": 3}}
SEEDS = [
    frames.verdict(1),
    frames.verdict(0, {"reason": "no\u00e9", "policies": ["p", "q"]}),
    frames.verdict(1, {"reason": "y"}, stamps=[1]),
    frames.verdict(1, {"obligations": [["o", "mask", PROPERTIES]], "policies": ["p"]}),
]
BYTES = bytes.fromhex("00 01 02 7f 80 90 c1 c4 cc d0 d9 db dd ff")


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def judge(reply: bytes) -> tuple[bool, bool]:
    """Return (permit, fault) of a whole reply: decode, encode again, compare; a fault wherever that fails."""
    fault = (False, True)
    if len(reply) < 24:
        return fault
    length, question, version, op, flags, partition, request_id = struct.unpack_from("<IIBBHIQ", reply)
    body = reply[24:]
    if (
        (question, version, op, flags, partition, request_id) != (0, 1, 0x82, 0, 1, 2)
        or length != len(body)
        or length < 40
    ):
        return fault
    permit, code, bits, stamps, life, keep, size = struct.unpack_from("<BBBBIII", body)
    if permit > 1 or code or bits > 1 or stamps > 32 or keep > life or 40 + size + 2 * stamps != length:
        return fault
    payload = body[40 : 40 + size]
    try:
        fields = msgspec.msgpack.decode(payload) if payload else {"reason": ""}
        if payload and frames.pack(fields) != payload:
            return fault
        msgspec.convert(fields.get("reason", ""), str)
        msgspec.convert(fields.get("policies", []), list[str])
        duties = msgspec.convert(fields.get("obligations", []), list[tuple[str, str, dict[str, Any]]])
    except (msgspec.MsgspecError, AttributeError, TypeError, ValueError, RecursionError):
        return fault
    if not fields.keys() <= {"reason", "policies", "obligations"} or not finite(fields):
        return fault
    if permit and any(kind not in HANDLES + DISCHARGED for _, kind, _ in duties):
        return fault
    return bool(permit), False


def mutate(rng: random.Random) -> bytes:
    body = bytearray(rng.choice(SEEDS))
    header = bytearray(frames.frame(0x82, 2, b"", partition=1))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        at, end = sorted((rng.randrange(len(body)), rng.randrange(len(body) + 1)))
        kind = rng.randrange(8)
        if kind < 2:
            body[at] = rng.choice((*BYTES, rng.randrange(256)))
        elif kind == 2:
            body[at : at + 2] = b"\x7f\xf8"[: len(body) - at]
        elif kind == 3:
            body[at] ^= 1 << rng.randrange(8)
        elif kind == 4 and at > 40:
            body[at:at] = rng.choice((b"\0", b"\xcc", b"\xd9\x01", b"\xa0", b"\xc0", b"\xcb\x7f\xf0" + bytes(6)))
        elif kind == 5 and at > 40:
            del body[at : min(end, at + rng.randrange(1, 12))]
        elif kind == 6 and at > 40:
            body[at:at] = body[at : min(end, at + 24)]
        elif len(body) > 24:
            header[rng.randrange(4, 24)] ^= rng.choice((0, 1, 2, 0x80))
    if len(body) >= 40 and rng.random() < 0.8:  # let the change get past the lengths
        struct.pack_into("<I", body, 12, max(0, len(body) - 40 - 12 * body[3]) & 0xFFFFFFFF)
    struct.pack_into("<I", header, 0, len(body) if rng.random() < 0.95 else rng.randrange(len(body) + 64))
    return bytes(header + body)


def disagreement(program: Path, seed: int, cases: int) -> str:
    """Run mutated replies through a driver; return the first on which it and `judge` differ, or ''."""
    rng = random.Random(seed)
    replies = [mutate(rng) for _ in range(cases)]
    script = "connect /x - " + " ".join(h.encode().hex() for h in HANDLES) + "\nask 413a3a62 63 413a3a62\n"
    script += "".join(f"feed {reply.hex()}\n" for reply in replies)
    run = subprocess.run([program], input=script, capture_output=True, text=True)
    answers = run.stdout.splitlines()[2:]
    for reply, line in zip(replies, answers, strict=False):
        try:
            answer = json.loads(line)
        except ValueError:  # such as `nan`: no reply may put that into an obligation
            return f"{reply.hex()}: {line}"
        if (answer["permit"], answer["fault"] != 0) != judge(reply):
            return f"{reply.hex()}: {line}"
    return f"stopped after {len(answers)}: {run.stderr[:2000]}" if run.returncode or len(answers) != cases else ""


def test_mutated_replies_are_judged_as_an_independent_reader_does(programs: dict[str, Path]) -> None:
    seed = random.SystemRandom().randrange(2**32)
    assert disagreement(programs["sanitized"], seed, 20000) == "", f"seed {seed}"


TWINS = {
    "length of the verdict": ("|| len != 40 + payload + 2 * stamps ", ""),
    "decision above 1": ("b[0] > 1 || ", ""),
    "kept for longer than it stands": (" ||\n      pep_i_get_le(b + 8, 4) > pep_i_get_le(b + 4, 4)", ""),
    "unknown flag": ("b[2] > 1 || ", ""),
    "request id": (" || pep_i_get_le(h + 16, 8) != id", ""),
    "order of keys": ("if (order > 0 || (!order && key->len >= next.len)) return 0;", "(void)order;"),
    "shortest form": ("if (out->value < least) return 0;", ""),
    "UTF-8": (" || !pep_i_utf8(c->data, (size_t)out->value)", ""),
    "string outside": ("out->value > left || !pep_i_utf8(c->data, (size_t)out->value)", "0"),
    "not finite": ("if (out->kind == 'f' && (out->value >> 52 & 0x7ff) == 0x7ff) return 0;", ""),
    "obligation not handled": ("if (!pep_i_handled(c, &duty.type))", "if (0)"),
}


@pytest.mark.parametrize("guard", TWINS)
def test_every_fuzzer_of_c_first_finds_a_planted_bug(tmp_path: Path, guard: str) -> None:
    """The same header with one guard compiled out: the test above would fail on it."""
    source, (old, new) = (ROOT / "bindings/c/pepcore.h").read_text(), TWINS[guard]
    assert source.count(old) == 1, "this guard is no longer where the test looks for it"
    (tmp_path / "pepcore.h").write_text(source.replace(old, new))
    flags = [*SANITIZE, "-Wno-unused"]
    twin = compile_c(ROOT / "tests/c/drive.c", tmp_path / "twin", *flags, include=tmp_path)
    assert any(disagreement(twin, seed, 5000) for seed in range(8))
