"""Why the engine refuses entities, and on which line: it says neither for most of what can be wrong with them.

Promises: JSON that is cut off or broken is told with the line of the break; an entity without a name, with a key twice,
or with a value that Cedar has no form for, by its number, the line that it begins on and the place in it. Never:
refuses anything: this is asked where the engine already has.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
from cedarpy import Entities, Schema, pst

from ..errors import PolicyError
from .cedar_show import CALLED
from .cedar_types import raised

_BYTE = re.compile(r"\(byte (\d+)\)")
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?(?:NaN|Infinity))\b', re.DOTALL)
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
_rows = msgspec.json.Decoder(list[msgspec.Raw])


class _Wrong(Exception):
    """What is wrong with an entity: the place in it and the reason."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}" if place else reason)


def located(
    file: str, text: str, given: list[Any] | None, schema: Schema | None, reason: str, *, accepted: bool = False
) -> PolicyError:
    """The error for entities that the engine refuses (`accepted`: takes, but cannot write) for a reason of its own.

    `given` are they as the caller passed them, where that was a list.
    """
    try:
        rows = _rows.decode(text)
    except msgspec.MsgspecError as e:
        return _unreadable(file, text, str(e))
    except RecursionError:
        return PolicyError(file, 1, "these entities are nested too deep: nothing here goes deeper than 1,000 lists")
    at = 0
    for n, raw in enumerate(rows):
        one = bytes(raw).decode()
        at = max(text.find(one, at), 0)
        line = text.count("\n", 0, at) + 1
        at += len(one)
        why = ""
        if accepted:
            why = _why(one, None)
        else:
            try:
                Entities.from_json_str(f"[{one}]", schema)
            except ValueError as e:
                why = _why(one, None if given is None else given[n]) or _deepest(e)
        if why:
            return PolicyError(file, line, f"entity {n}: {why}")
    return PolicyError(file, 1, reason)


def _deepest(e: BaseException) -> str:
    return str(e) if e.__cause__ is None else f"{e}: {_deepest(e.__cause__)}"


def _unreadable(file: str, text: str, reason: str) -> PolicyError:
    """The error for a text that is no JSON list, on the line where it stops to be one."""
    byte = _BYTE.search(reason)
    line = text.encode()[: int(byte[1])].count(b"\n") + 1 if byte else 1
    try:
        json.loads(text.rstrip())  # cut off, it ends on its last line and not on the empty one after that
    except json.JSONDecodeError as e:
        line, reason = e.lineno, f"{e.msg[0].lower()}{e.msg[1:]} at column {e.colno}"
    except (ValueError, RecursionError):
        pass
    else:
        constant = next((m for m in _CONSTANT.finditer(text) if m[1]), None)
        if constant:
            line = text.count("\n", 0, constant.start()) + 1
            reason = f"`{constant[1]}` is no number of JSON; leave the attribute out"
    return PolicyError(file, line, f"must be a JSON list of entities: {reason}")


def _why(text: str, given: Any) -> str:
    """What is wrong with the shape of an entity; "" if nothing. What was given tells NaN from null."""
    try:
        if isinstance(given, dict):
            _entity(given)
        _entity(json.loads(text, object_pairs_hook=_object))
    except _Wrong as e:
        return str(e)
    except (ValueError, RecursionError):
        pass  # the engine's own words then
    return ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise _Wrong("", f"has the key `{key}` twice in one object; keep one of them")
        out[key] = value
    return out


def _entity(entity: Any) -> None:
    _is(entity, dict, "", "an object with `uid`, `attrs` and `parents`")
    for name in ("uid", "attrs", "parents"):
        if name not in entity:
            raise _Wrong(name, "is missing")
    _uid(entity["uid"], "uid")
    _is(entity["parents"], list, "parents", "a list")
    for n, parent in enumerate(entity["parents"]):
        _uid(parent, f"parents.{n}")
    for name in ("attrs", "tags"):
        held = entity.get(name, {})
        _is(held, dict, name, "an object")
        for key, value in held.items():
            _value(value, f"{name}.{key}")


def _is(value: Any, kind: type, place: str, what: str) -> None:
    if not isinstance(value, kind):
        raise _Wrong(place, f"must be {what}, not `{_shown(value)}`")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _uid(uid: Any, place: str) -> None:
    if isinstance(uid, dict) and "__entity" in uid:
        uid = uid["__entity"]
    _is(uid, dict, place, 'an object like {"type": "User", "id": "alice"}')
    for name in ("type", "id"):
        if name not in uid:
            raise _Wrong(f"{place}.{name}", "is missing")
        _is(uid[name], str, f"{place}.{name}", "a string")
    if not _TYPE.fullmatch(uid["type"]):
        raise _Wrong(f"{place}.type", f"`{uid['type']}` is no name of a type; write one like `User` or `App::User`")


def _value(value: Any, place: str) -> None:
    if value is None:
        raise _Wrong(place, "is null, which Cedar does not have; leave it out")
    if isinstance(value, float):
        advice = "leave it out" if not math.isfinite(value) else 'write {"__extn": {"fn": "decimal", "arg": "1.5"}}'
        raise _Wrong(place, f"`{value}` is no whole number, and Cedar has no others; {advice}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _Wrong(place, f"`{_shown(value)}` does not fit into 64 bits; write it as a string")
    if isinstance(value, list):
        for n, item in enumerate(value):
            _value(item, f"{place}.{n}")
    elif isinstance(value, dict):
        if "__entity" in value:
            _uid(value, place)
        elif "__extn" in value:
            _extension(value["__extn"], place)
        else:
            for key, member in value.items():
                _value(member, f"{place}.{key}")


def _extension(call: Any, place: str) -> None:
    _is(call, dict, place, 'an object like {"fn": "ip", "arg": "10.0.0.1"}')
    name, argument = call.get("fn"), call.get("arg")
    if name in CALLED and isinstance(argument, str):
        why = raised(pst.UnaryOp(name, pst.StringLit(argument)))
        if why:
            raise _Wrong(place, why)
