"""What is drawn again and again on a terminal: the demo, `pepcore top`.

Promises: no line is wider than the screen, whatever stands in it, and nothing in it can move the cursor; the terminal
is given back as it was; Ctrl-C, SIGTERM and SIGHUP end it in order. Never: reads a clock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO

from .terminal import plain

COLUMNS, LINES = 80, 24


class Screen:
    """The live view. Uses the alternate screen, so that what was there before comes back."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __enter__(self) -> Screen:
        self._write("\x1b[?1049h\x1b[?25l\x1b[2J")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("\x1b[?25h\x1b[?1049l")

    def draw(self, lines: list[str]) -> None:
        """Show these lines: each went through `fit`, colours aside."""
        self._write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[J")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class Ending:
    """Set by a signal: the view should end."""

    def __init__(self) -> None:
        self.wanted = False

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for number in kept:
            signal.signal(number, self._want)
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _want(self, number: int, frame: Any) -> None:
        self.wanted = True


def is_wanted() -> bool:
    """Whether standard output is a terminal that a view fits on."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    size = shutil.get_terminal_size()
    return size.columns >= COLUMNS and size.lines >= LINES


def fit(text: str, columns: int = COLUMNS - 1) -> str:
    """The text in exactly this many columns."""
    text = plain(text)
    if text.isascii():
        return f"{text:<{columns}}" if len(text) <= columns else f"{text[: columns - 2]}.."
    widths = [_width(c) for c in text]
    if (whole := sum(widths)) <= columns:
        return text + " " * (columns - whole)
    used = kept = 0
    while used + widths[kept] <= columns - 2:
        used += widths[kept]
        kept += 1
    return text[:kept] + ".." + " " * (columns - 2 - used)


def _width(character: str) -> int:
    """Columns of a printable character."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
