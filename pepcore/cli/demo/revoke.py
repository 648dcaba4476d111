"""`pepcore demo revoke` from start to end: an agent's loop on cached permits, and the block that stops it.

Promises: the daemon, the loop and the block are real, and so is every number; whoever blocks the agent from another
terminal first is taken for the administrator; it fails (exit 3) where the loop was not stopped, got a permit for what
it asked after the acknowledgement, or did not go on. Never: touches a running daemon or leaves a file.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import sys
import time
from typing import TYPE_CHECKING

import pepcore

from ..live import Ending, Screen, is_wanted
from ..terminal import as_json as written
from ..terminal import coloured, plain, say
from .course import Act, Course
from .processes import Company
from .show import FRAME_SECONDS, REPORT_BYTES, program, screen_if, started
from .split import summary, view

if TYPE_CHECKING:
    from collections.abc import Callable

    from pepclient import Client
    from pepclient.administration import Acknowledgement

AGENT = "Agent::helpdesk"
QUESTION = (AGENT, "read", "Article::returns")
REASON = "the administrator of the demo stops it"
LEAST = 3
"""Seconds that it runs at least: one for each part."""


def show(seconds: int | None, as_data: bool) -> int:
    """Run it and return its exit code."""
    live = not as_data and is_wanted()
    course, ending = Course(), Ending()
    length = seconds or (30 if live else 6)
    with ending.on_signals(), Company() as company:
        if started(company, ending, as_data):
            company.start("loop", "pepcore.cli.demo.loop", str(company.socket), *QUESTION)
            with screen_if(live) as screen:
                _watch(company, course, ending, length, screen)
    problems = course.problems() if not ending.wanted else []
    if as_data:
        say(written(course.summary()))
    else:
        for line in summary(course):
            say(line)
        for problem in problems:
            say(plain(f"not as promised: {problem}"))
        say(f"\nwhat to try next\n  {program()} block --help\n  {program()} demo")
    return 3 if problems or course.late else 0


def _watch(company: Company, course: Course, ending: Ending, length: int, screen: Screen | None) -> None:
    """Collect reports, act and draw until the time is over. It begins with the loop's first answer."""
    loop = company.askers["loop"]
    assert loop.stdout is not None
    commands = [f"export PEPCORE_SOCKET={shlex.quote(str(company.socket))}", f"{program()} block {AGENT}"]
    administrator = _Administrator(pepcore.connect(company.socket), course, length)
    began, drawn, rest = 0.0, 0.0, b""
    while not ending.wanted and (not began or time.monotonic() < began + length):
        if select.select([loop.stdout], [], [], 0.02)[0]:
            *lines, rest = (rest + os.read(loop.stdout.fileno(), REPORT_BYTES)).split(b"\n")
            for line in lines:
                course.add(json.loads(line))
        company.look()
        now = time.monotonic()
        if not began and course.changes:
            began = now
        step = administrator.act(now - began) if began else "the loop starts"
        if screen is not None and now >= drawn + FRAME_SECONDS:
            left = f"{now - began if began else 0:.0f} s of {length} s, Ctrl-C ends"
            title = f"{'pepcore demo revoke: a block ends cached permits':<54}{left:>25}"
            screen.draw(view(course, title, step, commands, " ".join(QUESTION), coloured(sys.stdout)))
            drawn = now


class _Administrator:
    """Blocks the agent after a third of the time, unless somebody else did, and lifts that after two."""

    def __init__(self, client: Client, course: Course, length: int) -> None:
        self._client, self._course, self._length = client, course, length

    def act(self, after: float) -> str:
        """Do what is due, and say what comes next."""
        course, client = self._course, self._client
        first, second = self._length / 3, self._length * 2 / 3
        denied = course.now is not None and course.now.kind == "deny"
        if course.block is None and course.foreign is None:
            if denied:
                self._look()
            elif after >= first:
                course.block = _timed(lambda: client.block(AGENT, reason=REASON))
            else:
                return f"blocks the agent in {first - after:.0f} s"
        if course.lift is None and after < second:
            return f"lifts the block in {second - after:.0f} s" if denied else ""
        if course.lift is None and denied:
            course.lift = _timed(lambda: client.unblock(AGENT))
        return "the loop goes on"

    def _look(self) -> None:
        """Find out who blocked the agent, and when: to a whole millisecond, which the first deny followed."""
        course = self._course
        found = next((block for block in self._client.blocks() if block["tag"] == AGENT), None)
        course.foreign = found or {"by": "nobody any more"}
        if found is not None and course.stopped is not None:
            denied_ns = course.stopped.answered_ns + time.time_ns() - time.monotonic_ns()
            course.foreign_us = denied_ns // 1000 - found["since"] * 1000


def _timed(do: Callable[[], Acknowledgement]) -> Act:
    called = time.monotonic_ns()
    said = do()
    return Act(called, time.monotonic_ns(), said.revision, said.durable, said.held)
