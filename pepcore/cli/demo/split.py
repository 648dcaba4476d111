"""How `pepcore demo revoke` looks: the agent's loop on the left, the administrator on the right; or in a summary.

Promises: as `screen.py`: 79 columns, and nothing that a daemon told can move the cursor, but the lines to be typed,
which stand whole. Never: waits, or reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from ..live import COLUMNS, fit
from ..terminal import paint
from .course import Course, since_us
from .screen import KINDS

HALF = (COLUMNS - 1 - 3) // 2
ROWS = 13
_MARKS = {"permit": "#", "deny": "x", "fault": "?"}


def view(course: Course, heading: str, step: str, commands: Sequence[str], question: str, colours: bool) -> list[str]:
    """All lines of one frame."""
    left = _loop(course, question, colours)
    right = [paint(fit("administrator", HALF), "bold", colours), fit("", HALF)]
    right += [fit(line, HALF) for line in (*deeds(course), "", step)]
    pairs = zip_longest(left, right, fillvalue=fit("", HALF))
    rows = [f"{one} | {other}" for one, other in pairs]
    rows += [f"{'':{HALF}} |"] * (ROWS - len(rows))
    lines = [paint(fit(heading), "bold", colours), "", *rows, "", fit("do it yourself, in another terminal:")]
    return lines + [piece for command in commands for piece in pieces(command)]


def pieces(command: str) -> list[str]:
    """A command in lines of a terminal that paste as one: a backslash at its end joins a line with the next."""
    room = COLUMNS - 2
    lines = []
    while len(command) > room:
        lines.append(command[:room] + "\\")
        command = command[room:]
    return [*lines, command]


def _loop(course: Course, question: str, colours: bool) -> list[str]:
    now = course.now
    kind = now.kind if now else ""
    strip = "".join(paint(_MARKS[each], KINDS[each], colours) for each in course.strip)
    strip += " " * (HALF - len(course.strip))
    why = now.why if now else ""
    return [
        paint(fit("the agent's loop", HALF), "bold", colours),
        fit("", HALF),
        fit(question, HALF),
        paint(fit(kind, HALF), KINDS.get(kind, "dim"), colours),
        *(fit(why[n * HALF : (n + 1) * HALF], HALF) for n in range(2)),
        fit(f"{course.rate:>12,} checks a second", HALF),
        fit(f"{course.asked:>12,} asked", HALF),
        fit(f"{course.hits:>12,} answered in its process", HALF),
        fit(f"{course.asked - course.hits:>12,} asked of the daemon", HALF),
        fit("", HALF),
        strip,
    ]


def deeds(course: Course) -> list[str]:
    """What was done, and when the loop saw it."""
    lines = []
    stopped, resumed = course.stopped, course.resumed
    if course.block is not None:
        lines += ["$ pepcore block Agent::helpdesk", _us(course.block.us, "call to acknowledgement")]
        if stopped is not None:
            lines.append(f"{course.late:>9,}    permits asked thereafter")
            lines.append(_us(since_us(course.block, stopped), "call to first deny"))
    elif course.foreign is not None:
        lines.append(f"blocked from elsewhere, by {course.foreign['by']}")
        if course.foreign_us is not None:
            lines.append(_us(course.foreign_us, "to first deny, at most"))
    if course.gap_us is not None:
        lines.append(_us(course.gap_us, "last permit to first deny"))
    if course.lift is not None:
        lines += ["$ pepcore unblock Agent::helpdesk", _us(course.lift.us, "call to acknowledgement")]
        if resumed is not None:
            lines.append(_us(since_us(course.lift, resumed), "call to first permit"))
    elif resumed is not None:
        lines.append("unblocked from elsewhere")
    return lines


def _us(us: int, what: str) -> str:
    return f"{us:>9,} us {what}"


def summary(course: Course) -> list[str]:
    """The same without a live terminal."""
    lines = [
        f"the agent's loop asked {course.asked:,} times, up to {course.fastest:,} times a second:",
        f"  {course.hits:,} were answered in its own process, {course.asked - course.hits:,} asked of the daemon",
        "the administrator",
        *(f"  {line}" for line in deeds(course)),
    ]
    if course.stopped is not None:
        lines.append(f"why the loop was denied: {course.stopped.why}")
    return [fit(line).rstrip() for line in lines]
