"""Who is on the socket, and what they may ask.

Promises: a peer is what the kernel says at connect time (SO_PEERCRED), never what it writes; the overflow uid is
refused; where the config has rules, a peer without one is refused; partitions are interned per listener, user, group,
point and its mode, handled types and subject rule, so that nothing crosses from one to another. Those that nobody uses
are kept, since who asks once and leaves comes back, but the longest unused of an owner gives way to a new one.
Never: looks a peer up by pid; gives a partition's number twice.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import os
import re
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator

from msgspec import Struct

from ..config import Peer as Rule
from ..errors import Overloaded, Refused
from ..flight import Partition
from ..model import Entity
from ..wire import Hello

OVERFLOW_UID = 65534
OWNERS = 4095
PARTITIONS_PER_OWNER = 1024
LAST_PARTITION = 0xFFFFFFFF
"""What the key of a cached answer has room for; none is given twice."""
SO_PEERGROUPS = 59
FEW_GROUPS = 1024
"""Bytes for 256 groups: the most that Python's `getsockopt` asks for."""
ALL_GROUPS = 65_536 * 4
"""Bytes for NGROUPS_MAX groups, the most that a process of Linux can be in."""
ANYBODY = Rule()

Match = Callable[[str], object]
Matcher = tuple[Match, Match]


@functools.cache
def like(pattern: str) -> Match:
    """Match a whole text; only `*` stands for anything, `?` and `[` for themselves."""
    return re.compile(fnmatch.translate(re.sub(r"([\[?])", r"[\1]", pattern))).match


def entity_like(pattern: str) -> list[Matcher]:
    """Match type and id each on its own, so that `Agent::*` is no pattern for the type `Agent::Admin`.

    A type may contain `::`, so each `::` of the pattern may be the one between the two.
    """
    splits = [m.start() for m in re.finditer("(?=::)", pattern)]
    return [(like(pattern[:at]), like(pattern[at + 2 :])) for at in splits]


class Peer(Struct, frozen=True):
    """A connected process: its user and group, its number among owners, its rule."""

    uid: int
    gid: int
    pid: int
    owner: int
    rule: Rule
    administers: bool


def credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process that connected."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF


def other_groups(sock: socket.socket) -> frozenset[int]:
    """The supplementary groups of the process that connected, however many. Raises Refused where they are not told.

    Taking those for none would let a peer past a rule that restricts one of his groups.
    """
    try:
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, FEW_GROUPS)
        except OSError as error:
            if error.errno != errno.ERANGE:
                raise
            raw = _very_many_groups(sock)
    except OSError as error:
        why = f"the kernel does not tell the groups of this peer: `{error.strerror}`"
        raise Refused("peer", f"{why}: leave `group` out of the rules, or put him in fewer groups") from None
    return frozenset(struct.unpack(f"{len(raw) // 4}I", raw))


def _very_many_groups(sock: socket.socket) -> bytes:
    """What `getsockopt` says with room for every group that Linux allows; Python's own takes 1024 bytes at most."""
    import ctypes  # only here: it costs the start 10 ms

    room = ctypes.create_string_buffer(ALL_GROUPS)
    size = ctypes.c_uint32(ALL_GROUPS)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, room, ctypes.byref(size)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return room.raw[: size.value]


class _Interned(Struct):
    """A partition, the key it is found by, and how many hellos of open connections use it."""

    partition: Partition
    key: tuple[object, ...]
    used: int = 0


class Peers:
    """The rules in force, and the numbers given to owners and partitions."""

    def __init__(
        self,
        rules: tuple[Rule, ...],
        listener: str,
        numbers: Iterator[int],
        owners: dict[int, int] | None = None,
        record_of: Callable[[str], str] = lambda point: "off",
        mode_of: Callable[[str], str] = lambda point: "enforce",
    ) -> None:
        """`numbers` and `owners` outlive a change of the rules: a partition's number is never given twice, and an
        owner's stays, since the cache counts by it. Raises ConfigError for a user or group that does not exist."""
        self.rules = [(rule, *rule.ids()) for rule in rules]  # now: a name service may be slow
        self.by_group = any(g is not None for _, _, g in self.rules)
        self._numbers, self._record_of, self._mode_of = numbers, record_of, mode_of
        self._listener = listener
        self.owners = {} if owners is None else owners
        self.partitions: dict[int, Partition] = {}
        self.forgotten: dict[int, Partition] = {}
        """Those whose last hits are still to be counted; whoever harvests clears it."""
        self._by_key: dict[tuple[object, ...], _Interned] = {}
        self._of_owner: dict[int, dict[int, _Interned]] = {}
        self._unused: dict[int, OrderedDict[int, _Interned]] = {}
        self._subjects: dict[int, list[Matcher]] = {}

    def identify(self, pid: int, uid: int, gid: int, groups: frozenset[int] = frozenset()) -> Peer:
        """The peer behind these credentials; a rule for a group holds for its members. Raises Refused."""
        if uid == OVERFLOW_UID:
            raise Refused("peer", f"uid `{uid}` stands for a user of another namespace: give that pod its own listener")
        groups |= {gid}
        rule = next((r for r, u, g in self.rules if u in (None, uid) and (g is None or g in groups)), None)
        if rule is None:
            if self.rules:
                raise Refused("peer", f"no rule in the config admits uid `{uid}`, gid `{gid}`")
            rule = ANYBODY
        owner = self.owners.setdefault(uid, min(len(self.owners), OWNERS))
        return Peer(uid, gid, pid, owner, rule, rule.administer or (not self.rules and uid == os.geteuid()))

    def partition(self, peer: Peer, hello: Hello) -> Partition:
        """The partition of a peer that speaks for a point, in use until it is let go. Raises Refused or Overloaded."""
        rule = peer.rule
        if not any(like(pattern)(hello.point) for pattern in rule.points):
            raise Refused("hello.point", f"`{hello.point}` is not a point that uid `{peer.uid}` may speak for")
        handles = frozenset(hello.handles)
        who = ("share", rule.share) if rule.share else (peer.uid, peer.gid)
        mode = self._mode_of(hello.point)
        key = (self._listener, who, hello.point, mode, handles, rule.subjects)
        found = self._by_key.get(key)
        if found is None:
            self._make_room(peer)
            number = next(self._numbers)
            if number > LAST_PARTITION:
                raise Overloaded("hello", f"all {LAST_PARTITION} numbers of partitions were given: restart the daemon")
            record = self._record_of(hello.point)
            keeps = record != "durable" and mode == "enforce"  # a client sees no pass that it kept: it is not counted
            partition = Partition(number, peer.owner, hello.point, handles, peer.uid, peer.gid, keeps, record, mode)
            found = self._by_key[key] = self._of_owner.setdefault(peer.owner, {})[partition.number] = _Interned(
                partition, key
            )
            self.partitions[partition.number] = partition
            if "*" not in rule.subjects:
                self._subjects[partition.number] = [m for pattern in rule.subjects for m in entity_like(pattern)]
        found.used += 1
        if found.used == 1 and (unused := self._unused.get(found.partition.owner)):
            unused.pop(found.partition.number, None)
        return found.partition

    def _make_room(self, peer: Peer) -> None:
        """Forget the partition that an owner has not used for longest, where it has too many."""
        if len(self._of_owner.get(peer.owner, ())) < PARTITIONS_PER_OWNER:
            return
        unused = self._unused.get(peer.owner)
        if not unused:
            made = PARTITIONS_PER_OWNER
            raise Overloaded("hello", f"uid `{peer.uid}` uses {made} partitions: use fewer sets of handles")
        number, forgotten = unused.popitem(last=False)
        del self._by_key[forgotten.key], self._of_owner[peer.owner][number]
        partition = self.partitions.pop(number)
        if partition.record != "off":
            self.forgotten[number] = partition
        self._subjects.pop(number, None)

    def let_go(self, partition: Partition) -> None:
        """A connection that used this partition is gone."""
        found = self._of_owner.get(partition.owner, {}).get(partition.number)
        if found is not None:  # else its rules are gone as well
            found.used -= 1
            if found.used == 0:
                self._unused.setdefault(partition.owner, OrderedDict())[partition.number] = found

    def admits(self, partition: int, subject: Entity) -> bool:
        """Whether this partition may ask for this subject."""
        matchers = self._subjects.get(partition)
        return matchers is None or any(of_type(subject.type) and of_id(subject.id) for of_type, of_id in matchers)

    def limited(self, partition: int) -> bool:
        """Whether `admits` has anything to look at."""
        return partition in self._subjects
