"""What every process of a race writes down, and the checker that knows nothing of how the product works.

A permit whose question was *started after the acknowledgement* of a revoke of one of its tags must not carry a decision
*from before that revoke was sent*. That a decision is from before is known in three ways, each enough by itself:

- seen: somebody, in any process, already held this decision (boot, id) before the revoke was sent;
- asked: the PDP was asked for it before the revoke was sent (the daemon writes down when, `race_run.EVIDENCE`);
- stamps: the verdict itself says a revision below the one that the acknowledgement named (same boot).

A permit for a blocked subject or chain member, asked after the block's acknowledgement and answered before its lifting
was sent, is wrong whatever it carries. All times are CLOCK_MONOTONIC, which all processes of a host share.
"""

from __future__ import annotations

import json
import math
import struct
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from race_world import QUESTIONS, Asked

_SEEN = struct.Struct("<BBHIQQQQQQQ")
_ASKED = struct.Struct("<QQQ")
WINDOW_NS = 10_000_000
"""Equal answers to one thread are one record for so long: what is lost lies between its first and its last."""


class Seen(NamedTuple):
    """Permits of one decision that one thread got for one question."""

    permit: int
    local: int
    """Answered by the table of the process, without asking the daemon."""
    question: int
    times: int
    boot: int
    number: int
    revision: int
    first_start: int
    last_start: int
    first_end: int
    last_end: int


class Revoke(NamedTuple):
    """A revoke that was acknowledged; a block is one, too. `tags` empty: of everything."""

    tags: frozenset[str]
    start: int
    ack: int
    boot: int
    revision: int
    what: str = "revoke"


class Block(NamedTuple):
    """Nobody who bears `tag` is permitted anything from its acknowledgement until its lifting was sent."""

    tag: str
    ack: int
    lifted: float


class Log:
    """One thread's (or event loop's) record, in memory until it is over."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int, int, int, int], list[int]] = {}
        self._written = bytearray()
        self.counts: Counter[str] = Counter()

    def add(self, question: int, local: bool, boot: int, number: int, revision: int, start: int, end: int) -> None:
        """A permit."""
        key = question, local, boot, number, revision
        found = self._open.get(key)
        if found is not None and start - found[0] < WINDOW_NS:
            found[1], found[3] = start, end
            found[4] += 1
            return
        if found is not None:
            self._write(key, found)
        elif len(self._open) > 64:
            self._flush()
        self._open[key] = [start, start, end, end, 1]

    def _write(self, key: tuple[int, int, int, int, int], found: list[int]) -> None:
        question, local, boot, number, revision = key
        first_start, last_start, first_end, last_end, count = found
        self._written += _SEEN.pack(
            1, local, question, count, boot, number, revision, first_start, last_start, first_end, last_end
        )

    def _flush(self) -> None:
        for key, found in self._open.items():
            self._write(key, found)
        self._open.clear()

    def bytes(self) -> bytes:
        self._flush()
        return bytes(self._written)


def seen(file: Path) -> Iterator[Seen]:
    data = file.read_bytes()
    return map(Seen._make, _SEEN.iter_unpack(data[: len(data) - len(data) % _SEEN.size]))


def asked(file: Path) -> dict[tuple[int, int], int]:
    """When the PDP was asked for each decision (boot, number), as the daemons wrote it."""
    data = file.read_bytes() if file.exists() else b""
    whole = data[: len(data) - len(data) % _ASKED.size]
    return {(boot, number): at for boot, number, at in _ASKED.iter_unpack(whole)}


def revokes(file: Path) -> tuple[list[Revoke], list[Block]]:
    """What a revoker wrote: a line for each acknowledgement."""
    found: list[Revoke] = []
    blocks: list[Block] = []
    for line in file.read_text().splitlines():
        told = json.loads(line)
        tags = frozenset(told["tags"])
        found.append(Revoke(tags, told["start"], told["ack"], told["boot"], told["revision"], told["what"]))
        if told["what"] == "block":
            blocks.append(Block(told["tags"][0], told["ack"], told["lifted"] or math.inf))
    return found, blocks


class Stale(NamedTuple):
    """A permit that must not have been."""

    how: str
    permit: Seen
    question: Asked
    after_us: float
    """Microseconds from the acknowledgement to the start of the question."""
    against: Revoke | Block

    def __str__(self) -> str:
        q, p = self.question, self.permit
        place = "in process" if p.local else "over the socket"
        return (
            f"stale permit ({self.how}): {q.subject} {q.action} {q.resource} {list(q.chain)} was permitted {place} by"
            f" decision {p.number:016x} of boot {p.boot:016x} revision {p.revision}, asked {self.after_us:.0f} us after"
            f" the acknowledgement of {self.against}"
        )


def _sent_last(a: Revoke, b: Revoke) -> Revoke:
    return a if a.start > b.start else b


def _highest(a: Revoke, b: Revoke) -> Revoke:
    return a if a.revision > b.revision else b


class _Ended:
    """The acknowledged revokes that end one question's answers, in the order of their acknowledgements."""

    def __init__(self, revokes: Iterable[Revoke]) -> None:
        self.all = sorted(revokes, key=lambda r: r.ack)
        self.acks = [r.ack for r in self.all]
        self.latest: list[Revoke] = list(accumulate(self.all, _sent_last))

    def before(self, start: int) -> Revoke | None:
        """Of those acknowledged before, the one that was sent last."""
        at = bisect_left(self.acks, start)
        return self.latest[at - 1] if at else None


class _Stamped(_Ended):
    """The same of one boot; `latest` is the one with the highest revision."""

    def __init__(self, revokes: Iterable[Revoke]) -> None:
        super().__init__(revokes)
        self.latest = list(accumulate(self.all, _highest))


class _Blocked:
    def __init__(self, blocks: Iterable[Block]) -> None:
        self.all = sorted(blocks, key=lambda b: b.ack)
        self.acks = [b.ack for b in self.all]

    def during(self, start: int, end: int) -> Block | None:
        """The block in force all that time. Only one process blocks a tag, so that they do not overlap."""
        at = bisect_left(self.acks, start)
        return self.all[at - 1] if at and end <= self.all[at - 1].lifted else None


def check(
    permits: Sequence[Seen],
    revoked: Sequence[Revoke],
    blocked: Sequence[Block] = (),
    pdp: dict[tuple[int, int], int] | None = None,
    questions: Sequence[Asked] = QUESTIONS,
) -> list[Stale]:
    """Every permit that must not have been."""
    known: dict[tuple[int, int], int] = {}
    for p in permits:
        at = known.get((p.boot, p.number))
        known[p.boot, p.number] = p.first_end if at is None else min(at, p.first_end)
    ended, stamped, blocks = [], [], []
    for q in questions:
        of = [r for r in revoked if not r.tags or r.tags & q.tags]
        ended.append(_Ended(of))
        by_boot: defaultdict[int, list[Revoke]] = defaultdict(list)
        for r in of:
            by_boot[r.boot].append(r)
        stamped.append({boot: _Stamped(some) for boot, some in by_boot.items()})
        blocks.append([_Blocked(b for b in blocked if b.tag == tag) for tag in q.blockable])
    found: list[Stale] = []
    for p in permits:
        how, against, start = "", None, p.last_start
        last = ended[p.question].before(p.last_start)
        asked_at = (pdp or {}).get((p.boot, p.number), math.inf)
        if last is not None and known[p.boot, p.number] < last.start:
            how, against = "seen", last
        elif last is not None and asked_at < last.start:
            how, against = "asked", last
        elif p.boot in stamped[p.question]:
            highest = stamped[p.question][p.boot].before(p.last_start)
            if highest is not None and p.revision < highest.revision:
                how, against = "stamps", highest
        block = None
        for of_tag in blocks[p.question]:
            for at, end in ((p.first_start, p.first_end), (p.last_start, p.last_end)):
                if block is None and (block := of_tag.during(at, end)) is not None:
                    start = at
        if not how and block is not None:
            found.append(Stale("blocked", p, questions[p.question], (start - block.ack) / 1e3, block))
        elif how and against is not None:
            found.append(Stale(how, p, questions[p.question], (p.last_start - against.ack) / 1e3, against))
    return sorted(found, key=lambda s: s.permit.last_start)
