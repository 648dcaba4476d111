"""What callers pass, as canonical questions and as the fields of a request.

Promises: whatever is wrong with an argument is a Fault that names it, so that the caller gets a deny which says so.
Never: lets another exception of a value's own code out; guesses what an argument may have meant.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from pepcore.core.compose import compose
from pepcore.core.verdict import Verdict
from pepcore.errors import BadQuestion, BadRequest, Fault
from pepcore.model import Action, Entity

EntityLike: TypeAlias = str | Entity | dict[str, Any]
ActionLike: TypeAlias = str | Action | dict[str, Any]
Context: TypeAlias = dict[str, Any]
NotAfter: TypeAlias = datetime.datetime | float
MinRevision: TypeAlias = tuple[int, int] | Verdict
Semantic: TypeAlias = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]
QuestionLike: TypeAlias = (
    tuple[EntityLike, ActionLike, EntityLike]
    | tuple[EntityLike, ActionLike, EntityLike, Context | None]
    | dict[str, Any]
)

SEMANTICS: dict[str, int] = {"execute_all": 0, "deny_on_first_deny": 1, "permit_on_first_permit": 2}
_MEMBERS = frozenset({"subject", "action", "resource", "context", "on_behalf_of"})
_U64 = 2**64 - 1


class Parts(NamedTuple):
    """A question of a batch, in the order of the arguments of `check`."""

    subject: Any
    action: Any
    resource: Any
    context: Any = None
    on_behalf_of: Any = ()


def shown(value: object, most: int = 80) -> str:
    """A value for a message: escaped and cut, or named by its type where it cannot be written.

    An integer of thousands of digits cannot, and what a value's own code raises or returns is nobody's business here.
    """
    try:
        text = repr(value)
    except Exception:
        return f"(a `{type(value).__name__}`)"
    return text if len(text) <= most else f"{text[: most - 3]}..."


class Check(Protocol):
    """What `check` of a client or an embedded PEP takes.

    The compiled method of a table is stored as an attribute, so that no call stands before it.
    """

    def __call__(
        self,
        subject: EntityLike,
        action: ActionLike,
        resource: EntityLike,
        context: Context | None = None,
        *,
        on_behalf_of: Sequence[EntityLike] = (),
        not_after: NotAfter | None = None,
        min_revision: MinRevision | None = None,
    ) -> Verdict: ...


def canonical(
    subject: EntityLike, action: ActionLike, resource: EntityLike, context: Context | None, chain: Sequence[EntityLike]
) -> bytes:
    """The canonical bytes of a question. Raises Fault, and nothing else."""
    try:
        return compose(subject, action, resource, context, chain)
    except Fault:
        raise
    except Exception as error:
        _odd_keys(subject, action, resource, chain)
        raise BadQuestion("question", f"cannot be read: {shown(error, 200)}") from error


def _odd_keys(subject: Any, action: Any, resource: Any, chain: Any) -> None:
    """Raise BadQuestion for a key that is not a string: it may be one that has no text to complain about it with."""
    places = [("subject", subject), ("action", action), ("resource", resource)]
    if isinstance(chain, list | tuple):
        places += [("on_behalf_of", member) for member in chain]
    for place, value in places:
        if isinstance(value, dict) and not all(isinstance(key, str) for key in dict.keys(value)):
            raise BadQuestion(place, "has a key that is not a string")


def parts(item: Any) -> Parts:
    """One question of a batch: a tuple, or a dict with AuthZEN's members. Raises BadQuestion."""
    if isinstance(item, tuple | list):
        if len(item) in (3, 4):
            return Parts(*item)
        raise BadQuestion("question", f"has {len(item)} members: pass (subject, action, resource[, context])")
    if not isinstance(item, dict):
        raise BadQuestion("question", f"must be a tuple or a dict, not `{type(item).__name__}`")
    for name in item:
        if not isinstance(name, str):
            raise BadQuestion("question", "has a key that is not a string")
        if name not in _MEMBERS:
            raise BadQuestion("question", f"has no member `{name}`: it has {', '.join(sorted(_MEMBERS))}")
    for name in ("subject", "action", "resource"):
        if name not in item:
            raise BadQuestion(name, "is missing")
    return Parts(**item)


def canonical_item(item: Any) -> bytes:
    """The canonical bytes of one question of a batch. Raises Fault, and nothing else."""
    try:
        found = parts(item)
    except Fault:
        raise
    except Exception as error:
        raise BadQuestion("question", f"cannot be read: {shown(error, 200)}") from error
    return canonical(*found)


def unreadable(error: Exception) -> Fault:
    """The fault of a batch that could not be taken apart."""
    return error if isinstance(error, Fault) else BadRequest("questions", f"cannot be read: {shown(error, 200)}")


def unix_ms(not_after: Any) -> int:
    """`not_after` in Unix milliseconds, rounded towards the past. Raises BadRequest, and nothing else."""
    try:
        return _unix_ms(not_after)
    except Fault:
        raise
    except Exception as error:  # of a zone's own code, or a number's
        raise BadRequest("not_after", f"cannot be read: {shown(error, 200)}") from error


def _unix_ms(not_after: Any) -> int:
    if isinstance(not_after, datetime.datetime):
        if not_after.tzinfo is None:
            raise BadRequest("not_after", "is a datetime without a zone: pass an aware one, or Unix seconds")
        not_after = not_after.timestamp()
    if isinstance(not_after, bool) or not isinstance(not_after, int | float):
        raise BadRequest("not_after", f"must be an aware datetime or Unix seconds, not `{type(not_after).__name__}`")
    if isinstance(not_after, float) and not math.isfinite(not_after):
        raise BadRequest("not_after", f"`{not_after}` is not a time")
    return min(math.floor(max(0, min(not_after, _U64)) * 1000), _U64)


def boot_and_revision(min_revision: Any) -> tuple[int, int]:
    """`min_revision` as (boot, revision). Raises BadRequest."""
    if isinstance(min_revision, Verdict):
        return min_revision.boot, min_revision.revision
    if isinstance(min_revision, tuple) and len(min_revision) == 2:
        boot, revision = min_revision
        if type(boot) is int and type(revision) is int and 0 <= boot <= _U64 and 0 <= revision <= _U64:
            return boot, revision
    raise BadRequest("min_revision", "must be (boot, revision) as a verdict carries them, or a verdict")


def semantic_code(semantic: Any) -> int:
    """The number of a batch semantic. Raises BadRequest."""
    if isinstance(semantic, str) and semantic in SEMANTICS:
        return SEMANTICS[semantic]
    raise BadRequest("semantic", f"{shown(semantic)} is not one of {', '.join(SEMANTICS)}")


def ends(semantic: int, permit: bool) -> bool:
    """Whether an item with this answer ends its batch (AuthZEN 1.0, section 7.1.2.1)."""
    return (semantic == 1 and not permit) or (semantic == 2 and permit)
