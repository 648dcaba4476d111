"""What a client is told when it is made, checked at once: a wrong argument is a mistake of the program, not a deny.

Promises: whatever can never work raises a ValueError that names the argument, shows the value and says what to pass.
Never: looks whether the daemon is there, which it may be later.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from typing import Any

from . import frames
from .place import find
from .questions import shown

TEXT = 64  # characters of a name in a hello
HANDLES = 64
PATH = 107  # bytes of a socket's path that the kernel takes


class Settings:
    """What a client was told when it was made. Raises ValueError where that cannot be."""

    def __init__(
        self, path: str | os.PathLike[str] | None, deadline: float, point: str | None, handles: Collection[str]
    ) -> None:
        self.path, self.deadline = _path(path), _seconds(deadline)
        kinds = handled(handles)
        self.handles = frozenset(kinds)
        self.hello, self.hello_for_page = (frames.hello(_point(point), kinds, page) for page in (False, True))


def _path(path: Any) -> str:
    try:
        found = os.fsdecode(find(path))
        raw = os.fsencode(found)  # a lone surrogate would come up in the middle of the first question
    except Exception:
        raise ValueError(f"path {shown(path)} is not the path of a socket: pass a string or a Path, or None") from None
    if not raw:
        raise ValueError(f"path {shown(path)} is empty: name where the daemon listens")
    if b"\0" in raw:  # the kernel would stop there, at the path of another socket
        raise ValueError(f"path {shown(found)} has a NUL character: name a socket in the file system")
    if len(raw) > PATH:
        raise ValueError(f"path {shown(found)} has {len(raw)} bytes, more than a socket's {PATH}: use a shorter one")
    return found


def _seconds(deadline: Any) -> float:
    with contextlib.suppress(Exception):  # what cannot be compared is no number either
        if 0 < deadline <= 3600:
            return float(deadline)
    raise ValueError(f"deadline {shown(deadline)} is not a number of seconds above 0, at most 3600")


def _point(point: Any) -> str:
    if point is None:
        return ""
    wrong = _wrong(point)
    if wrong:
        raise ValueError(f"point {shown(point)} {wrong}: pass the name of an enforcement point")
    return str.__str__(point)


def handled(handles: Any) -> tuple[str, ...]:
    """Obligation types that a caller discharges, sorted, each once. Raises ValueError where they cannot be."""
    if isinstance(handles, str | bytes):
        raise ValueError(f"handles {shown(handles)} is one string: pass a list of obligation types")
    try:
        given = list(handles)
    except Exception:
        raise ValueError(f"handles {shown(handles)} is not a list: pass a list of obligation types") from None
    for kind in given:
        wrong = _wrong(kind) or (not kind and "is empty")
        if wrong:
            raise ValueError(
                f"handles must be a list of obligation types of 1 to {TEXT} characters: {shown(kind)} {wrong}"
            )
    kinds = tuple(sorted({str.__str__(kind) for kind in given}))
    if len(kinds) > HANDLES:
        raise ValueError(f"handles must be at most {HANDLES} obligation types: {len(kinds)} are given")
    return kinds


def _wrong(name: Any) -> str:
    """Why a name cannot go into a hello; empty where it can."""
    if not isinstance(name, str):
        return "is not a string"
    if len(name) > TEXT:
        return f"is longer than {TEXT} characters"
    try:
        str.encode(name)
    except UnicodeEncodeError:
        return "has a lone surrogate"
    return ""
