"""A small wire client over a bare socket: what it sends may be as wrong as a test wants it.

It shares the encoder of the golden frames (`tests/vectors/frames.py`) and nothing with pepcore.
"""

from __future__ import annotations

import itertools
import socket
import struct
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "vectors"))

import frames
from frames import CHECK, CHECK_MANY, ERROR, EXPLAIN, HELLO, STATS, frame, pack, tail

__all__ = ["ERROR", "Client", "Error", "Frame", "Verdict", "ask", "check", "frame", "hello", "many", "pack", "tail"]


class Frame(NamedTuple):
    op: int
    partition: int
    id: int
    body: bytes


class Verdict(NamedTuple):
    permit: bool
    fault: int
    cached: bool
    left_ms: int
    boot: int
    revision: int
    payload: dict[str, Any]

    @property
    def reason(self) -> str:
        return str(self.payload.get("reason", ""))


class Error(NamedTuple):
    code: int
    field: str
    reason: str
    permit: bool = False


def ask(
    subject: str = "User::alice",
    action: str = "read",
    resource: str = "Document::a",
    context: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
) -> bytes:
    """A question in canonical form."""
    return pack([
        [*subject.split("::", 1), properties or {}], [action, {}], [*resource.split("::", 1), {}], context or {}, [],
    ])  # fmt: skip


def hello(
    request: int = 1, *, handles: tuple[str, ...] = (), point: str = "", versions: tuple[int, ...] = (1,)
) -> bytes:
    body = {"client": "raw", "handles": sorted(handles), "point": point, "versions": list(versions)}
    return frame(HELLO, request, pack(body))


def check(question: bytes, request: int, *, partition: int = 1, op: int = CHECK, **bounds: Any) -> bytes:
    flags, end = tail(**bounds)
    return frame(op, request, question + end, question=len(question), partition=partition, flags=flags)


def many(questions: list[bytes], request: int, *, semantic: int = 0, partition: int = 1, **bounds: Any) -> bytes:
    flags, head = tail(**bounds)
    items = b"".join(struct.pack("<I", len(q)) + q for q in questions)
    body = head + struct.pack("<B3xI", semantic, len(questions)) + items
    return frame(CHECK_MANY, request, body, partition=partition, flags=flags)


def read_verdict(body: bytes) -> Verdict:
    permit, fault, flags, stamps, left, _, size, _, boot, revision = struct.unpack_from("<BBBBIIIQQQ", body)
    assert len(body) == 40 + size + 2 * stamps
    payload = msgspec.msgpack.decode(body[40 : 40 + size]) if size else {}
    assert permit in (0, 1)
    return Verdict(permit == 1, fault, bool(flags & 1), left, boot, revision, payload)


class Client:
    """A connection. `with Client(path) as c: c.ask(...)`; everything times out after `timeout` seconds."""

    def __init__(self, path: object, *, timeout: float = 10.0, greet: bool = True, **greeting: Any) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.ids = itertools.count(100)
        self.rest = b""
        if greet:
            self.greet(**greeting)

    def greet(self, **greeting: Any) -> Frame:
        self.send(hello(next(self.ids), **greeting))
        return self.read()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> Frame:
        """The next frame. Raises EOFError where the daemon closed."""
        while len(self.rest) < 24 or len(self.rest) < 24 + struct.unpack_from("<I", self.rest)[0]:
            try:
                data = self.socket.recv(262_144)
            except ConnectionResetError:
                raise EOFError from None
            if not data:
                raise EOFError
            self.rest += data
        size, question, version, op, flags, partition, request = struct.unpack_from("<IIBBHIQ", self.rest)
        assert (question, version, flags) == (0, 1, 0)
        body, self.rest = self.rest[24 : 24 + size], self.rest[24 + size :]
        return Frame(op, partition, request, body)

    def answer(self) -> Verdict | Error:
        return told(self.read())

    def ask(self, question: bytes | None = None, *, partition: int = 1, **bounds: Any) -> Verdict | Error:
        request = next(self.ids)
        self.send(check(ask() if question is None else question, request, partition=partition, **bounds))
        got = self.read()
        assert got.id == request
        return told(got)

    def ask_many(self, questions: list[bytes], **options: Any) -> list[Verdict] | Error:
        request = next(self.ids)
        self.send(many(questions, request, **options))
        got = self.read()
        assert got.id == request
        if got.op == ERROR:
            answer = told(got)
            assert isinstance(answer, Error)
            return answer
        assert got.op == CHECK_MANY | 0x80
        found, at = [], 4
        for _ in range(struct.unpack_from("<I", got.body)[0]):
            (size,) = struct.unpack_from("<I", got.body, at)
            found.append(read_verdict(got.body[at + 4 : at + 4 + size]))
            at += 4 + size
        assert at == len(got.body)
        return found

    def explain(self, question: bytes | None = None, **bounds: Any) -> dict[str, Any] | Error:
        self.send(check(ask() if question is None else question, next(self.ids), op=EXPLAIN, **bounds))
        return self._map(EXPLAIN)

    def stats(self) -> dict[str, Any]:
        self.send(frame(STATS, next(self.ids), b""))
        found = self._map(STATS)
        assert isinstance(found, dict), found
        return found

    def _map(self, op: int) -> dict[str, Any] | Error:
        got = self.read()
        if got.op == ERROR:
            answer = told(got)
            assert isinstance(answer, Error)
            return answer
        assert got.op == op | 0x80
        found = msgspec.msgpack.decode(got.body)
        assert isinstance(found, dict)
        return found


def told(got: Frame) -> Verdict | Error:
    if got.op == ERROR:
        return Error(**msgspec.msgpack.decode(got.body))
    assert got.op == frames.CHECK | 0x80, got
    return read_verdict(got.body)
