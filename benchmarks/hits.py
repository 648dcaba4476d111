"""Cached checks over the socket, beside the bare echoes of the same sizes.

Promises: all three servers are asked by the same generator in the same rounds; every reply of the daemon is a cached
permit (a run with many others is refused).
Never: compares figures of two different tables.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from . import corpus
from .plan import Run
from .processes import BenchError, Server, ask_once
from .results import Series, Table, Target, span
from .rounds import Figures, alternate

IN_FLIGHT = (1, 16, 64, 256)
MOST_MISSES = 0.01
LOST = 0.05
"""Of very many entries, that their sets had no room for."""
HOT = 8000
"""Checks that put back all of the thousand hot keys, drawn at random, whatever misses of the same owner pushed out."""


class Trio:
    """A daemon and two echoes that answer the same sizes."""

    def __init__(self, run: Run) -> None:
        self.run, stage = run, run.stage
        self.daemon = stage.daemon(run.small)
        reply = len(ask_once(self.daemon.path, corpus.question(run.small.asked[0])))
        self.echo = stage.echo(corpus.HEADER + corpus.QUESTION, reply)
        self.uvloop = stage.echo_uvloop(corpus.HEADER + corpus.QUESTION, reply)
        self.keys = corpus.write_keys(stage.folder / "hot", corpus.distinct(run.small, 1000))
        stage.load(self.daemon, "--count", 1000, keys=self.keys)
        time.sleep(
            1.2
        )  # the deadlines of these misses pass: while one waits, the loop keeps a timer, and hits pay for it


def cached(run: Run, server: Server, keys: Path, *options: object, misses: float = MOST_MISSES) -> Figures:
    for _ in range(2):  # once more where the wall clock was set meanwhile, which ends every entry
        said = run.stage.load(server, *options, keys=keys)
        said["hit"] = said["cached"] / said["n"]
        if said["hit"] >= 1 - misses:
            break
    else:
        raise BenchError(f"only {said['cached']:.0f} of {said['n']:.0f} checks were cached: this is no measure of hits")
    return said


def in_flight(run: Run, trio: Trio) -> None:
    """The first two targets, and the latency CDF."""
    rows, found, stage = [], run.found, run.stage
    for number in IN_FLIGHT:
        run.bar.step(f"cached checks, {number} in flight", run.plan.seconds * 3 * (run.plan.rounds + 1))
        options: list[object] = ["--in-flight", number, "--duration", run.plan.seconds, "--warm", 20 * number + 500]
        again = 3 if number == 1 else 1  # the two moods need rounds enough
        files = {n: stage.folder / f"{n}.cdf" for n in ("daemon", "echo", "uvloop")}
        rounds = alternate(
            again * run.plan.rounds,
            {
                "daemon": lambda o=options, f=files: cached(run, trio.daemon, trio.keys, *o, "--cdf", f["daemon"]),
                "echo": lambda o=options, f=files: stage.load(trio.echo, *o, "--cdf", f["echo"]),
                "uvloop": lambda o=options, f=files: stage.load(trio.uvloop, *o, "--cdf", f["uvloop"]),
            },
        )
        p50, rate = rounds.ratio("daemon", "echo", "p50"), rounds.ratio("daemon", "echo", "rate")
        if number == 1:
            awake, asleep = rounds.awake("daemon", "echo")
            note = f"cores awake; {span(asleep)} x where both had to be woken" if asleep else "cores awake"
            if awake is None:
                note = "no round found both awake: all rounds"
            what = "cached check, one in flight, p50, over the C echo"
            found.targets.append(Target(what, 1.2, measured=awake or p50, note=note))
            found.latencies = [Series(n, read_cdf(f)) for n, f in files.items()]
        if number == 64:
            what = "cached checks per second, 64 in flight, over the C echo"
            found.targets.append(Target(what, 0.5, at_least=True, measured=rate))
        names = ("daemon", "echo", "uvloop")
        rows.append(
            [
                str(number),
                *(span(rounds.figure(n, "p50"), 1000) for n in names),
                span(p50),
                *(span(rounds.figure(n, "rate"), 1000) for n in names),
                span(rate),
            ]
        )
    columns = [
        "in flight", "p50 us", "C echo", "uvloop echo", "daemon / C echo",
        "1000/s", "C echo", "uvloop echo", "daemon / C echo",
    ]  # fmt: skip
    found.tables.append(Table("Cached checks on one connection", columns, rows))


def read_cdf(path: Path) -> list[tuple[float, float]]:
    """Microseconds and fractions, thinned to what a chart can show, up to 99.9 %."""
    points = [(float(ns) / 1000, float(share)) for ns, share in map(str.split, path.read_text().splitlines())]
    points = [p for p in points if p[1] <= 0.999]
    return points[:: max(1, len(points) // 400)]


def connections(run: Run, trio: Trio) -> None:
    """One request in flight on each of many connections."""
    rows, scaling = [], {"daemon": [], "C echo": []}  # type: ignore[var-annotated]
    rounds_of_it = max(2, run.plan.rounds // 3)
    for number in run.plan.connections:
        run.bar.step(f"{number} connections", (run.plan.seconds + number / 4000) * 2 * rounds_of_it)
        options: list[object] = ["--connections", number, "--duration", run.plan.seconds, "--warm", number + HOT]
        rounds = alternate(
            rounds_of_it,
            {
                "daemon": lambda o=options: cached(run, trio.daemon, trio.keys, *o),
                "C echo": lambda o=options: run.stage.load(trio.echo, *o),
            },
            warm=False,
        )
        for name, points in scaling.items():
            points.append((float(number), rounds.figure(name, "rate").median))
        rows.append(
            [
                f"{number:,}",
                *(span(rounds.figure(n, "rate"), 1000) for n in scaling),
                span(rounds.ratio("daemon", "C echo", "rate")),
                *(span(rounds.figure(n, "p99"), 1000) for n in scaling),
            ]
        )
    columns = ["connections", "1000/s", "C echo", "daemon / C echo", "p99 us", "C echo"]
    run.found.tables.append(Table("Cached checks, one in flight on each connection", columns, rows))
    run.found.scaling = [Series(name, points) for name, points in scaling.items()]


def entries(run: Run) -> None:
    """Hits in random order among many cached entries: what a cache that outgrows the processor's costs."""
    most = max(run.plan.entries)
    slots = max(200_000, most * 5 // 2)
    daemon = run.stage.daemon(run.small, {"slots": slots, "slab_mib": 40 + most * 200 // 2**20, "quota": 1.0})
    rows = []
    for number in run.plan.entries:
        run.bar.step(f"{number:,} cached entries", number / 8000 + run.plan.seconds * run.plan.rounds)
        questions = list(corpus.distinct(run.small, number))
        random.Random(5).shuffle(questions)
        keys = corpus.write_keys(run.stage.folder / "many", questions)
        run.stage.load(daemon, "--count", number, "--in-flight", 64, keys=keys)
        options: list[object] = ["--in-flight", 64, "--duration", run.plan.seconds, "--warm", 2000]
        one: list[object] = ["--duration", run.plan.seconds, "--warm", 500]
        rounds = alternate(
            run.plan.rounds,
            {
                "64": lambda o=options, k=keys: cached(run, daemon, k, *o, misses=LOST),
                "1": lambda o=one, k=keys: cached(run, daemon, k, *o, misses=LOST),
            },
            warm=False,
        )
        hit = f"{rounds.figure('1', 'hit').median:.1%}"
        rows.append(
            [f"{number:,}", span(rounds.figure("1", "p50"), 1000), span(rounds.figure("64", "rate"), 1000), hit]
        )
    run.stage.stop(daemon)
    columns = ["entries", "p50 us, 1 in flight", "1000/s, 64 in flight", "still hit"]
    run.found.tables.append(Table("Hits in random order, by cached entries", columns, rows))


def zipf(run: Run) -> None:
    """A skewed stream over a cache that is too small for it."""
    universe, held = 20_000, 2_000
    run.bar.step("Zipf", run.plan.zipf_draws / 10_000)
    daemon = run.stage.daemon(run.small, {"slots": held, "quota": 1.0})
    all_of_it = list(corpus.distinct(run.small, universe))
    drawn = [all_of_it[i] for i in corpus.zipf(universe, run.plan.zipf_draws)]
    keys = corpus.write_keys(run.stage.folder / "zipf", drawn)
    said = run.stage.load(daemon, "--count", len(drawn), "--in-flight", 16, "--warm", held, keys=keys)
    run.stage.stop(daemon)
    row = [
        f"{universe:,}",
        f"{held:,}",
        f"{said['cached'] / said['n']:.1%}",
        f"{said['rate'] / 1000:.1f}",
        f"{said['p50'] / 1000:.0f}",
    ]
    columns = ["questions", "slots", "hits", "1000/s, 16 in flight", "p50 us"]
    run.found.tables.append(Table("Zipf (0.99) over a cache that holds a tenth", columns, [row]))
