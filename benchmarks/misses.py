"""Misses: what a decision costs beside the bare engine, with many policies, and what it costs others.

Promises: every question of a miss run differs in its context, so none is ever cached, and all else is warm; the bare
call gets the same slice, entities and request in the form that is fastest for it.
Never: compares with a bare call that does less than ours (both read the same context).
"""

from __future__ import annotations

import time

from . import corpus
from .engine import Bare
from .hits import HOT, Trio, cached
from .plan import Run
from .processes import can_be_another
from .results import Table, Target, span
from .rounds import Figures, Spread, alternate, spread

NEVER_CACHED = ("--unique", corpus.UNIQUE)


def warm_slice(run: Run, trio: Trio) -> None:
    bare, plan = Bare(run.small), run.plan
    assert bare.call(0)
    asked = corpus.write_keys(run.stage.folder / "asked", map(corpus.question, run.small.asked))
    options: list[object] = ["--duration", plan.seconds, "--warm", 300]
    run.bar.step("misses, warm slice", 4 * plan.seconds * (plan.rounds + 1))
    reply = int(trio.echo.sizes[-1])
    woken = run.stage.engine(corpus.HEADER + corpus.QUESTION, reply)
    rounds = alternate(
        plan.rounds,
        {
            "miss": lambda: run.stage.load(trio.daemon, *options, *NEVER_CACHED, keys=asked),
            "bare": lambda: bare.run(plan.seconds),
            "woken": lambda: run.stage.load(woken, *options),
            "echo": lambda: run.stage.load(trio.echo, *options),
        },
    )
    run.stage.stop(woken)
    names = ("miss", "bare", "woken", "echo")
    each = [[figures["p50"] for figures in of_round] for of_round in zip(*(rounds.of[n] for n in names), strict=True)]
    ratio = spread([miss / (called + echo) for miss, called, _, echo in each])
    of_woken = spread([miss / served for miss, _, served, _ in each])
    what = "miss, warm slice, p50, over bare cedarpy plus one round trip"
    note = f"{span(of_woken)} x a bare process that each request wakes to make that call"
    run.found.targets.append(Target(what, 1.25, measured=ratio, note=note))
    row = [*(span(rounds.figure(n, "p50"), 1000) for n in names), span(ratio), span(of_woken)]
    columns = ["miss p50 us", "bare cedarpy in a loop", "bare cedarpy behind a socket", "C echo"]
    columns += ["miss / (loop + echo)", "miss / behind a socket"]
    run.found.tables.append(Table("A miss over a warm slice, 10 policies", columns, [row]))


def many_policies(run: Run, trio: Trio) -> None:
    plan, stage = run.plan, run.stage
    run.bar.step("1,000 policies against 10", 2 * plan.seconds * (plan.rounds + 1) + 2)
    large = stage.daemon(run.large)
    of_large = corpus.write_keys(stage.folder / "large", map(corpus.question, run.large.asked))
    of_small = corpus.write_keys(stage.folder / "small", map(corpus.question, run.small.asked))
    options: list[object] = ["--duration", plan.seconds, "--warm", 1500, *NEVER_CACHED]
    rounds = alternate(
        plan.rounds,
        {
            "large": lambda: stage.load(large, *options, keys=of_large),
            "small": lambda: stage.load(trio.daemon, *options, keys=of_small),
        },
    )
    stage.stop(large)
    ratio = rounds.ratio("large", "small", "p50")
    what = "miss, 1,000 policies and 10,000 entities over 10 and 10, p50"
    run.found.targets.append(Target(what, 1.5, measured=ratio))
    row = [*(span(rounds.figure(n, "p50"), 1000) for n in ("large", "small")), span(ratio)]
    columns = ["1,000 policies, 10,000 entities: p50 us", "10 and 10", "ratio"]
    note = "Both sets were there at start. A reload of the large one would take its misses to the workers (D11)."
    run.found.tables.append(Table("Misses by size of the policy set", columns, [row], note))


def beside_a_flood(run: Run, trio: Trio) -> None:
    """Hits of one peer while another one sends nothing but misses, 64 in flight."""
    plan, stage, other = run.plan, run.stage, can_be_another()
    seconds = max(0.5, plan.seconds)
    run.bar.step("hits beside a flood of misses", (2 * seconds + 0.5) * plan.rounds)
    asked = corpus.write_keys(stage.folder / "flood", map(corpus.question, run.small.asked))
    asked.chmod(0o644)

    def quiet() -> Figures:
        # the warm-up also puts back what misses of the same owner have pushed out
        return cached(run, trio.daemon, trio.keys, "--duration", seconds, "--warm", HOT)

    def flooded() -> Figures:
        options: list[object] = ["--duration", seconds + 0.6, "--in-flight", 64, *NEVER_CACHED]
        with stage.beside(stage.command(trio.daemon, *options, keys=asked, other_uid=other)) as flood:
            time.sleep(0.3)
            said = quiet()
        return {**said, "flood": flood["rate"]}

    rounds = alternate(plan.rounds, {"quiet": quiet, "flooded": flooded}, warm=False)
    ratio = Spread(
        rounds.figure("flooded", "p99").median / rounds.figure("quiet", "p99").median,
        rounds.ratio("flooded", "quiet", "p99").least,
        rounds.ratio("flooded", "quiet", "p99").most,
    )
    who = "the flood comes from another uid" if other else "not root: the flood comes from the same uid"
    run.found.targets.append(
        Target("hit p99 while another peer floods with misses, over quiet", 5, measured=ratio, note=who)
    )
    rows = [[n, *(span(rounds.figure(n, k), 1000) for k in ("p50", "p99", "rate"))] for n in ("quiet", "flooded")]
    note = f"{who[0].upper()}{who[1:]}, at {span(rounds.figure('flooded', 'flood'), 1000)} thousand misses a second."
    columns = ["hits", "p50 us", "p99 us", "1000/s"]
    run.found.tables.append(Table("Hits beside a flood of misses", columns, rows, note))
