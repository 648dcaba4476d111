"""Which entries somebody wants to see.

Promises: a pattern is text in which `*` stands for anything and nothing else is special; every condition that is given
must hold; an entry that has no such member does not match. Searching is one pass over the record: it has no index.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import Any

from ..config import milliseconds
from . import entries
from .reader import Recorded


class Query:
    """Conditions over entries. Patterns of subjects also match the members of the principal chain."""

    def __init__(
        self,
        *,
        subject: str = "",
        action: str = "",
        resource: str = "",
        point: str = "",
        permit: bool | None = None,
        kinds: tuple[str, ...] = (),
        since_ns: int | None = None,
        until_ns: int | None = None,
        decision: int | None = None,
    ) -> None:
        self._subject, self._action = _pattern(subject), _pattern(action)
        self._resource, self._point = _pattern(resource), _pattern(point)
        self._permit, self._kinds = permit, frozenset(kinds)
        self._since, self._until, self._decision = since_ns, until_ns, decision

    def matches(self, recorded: Recorded) -> bool:
        entry = recorded.entry
        if self._kinds and kind_of(entry) not in self._kinds:
            return False
        if isinstance(entry, entries.Unknown):
            return self._only_kinds()
        if self._since is not None and entry.wall_ns < self._since:
            return False
        if self._until is not None and entry.wall_ns >= self._until:
            return False
        if self._permit is not None and getattr(entry, "permit", None) is not self._permit:
            return False
        if self._decision is not None and self._decision not in decisions_of(entry):
            return False
        return (
            _any(self._subject, subjects_of(entry))
            and _any(self._action, [getattr(entry, "action", None)])
            and _any(self._resource, [_name(getattr(entry, "resource", None))])
            and _any(self._point, [getattr(entry, "point", None)])
        )

    def _only_kinds(self) -> bool:
        others = (self._subject, self._action, self._resource, self._point, self._permit, self._since, self._until)
        return all(each is None for each in (*others, self._decision))


def kind_of(entry: entries.Entry | entries.Unknown) -> str:
    return entry.kind if isinstance(entry, entries.Unknown) else str(entry.__struct_config__.tag)


def decisions_of(entry: entries.Entry) -> Collection[int]:
    """The ids of the decisions that an entry is about."""
    if isinstance(entry, entries.Hits):
        return [number for number, _ in entry.served]
    return [entry.decision] if isinstance(entry, entries.Decision | entries.LeaseStart) else []


def subjects_of(entry: entries.Entry) -> list[str | None]:
    """Whom an entry is about: the subject and its chain, or what a revoke or block names."""
    if isinstance(entry, entries.Question):
        return [_name(entry.subject), *map(_name, entry.chain)]
    if isinstance(entry, entries.Revoke):
        return list(entry.tags)
    return [entry.tag] if isinstance(entry, entries.Block | entries.Unblock) else []


def _name(pair: tuple[str, str] | None) -> str | None:
    return None if pair is None else f"{pair[0]}::{pair[1]}"


def _pattern(text: str) -> re.Pattern[str] | None:
    if not text:
        return None
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", text)), re.DOTALL)


def _any(pattern: re.Pattern[str] | None, texts: list[Any]) -> bool:
    return pattern is None or any(text is not None and pattern.fullmatch(text) for text in texts)


def instant(text: str, now_ns: int) -> int:
    """Unix nanoseconds of `2026-01-31T09:00:00Z` or of so long ago, as `15m`. Raises ValueError."""
    if re.fullmatch(r"[0-9]{1,9}(ms|s|m|h)", text):
        return now_ns - milliseconds(text) * 1_000_000
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError(f"`{text}` is no time: write `2026-01-31T09:00:00Z`, or how long ago, as `15m` or `36h`")
    return int(at.timestamp() * 1000) * 1_000_000
