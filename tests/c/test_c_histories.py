"""Shared histories: what the C client keeps hits exactly where the compiled table of the Python client does.

Promises: a seeded history of questions, answers, revokes, leases, time that passes and daemons that come and go is
played to both over one page, in one thread. Both have one set of 8 for 12 questions, so that what is evicted is
compared, too. A step that took so long that a lease or a bound may have ended between the two ends its history,
uncounted. First each guard in TWINS is compiled out, and the histories find it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import struct
import time
from pathlib import Path

import frames
import pytest
from harness import ROOT, WELCOME, compile_c
from pages import LEASE, LEASE_NS, SIZE, SharedPage, body, now_ns

from pepcore.core.local import Local
from pepcore.core.page import Page
from pepcore.core.verdict import Verdict, read

ASKED, PERMIT, CACHED, FAULT, CONNECTED = 1, 2, 4, 8, 16
SUBJECTS = [f"User::{number}" for number in range(12)]
SLOTS = (0, 1, 2, 300, 65535)
WAYS, SHORT_MS, FOREVER_MS = 8, 8, 3_600_000
STEPS, HISTORIES = 40, 3000
UBSAN = ["-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=all"]


class Late(Exception):
    """The machine slept through a bound: what was seen says nothing."""


class Binding:
    """The C client, loaded from a library of its own."""

    def __init__(self, library: Path) -> None:
        self.c = ctypes.CDLL(str(library))
        self.id = ctypes.c_uint64()
        self.c.begin.argtypes = [ctypes.c_size_t]
        self.c.serve.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
        self.c.play.argtypes = [
            ctypes.POINTER(ctypes.c_uint64), ctypes.c_char_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t,
        ]  # fmt: skip

    def serve(self, page: SharedPage) -> None:
        welcome = frames.frame(0x81, 1, frames.pack({**WELCOME, "boot": page.boot, "page": True}))
        self.c.serve(welcome, len(welcome), page.fd)

    def play(self, subject: str, said: bytes) -> int:
        frame = frames.frame(0x82, 0, said, partition=1)
        return int(self.c.play(self.id, subject.encode(), 0, frame, len(frame)))


def compiled(page: SharedPage) -> Page:
    return Page.reader(mmap.mmap(page.fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ), page.boot)


def no_miss(*_: object) -> Verdict:
    raise AssertionError("only looked into")


class History:
    """One history, played to both; `run` returns what they differ in, or ''."""

    def __init__(self, binding: Binding, seed: int) -> None:
        self.rng, self.binding = random.Random(seed), binding
        self.pages = [SharedPage(self.rng.getrandbits(64) | 1)]
        self.local = Local(compiled(self.pages[0]), no_miss, slots=WAYS)
        self.mapped = self.pages[0]
        self.lease, self.number, self.hits, self.told = "live", 0, 0, 0
        assert binding.c.begin(WAYS)
        binding.serve(self.page)

    @property
    def page(self) -> SharedPage:
        """Of the daemon that runs now; what is kept lies under the one that was mapped last."""
        return self.pages[-1]

    def close(self) -> None:
        self.binding.c.end()
        for page in self.pages:
            os.close(page.fd)

    def run(self) -> str:
        for step in range(STEPS):
            kind = self.rng.random()
            if kind < 0.68:
                if differ := self.ask():
                    return f"step {step}: {differ}"
            elif kind < 0.86:
                slots = self.rng.sample(SLOTS, self.rng.choice((1, 1, 2)))
                (self.mapped if self.rng.random() < 0.5 else self.page).revoke(*slots)
            elif kind < 0.95:
                self.lease = self.rng.choice(("live", "live", "live", "closed", "lapsed", "far"))
            else:
                self.reconnect()
        return ""

    def reconnect(self) -> None:
        self.binding.c.hangup()
        if self.rng.random() < 0.5:
            self.pages.append(SharedPage(self.rng.getrandbits(64) | 1))
            self.binding.serve(self.page)

    def answer(self) -> tuple[bytes, int]:
        """A verdict body of the daemon that runs, and for how long it may be kept."""
        rng, page = self.rng, self.page
        keep = rng.choice((0, *[FOREVER_MS] * 9))
        if rng.random() < 0.003:
            keep = SHORT_MS
        self.number += 1
        data = bytearray(
            body(
                page,
                rng.randrange(2),
                {"policies": [f"p{self.number}"]} if rng.randrange(2) else {},
                boot=page.boot ^ (rng.random() < 0.04),
                revision=max(0, page.revision - rng.choice((0, 0, 0, 0, 0, 1, 2))),
                stamps=rng.sample(SLOTS, rng.choice((0, 1, 1, 2, 3))),
                keep=keep,
                lifetime=FOREVER_MS,
            )
        )
        if rng.random() < 0.04:
            data[:2] = b"\0\x08"
        struct.pack_into("<Q", data, 16, self.number)
        return bytes(data), keep

    def ask(self) -> str:
        start, (said, keep) = now_ns(), self.answer()
        subject, mapped = self.rng.choice(SUBJECTS), self.mapped
        later = {"live": start + LEASE_NS, "closed": 0, "lapsed": start - 1, "far": start + 10**11}
        mapped.put(LEASE, later[self.lease])
        found = self.local.look(subject, "read", "D::b")
        got = self.binding.play(subject, said)
        if got & CONNECTED and self.page.boot != self.local.page.boot:
            self.local.renew(compiled(self.page))
            self.mapped = self.page
        if found is None:
            self.local.put(subject, "read", "D::b", None, read(said, (), start))
            expected = ASKED | (PERMIT if said[0] else 0) | (FAULT if said[1] else 0)
        else:
            self.hits += 1
            expected = CACHED | (PERMIT if found.permit else 0)
        if now_ns() - start > (SHORT_MS * 500_000 if keep == SHORT_MS else LEASE_NS // 2):
            raise Late
        if keep == SHORT_MS:
            time.sleep(SHORT_MS / 900)
        number = self.number if found is None else int(found.id, 16)
        if (got & ~CONNECTED, self.binding.id.value) == (expected, number):
            return ""
        return f"{subject}: C {got:#x} {self.binding.id.value}, Python {expected:#x} {number}, lease {self.lease}"


def difference(binding: Binding, seed: int, histories: int) -> tuple[str, int, int]:
    """The first difference in so many histories, or '', with how many hits were compared and how many came late."""
    hits = late = 0
    for number in range(seed, seed + histories):
        history = History(binding, number)
        try:
            if differ := history.run():
                return f"history {number}, {differ}", hits, late
        except Late:
            late += 1
        finally:
            hits += history.hits
            history.close()
    return "", hits, late


def library(source: Path, out: Path, include: Path = ROOT / "bindings/c") -> Binding:
    return Binding(
        compile_c(source, out, *UBSAN, "-Wno-unused", "-DPEP_I_SAME_CLOCK(c)=1", "-shared", "-fPIC", include=include)
    )


@pytest.fixture(scope="module")
def binding(tmp_path_factory: pytest.TempPathFactory) -> Binding:
    return library(ROOT / "tests/c/history.c", tmp_path_factory.mktemp("history") / "history.so")


TWINS = {
    "own slots at a hit": (
        "  if (!pep_i_untouched(page, e->bytes + e->question_len, e->body_len, e->revision)) return 0;\n",
        "",
    ),
    "no slots": ("if (!num) return pep_i_load(page + PEP_I_PAGE_REVISION) == since;", ""),
    "every slot": ("i < num; i++, stamp += 2)", "i + 1 < num; i++, stamp += 2)"),
    "slots when stored": (" || !pep_i_untouched(c->page, body.data, len, v->revision)", ""),
    "a revoke at that revision": ("> since) return 0;", ">= since) return 0;"),
    "the newer revision": ("  e->revision = revision;\n  return 1;", "  return 1;"),
    "lease": ("if (lease - now > PEP_I_LEASE_NS) return 0;", "if (!lease) return 0;"),
    "closed": ("if (lease - now > PEP_I_LEASE_NS) return 0;", "if (lease && lease - now > PEP_I_LEASE_NS) return 0;"),
    "boot of the verdict": (" || v->boot != c->page_boot", ""),
    "another daemon": ("if (c->page && c->page_boot != c->boot) pep_i_forget(c);", ""),
    "fault": (" || v->fault || ", " || "),
    "the whole question": (
        "!memcmp(e->bytes, r->frame.data + PEP_I_HEADER, r->question_len)",
        "!memcmp(e->bytes, r->frame.data + PEP_I_HEADER, 8)",
    ),
    "visited": ("  set->visited |= 1u << way;\n", ""),
    "the dead first": ("  if (dead < PEP_I_WAYS) return dead;\n", ""),
    "expiry": (
        "if (e->expires_ns <= now || !pep_i_stands(c->page, e)) return",
        "if (!pep_i_stands(c->page, e)) return",
    ),
}
EQUIVALENT = {"the newer revision"}
"""Only faster with it: the slots of an entry are compared with the same revision again."""


@pytest.mark.parametrize("guard", TWINS)
def test_histories_first_find_a_planted_difference(tmp_path: Path, guard: str) -> None:
    source, (old, new) = (ROOT / "bindings/c/pepcore.h").read_text(), TWINS[guard]
    assert source.count(old) == 1, "this guard is no longer where the test looks for it"
    text = source.replace(old, new)
    if guard == "the whole question":
        text = text.replace(
            "#define PEP_I_HASH pep_i_hash\n", "#define PEP_I_HASH(p, n, s) (pep_i_hash(p, n, s) & 0)\n"
        )
    (tmp_path / "pepcore.h").write_text(text)
    twin = library(ROOT / "tests/c/history.c", tmp_path / "twin.so", tmp_path)
    differ, _, _ = difference(twin, 0, 1000)
    assert bool(differ) == (guard not in EQUIVALENT), differ


def test_the_client_in_c_keeps_what_the_compiled_table_keeps(binding: Binding) -> None:
    seed = random.SystemRandom().randrange(2**32)
    differ, hits, late = difference(binding, seed, HISTORIES)
    assert differ == "", f"seed {seed}"
    assert hits > 3 * HISTORIES
    assert late < HISTORIES // 10
