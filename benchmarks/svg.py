"""Charts as SVG, written by hand: lines over one or two logarithmic axes, with a legend.

Promises: plain SVG 1.1 of text and lines, readable on white and on dark, the same bytes for the same figures.
Never: needs a library, a script or a font that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .results import Series

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 48, 56
COLOURS = ("#0b7a75", "#c4432b", "#7a5cc4", "#a07000", "#3a6fb0")


class Axis:
    """From values to pixels, and where its ticks are."""

    def __init__(self, values: Sequence[float], start: float, end: float, log: bool) -> None:
        self.start, self.end, self.log = start, end, log
        low, high = min(values), max(values)
        if log:
            low, high = max(low, 1e-12), max(high, 1e-12)
            self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
        else:
            self.low, self.high = min(0.0, low), high
        if self.high <= self.low:
            self.high = self.low + 1

    def at(self, value: float) -> float:
        v = math.log10(max(value, 1e-12)) if self.log else value
        return self.start + (self.end - self.start) * (v - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        if self.log:
            return [10.0**e for e in range(int(self.low), int(self.high) + 1)]
        return [self.low + (self.high - self.low) * i / 4 for i in range(5)]


def short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def chart(
    title: str, x_name: str, y_name: str, series: Sequence[Series], *, log_x: bool = True, log_y: bool = False
) -> str:
    """One chart; its text is the whole file."""
    points = [p for s in series for p in s.points]
    if not points:
        raise ValueError(f"`{title}` has no points to draw")
    x = Axis([p[0] for p in points], LEFT, WIDTH - RIGHT, log_x)
    y = Axis([p[1] for p in points], HEIGHT - BOTTOM, TOP, log_y)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(WIDTH / 2, 20, title, "middle", ' font-size="15"'),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_name, "middle"),
        _text(16, HEIGHT / 2, y_name, "middle", f' transform="rotate(-90 16 {HEIGHT / 2:g})"'),
    ]
    for tick in x.ticks():
        out += [
            _line(x.at(tick), TOP, x.at(tick), HEIGHT - BOTTOM),
            _text(x.at(tick), HEIGHT - BOTTOM + 18, short(tick), "middle"),
        ]
    for tick in y.ticks():
        out += [_line(LEFT, y.at(tick), WIDTH - RIGHT, y.at(tick)), _text(LEFT - 8, y.at(tick) + 4, short(tick), "end")]
    for i, one in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in one.points)
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        out.append(f'<rect x="{LEFT + 12}" y="{TOP + 8 + 18 * i}" width="14" height="4" fill="{colour}"/>')
        out.append(_text(LEFT + 32, TOP + 14 + 18 * i, one.name, "start"))
    return "\n".join([*out, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222"{more}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'
