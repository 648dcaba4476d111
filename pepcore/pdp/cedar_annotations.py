r"""What policies say beside permit and forbid: `@ttl`, `@obligation`, `@tag`, `@reason`; and how they join.

    @ttl("30s")                ms, s, m or h: how long the decision may be reused; "0s" forbids reuse
    @obligation("[{...}]")     JSON list of {"type": str, "properties": {}, "id": str}; id is optional
    @tag("[\"team-a\"]")       JSON list of strings: a revoke of one of them drops the decision
    @reason("...")             told to whoever asked

Promises: one that cannot be read is a load error; JSON with a duplicate key or NaN cannot be read. Over the
determining policies, in the order of their ids, obligations, tags and reasons are joined and the shortest
ttl holds. An obligation without id is called `<policy id>#<place>`; equal ones are one; one id with two
meanings is a fault. Whether obligations of two ids can be discharged together is for `core/obligation` to
say, which sees all of them. Never: drops or reorders an obligation in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Fault, PolicyError
from ..model import Obligation

CheckObligation = Callable[[str, dict[str, Any]], None]
KNOWN = frozenset({"id", "ttl", "obligation", "tag", "reason"})

_TTL = re.compile(r"([0-9]{1,10})(ms|s|m|h)", re.ASCII)
_UNIT = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_MOST_MS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Notes:
    ttl_ms: int | None = None
    obligations: tuple[Obligation, ...] = ()
    tags: tuple[str, ...] = ()
    reason: str = ""


NONE = Notes()


@dataclass(frozen=True, slots=True)
class Joined:
    """What the determining policies say together; `clash` says why they contradict each other."""

    obligations: tuple[Obligation, ...]
    tags: tuple[str, ...]
    reason: str
    ttl_ms: int | None
    clash: str


def read_notes(
    file: str, line: int, ident: str, annotations: Mapping[str, str], check: CheckObligation | None
) -> Notes:
    """Return what the annotations of a policy say, or raise PolicyError."""
    if not KNOWN & annotations.keys():
        return NONE
    try:
        if annotations.get("id") == "":
            raise ValueError("@id must not be empty; give the policy a name")
        return Notes(
            _ttl(annotations["ttl"]) if "ttl" in annotations else None,
            _obligations(ident, annotations["obligation"], check) if "obligation" in annotations else (),
            _tags(annotations["tag"]) if "tag" in annotations else (),
            annotations.get("reason", ""),
        )
    except ValueError as e:
        raise PolicyError(file, line, str(e)) from None


def _ttl(text: str) -> int:
    m = _TTL.fullmatch(text)
    if m is None:
        raise ValueError(f'@ttl `{text}` is not a duration; write "500ms", "30s", "5m" or "1h"')
    ms = int(m[1]) * _UNIT[m[2]]
    if ms > _MOST_MS:
        raise ValueError(f"@ttl `{text}` is too long; at most {_MOST_MS} ms (49 days)")
    return ms


def _json_list(name: str, text: str) -> list[Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            raise ValueError("a key stands twice")
        return made

    def constant(word: str) -> Any:
        raise ValueError(f"`{word}` is not JSON")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"@{name} is not JSON: {e}") from None
    if not isinstance(value, list):
        raise ValueError(f"@{name} must be a JSON list, also for one: [...]")
    return value


def _obligations(ident: str, text: str, check: CheckObligation | None) -> tuple[Obligation, ...]:
    made = []
    for n, row in enumerate(_json_list("obligation", text), 1):
        where = f"@obligation {n}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: must be an object with `type` and `properties`")
        extra = row.keys() - {"id", "type", "properties"}
        if extra:
            raise ValueError(f"{where}: unknown member `{min(extra)}`; only `id`, `type` and `properties`")
        kind, given, properties = row.get("type"), row.get("id", f"{ident}#{n}"), row.get("properties", {})
        if not isinstance(kind, str) or not kind:
            raise ValueError(f"{where}: `type` must be a non-empty string")
        if not isinstance(given, str) or not given:
            raise ValueError(f"{where}: `id` must be a non-empty string")
        if not isinstance(properties, dict):
            raise ValueError(f"{where}: `properties` must be an object")
        if check is not None:
            try:
                check(kind, properties)
            except Fault as e:
                raise ValueError(f"{where} `{kind}`: {e}") from None
        made.append(Obligation(given, kind, properties))
    clash = find_clash(made)
    if clash:
        raise ValueError(f"@obligation: {clash}")
    return tuple(made)


def _tags(text: str) -> tuple[str, ...]:
    tags = _json_list("tag", text)
    if not all(isinstance(t, str) and t for t in tags):
        raise ValueError("@tag must be a JSON list of non-empty strings")
    return tuple(tags)


def join(policies: Iterable[tuple[str, Notes]]) -> Joined:
    """Join the notes of the determining policies, given as (id, notes)."""
    obligations: dict[tuple[str, str, str], Obligation] = {}
    tags: dict[str, None] = {}
    reasons: dict[str, None] = {}
    ttl: int | None = None
    for ident, notes in sorted(policies, key=lambda p: p[0]):
        tags[f"policy:{ident}"] = None
        tags.update(dict.fromkeys(notes.tags))
        if notes.reason:
            reasons[notes.reason] = None
        if notes.ttl_ms is not None and (ttl is None or notes.ttl_ms < ttl):
            ttl = notes.ttl_ms
        for o in notes.obligations:
            obligations[(o.id, o.type, _canonical(o.properties))] = o
    every = tuple(obligations.values())
    return Joined(every, tuple(tags), "; ".join(reasons), ttl, find_clash(every))


def _canonical(properties: Any) -> str:
    return json.dumps(properties, sort_keys=True)


def find_clash(obligations: Iterable[Obligation]) -> str:
    """Name an obligation id that means two things, or return an empty string."""
    seen: dict[str, tuple[str, str]] = {}
    for o in obligations:
        content = (o.type, _canonical(o.properties))
        if seen.setdefault(o.id, content) != content:
            return f"the obligation id `{o.id}` has two meanings; give each its own id"
    return ""
