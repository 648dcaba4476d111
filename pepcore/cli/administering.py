"""What `revoke`, `block`, `unblock` and `blocks` share: what they name, and how an acknowledgement is told.

Promises: what holds is told only by an acknowledgement; one that is not on disk though it should be is a fault, since
it is lost when the daemon stops; `--wait` says that it waited in vain.
Never: decides; tells a tag or a reason to a terminal as it came.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..durations import milliseconds
from ..model import Entity
from .asking import add_socket, connect
from .parser import Parser, Usage, whole
from .terminal import as_json, plain, say

if TYPE_CHECKING:
    from pepclient import Client
    from pepclient.administration import Acknowledgement

PATIENCE_MS = 5000
"""What the client waits at least: an acknowledgement may wait for a disk."""

ABOUT_WHO = """
Only the daemon's own user may, or a peer that the config lets `administer`. What it prints is acknowledged:
no question that is asked afterwards, in any process of this host, gets an answer from before."""

_LONGEST_MS = 3650 * 86_400_000
_EVERY_S = 0.1


def add_daemon(parser: Parser) -> None:
    """Where the daemon is, and how long to wait for it."""
    add_socket(parser, whole(PATIENCE_MS, 3_600_000, "milliseconds"), PATIENCE_MS, "an answer")


def add_reason(parser: Parser, help: str) -> None:
    parser.add_argument("--reason", type=_reason, default="", metavar="TEXT", help=help)


def add_wait(parser: Parser) -> None:
    parser.add_argument("--wait", action="store_true", help="wait until every holder of a lease was told, as long as "
                        "--deadline; else exit 3")  # fmt: skip


def _reason(text: str) -> str:
    if len(text) > 1024:
        raise argparse.ArgumentTypeError(f"it has {len(text)} characters: say it in at most 1024")
    return text


def span(text: str) -> int:
    """The milliseconds of a duration."""
    try:
        ms = milliseconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 0 < ms <= _LONGEST_MS:
        raise argparse.ArgumentTypeError(f"`{text}` is not from 1ms to 3650d")
    return ms


def entity(text: str, place: str, command: str) -> str:
    """The tag of an entity that is revoked or blocked. Raises Usage."""
    from pepclient.tags import tag_of

    from ..errors import BadRequest

    try:
        return _short(tag_of(text), place, command)
    except BadRequest as fault:
        raise Usage(command, f"{place} {fault.reason}") from None


def tag(text: str, command: str) -> str:
    """A tag. Raises Usage."""
    if not text:
        raise Usage(command, "--tag is empty: name what the answers hang on")
    return _short(text, "--tag", command)


def _short(text: str, place: str, command: str) -> str:
    if len(text) > 1024:
        raise Usage(command, f"{place} has {len(text)} characters: a name has at most 1024")
    return text


def one_subject(options: argparse.Namespace, command: str) -> str:
    """The tag of the single word of a command. Raises Usage."""
    words = options.words
    if len(words) == 1:
        return entity(words[0], "SUBJECT", command)
    example = f"pepcore {command} Agent::helpdesk"
    if not words:
        raise Usage(command, f"SUBJECT is needed, as in `{example}`")
    raise Usage(command, f"`{words[1]}` is one word too many: name one SUBJECT at a time, as in `{example}`")


def named(tag: str) -> Entity:
    """Whom a tag of `one_subject` names: as text, an id that begins with a quote would be read once more."""
    kind, _, name = tag.partition("::")
    return Entity(kind, name)


@contextlib.contextmanager
def sending(options: argparse.Namespace, command: str) -> Iterator[Client]:
    """A client to send with. Where no answer came to what was sent, it says that nobody knows whether it holds."""
    from ..errors import DeadlinePassed

    with connect(options, command) as client:
        try:
            yield client
        except DeadlinePassed as fault:
            unknown = f"{fault.reason}: whether it holds is not known: run this again, see `pepcore blocks`"
            raise DeadlinePassed(fault.field, unknown) from None


def settled(options: argparse.Namespace, client: Client, first: Acknowledgement) -> Acknowledgement:
    """The acknowledgement to tell: with --wait one without leases to tell, if there is one in time.

    It stays the first in all else: from its revision on it holds, and what it says of the disk stands.
    """
    until = time.monotonic() + options.deadline / 1000
    if not options.wait:
        return first
    told = client.untold(first)
    while (told.held or told.before) and time.monotonic() < until:
        time.sleep(_EVERY_S)
        told = client.untold(first)
    return first._replace(held=told.held, before=told.before)


def tell(options: argparse.Namespace, ack: Acknowledgement, what: str, kept: str) -> int:
    """Print an acknowledgement, and return the exit code. `kept`: what to say of the disk where all is well."""
    if options.json:
        numbers = {"boot": str(ack.boot), "revision": str(ack.revision)}  # 64 bits, as `pepcore check` writes them
        say(as_json({**numbers, "durable": ack.durable, "held": ack.held, "before": ack.before, "why": ack.why}))
    else:
        say(plain(what))
        say(f"  holds       from revision {ack.revision} on")
        say(plain(f"  on disk     {kept if ack.durable else f'no: {ack.why}'}"))
        say(f"  leases      {f'{ack.held:,} still to be told' if ack.held else 'none to be told'}")
        if ack.before:
            say("              those of a daemon before this one may be held for some seconds still")
    faults = []
    if not ack.durable:
        faults.append("it holds now, but is not on disk and is lost when the daemon stops: mend that, run this again")
    if (ack.held or ack.before) and getattr(options, "wait", False):
        those = f"{ack.held:,} leases are" if ack.held else "leases of a daemon before this one may be"
        faults.append(f"--wait: {those} still not told after {options.deadline} ms: wait longer with "
                      "--deadline, or run this again")  # fmt: skip
    for fault in faults:
        sys.stderr.write(f"pepcore: {plain(fault)}\n")
    return 3 if faults else 0


def local(unix_ms: int) -> str:
    """A point in time, as the clock on the wall shows it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_ms / 1000))
    except (ValueError, OverflowError, OSError):  # a year that no calendar has
        return f"{unix_ms} ms"


def left(ms: int) -> str:
    """How long that is, in its two largest units."""
    if ms < 1000:
        return f"{max(0, ms)} ms"
    names = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000))
    n = next(n for n, (_, unit) in enumerate(names) if ms >= unit)
    parts = []
    for name, unit in names[n : n + 2]:
        if ms >= unit:
            parts.append(f"{ms // unit} {name}")
        ms %= unit
    return " ".join(parts)


def rows(blocks: list[dict[str, Any]], now_ms: int) -> list[str]:
    """Blocks for people: two lines each, nothing in them as it came."""
    out = []
    for block in blocks:
        until = block["until"]
        ends = f"until {local(until)}, {left(until - now_ms)} left" if until else "until it is lifted"
        out.append(plain(f"{block['tag']}  {ends}"))
        why = f": {block['reason']}" if block["reason"] else ""
        out.append(plain(f"  since {local(block['since'])}, by {block['by']}{why}"))
    return out
