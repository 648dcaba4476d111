"""The configuration: one tree of values, validated when it is loaded.

Promises: a file that is not understood in every word is refused with the key that is wrong; defaults are safe
(deny on every fault, bounded everything, only the daemon's own user administers).
Never: reads the environment or the network; changes after it was loaded (a reload makes a new one).
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import msgspec

from .durations import LONGEST_MS
from .durations import milliseconds as milliseconds
from .errors import ConfigError
from .peerconfig import Peer as Peer
from .pointconfig import ENFORCED, unrecorded
from .pointconfig import Mode as Mode
from .pointconfig import Point as Point
from .pointconfig import Shadow as Shadow
from .recordconfig import Keeps as Keeps
from .recordconfig import Record as Record
from .recordconfig import retention_fault

LONGEST_PATH = 107
"""Bytes of a Unix socket's path."""

LONGEST_GRACE_MS = 10_000
"""Whoever starts after a daemon that vanished waits so long before it says that nobody holds a lease of the other."""


class Daemon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    socket: str = ""
    """Path of the Unix socket; empty: the run directory."""
    state: str = ""
    """Folder of what outlives the daemon (blocks); empty: beside the socket, or the system's state directory."""
    workers: int = -1
    """Worker processes for misses; -1: one less than the cores, at least one."""
    watch: bool = True
    """Reload when a policy, entity or schema file changes."""
    drain: str = "5s"
    """How long SIGTERM waits for questions in flight."""


class Policies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    policies: str = ""
    entities: str = ""
    schema: str = ""
    open_types: tuple[str, ...] | None = None
    """Entity types that a request may bring; None: those of which the store holds none."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    connections: int = 16384
    connections_per_peer: int = 12288
    frame: int = 65536
    depth: int = 16
    values: int = 4096
    """Of one question, in its properties and context: what a PDP takes grows with them, whatever their bytes."""
    partial: str = "1s"
    """How long a frame may stay half sent."""
    queued: int = 4 << 20
    """Bytes of replies a peer may leave unread before its connection is closed."""
    unread: str = "10s"
    """How long a peer may leave replies unread before its connection is closed."""
    waiting: int = 65536
    """Questions that wait for the PDP, all peers."""
    waiting_per_peer: int = 4096
    """More than workers decide within the default deadline, and few enough to let go of in one turn of the loop."""
    waiting_bytes_per_peer: int = 32 << 20
    deadline: str = "200ms"
    """Of a request that names none."""
    longest_deadline: str = "30s"


class Keep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slots: int = 200_000
    slab_mib: int = 40
    quota: float = 0.6
    permit: str = "60s"
    """Longest life of a cached permit."""
    deny: str = "1s"
    """Life of a cached deny."""
    clients: str = "60s"
    """For how long clients that map the page may keep an answer by themselves; `0s`: not at all."""


class Lasting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    held: int = 16_384
    """Leases that are held at one time, of all peers."""
    held_per_peer: int = 10_000
    """Fewer than there are: nobody can have them all."""
    grace: str = "1s"
    """How long a holder goes on that has lost the daemon, 10s at most."""


class Notify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    file: str = ""
    """Where `notify` obligations are appended as JSON lines; empty: a permit that demands one is a deny."""


class Observe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    listen: str = ""
    """Where metrics and health are told over HTTP: a path (a Unix socket of mode 0660), `127.0.0.1:PORT` or
    `[::1]:PORT`; empty: nowhere. Whoever can open it may read the numbers."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    daemon: Daemon = Daemon()
    policies: Policies = Policies()
    shadow: Shadow = Shadow()
    limits: Limits = Limits()
    cache: Keep = Keep()
    leases: Lasting = Lasting()
    notify: Notify = Notify()
    record: Record = Record()
    points: dict[str, Point] = {}
    observe: Observe = Observe()
    peers: tuple[Peer, ...] = ()

    def record_of(self, point: str) -> Keeps:
        """How the decisions of a point are recorded."""
        named = self.points.get(point, ENFORCED).record
        return "off" if self.record.keep == "off" else named or self.record.keep

    @property
    def demands_record(self) -> bool:
        """Whether any point gives a permit only once it is on disk."""
        return "durable" in (self.record.keep, *map(self.record_of, self.points))

    def mode_of(self, point: str) -> Mode:
        """Whether the decisions of a point are enforced."""
        return self.points.get(point, ENFORCED).mode


def tcp_address(listen: str) -> tuple[str, int] | None:
    """The loopback address and port that `observe.listen` names; None: it names a path, or nothing that is taken."""
    match = re.fullmatch(r"(?:(127\.0\.0\.1)|\[(::1)\]):([1-9][0-9]{0,4})", listen, re.ASCII)
    return (match[1] or match[2], int(match[3])) if match and int(match[3]) <= 65535 else None


def _is_socket_path(listen: str) -> bool:
    """Whether this can be meant as the path of a Unix socket, and no address by mistake."""
    fits = 0 < len(os.fsencode(listen)) <= LONGEST_PATH
    return fits and "/" in listen and "://" not in listen and not listen.endswith("/") and "\0" not in listen


def load(path: str | os.PathLike[str]) -> Config:
    """Read and validate a `pepcore.toml`. Relative paths in it count from its folder. Raises ConfigError."""
    file = Path(path)
    try:
        raw = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{path}` is not valid TOML: {error}") from None
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"`{path}`: {_in_words(str(error))}") from None
    return validate(config, file.parent, str(path))


def _in_words(text: str) -> str:
    """What msgspec says, with the key first."""
    what, _, where = text.partition(" - at `$")
    key = where.rstrip("`").removeprefix(".").replace("[...]", "[]")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown:
        return f"`{key + '.' if key else ''}{unknown[1]}` is not a key that is known here: remove or correct it"
    return f"`{key}`: {what[:1].lower()}{what[1:]}"


def validate(config: Config, folder: Path | None = None, name: str = "the configuration") -> Config:
    """Check what types cannot say, and make paths absolute. Raises ConfigError."""
    limits, keep = config.limits, config.cache
    checks = [
        ("daemon.workers", config.daemon.workers == -1 or 1 <= config.daemon.workers <= 64, "must be -1, or 1 to 64"),
        ("limits.connections", 0 < limits.connections <= 1 << 20, "must be 1 to 1048576"),
        ("limits.connections_per_peer", limits.connections_per_peer > 0, "must be at least 1"),
        ("limits.frame", 1024 <= limits.frame <= 16 << 20, "must be 1024 to 16777216 bytes"),
        ("limits.depth", 4 <= limits.depth <= 32, "must be 4 to 32"),
        ("limits.values", 64 <= limits.values <= 1 << 20, "must be 64 to 1048576"),
        ("limits.queued", limits.queued >= 65536, "must be at least 65536 bytes"),
        ("limits.waiting", limits.waiting > 0, "must be at least 1"),
        ("limits.waiting_per_peer", limits.waiting_per_peer > 0, "must be at least 1"),
        (
            "limits.waiting_bytes_per_peer",
            limits.waiting_bytes_per_peer >= 2 * limits.frame,
            "must be at least 2 frames",
        ),
        ("leases.held", 0 <= config.leases.held <= 1 << 20, "must be 0 to 1048576"),
        ("leases.held_per_peer", config.leases.held_per_peer >= 0, "must not be negative"),
        ("cache.slots", 8 <= keep.slots <= 1 << 28, "must be 8 to 2^28"),
        ("cache.slab_mib", 1 <= keep.slab_mib <= 65536, "must be 1 to 65536"),
        ("cache.quota", 0 < keep.quota <= 1, "must be above 0, at most 1"),
    ]
    for key, fine, advice in checks:
        if not fine:
            raise ConfigError(f"{name}: `{key}` {advice}")
    for key, text, least in (
        ("daemon.drain", config.daemon.drain, 0),
        ("limits.partial", limits.partial, 1),
        ("limits.unread", limits.unread, 1),
        ("limits.deadline", limits.deadline, 1),
        ("limits.longest_deadline", limits.longest_deadline, 1),
        ("leases.grace", config.leases.grace, 1),
        ("record.heads", config.record.heads, 1),
        ("cache.permit", keep.permit, 0),
        ("cache.deny", keep.deny, 0),
        ("cache.clients", keep.clients, 0),
    ):
        try:
            if not least <= milliseconds(text) <= LONGEST_MS:
                raise ConfigError(f"{name}: `{key}` must be {least}ms to {LONGEST_MS}ms (49 days)")
        except ValueError as error:
            raise ConfigError(f"{name}: `{key}`: {error}") from None
    if milliseconds(config.leases.grace) > LONGEST_GRACE_MS:
        raise ConfigError(f"{name}: `leases.grace` must not be above {LONGEST_GRACE_MS // 1000}s")
    if milliseconds(limits.deadline) > milliseconds(limits.longest_deadline):
        raise ConfigError(f"{name}: `limits.deadline` must not be above `limits.longest_deadline`")
    listen = config.observe.listen
    if listen and tcp_address(listen) is None and not _is_socket_path(listen):
        raise ConfigError(
            f"{name}: `observe.listen`: `{listen}` is not taken: write a path with a `/`, of at most {LONGEST_PATH} "
            "bytes, `127.0.0.1:9470` or `[::1]:9470`; other hosts must not reach it"
        )
    if not config.shadow.policies and (config.shadow.entities or config.shadow.schema):
        raise ConfigError(f"{name}: `shadow.policies` is missing: name the candidate's policies, or leave `shadow` out")
    if why := retention_fault(config.record):
        raise ConfigError(f"{name}: {why}")
    if why := unrecorded(config.points, config.record.keep):
        raise ConfigError(f"{name}: {why}")
    for i, peer in enumerate(config.peers):
        try:
            peer.ids()
        except ConfigError as error:
            raise ConfigError(f"{name}: `peers[{i}]`: {error}") from None
        for pattern in peer.subjects:
            if pattern != "*" and "::" not in pattern:
                raise ConfigError(f"{name}: `peers[{i}].subjects`: `{pattern}` has no `::`: write `Type::id` or `*`")
    if folder is None:
        return config

    def absolute(text: str) -> str:
        return str((folder / text).resolve()) if text else ""

    p, shadow = config.policies, config.shadow
    return msgspec.structs.replace(
        config,
        daemon=msgspec.structs.replace(
            config.daemon, socket=absolute(config.daemon.socket), state=absolute(config.daemon.state)
        ),
        notify=Notify(absolute(config.notify.file)),
        record=msgspec.structs.replace(
            config.record, folder=absolute(config.record.folder), keys=absolute(config.record.keys)
        ),
        observe=Observe(listen if tcp_address(listen) else absolute(listen)),
        policies=Policies(absolute(p.policies), absolute(p.entities), absolute(p.schema), p.open_types),
        shadow=Shadow(absolute(shadow.policies), absolute(shadow.entities), absolute(shadow.schema)),
    )
