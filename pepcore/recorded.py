"""What every keeper of a record shares, a daemon or a PEP in a process: the journal as it is opened, and from a
verdict as it was told to its entry.

Promises: the entry of a decision says what would have been enforced, also of a pass that the mode of its point gave; a
journal that is damaged or in use is a ConfigError that says so, and nothing is appended to it.
Never: records the value of an attribute that is not named as plain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .audit import entries
from .audit.digest import Recorder
from .audit.keys import load_or_make
from .audit.reasons import raised, without_values
from .audit.recovery import rehearse
from .audit.retention import Rules
from .audit.segments import Damaged
from .audit.writer import Plan, Writer, is_written
from .blocks import read_question
from .errors import NAMES, ConfigError, ObligationFault, PdpFault
from .flight import Partition, Passed
from .model import Obligation
from .recordconfig import Record

IN_ONE = 1024
"""Most decisions whose hits stand in one entry."""
MOST = ((1 << 63) - 1) // IN_ONE
"""Hits of one decision in an entry: their sum has its place in it, too."""
FIXED = 40
"""Bytes of a verdict's body before its payload."""
DISCHARGED = frozenset({"window", "rate", "notify"})
IN_SHADOW = DISCHARGED - {"notify"}
"""What is seen to also where nothing is enforced: whether it permits is part of what would have happened."""


class _Payload(msgspec.Struct, frozen=True):
    obligations: tuple[Obligation, ...] = ()
    policies: tuple[str, ...] = ()
    reason: str = ""


_payload = msgspec.msgpack.Decoder(_Payload).decode
Told = tuple[Partition, bytes, bytes, int, int, int, bytes]
"""Partition, canonical question, verdict body, when asked and when told (CLOCK_BOOTTIME), wall ns, trace."""


def opened(
    folder: Path, keys: Path, record: Record, deliver: Callable[[Callable[[], None]], None]
) -> tuple[Writer, Recorder]:
    """Open a journal, which one at a time can, and what makes its entries of decisions; `keys` is the folder of its
    keys. Raises ConfigError, also where the journal is damaged: who served on without the record would hide that.

    Of the journal the last segment is read; the older ones are for `pepcore audit verify`.
    """
    recorder = Recorder(load_or_make(keys / "digests.key", folder), record.plain)
    plan = Plan(
        retention=Rules(segments=0, bytes=record.retain_mib << 20, seconds=record.retain_s), key=keys / "heads.key",
        heads_s=record.heads_s, syslog=record.syslog, whole=False,
    )  # fmt: skip
    try:
        return Writer(folder, plan, deliver=deliver), recorder
    except Damaged as damaged:
        raise _unusable(damaged) from None


def rehearsed(folder: Path) -> None:
    """Test a journal that another one may still write to, and change nothing. Raises ConfigError where `opened` would
    find it damaged."""
    try:
        rehearse(folder, is_written(folder))
    except Damaged as damaged:
        raise _unusable(damaged) from None


def _unusable(damaged: Damaged) -> ConfigError:
    return ConfigError(
        f"{damaged}: nothing is appended to it; `pepcore audit` reads what stands before that place. "
        "Move the folder away, and a new record begins"
    )


def entry_of(recorder: Recorder, told: Told) -> entries.Decision:
    """The entry of a verdict that was told."""
    partition, key, body, asked_ns, now, wall_ns, trace = told
    shadow = isinstance(body, Passed)
    body = body.real if isinstance(body, Passed) else body
    size = int.from_bytes(body[12:16], "little")
    content = _payload(body[FIXED : FIXED + size]) if size else _Payload()
    permit = body[0] == 1
    cut = {PdpFault.code: without_values, ObligationFault.code: raised}.get(body[1], str)
    done = {kind: permit for kind in (IN_SHADOW if shadow else DISCHARGED)}
    return recorder.decision(
        read_question(key), wall_ns=wall_ns, boottime_ns=now, uid=partition.uid, gid=partition.gid,
        point=partition.point, permit=permit, shadow=shadow, fault=NAMES.get(body[1], ""), reason=cut(content.reason),
        policies=content.policies, boot=int.from_bytes(body[24:32], "little"),
        revision=int.from_bytes(body[32:40], "little"), cached=bool(body[2] & 1),
        obligations=tuple((o.id, o.type, done.get(o.type, False if shadow else None)) for o in content.obligations),
        latency_us=(now - asked_ns) // 1000, decision=int.from_bytes(body[16:24], "little"), trace=trace.hex(),
    )  # fmt: skip


def hits_of(served: Sequence[tuple[int, int]], of: Partition, **members: Any) -> Iterator[entries.Hits]:
    """The entries of what was served as (decision, count), each decision once. `members`: the others of `Hits`."""
    merged: dict[int, int] = {}
    for number, count in served:  # one that left its place and came back is twice in it
        merged[number] = min(MOST, merged.get(number, 0) + count)
    each = list(merged.items())
    for at in range(0, len(each), IN_ONE):
        some = tuple(each[at : at + IN_ONE])
        count = sum(count for _, count in some)
        yield entries.Hits(**entries.times(), served=some, count=count, uid=of.uid, point=of.point, **members)
