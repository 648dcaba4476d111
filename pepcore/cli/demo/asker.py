"""One process of the demo: asks the questions of one point and tells what came of them, in JSON lines.

Run as `python -m pepcore.cli.demo.asker SOCKET POINT SEED`. Promises: uses the public client and nothing else;
ends when its standard input closes, so that it cannot outlive whoever started it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from random import Random
from typing import Any

import pepcore

from .questions import POINTS, Case, written

EVERY_NS = 100_000_000  # one report
PAUSE = 0.004  # between questions: the demo shows decisions, `pepcore bench` shows speed


class Report:
    """What came of the questions since the last report."""

    def __init__(self) -> None:
        self.asked = self.permits = self.denies = self.faults = self.hits = 0
        self.surprises: list[str] = []
        self.hit_us: list[int] = []
        self.miss_us: list[int] = []
        self.seen: dict[str, dict[str, Any]] = {}

    def add(self, case: Case, verdict: Any, taken_ns: int) -> None:
        """Count one answer, and discharge what it demands on the case's payload."""
        self.asked += 1
        self.hits += verdict.cached
        (self.hit_us if verdict.cached else self.miss_us).append(taken_ns // 1000)
        before = after = ""
        permit = bool(verdict)
        why = verdict.reason or verdict.error or ("" if permit else "no policy permits this")
        if permit and case.payload is not None and verdict.obligations:
            before, after = written(case.payload), written(verdict.apply(case.payload))
        if verdict.fault:
            self.faults += 1
        else:
            self.permits += permit
            self.denies += not permit
            if case.expect is not None and permit != case.expect:
                self.surprises.append(f"{case.title}: {'permit' if permit else 'deny'} {why}")
        kind = "fault" if verdict.fault else "permit" if permit else "deny"
        if kind == "permit" and not after and self.seen.get(kind, {}).get("after"):
            return  # one that shows an obligation at work says more
        self.seen[kind] = {
            "title": case.title,
            "why": why,
            "before": before,
            "after": after,
            "cached": verdict.cached,
            "us": taken_ns // 1000,
            "duties": [duty.type for duty in verdict.obligations],
        }


def main(socket: str, name: str, seed: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this one ends it
    point = POINTS[name]
    rng = Random(f"{seed}/{name}")  # noqa: S311 (traffic, not secrets)
    client = pepcore.connect(socket, deadline=2.0, point=name, handles=point.handles)
    report, told = Report(), time.monotonic_ns()
    while not select.select([0], [], [], PAUSE)[0]:
        case = rng.choice(point.cases)(rng)
        began = time.monotonic_ns()
        verdict = client.check(case.subject, case.action, case.resource, case.context, on_behalf_of=case.chain)
        ended = time.monotonic_ns()
        report.add(case, verdict, ended - began)
        if ended - told >= EVERY_NS:
            os.write(1, json.dumps(vars(report)).encode() + b"\n")
            report, told = Report(), ended


if __name__ == "__main__":
    main(*sys.argv[1:4])
