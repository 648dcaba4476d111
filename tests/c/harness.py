"""What the tests of the C binding share: compiling, driving, and a peer as hostile as it likes.

The peer is a thread behind a real Unix socket: what is under test is how the client takes what a peer does.
That binding and daemon understand each other is tested with the real daemon, elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import frames
import pytest

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests/vectors"
COMPILER = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "cc", "gcc", "clang"))), None)
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WELCOME = {
    "boot": 1, "limits": {"depth": 16, "frame": 65536, "many": 1000}, "partition": 1, "revision": 0,
    "server": "fake", "version": 1,
}  # fmt: skip


def compile_c(source: Path, out: Path, *flags: str, include: Path = ROOT / "bindings/c") -> Path:
    if COMPILER is None:
        pytest.fail("no C compiler: install gcc, which the set-up of pepcore needs, too")
    flags = (*flags, "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{include}", "-o", str(out))
    built = subprocess.run([COMPILER, str(source), *flags], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return out


class Driver:
    """A running tests/c/drive.c: one command a line, one answer a line."""

    def __init__(self, program: Path, **popen: Any) -> None:
        self.process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )

    def __call__(self, command: str, *words: object) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join([command, *map(encode, words)]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().rstrip("\n")
        if not answer:
            raise AssertionError(f"{command} ended the driver: {self.close()}")
        return answer

    def check(self, deadline_ms: int = 2000) -> dict[str, Any]:
        return json.loads(self("check", deadline_ms))

    def ask(self, question: list[Any]) -> str:
        """Build a question given as in the vectors; return what `seal` says."""
        subject, action, resource, context, chain = question
        self("new")
        self("entity", 0, subject[0].encode(), subject[1].encode())
        self("action", action[0].encode())
        self("entity", 2, resource[0].encode(), resource[1].encode())
        for member in chain:
            self("entity", 4, member[0].encode(), member[1].encode())
        places = [subject[2], action[1], resource[2], context, *(member[2] for member in chain)]
        for place, properties in enumerate(places):
            for key, value in properties.items():
                self("json", place, key.encode(), json.dumps(value, ensure_ascii=False).encode())
        return self("seal")

    def close(self) -> str:
        _, errors = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, errors
        return errors


def encode(word: object) -> str:
    return (word.hex() or "-") if isinstance(word, bytes) else str(word)


def read_frame(peer: socket.socket) -> tuple[int, int, bytes]:
    """Return op, request id and body; EOFError when the client went away."""
    data = b""
    while len(data) < 24 or len(data) < 24 + struct.unpack_from("<I", data)[0]:
        want = 24 if len(data) < 24 else 24 + struct.unpack_from("<I", data)[0]
        got = peer.recv(want - len(data))
        if not got:
            raise EOFError
        data += got
    return data[9], struct.unpack_from("<Q", data, 16)[0], data[24:]


def welcome(request_id: int = 1) -> bytes:
    return frames.frame(frames.HELLO | 0x80, request_id, frames.pack(WELCOME))


def verdict(request_id: int, permit: int = 1, **fields: Any) -> bytes:
    payload = frames.pack(fields) if fields else b""
    return frames.frame(frames.CHECK | 0x80, request_id, frames.verdict(permit, payload), partition=1)


def permit_all(peer: socket.socket, _: int) -> None:
    """What a daemon does whose policies permit everything."""
    while True:
        op, request_id, _ = read_frame(peer)
        peer.sendall(welcome(request_id) if op == frames.HELLO else verdict(request_id))


class Peer:
    """Serves `behave(connection, number of the connection)` on a socket until closed."""

    def __init__(self, path: Path, behave: Callable[[socket.socket, int], None] = permit_all) -> None:
        self.path, self.behave, self.connections, self.open = path, behave, 0, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(peer)
            threading.Thread(target=self.serve, args=(peer, self.connections), daemon=True).start()

    def serve(self, peer: socket.socket, number: int) -> None:
        with peer:
            try:
                self.behave(peer, number)
            except (EOFError, OSError):
                return

    def close(self) -> None:
        if self.listener.fileno() < 0:
            return
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.open:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self.path.unlink(missing_ok=True)
