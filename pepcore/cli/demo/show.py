"""The demo from start to end: processes up, reports in, screen out, processes down.

Promises: Ctrl-C, SIGTERM and SIGHUP end it in order with what was seen so far; it fails (exit 3) where the daemon or
an asker ended by itself, or where an answer was not what the company expects.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shlex
import shutil
import sys
import time
from pathlib import Path

from ...errors import Unreachable
from ..live import Ending, Screen, is_wanted
from ..terminal import as_json, coloured, plain, say
from .processes import Company
from .questions import ENTITIES, POLICIES
from .screen import frame, summary
from .tally import Tally

START_SECONDS = 20
FRAME_SECONDS = 0.25
REPORT_BYTES = 1 << 20


def show(seconds: int | None, as_data: bool) -> int:
    """Run the demo and return its exit code."""
    live = not as_data and is_wanted()
    tally, ending = Tally(), Ending()
    length = seconds or (60 if live else 5)
    with ending.on_signals(), Company() as company:
        if started(company, ending, as_data):
            company.start_askers("larkfield")
            with screen_if(live) as screen:
                _watch(company, tally, ending, length, screen)
    if as_data:
        say(as_json(tally.summary()))
    else:
        _conclude(tally)
    return 3 if tally.surprised or (not tally.asked and not ending.wanted) else 0


def screen_if(live: bool) -> contextlib.AbstractContextManager[Screen | None]:
    return Screen(sys.stdout) if live else contextlib.nullcontext()


def started(company: Company, ending: Ending, quiet: bool) -> bool:
    """Start the daemon and wait until it is ready; False: the demo is ended before."""
    if not quiet:
        say("starting a daemon on the bundled policies ...")
        sys.stdout.flush()
    company.start_daemon()
    latest = time.monotonic() + START_SECONDS
    while not ending.wanted:
        if company.ready():
            return True
        if time.monotonic() > latest:
            raise Unreachable("", f"the daemon was not ready within {START_SECONDS} s: try again on a quieter machine")
        time.sleep(0.02)
    return False


def _watch(company: Company, tally: Tally, ending: Ending, length: int, screen: Screen | None) -> None:
    """Collect reports and draw until the time is over."""
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        rest: dict[str, bytes] = {}
        for name, asker in company.askers.items():
            assert asker.stdout is not None
            selector.register(asker.stdout, selectors.EVENT_READ, name)
            rest[name] = b""
        drawn = 0.0
        while not ending.wanted and (now := time.monotonic()) < began + length:
            for key, _ in selector.select(0.05):
                name = key.data
                data = os.read(key.fd, REPORT_BYTES)
                if not data:
                    selector.unregister(key.fileobj)
                *lines, rest[name] = (rest[name] + data).split(b"\n")
                for line in lines:
                    tally.add(name, json.loads(line))
            company.look()
            if screen is not None and now >= drawn + FRAME_SECONDS:
                left = f"{now - began:.0f} s of {length} s, Ctrl-C ends"
                heading = f"{'pepcore demo: one daemon decides for four processes':<54}{left:>25}"
                screen.draw(frame(tally, heading, coloured(sys.stdout)))
                drawn = now


def _conclude(tally: Tally) -> None:
    colours = coloured(sys.stdout)
    for line in summary(tally, colours):
        say(line)
    for surprise in tally.surprises:
        say(plain(f"not as expected: {surprise}"))
    ours, policies, entities = program(), _near(POLICIES), _near(ENTITIES)
    say(f"""
what to try next
  export PEPCORE_SOCKET=/tmp/pepcore-try.sock
  {ours} serve --policies {policies} \\
    --entities {entities} &
  {ours} check Agent::helpdesk call Tool::shell --on-behalf-of User::ines
  {ours} explain Job::shop-deploy deploy Environment::shop-production 'branch="fix-1"'
  {ours} policies check {policies}
  {ours} demo revoke
  {ours} --help""")


def program() -> str:
    """How to call this program from here."""
    ours = Path(sys.executable).parent / "pepcore"
    found = shutil.which("pepcore")
    return "pepcore" if found and Path(found) == ours else _near(ours)


def _near(path: Path) -> str:
    """The path, as short as it can be typed from the current folder."""
    near = os.path.relpath(path)
    return shlex.quote(str(path) if near.startswith("..") else near)
