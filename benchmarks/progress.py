"""One line on a terminal that shows how far a run is. Off a terminal: nothing."""

from __future__ import annotations

import sys
import time


class Progress:
    """`step` before each piece of work, with its share of the whole."""

    def __init__(self, whole: float) -> None:
        self.whole, self.done, self.pending = whole, 0.0, 0.0
        self.shown = sys.stderr.isatty()
        self.began = time.monotonic()

    def step(self, what: str, weight: float = 1) -> None:
        self.done += self.pending
        self.pending = weight
        if self.shown:
            share = min(1.0, self.done / self.whole)
            bar = "#" * round(30 * share)
            seconds = time.monotonic() - self.began
            sys.stderr.write(f"\r[{bar:<30}] {100 * share:3.0f} % {seconds:4.0f} s  {what:<40.40}")
            sys.stderr.flush()

    def end(self) -> None:
        if self.shown:
            sys.stderr.write("\r" + " " * 90 + "\r")
            sys.stderr.flush()
