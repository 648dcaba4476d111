"""A question from arguments or from a line of JSON, and the daemon to ask it.

Promises: JSON is read strictly: a key that stands twice, NaN, an unknown member and text that is not UTF-8 are
refused with the place that is wrong, and nothing is asked; a member that is misspelt must not silently drop a
condition.
Never: decides, or turns a question that was not understood into another one.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .parser import Parser, Usage, each_once, whole

if TYPE_CHECKING:
    from pepclient import Client

ABOUT_QUESTIONS = """
SUBJECT and RESOURCE are written Type::id, the type ending at the first `::`. key=json adds a field to
the context: numbers and true as they are, strings in double quotes, so quote them from the shell, too:
'branch="main"'."""


class Asked(NamedTuple):
    """A question and what its request brings along, as the client takes them."""

    subject: dict[str, Any]
    action: dict[str, Any]
    resource: dict[str, Any]
    context: dict[str, Any]
    on_behalf_of: list[dict[str, Any]]


def add_question(parser: Parser) -> None:
    """The arguments of a question."""
    parser.usage = f"pepcore {parser.command} SUBJECT ACTION RESOURCE [key=json ...] [options]"
    parser.add_argument("words", nargs="*", metavar="WORD", help=argparse.SUPPRESS)
    parser.add_argument(
        "--on-behalf-of",
        action="append",
        default=[],
        metavar="TYPE::ID",
        help="on whose behalf the subject acts; nearest first, up to 16 times",
    )
    parser.add_argument("--point", metavar="NAME", help="the enforcement point to ask as")
    parser.add_argument(
        "--handles",
        default="",
        metavar="A,B",
        help="obligation types that you discharge yourself; a permit with any other is a fault",
    )
    add_socket(parser)


def add_socket(
    parser: Parser,
    deadline: Callable[[str], int] = whole(1, 3_600_000, "milliseconds"),  # noqa: B008 (a function, made once)
    default: int = 200,
    what: str = "a verdict",
) -> None:
    """Where the daemon is, and how long to wait for it."""
    parser.add_argument(
        "--deadline",
        type=deadline,
        default=default,
        metavar="MS",
        help=f"how long to wait for {what} (default {default})",
    )
    parser.add_argument("--socket", metavar="PATH", help="where the daemon listens (default: PEPCORE_SOCKET, then "
                        "the run directory)")  # fmt: skip


def from_arguments(options: argparse.Namespace, command: str) -> Asked:
    """The question that the arguments ask. Raises Usage."""
    words = options.words
    if len(words) < 3:
        example = f"pepcore {command} User::alice read Document::roadmap"
        raise Usage(command, f"SUBJECT, ACTION and RESOURCE are needed, as in `{example}`")
    if not words[1]:
        raise Usage(command, "ACTION is empty: name what the subject wants to do")
    context: dict[str, Any] = {}
    for word in words[3:]:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise Usage(command, f"`{word}` is not key=json: give a field of the context a value")
        if key in context:
            raise Usage(command, f"`{key}` stands twice in the context: say which one you mean")
        try:
            context[key] = strict_json(value)
        except ValueError as error:
            advice = "a string needs quotes of its own: 'key=\"text\"'"
            raise Usage(command, f"the value of `{key}` is not JSON: {error}; {advice}") from None
    if len(options.on_behalf_of) > 16:
        raise Usage(command, "--on-behalf-of stands more than 16 times: a chain is at most that long")
    asked = Asked(
        _named(words[0], "SUBJECT", command),
        {"name": words[1]},
        _named(words[2], "RESOURCE", command),
        context,
        [_named(text, "--on-behalf-of", command) for text in options.on_behalf_of],
    )
    try:
        return _has_a_form(asked)
    except ValueError as error:
        raise Usage(command, str(error)) from None


def _has_a_form(asked: Asked) -> Asked:
    """The question, if it can be written as the wire wants it. Raises ValueError."""
    from ..core.compose import compose
    from ..errors import Fault

    try:
        compose(*asked)
    except Fault as fault:
        raise ValueError(str(fault)) from None
    return asked


def _named(text: str, place: str, command: str) -> dict[str, Any]:
    kind, colons, ident = text.partition("::")
    if not colons or not kind:
        raise Usage(command, f"{place} `{text}` is not an entity: write it as `Type::id`")
    return {"type": kind, "id": ident}


def from_line(line: bytes) -> Asked:
    """The question of one AuthZEN evaluation request. Raises ValueError."""
    try:
        given = strict_json(line.decode())
    except UnicodeDecodeError:
        raise ValueError("the line is not valid UTF-8") from None
    members = _object(given, "the line", {"subject", "action", "resource"}, {"context", "on_behalf_of"})
    chain = members.get("on_behalf_of", [])
    if not isinstance(chain, list) or len(chain) > 16:
        raise ValueError("`on_behalf_of` must be a list of at most 16 entities")
    action = _object(members["action"], "`action`", {"name"}, {"properties"})
    _texts(action, "action", ("name",))
    context = members.get("context", {})
    if not isinstance(context, dict):
        raise ValueError("`context` must be an object")
    return _has_a_form(
        Asked(
            _entity(members["subject"], "subject"),
            action,
            _entity(members["resource"], "resource"),
            context,
            [_entity(each, f"on_behalf_of[{n}]") for n, each in enumerate(chain)],
        )
    )


def _entity(given: Any, place: str) -> dict[str, Any]:
    entity = _object(given, f"`{place}`", {"type", "id"}, {"properties"})
    _texts(entity, place, ("type", "id"))
    return entity


def _texts(given: dict[str, Any], place: str, names: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(given[name], str) or (not given[name] and name != "id"):
            raise ValueError(f"`{place}.{name}` must be a string{'' if name == 'id' else ' and not empty'}")
    if not isinstance(given.get("properties", {}), dict):
        raise ValueError(f"`{place}.properties` must be an object")


def _object(given: Any, place: str, needed: set[str], allowed: set[str]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"{place} must be a JSON object")
    missing, extra = sorted(needed - given.keys()), sorted(given.keys() - needed - allowed)
    if missing:
        raise ValueError(f"{place} has no `{missing[0]}`: every question names it")
    if extra:
        raise ValueError(
            f"{place} has `{extra[0]}`, which is not part of a question: leave it out or put it in `context`"
        )
    return given


def strict_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError also for what `json` lets through."""
    try:
        value = json.loads(
            text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_finite, parse_int=_whole
        )
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is not text") from None
    except RecursionError:
        raise ValueError("it is nested too deep: 16 levels are the most") from None
    return value


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in items:
        if key in made:
            raise ValueError(f"the key `{key}` stands twice")
        made[key] = value
    return made


def _constant(word: str) -> Any:
    raise ValueError(f"`{word}` is no number")


def _whole(text: str) -> int:
    if len(text) > 20:  # sign and digits of 64 bits
        raise ValueError(f"`{text[:20]}…` has {len(text)} digits: integers have at most 64 bits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"`{text}` is larger than a number can be")
    return number


def handled(options: argparse.Namespace, command: str) -> list[str]:
    """The obligation types of --handles."""
    names = [name.strip() for name in options.handles.split(",")] if options.handles else []
    if not all(names):
        raise Usage(command, "--handles has an empty name: write it as `redact,mask`")
    return each_once(names)


def connect(options: argparse.Namespace, command: str) -> Client:
    """A client for the daemon of these options."""
    import pepcore

    if options.socket == "":
        raise Usage(command, "--socket is empty: name a path")
    try:
        return pepcore.connect(
            options.socket,
            deadline=options.deadline / 1000,
            point=getattr(options, "point", None),
            handles=handled(options, command) if hasattr(options, "handles") else (),
        )
    except ValueError as error:
        argument, _, rest = str(error).partition(" ")
        given = {"path": "--socket" if options.socket else "PEPCORE_SOCKET", "point": "--point", "handles": "--handles"}
        raise Usage(command, f"{given.get(argument, argument)} {rest}") from None
