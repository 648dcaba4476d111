"""A daemon with a page, for the tests of what the C client keeps: a memfd that it seals and sends with its welcome.

Promises: the page is written from the specification (bindings/README.md, "The page"), not by the daemon's code.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import frames
from harness import WELCOME, Driver, Peer, read_frame

SLOT, SLOTS = 512, 65536
SIZE = 8 * (SLOT + SLOTS)
BOOT, LEASE, REVISION = 1, 2, 3
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | 0x10 | fcntl.F_SEAL_SEAL
LEASE_NS = 100_000_000
KEEP = 3_600_000


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class SharedPage:
    """A page as a daemon makes it, but for what a test asks to be different."""

    def __init__(self, boot: int, *, seals: int = SEALS, size: int = SIZE, magic: bytes = b"PEPPAGE1") -> None:
        self.boot, self.revision = boot, 0
        self.fd = os.memfd_create("page", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.fchmod(self.fd, 0o600)
        os.ftruncate(self.fd, size)
        self.memory = mmap.mmap(self.fd, size)
        self.memory[:8] = magic
        self.put(BOOT, boot)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        self.renew()

    def put(self, word: int, value: int) -> None:
        struct.pack_into("@Q", self.memory, 8 * word, value)  # native: the word is written whole

    def renew(self, ahead_ns: int = LEASE_NS) -> None:
        self.put(LEASE, now_ns() + ahead_ns)

    def revoke(self, *slots: int) -> None:
        self.revision += 1
        for slot in slots:
            self.put(SLOT + slot, self.revision)
        self.put(REVISION, self.revision)

    def close(self) -> None:
        self.memory.close()
        os.close(self.fd)


def body(page: SharedPage, permit: int = 1, payload: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """A verdict body of this page's daemon, which may be kept for an hour and hangs on slot 7, unless told."""
    boot, revision = fields.pop("boot", page.boot), fields.pop("revision", page.revision)
    told = {"lifetime": KEEP, "keep": KEEP, "stamps": [7], **fields}
    data = bytearray(frames.verdict(permit, payload or {}, **told))
    struct.pack_into("<QQ", data, 24, boot, revision)
    return bytes(data)


class Daemon:
    """Answers each question with `answer()`, counts them, and sends the descriptors `sends` with its welcome."""

    def __init__(self, serve: Callable[..., Peer], boot: int = 11, **page: Any) -> None:
        self.page = SharedPage(boot, **page)
        self.told: dict[str, Any] = {"boot": boot, "page": True}
        self.sends = [self.page.fd]
        self.questions: list[bytes] = []
        self.hellos: list[bytes] = []
        self.answer: Callable[[], bytes] = lambda: body(self.page)
        self.peer = serve(self.behave)

    def behave(self, peer: socket.socket, _: int) -> None:
        while True:
            op, request_id, said = read_frame(peer)
            if op == frames.HELLO:
                self.hellos.append(said)
                welcome = frames.frame(op | 0x80, request_id, frames.pack({**WELCOME, "now": now_ns(), **self.told}))
                socket.send_fds(peer, [welcome], self.sends)
            else:
                self.questions.append(said)
                peer.sendall(frames.frame(op | 0x80, request_id, self.answer(), partition=1))

    def asked(self, driver: Driver) -> dict[str, Any]:
        """The answer to a check that has to reach this daemon."""
        before = len(self.questions)
        self.page.renew()
        answer = driver.check()
        assert len(self.questions) == before + 1, "an answer was kept that must not be"
        return answer

    def kept(self, driver: Driver) -> dict[str, Any]:
        """The answer to a check that must not reach it; once more where this machine slept past the lease."""
        for _ in range(5):
            before, start = len(self.questions), now_ns()
            self.page.renew()
            answer = driver.check()
            if len(self.questions) == before:
                assert answer["cached"]
                return answer
            assert now_ns() - start > LEASE_NS * 8 // 10, "an answer was not kept"
        raise AssertionError("this machine is too slow for a lease of 100 ms")
