"""Durations as people write them, in the configuration, policies and at the shell: `500ms`, `30s`, `5m`, `2h`, `30d`.

Promises: whole numbers of one unit, exactly; what is not one is a ValueError that shows the text and how to write it.
Never: guesses a unit, takes a sign, a fraction or a space.
"""

from __future__ import annotations

import re

LONGEST_MS = 0xFFFFFFFF
"""A lifetime is told in 32 bits (bindings/README.md, "verdict body"): 49 days."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_written = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)", re.ASCII)


def milliseconds(text: str) -> int:
    """Return the milliseconds of a duration. Raises ValueError."""
    found = _written.fullmatch(text)
    if found is None:
        raise ValueError(f"`{text}` is not a duration: write it as `500ms`, `30s`, `5m`, `2h` or `30d`")
    return int(found[1]) * _UNITS[found[2]]
