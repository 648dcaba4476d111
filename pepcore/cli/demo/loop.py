"""The agent of `pepcore demo revoke`: one question in a loop, as fast as the client answers it.

Run as `python -m pepcore.cli.demo.loop SOCKET SUBJECT ACTION RESOURCE`. Promises: uses the public client and nothing
else; every change of the answer is told with CLOCK_MONOTONIC stamps, which other processes of the host share; ends
when its standard input closes. Never: goes on at full speed while it is denied; it asks again now and then.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any

import pepcore

EVERY_NS = 50_000_000  # one report
AGAIN = 0.0002  # seconds from a deny to the next question


def main(socket: str, subject: str, action: str, resource: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this one ends it
    check, clock = pepcore.connect(socket, deadline=2.0, point="agents").check, time.monotonic_ns
    before: Any = None
    kind, changes = "", list[dict[str, Any]]()
    count, hits = {"permit": 0, "deny": 0, "fault": 0}, 0
    asked = began = clock()
    while True:
        last, asked = asked, clock()
        verdict = check(subject, action, resource)
        if verdict is before:  # the very same object was kept in this process: nobody else was asked
            hits += 1
        else:
            answered, was = clock(), kind
            before, kind = verdict, "fault" if verdict.fault else "permit" if verdict else "deny"
            if kind != was:
                why = verdict.error or verdict.reason
                changes.append({"kind": kind, "why": why, "last_ns": last, "asked_ns": asked, "answered_ns": answered})
        count[kind] += 1
        if asked - began >= EVERY_NS:
            report = {**count, "hits": hits, "ns": asked - began, "changes": changes}
            os.write(1, json.dumps(report).encode() + b"\n")
            if select.select([0], [], [], 0)[0]:
                return
            count, hits, changes, began = dict.fromkeys(count, 0), 0, [], asked
        if kind != "permit":
            time.sleep(AGAIN)


if __name__ == "__main__":
    main(*sys.argv[1:5])
