"""What the configuration says of points and policies that are not enforced, and how single points are recorded.

Promises: a point enforces unless the config names it and says otherwise; a point that does not enforce has a record,
since every pass that it gives has to be in one (DESIGN, D5). Never: knows a pattern: one word opens one point.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .recordconfig import Keeps

Mode = Literal["enforce", "shadow", "off"]


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    record: Keeps | None = None
    """As `record.keep`, for this point; not given: that."""
    mode: Mode = "enforce"
    """`shadow`: whoever asks gets a permit, and what would have happened is recorded; `off`: the PDP is not asked.
    A block denies in every mode."""


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate policy set, which is asked beside the active one."""

    policies: str = ""
    entities: str = ""
    """Empty: those of the active set; so with the schema."""
    schema: str = ""


ENFORCED = Point()


def unrecorded(points: dict[str, Point], keep: Keeps) -> str:
    """The first point that would let somebody pass without a record, and what to do about it; "": there is none."""
    for name, point in points.items():
        if point.mode != "enforce" and (keep == "off" or point.record == "off"):
            key = "record.keep" if keep == "off" else f"points.{name}.record"
            why = f"`{point.mode}` lets pass what is not enforced, and each pass has to be on record"
            return f"`points.{name}.mode`: {why}: set `{key}` to something else than `off`"
    return ""


def not_enforced(points: dict[str, Point]) -> dict[str, list[str]]:
    """The points of each mode but `enforce`, by mode."""
    found: dict[str, list[str]] = {}
    for name, point in sorted(points.items()):
        if point.mode != "enforce":
            found.setdefault(point.mode, []).append(name)
    return found
