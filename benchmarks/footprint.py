"""Memory of a full cache and the time to start.

Promises: memory is what the kernel counts as resident above the same daemon after its first answer; the share that
still hits is asked of a sample, since whoever asks all of them puts back, and pushes out, what was lost.
"""

from __future__ import annotations

from . import corpus
from .plan import Run
from .results import Table, Target
from .rounds import spread

ENTRIES = 100_000
SAMPLE = 20  # every so manieth entry is asked again


def memory(run: Run) -> None:
    run.bar.step(f"memory of {ENTRIES:,} cached decisions", ENTRIES / 8000)
    stage = run.stage
    daemon = stage.daemon(run.small)
    questions = list(corpus.distinct(run.small, ENTRIES))
    first = corpus.write_keys(stage.folder / "first", [corpus.question(run.small.asked[0], "f" * 16)])
    every = corpus.write_keys(stage.folder / "every", questions)
    sample = corpus.write_keys(stage.folder / "sample", questions[::SAMPLE])
    stage.load(daemon, "--count", 1, keys=first)
    before = daemon.status("VmRSS")
    stage.load(daemon, "--count", ENTRIES, "--in-flight", 64, keys=every)
    grown = (daemon.status("VmRSS") - before) / 1024
    said = stage.load(daemon, "--count", ENTRIES // SAMPLE, keys=sample)
    share = said["cached"] / said["n"]
    stage.stop(daemon)
    what = f"memory of {ENTRIES:,} cached decisions of {corpus.QUESTION}-byte keys, 99 % of which still hit"
    note = f"{share:.2%} still hit"
    run.found.targets.append(Target(what, 32, "MiB", measured=spread([grown]), also=share >= 0.99, note=note))
    row = [f"{before / 1024:.1f}", f"{grown:.1f}", f"{share:.2%}"]
    run.found.tables.append(Table("Memory", ["empty daemon MiB", "100,000 decisions above it", "still hit"], [row]))


def start(run: Run) -> None:
    run.bar.step("start", run.plan.starts * 1.2)
    took: dict[str, list[float]] = {"10 policies": [], "1,000 policies": [], "1,000 policies, 10,000 entities": []}
    few = corpus.Corpus(run.large.statements, run.large.entities[:100], ())
    for _ in range(run.plan.starts):
        for name, of in zip(took, (run.small, few, run.large), strict=True):
            daemon = run.stage.daemon(of)
            took[name].append(daemon.ready_s * 1000)
            run.stage.stop(daemon)
    measured = spread(took["1,000 policies"])
    what = "start with 1,000 policies, from exec to the first connection"
    run.found.targets.append(Target(what, 400, "ms", measured=measured))
    rows = [[n, f"{spread(t).median:.0f} ({min(t):.0f} to {max(t):.0f})"] for n, t in took.items()]
    run.found.tables.append(Table("Start", ["policy set", "ms until it accepts"], rows))
