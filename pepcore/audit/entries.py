"""What may stand in the record: one Struct for each kind of entry, as msgpack on disk.

Promises: a kind is its tag, and a reader that does not know one (or a member of one) still reads the others; every
text and every list is bounded, so no entry is longer than a frame; where a text was shortened, a fingerprint of the
whole stands behind it and `cut` names its field, so that two long names never look the same.
Never: text that is more than data. No entry is made by pasting strings together, so nothing in one can begin another.

Times: `wall_ns` is Unix time, `boottime_ns` CLOCK_BOOTTIME: the first is for people, the second cannot be set back.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import Any, TypedDict, cast, get_args

import msgspec
from msgspec import Struct

NAME, TEXT = 512, 1024
"""Most bytes of a name (subject, policy, point ...) and of a sentence (a reason)."""
MANY, NUMBERS = 32, 4096
"""Most names, and most numbers, in a list."""
CHAIN = 8
"""Most members of a principal chain that are named; the rest is counted as cut."""


def bounded(text: str, limit: int = NAME) -> str:
    """The text, or its beginning and a fingerprint of all of it."""
    if len(text) * 4 <= limit:  # no character takes more than 4 bytes
        return text
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= limit:
        return text
    mark = f"...{len(raw)} bytes, {blake2b(raw, digest_size=8).hexdigest()}"
    return raw[: limit - len(mark)].decode("utf-8", "ignore") + mark


class Shortened:
    """Bounds the texts of one entry and remembers which fields were too long."""

    def __init__(self) -> None:
        self.fields: dict[str, None] = {}

    def text(self, field: str, text: str, limit: int = NAME) -> str:
        short = bounded(text, limit)
        if short is not text:
            self.fields[field] = None
        return short

    def several(self, field: str, texts: tuple[str, ...], limit: int = NAME // 2) -> tuple[str, ...]:
        if len(texts) > MANY:
            self.fields[field] = None
        return tuple(self.text(field, text, limit) for text in texts[:MANY])

    def pair(self, field: str, type_: str, id_: str) -> tuple[str, str]:
        return self.text(field, type_, NAME // 2), self.text(field, id_)

    @property
    def cut(self) -> tuple[str, ...]:
        return tuple(self.fields)


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """What every entry has."""

    wall_ns: int
    boottime_ns: int


class Rare(Entry, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """A kind that bounds its own texts when it is made: it is rare enough to."""

    cut: tuple[str, ...] = ()
    """Fields that were too long and are shortened here."""

    def __post_init__(self) -> None:
        if self.cut:
            return  # as it was read
        short = Shortened()
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, str):
                value = short.text(field, value, TEXT if field == "reason" else NAME)
            elif isinstance(value, tuple) and value and isinstance(value[0], str):
                value = short.several(field, value)
            elif isinstance(value, tuple) and len(value) > NUMBERS:
                short.fields[field], value = None, value[:NUMBERS]
            msgspec.structs.force_setattr(self, field, value)
        msgspec.structs.force_setattr(self, "cut", short.cut)


class Question(Entry, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """A kind that is about one question. `whole`: nothing of that was digested, left out or shortened, so it can be
    replayed."""

    uid: int = -1
    gid: int = -1
    point: str = ""
    subject: tuple[str, str]
    action: str
    resource: tuple[str, str]
    chain: tuple[tuple[str, str], ...] = ()
    attributes: dict[str, dict[str, Any]] = {}
    """Values in plain, by place (`subject`, `action`, `resource`, `context`, `chain.0` ...) and name."""
    digests: dict[str, dict[str, bytes]] = {}
    """Keyed digests of values, by place and name. The name `` stands for the whole place."""
    whole: bool = True


class Decision(Question, frozen=True, kw_only=True, tag="decision"):
    """One question and what was enforced; `digest.Recorder` makes it."""

    permit: bool
    shadow: bool = False
    """The caller got a permit, since its point does not enforce; the other members say what would have happened."""
    fault: str = ""
    reason: str = ""
    policies: tuple[str, ...] = ()
    boot: int = 0
    revision: int = 0
    cached: bool = False
    obligations: tuple[tuple[str, str, bool | None], ...] = ()
    """Id, type, and whether it was discharged; None: its caller has to, and has not said (in shadow nobody has to)."""
    latency_us: int = 0
    decision: int = 0
    trace: str = ""
    cut: tuple[str, ...] = ()
    """Fields that were too long and are shortened here."""


class Difference(Question, frozen=True, kw_only=True, tag="difference"):
    """A candidate policy set decides a question otherwise than the active one did; `digest.Recorder` makes it.

    Both sides are what a PDP says: before windows, rates and what a point can discharge."""

    asked_ms: int = 0
    """Unix time as of which both decided."""
    what: tuple[str, ...]
    """In what they differ: `decision`, `obligations`, `errors`."""
    permit: bool
    fault: str = ""
    reason: str = ""
    policies: tuple[str, ...] = ()
    obligations: tuple[tuple[str, str], ...] = ()
    """Id and type. Where only properties differ, these are the same."""
    candidate_permit: bool
    candidate_fault: str = ""
    candidate_reason: str = ""
    candidate_policies: tuple[str, ...] = ()
    candidate_obligations: tuple[tuple[str, str], ...] = ()
    cut: tuple[str, ...] = ()
    """Fields that were too long and are shortened here."""


class Hits(Rare, frozen=True, kw_only=True, tag="hits"):
    """How often cached decisions were given to a peer since the last such entry. One for many: a busy second has tens
    of thousands."""

    served: tuple[tuple[int, int], ...]
    """Id of a decision, and how often it was given."""
    uid: int = -1
    point: str = ""
    count: int
    """Of all of them together."""
    first_ns: int
    last_ns: int
    """Between which all of them lie (CLOCK_BOOTTIME)."""
    in_process: bool = False
    """Served by the client itself, which counted them."""


class Revoke(Rare, frozen=True, kw_only=True, tag="revoke"):
    uid: int = -1
    tags: tuple[str, ...] = ()
    all: bool = False
    revision: int = 0
    reason: str = ""


class Block(Rare, frozen=True, kw_only=True, tag="block"):
    """`until_ns` is Unix time; 0: until it is lifted."""

    uid: int = -1
    tag: str
    until_ns: int = 0
    revision: int = 0
    reason: str = ""


class Unblock(Rare, frozen=True, kw_only=True, tag="unblock"):
    uid: int = -1
    tag: str
    revision: int = 0
    reason: str = ""


class LeaseStart(Rare, frozen=True, kw_only=True, tag="lease-start"):
    lease: int
    decision: int = 0
    uid: int = -1
    point: str = ""


class LeaseEnd(Rare, frozen=True, kw_only=True, tag="lease-end"):
    """A lease is not held any more. Where `cause` is `stopped` or `handed-over`, not of this daemon: its holder stops
    within his grace, unless he asks another one. Without an end before the next `start`, its daemon was killed."""

    lease: int
    cause: str
    by: int = -1
    """Uid of the administrator who ended it; -1: none did."""


class Reload(Rare, frozen=True, kw_only=True, tag="reload"):
    ok: bool
    policies: int = 0
    entities: int = 0
    revision: int = 0
    reason: str = ""


class Fault(Rare, frozen=True, kw_only=True, tag="fault"):
    """Something is broken; `denied`: entries that say permit and were not released, see `writer`. Or it is `refused`:
    what `uid` may not ask at `point`, `count` times."""

    what: str
    reason: str = ""
    segment: int = 0
    denied: tuple[int, ...] = ()
    uid: int = -1
    point: str = ""
    count: int = 0

    @property
    def given_up(self) -> int:
        """The segment whose sync failed: what stands behind its end does not count. 0: this says something else."""
        return self.segment if self.what == "sync" else 0


class Dropped(Rare, frozen=True, kw_only=True, tag="dropped"):
    """So many entries are not in the record."""

    count: int
    why: str


class Cut(Rare, frozen=True, kw_only=True, tag="cut"):
    """After a crash, so many bytes that were no whole entry were cut from a segment, from this offset on."""

    segment: int
    offset: int
    bytes: int
    why: str


class Retired(Rare, frozen=True, kw_only=True, tag="retired"):
    """A segment was deleted because of its age or size. The tree had this size and root behind it."""

    segment: int
    size: int
    root: bytes


class Start(Rare, frozen=True, kw_only=True, tag="start"):
    boot: int
    version: str
    pid: int


class Stop(Rare, frozen=True, kw_only=True, tag="stop"):
    boot: int
    reason: str = ""


Any_ = (
    Decision | Difference | Hits | Revoke | Block | Unblock | LeaseStart | LeaseEnd | Reload | Fault | Dropped | Cut
    | Retired | Start | Stop
)  # fmt: skip
KINDS: dict[str, type[Entry]] = {str(kind.__struct_config__.tag): kind for kind in get_args(Any_)}


class Unknown(Struct, frozen=True):
    """An entry of a kind, or with a member, that this version does not know: as it stands."""

    kind: str
    members: dict[str, Any]


pack = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(Any_).decode
_read_any = msgspec.msgpack.Decoder(dict[str, Any]).decode


def read(body: bytes) -> Entry | Unknown:
    """Raises msgspec.DecodeError where it is no entry at all."""
    try:
        return cast(Entry, _read(body))
    except msgspec.ValidationError:
        members = _read_any(body)
        return Unknown(str(members.pop("kind", "")), members)


def essential(entry: Entry) -> bool:
    """Whether it may use the room that is kept free on a full disk: all but what lets somebody in, or only counts:
    of what was dropped there would be one for each group, as long as it is full."""
    if isinstance(entry, Decision):
        return not (entry.permit or entry.shadow)
    return not isinstance(entry, Hits | LeaseStart | Difference | Dropped)


class Times(TypedDict):
    wall_ns: int
    boottime_ns: int


def times() -> Times:
    """Both clocks now, as every entry has them."""
    return {"wall_ns": time.time_ns(), "boottime_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME)}
