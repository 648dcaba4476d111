"""Who was denied most in the last minute, and why: for administrators who look, and for nobody else.

Promises: memory is bounded whatever is asked: so many names in each slice of time (space-saving, Metwally 2005: a new
name takes the place of the rarest and inherits its count as the error), each cut; a subject that makes up more than
1/NAMES of a slice's denies is in it. What is over a minute old is gone.
Never: reads a clock; is looked at or written on a hit: a deny that the cache answers is counted once, when it was
settled.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .settlement import read_question

TOP = 20
NAMES = 64
"""In one slice: several times what is told, so that the order of those is right."""
SLICE_NS = 5_000_000_000
SLICES = 12
LONGEST = 200
"""Characters of a name and of a reason."""

_Slice = dict[str, list[Any]]
"""By subject: how often, how much of that may be others', the newest reason."""


class Denials:
    """Counts denies by subject over a sliding minute."""

    def __init__(self) -> None:
        self._slices: deque[tuple[int, _Slice]] = deque(maxlen=SLICES)

    def add(self, key: bytes, reason: str, times: int, now: int) -> None:
        """So many requests with this canonical question were denied."""
        number = now // SLICE_NS
        if not self._slices or self._slices[-1][0] != number:
            self._slices.append((number, {}))
        names = self._slices[-1][1]
        subject = read_question(key).subject
        name = f"{subject.type}::{subject.id}"[:LONGEST]
        found = names.get(name)
        if found is None:
            inherited = 0
            if len(names) >= NAMES:
                rarest = min(names, key=lambda each: int(names[each][0]))
                inherited = names.pop(rarest)[0]
            found = names[name] = [inherited, inherited, ""]
        found[0] += times
        found[2] = reason[:LONGEST]

    def top(self, now: int) -> list[dict[str, Any]]:
        """Those denied most often, most first: subject, denies, `over` (how many of them may be others'), reason."""
        oldest = now // SLICE_NS - SLICES
        merged: _Slice = {}
        for number, names in self._slices:
            if number <= oldest:
                continue
            for name, (denies, over, reason) in names.items():
                found = merged.setdefault(name, [0, 0, ""])
                found[0] += denies
                found[1] += over
                found[2] = reason
        ranked = sorted(merged.items(), key=lambda item: (-item[1][0], item[0]))[:TOP]
        return [{"subject": name, "denies": n, "over": over, "reason": why} for name, (n, over, why) in ranked]
