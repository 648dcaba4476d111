"""What the configuration says of peers: who may ask, for which points and subjects, and who administers.

Promises: a rule names a user or a group of this host, or fits every one; a name that the host does not know is refused
when the configuration is read. Never: looks at a process; decides which rule holds (`server/peer.py` does).
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable

import msgspec

from .errors import ConfigError


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule for peers. The first that matches holds; where there are rules, a peer without one is refused."""

    user: str | int | None = None
    group: str | int | None = None
    points: tuple[str, ...] = ("*",)
    subjects: tuple[str, ...] = ("*",)
    """Patterns over `Type::id`; `*` stands for anything."""
    administer: bool = False
    share: str = ""
    """Peers that name the same word share one cache partition."""

    def ids(self) -> tuple[int | None, int | None]:
        """Uid and gid, None for any. Raises ConfigError for a name that does not exist."""
        return _number("user", self.user, _uid), _number("group", self.group, _gid)


def _uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def _gid(group: str) -> int:
    return grp.getgrnam(group).gr_gid


def _number(key: str, value: str | int | None, look_up: Callable[[str], int]) -> int | None:
    if isinstance(value, str):
        try:
            return look_up(value)
        except (KeyError, ValueError):
            raise ConfigError(f"`{key}`: there is no {key} `{value}` on this host") from None
    if value is not None and not 0 <= value < 0xFFFFFFFF:
        raise ConfigError(f"`{key}`: `{value}` is not a number from 0 to 4294967294")
    return value
