"""What is written to a terminal: escaped text, colours where they are wanted, JSON lines.

Promises: text that came from policies, questions or a daemon is data: control and bidirectional characters are
escaped before they reach a terminal; no colour where NO_COLOR is set, the terminal is dumb, or it is none.
Never: hides a write that failed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

_CODES = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}


def plain(text: str) -> str:
    """The text with everything escaped that a terminal might obey or hide."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def coloured(stream: TextIO) -> bool:
    """Whether this stream wants colours."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, colour: str, wanted: bool) -> str:
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if wanted else text


def as_json(value: Any) -> str:
    """One line, ASCII only: nothing in it can move a cursor."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def duration(ms: int) -> str:
    """A lifetime as people write it."""
    if ms % 1000 and ms < 10_000:
        return f"{ms} ms"
    return f"{ms / 1000:g} s" if ms < 120_000 else f"{ms / 60_000:g} min"
