"""How `pepcore top` looks: 24 lines of 80 columns at most.

Promises: names and reasons are data, escaped and cut. Never: writes, waits, or reads a clock.
"""

from __future__ import annotations

from typing import Any

from ..live import LINES, fit
from ..terminal import duration, paint

DENIED = 10
BAR = 16


def lines(seen: dict[str, Any], colours: bool) -> list[str]:
    """The lines of one view."""
    rate, miss, blocks, leases = seen["per_second"], seen["miss_us"], seen["blocks"], seen["leases"]
    ratio = seen["hit_ratio"]
    full = round((ratio or 0) * BAR)
    of_misses = f"p50/p99 of misses {miss['p50']:,}/{miss['p99']:,} us" if miss["count"] else "no misses"
    state = "" if seen["ready"] else "  NOT READY"
    heading = f"pepcore top   {seen['server']}  pid {seen['pid']}  up {duration(seen['uptime_ms'])}{state}"
    if "fault" in seen:
        heading = f"pepcore top   the daemon does not answer: {seen['fault']}"
    out = [
        paint(fit(heading), "red" if "fault" in seen or not seen["ready"] else "bold", colours),
        fit(
            f"checks/s {rate['checks']:,.0f}   hits/s {rate['hits']:,.0f} ({rate['by_clients']:,.0f} by clients)"
            f"   misses/s {rate['misses']:,.0f}   faults/s {rate['faults']:,.0f}"
        ),
        fit(
            f"hits {'-' if ratio is None else f'{ratio:.1%}':>6} [{'#' * full}{'.' * (BAR - full)}]   {of_misses}"
            f"   ping {seen['ping_us']:,.0f} us"
        ),
        fit(
            f"waiting {seen['waiting']:,}   connections {seen['connections']:,}   workers {seen['workers']}"
            f"   cached {seen['entries']:,}   revision {seen['revision']:,}"
        ),
        *_warnings(seen, colours),
        paint(fit("denied most in the last minute (what the cache repeats counts once)"), "bold", colours),
    ]
    for each in seen["denied"][:DENIED]:
        out.append(f"{each['denies']:>9,} {fit(each['subject'], 28)} {fit(each['reason'], 40)}")
    if not seen["denied"]:
        out.append(fit("          nobody"))
    out += ["", paint(fit(_about_blocks(blocks)), "red" if blocks["unreadable"] else "bold", colours)]
    out += [f"          {fit(each['tag'], 28)} {fit(each['reason'], 40)}" for each in reversed(blocks["newest"])]
    told = f"leases {leases['held']:,} held, {leases['started']:,} started, {leases['untold']:,} ended but not told"
    out += [paint(fit(told), "bold", colours)]
    for each in reversed(leases["newest"]):
        out.append(f"          {fit(each['subject'], 28)} {fit(each['action'] + ' ' + each['resource'], 40)}")
    return out[: LINES - 1]


def _warnings(seen: dict[str, Any], colours: bool) -> list[str]:
    """What is let through, and what is not on record; else an empty line."""
    record, found = seen["record"], []
    if record["failing"] or record["lost"]:
        state = "takes no entries right now" if record["failing"] else "lacks entries"
        found.append(f"the record {state}: {record['lost']:,} are lost since the start")
    if seen["points"]:
        each = [f"{p} ({told['mode']}, {told['would_deny']:,} would be denied)" for p, told in seen["points"].items()]
        found.append(f"not enforced: {', '.join(each)}")
    return [paint(fit(line), "red", colours) for line in found] or [""]


def _about_blocks(blocks: dict[str, Any]) -> str:
    if blocks["unreadable"]:
        return "blocks: the list cannot be read, so everything is denied"
    return f"blocks {blocks['in_force']:,} in force"
