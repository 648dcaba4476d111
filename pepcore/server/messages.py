"""What the daemon and its workers say to each other over a socket pair: length-prefixed msgpack.

Both ends are the same program started by the same user, so the messages are typed, not defended: a worker that sends
something else is ended.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..model import Decision
from ..pdp.cedar_source import Source


class Load(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Build this policy set."""

    source: Source


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Decide one question, as of a wall time."""

    number: int
    wall_ms: int
    explain: bool
    question: bytes


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The set is ready, or where and why it is not. `ms`: how long building took, validation included."""

    ms: float
    policies: int = 0
    entities: int = 0
    file: str = ""
    line: int = 0
    error: str = ""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """`took_ns`: what the evaluation cost the worker, in processor time, so that whoever asked it can be charged."""

    number: int
    decision: Decision
    took_ns: int = 0


class Explained(msgspec.Struct, frozen=True, array_like=True, tag=4):
    number: int
    explanation: dict[str, Any]
    took_ns: int = 0


encode = msgspec.msgpack.Encoder().encode
to_worker = msgspec.msgpack.Decoder(Load | Ask)
to_daemon = msgspec.msgpack.Decoder(Loaded | Answer | Explained)


def frame(message: msgspec.Struct) -> bytes:
    body = encode(message)
    return len(body).to_bytes(4, "little") + body


class Frames:
    """Cuts a byte stream into message bodies."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        rest = self._rest
        rest += data
        found, at = [], 0
        while len(rest) - at >= 4:
            size = int.from_bytes(rest[at : at + 4], "little")
            if len(rest) - at - 4 < size:
                break
            found.append(bytes(rest[at + 4 : at + 4 + size]))
            at += 4 + size
        del rest[:at]
        return found
