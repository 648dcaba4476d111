"""What revokes and blocks name, as the text of a tag (bindings/README.md, "revoke, block").

Promises: an entity's tag is its type, `::` and its id, byte by byte as answers hang on it; Cedar's own notation
`Type::"id"` is read as that id. What names nobody (no id, white space around it, half a notation) is refused and says
what to write: a block of nobody would be acknowledged.
Never: changes what an Entity, or a dict with type and id, says: those are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pepcore.errors import BadRequest
from pepcore.model import Entity

from .questions import EntityLike, shown

_QUOTED = re.compile(r'(.*?)::"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|x([0-7][0-9a-fA-F])|(.))", re.DOTALL)
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'"}


def tags_of(subject: EntityLike | None, resource: EntityLike | None, tag: str | Iterable[str] | None) -> list[str]:
    """What a revoke names. Raises BadRequest."""
    named = (("subject", subject), ("resource", resource))
    tags = [tag_of(entity, field) for field, entity in named if entity is not None]
    if tag is None:
        return tags
    try:
        given = [tag] if isinstance(tag, str) else list(tag)
    except TypeError:
        raise BadRequest("tag", f"`{shown(tag)}` is neither a text nor a list of them") from None
    return tags + [text_of(each, "tag") for each in given]


def tag_of(entity: EntityLike, field: str = "subject") -> str:
    """An entity as revokes and blocks name it. Raises BadRequest, which names the field."""
    if isinstance(entity, str):
        return _tag_of_text(text_of(entity, field), field)
    try:
        kind, name = (entity.type, entity.id) if isinstance(entity, Entity) else (entity["type"], entity["id"])
    except (KeyError, TypeError):
        raise BadRequest(field, "is neither `Type::id`, an Entity, nor a dict with `type` and `id`") from None
    kind, name = text_of(kind, f"{field}.type"), text_of(name, f"{field}.id")
    if not kind or not name:
        raise BadRequest(field, f"`{kind}::{name}` is not an entity: neither type nor id may be empty")
    return f"{kind}::{name}"


def text_of(value: Any, field: str) -> str:
    """A text that can be sent. Raises BadRequest."""
    if not isinstance(value, str):
        raise BadRequest(field, f"`{shown(value)}` is not a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(field, f"`{shown(value)}` has a lone surrogate: send valid text") from None
    return value


def _tag_of_text(text: str, field: str) -> str:
    kind, colons, name = text.partition("::")
    if not colons or not kind:
        raise BadRequest(field, f"`{text}` is not an entity: write it as `Type::id`")
    quoted = _QUOTED.fullmatch(text)
    if quoted is not None:
        kind, name = quoted[1], _ESCAPE.sub(lambda found: _unescaped(found, text, field), quoted[2])
    elif name.startswith('"'):
        raise BadRequest(field, f"`{text}` begins a quotation and does not end it: write it as `Type::id`")
    elif name != name.strip():
        raise BadRequest(field, f'`{text}` has white space around its id: remove it, or write it as `Type::"id"`')
    if kind != kind.strip():
        raise BadRequest(field, f"`{text}` has white space around its type: write it as `Type::id`")
    if not name:
        raise BadRequest(field, f"`{text}` has no id: write it as `Type::id`")
    return f"{kind}::{name}"


def _unescaped(found: re.Match[str], text: str, field: str) -> str:
    """What an escape of Cedar stands for."""
    number = found[1] or found[2]
    if number is None and found[3] in _SIMPLE:
        return _SIMPLE[found[3]]
    code = int(number, 16) if number is not None else -1
    if not 0 <= code < 0x110000 or 0xD800 <= code < 0xE000:
        raise BadRequest(field, f"`{text}` has `{found[0]}`, which is no escape of Cedar: write a backslash as `\\\\`")
    return chr(code)
