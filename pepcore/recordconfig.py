"""What the configuration says of the record: what is kept of decisions, where, and for how long.

Promises: without a word of it every decision is on disk within a second, attribute values only as keyed digests, and
the journal stays below a gibibyte. Never: keeps a record without bounds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .durations import milliseconds

Keeps = Literal["off", "lossy", "buffered", "durable"]
LONGEST_RETENTION_MS = 3650 * 86_400_000


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keep: Keeps = "buffered"
    """Of points that say nothing else; `durable`: a permit is given only once it is on disk; `off`: no record."""
    folder: str = ""
    """Of the journal; empty: `journal` in the state folder."""
    keys: str = ""
    """Folder of the keys that sign heads and digest attributes; empty: `keys` in the state folder."""
    plain: tuple[str, ...] = ()
    """Attributes whose values are recorded: `context.amount`, `subject.*`, `*`. Of others there are keyed digests."""
    heads: str = "60s"
    """Between signed heads."""
    syslog: bool = False
    """Send each head to syslog, too."""
    retain_mib: int = 1024
    """Of the journal, about: its oldest segments go first. 0: no such limit."""
    retain: str = ""
    """How long a segment is kept; empty: until `retain_mib` demands its room."""

    @property
    def heads_s(self) -> float:
        return milliseconds(self.heads) / 1000

    @property
    def retain_s(self) -> int:
        """0: no such limit."""
        return milliseconds(self.retain) // 1000 if self.retain else 0


def retention_fault(record: Record) -> str:
    """What is wrong with the limits of the journal, and what to do about it; "": nothing."""
    if not (record.retain_mib == 0 or 8 <= record.retain_mib <= 1 << 20):
        return "`record.retain_mib` must be 8 to 1048576, or 0 for no limit"
    try:
        if record.retain and not 60_000 <= milliseconds(record.retain) <= LONGEST_RETENTION_MS:
            return f"`record.retain`: `{record.retain}` is not from 1m to 3650d"
    except ValueError as error:
        return f"`record.retain`: {error}"
    if not record.retain_mib and not record.retain:
        return "`record.retain_mib` is 0 and there is no `record.retain`: the journal would fill the disk; set one"
    return ""
