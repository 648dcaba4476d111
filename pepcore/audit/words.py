"""An entry as one line that people read.

Promises: every name that came from outside is quoted as JSON does as soon as it holds more than plain characters, so
that a blank or a quote in it cannot look like the next word. Whoever writes the line to a terminal escapes it as well
(`cli/terminal.plain`): here stand bidirectional and other invisible characters as they are.
"""

from __future__ import annotations

import json
import re
from typing import Any

from . import entries
from .export import as_object, when
from .query import kind_of
from .reader import Recorded

SERVED = 8
"""Most decisions of one entry of hits that are named; the others are counted."""
_SAFE = re.compile(r"[A-Za-z0-9_@./+:-]{1,200}")


def quoted(text: str) -> str:
    return text if _SAFE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def line(recorded: Recorded) -> str:
    """Index, time, kind, and what matters of that kind."""
    entry = recorded.entry
    if isinstance(entry, entries.Unknown):
        return f"{recorded.index} - {quoted(entry.kind)} (written by a newer version)"
    head = f"{recorded.index} {when(entry.wall_ns)[:23]}Z "
    if isinstance(entry, entries.Decision):
        return head + _decision(entry)
    if isinstance(entry, entries.Difference):
        return head + _difference(entry)
    skipped = ("index", "kind", "time", "wall_ns", "boottime_ns")
    rest = {name: value for name, value in as_object(recorded).items() if name not in skipped}
    if isinstance(entry, entries.Hits):
        return head + _hits(entry, rest)
    words = [f"{name}={_value(value)}" for name, value in rest.items() if value not in ("", [], None)]
    return head + " ".join([kind_of(entry), *words])


def _question(entry: entries.Question) -> list[str]:
    words = [quoted("::".join(entry.subject)), quoted(entry.action), quoted("::".join(entry.resource))]
    if entry.chain:
        words.append("for=" + ",".join(quoted("::".join(member)) for member in entry.chain))
    if entry.point:
        words.append(f"point={quoted(entry.point)}")
    return words


def _decision(entry: entries.Decision) -> str:
    words = ["permit" if entry.permit else "deny"]
    if entry.shadow:
        words.append("(shadow: it passed)")
    words += _question(entry)
    for name in ("fault", "reason", "trace"):
        if getattr(entry, name):
            words.append(f"{name}={quoted(getattr(entry, name))}")
    if entry.policies:
        words.append("by=" + ",".join(map(quoted, entry.policies)))
    if entry.obligations:
        states = {True: "done", False: "failed", None: "left to the caller"}
        if entry.shadow:
            states[False] = "not demanded"
        words.append(
            "obligations=" + ",".join(f"{quoted(t)}:{quoted(states[done])}" for _, t, done in entry.obligations)
        )
    words.append(f"uid={entry.uid}")
    words.append("cached" if entry.cached else f"{entry.latency_us}us")
    return " ".join(words)


def _difference(entry: entries.Difference) -> str:
    words = ["difference", *_question(entry), "in=" + ",".join(map(quoted, entry.what))]
    for name, permit, fault, reason, policies, duties in (
        ("active", entry.permit, entry.fault, entry.reason, entry.policies, entry.obligations),
        ("candidate", entry.candidate_permit, entry.candidate_fault, entry.candidate_reason, entry.candidate_policies,
         entry.candidate_obligations),
    ):  # fmt: skip
        words.append(f"{name}={'fault' if fault else 'permit' if permit else 'deny'}")
        if fault or reason:
            words.append(f"reason={quoted(fault or reason)}")
        if policies:
            words.append("by=" + ",".join(map(quoted, policies)))
        if duties:
            words.append("obligations=" + ",".join(quoted(kind) for _, kind in duties))
    return " ".join(words)


def _hits(entry: entries.Hits, rest: dict[str, Any]) -> str:
    rest["served"] = ",".join(f"{number}:{count}" for number, count in entry.served[:SERVED])
    if len(entry.served) > SERVED:
        rest["served"] += f"+{len(entry.served) - SERVED}"
    return " ".join(
        ["hits", *(f"{name}={_value(value)}" for name, value in rest.items() if value not in ("", [], None))]
    )


def _value(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
