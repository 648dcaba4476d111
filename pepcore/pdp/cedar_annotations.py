r"""What policies say beside permit and forbid: `@ttl`, `@obligation`, `@tag`, `@reason`; and how they join.

    @ttl("30s")                ms, s, m, h or d: how long the decision may be reused; "0s" forbids reuse
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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..durations import LONGEST_MS, milliseconds
from ..errors import Fault, PolicyError
from ..model import Obligation
from .cedar_places import line_of_annotation, together

CheckObligation = Callable[[str, dict[str, Any]], None]
KNOWN = frozenset({"id", "ttl", "obligation", "tag", "reason"})


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
    file: str, line: int, ident: str, annotations: Mapping[str, str], check: CheckObligation | None, text: str = ""
) -> Notes:
    """Return what the annotations of a policy say, or raise PolicyError for all that cannot be read.

    `text` is the statement, which begins on `line`: errors name the line of the annotation.
    """
    if not KNOWN & annotations.keys():
        return NONE
    wrong: list[PolicyError] = []

    def read(name: str, reader: Callable[[str], tuple[Any, list[str]]], absent: Any) -> Any:
        if name not in annotations:
            return absent
        value, reasons = reader(annotations[name])
        wrong.extend(PolicyError(file, line + line_of_annotation(text, name), reason) for reason in reasons)
        return value

    read("id", lambda given: (given, [] if given else ["@id must not be empty; give the policy a name"]), "")
    notes = Notes(
        read("ttl", _caught(_ttl), None),
        read("obligation", lambda given: _obligations(ident, given, check), ()),
        read("tag", _caught(_tags), ()),
        annotations.get("reason", ""),
    )
    if wrong:
        raise together(wrong)
    return notes


def _caught(reader: Callable[[str], Any]) -> Callable[[str], tuple[Any, list[str]]]:
    def read(text: str) -> tuple[Any, list[str]]:
        try:
            return reader(text), []
        except ValueError as e:
            return None, [str(e)]

    return read


def _ttl(text: str) -> int:
    try:
        ms = milliseconds(text)
    except ValueError as error:
        raise ValueError(f"@ttl {error}") from None
    if ms > LONGEST_MS:
        raise ValueError(f"@ttl `{text}` is too long: at most {LONGEST_MS} ms (49 days)")
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


def _obligations(ident: str, text: str, check: CheckObligation | None) -> tuple[tuple[Obligation, ...], list[str]]:
    """The obligations, and what is wrong with those that are missing among them."""
    made: list[Obligation] = []
    wrong: list[str] = []
    try:
        rows = _json_list("obligation", text)
    except ValueError as e:
        return (), [str(e)]
    for n, row in enumerate(rows, 1):
        try:
            made.append(_obligation(f"@obligation {n}", f"{ident}#{n}", row, check))
        except ValueError as e:
            wrong.append(str(e))
    clash = find_clash(made)
    if clash:
        wrong.append(f"@obligation: {clash}")
    return tuple(made), wrong


def _obligation(where: str, ident: str, row: Any, check: CheckObligation | None) -> Obligation:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be an object with `type` and `properties`")
    extra = row.keys() - {"id", "type", "properties"}
    if extra:
        raise ValueError(f"{where}: unknown member `{min(extra)}`; only `id`, `type` and `properties`")
    kind, given, properties = row.get("type"), row.get("id", ident), row.get("properties", {})
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
    return Obligation(given, kind, properties)


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
    for _, notes in sorted(policies, key=lambda p: p[0]):
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
