"""One run: every measurement in order, the report on standard output, charts and figures in `out/`.

    python -m benchmarks.run [--quick] [--json] [--out FOLDER] [--only NAME ...]

Promises: everything it starts ends with it; the report names the machine; nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from . import footprint, hits, inprocess, journal, misses, revocation, traces
from .plan import FULL, QUICK, Plan, new_run
from .processes import BenchError, Stage
from .progress import Progress
from .results import Found
from .svg import chart

OUT = Path(__file__).resolve().parent / "out"


def parts() -> dict[str, tuple[Callable[..., None], bool]]:
    """The measurements by name; True: it needs the daemon and the two echoes."""
    return {
        "in-flight": (hits.in_flight, True),
        "flood": (misses.beside_a_flood, True),
        "in-process": (inprocess.inprocess, False),
        "miss": (misses.warm_slice, True),
        "policies": (misses.many_policies, True),
        "memory": (footprint.memory, False),
        "start": (footprint.start, False),
        "connections": (hits.connections, True),
        "zipf": (hits.zipf, False),
        "entries": (hits.entries, False),
        "traces": (traces.traces, False),
        "revocation": (revocation.revocation, False),
        "recording": (revocation.recording, True),
        "journal": (journal.journal, False),
    }


def weight(plan: Plan) -> float:
    """About how many seconds a run takes; only the progress bar believes it."""
    measured = plan.seconds * plan.rounds
    return 25 * measured + 20 + sum(plan.entries) / 8000 + sum(plan.connections) / 1000 + plan.starts * 3.6


def measure(plan: Plan, only: list[str]) -> Found:
    bar = Progress(weight(plan))
    with Stage() as stage:
        run = new_run(plan, stage, bar)
        trio = hits.Trio(run)
        for name, (part, of_trio) in parts().items():
            if not only or name in only:
                part(*((run, trio) if of_trio else (run,)))
    bar.end()
    return run.found


def machine() -> str:
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"{os.cpu_count()} cores, {model or platform.machine()}, Linux {platform.release()}, Python "
        f"{platform.python_version()}; no process pinned; load average at the end {load}"
    )


def write(found: Found, out: Path, report: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(found.as_json())))
    (out / "results.md").write_text(report, "utf-8")
    if found.latencies:
        title = "Latency of a cached check, one in flight"
        (out / "latency.svg").write_text(chart(title, "microseconds", "share of checks", found.latencies), "utf-8")
    if found.scaling:
        title = "Cached checks a second, one in flight on each connection"
        drawn = chart(title, "connections", "checks a second", found.scaling, log_y=True)
        (out / "scaling.svg").write_text(drawn, "utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="about a minute instead of about ten")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=OUT, help="where charts and figures go")
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=list(parts()), default=[], help="some parts only")


def main(options: argparse.Namespace) -> int:
    began = time.monotonic()
    try:
        found = measure(QUICK if options.quick else FULL, options.only)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    tables = [*found.tables, found.summary()]
    about = f"Machine: {machine()}; {time.monotonic() - began:.0f} s."
    write(found, options.out, "\n".join([about, "", *(t.markdown() for t in tables)]))
    if options.json:
        print(msgspec.json.encode(found.as_json()).decode())
    else:
        print("\n\n".join([*(t.text() for t in tables), f"{about}\ncharts and figures: {options.out}"]))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
