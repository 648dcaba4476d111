"""A check in the caller's own process, beside `functools.lru_cache`, and what the parts of a hit cost.

Promises: three strings on both sides, both hit; one loop of `timeit` for each, alternating.
Never: a hit that asks the daemon, or one that nobody counts.
"""

from __future__ import annotations

import functools
import importlib.util
import timeit
from collections.abc import Callable
from typing import Any

from . import corpus
from .plan import Run
from .results import Table, Target, span
from .rounds import Figures, alternate

LOOPS = 100_000
WORDS = ("User::alice", "read", "Document::roadmap")
POLICY = '@id("p") permit (principal == User::"alice", action == Action::"read", resource == Document::"roadmap");'


def timed(call: Callable[..., object], *args: object) -> Callable[[], Figures]:
    """Nanoseconds a call, with what the loop itself costs."""
    names: dict[str, Any] = {f"a{i}": a for i, a in enumerate(args)}
    timer = timeit.Timer(f"call({', '.join(names)})", globals={"call": call, **names})
    return lambda: {"ns": timer.timeit(LOOPS) / LOOPS * 1e9}


def lru_hit() -> Callable[..., object]:
    @functools.lru_cache(maxsize=1024)
    def check(subject: str, action: str, resource: str) -> bool:
        return (subject, action, resource) == WORDS

    check(*WORDS)
    return check


class Parts:
    """A cache and a gate with one answer in them, as in the daemon, without a socket."""

    def __init__(self, of: corpus.Corpus) -> None:
        from pepcore.core.cache import Cache
        from pepcore.core.gate import Gate, Stream
        from pepcore.core.page import Page

        self.key = corpus.question(of.asked[0])
        page = Page(1)
        self.cache = Cache(slots=1024, slab=1 << 20, seed=1)
        assert self.cache.put(
            1,
            1,
            self.key,
            b"",
            permit=True,
            id=1,
            expires=1 << 60,
            revision=page.revision,
            now=1,
            page=page,
        )
        self.gate = Gate(self.cache, page, lambda stream, local, body: (1, b"\x80"))
        self.stream = Stream()
        self.gate.feed(self.stream, corpus.hello_frame(), 1, 1)
        self.one = corpus.check_frame(self.key)
        assert len(self.feed(self.one)) == corpus.HEADER + 40
        self.page = page

    def feed(self, data: bytes) -> bytes:
        return self.gate.feed(self.stream, data, 1, 1) or b""


def kept_check(run: Run) -> Callable[..., object]:
    """The check of a client whose daemon permits what is asked, kept in this process."""
    import pepcore

    client = pepcore.connect(run.stage.daemon_of(POLICY).path, deadline=5.0)
    if not (client.check(*WORDS) and client.check(*WORDS).cached):
        raise AssertionError(f"the daemon does not let this be kept: {client.check(*WORDS)}")
    return client.check


def inprocess(run: Run) -> None:
    from pepcore.core.question import canonical

    run.bar.step("in the caller's own process", 1 + run.plan.rounds / 4)
    what = "check in-process, three strings, cached, over lru_cache"
    parts = Parts(run.small)
    candidates = {
        "functools.lru_cache hit, three strings": timed(lru_hit(), *WORDS),
        "gate.feed, one hit": timed(parts.gate.feed, parts.stream, parts.one, 1, 1),
        "gate.feed, 64 pipelined hits": timed(parts.gate.feed, parts.stream, parts.one * 64, 1, 1),
        "cache.get, a hit": timed(parts.cache.get, 1, parts.key, 1, parts.page),
        "canonical, 128 bytes": timed(canonical, parts.key),
    }
    lru, ours = next(iter(candidates)), "embedded check, three strings"
    built = importlib.util.find_spec("pepcore.inprocess") is not None
    if built:
        from pepcore import embedded

        pep = embedded(POLICY)
        assert pep.check(*WORDS)
        candidates[ours] = timed(pep.check, *WORDS)
    theirs = "check over a daemon's page, three strings"
    candidates[theirs] = timed(kept_check(run), *WORDS)
    rounds = alternate(run.plan.rounds, candidates)
    measured = rounds.ratio(ours, lru, "ns") if built else None
    note = "measured on the embedded form" if built else "the embedded form is not built yet"
    run.found.targets.append(Target(what, 1.0, measured=measured, note=note))
    daemon = "the same over a daemon's page"
    note = "lease and revocation checked, each hit counted for the record"
    run.found.targets.append(Target(daemon, 1.0, measured=rounds.ratio(theirs, lru, "ns"), note=note))
    rows = [[name, span(rounds.figure(name, "ns"))] for name in candidates]
    run.found.tables.append(Table("In one process", ["what", "ns"], rows))
