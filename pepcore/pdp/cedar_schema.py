"""The schema of embedded Cedar: loading, validation of the policy set, and what it says of the reserved
context keys.

Promises: with a schema, a policy set that does not validate does not load, and the error names file and
line of every policy that does not. A schema closes the context, so `now` may only be supplied where an action's context
declares it, and must be where it is required; the engine's validator itself is asked, once for an action.
Never: reads the schema's syntax. Only the engine does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cedarpy import Schema, validate_policies

from ..errors import PolicyError
from .cedar_places import line_in_policy, line_of, together
from .cedar_policies import Policy, Uid
from .cedar_statements import read_text

NAMES = ("now", "on_behalf_of", "action")


def load_schema(source: Path | str | tuple[str, str] | None) -> Schema | None:
    """Read a schema in Cedar's syntax or JSON: a path, (path, text), or the text itself (with a `{` or `;`)."""
    if source is None:
        return None
    if isinstance(source, tuple):
        file, text = source
    elif isinstance(source, str) and any(c in source for c in "{;\n"):
        file, text = "<schema>", source
    else:
        file, text = str(source), read_text(source)
    parse = Schema.from_json_str if text.lstrip().startswith("{") else Schema.from_str
    try:
        return parse(text)
    except ValueError as e:
        raise PolicyError(file, line_of(text, str(e), parse) + 1, str(e)) from None


def validate(policies: Sequence[Policy], schema: Schema) -> None:
    """Raise PolicyError for the policies that the schema does not allow."""
    written = [p for p in policies if p.link_of < 0]
    result = validate_policies("\n".join(p.statement.text for p in written), schema)
    if result.validation_passed:
        return
    found = []
    for e in result.errors:
        place = e.policy_id.removeprefix("policy")
        policy = written[int(place) if place.isdecimal() and int(place) < len(written) else 0]
        reason = e.error.removeprefix(f"for policy `{e.policy_id}`, ")
        found.append(policy.error(reason, line_in_policy(policy.statement.text, reason)))
    raise together(found or [written[0].error("the set does not validate")])


class Context(NamedTuple):
    """What an action's context says of the reserved keys."""

    now_declared: bool
    required: frozenset[str]


class Reserved:
    """Asks the validator about the context of each action, and remembers: a schema has few."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._known: dict[Uid, Context] = {}

    def of(self, action: Uid) -> Context:
        """`action` must be one that the schema declares."""
        found = self._known.get(action)
        if found is None:
            found = self._known[action] = self._ask(action)
        return found

    def _ask(self, action: Uid) -> Context:
        scope = f"permit(principal, action == {action[0]}::{quoted(action[1])}, resource) when"
        bodies = [f"context.{name} == context.{name}" for name in NAMES]  # valid only if the key is required
        bodies.append('context has now && context.now < ""')  # valid only if there is no such key
        text = "\n".join(f"{scope} {{ {body} }};" for body in bodies)
        refused = {e.policy_id for e in validate_policies(text, self._schema).errors}
        required = frozenset(name for n, name in enumerate(NAMES) if f"policy{n}" not in refused)
        return Context(f"policy{len(NAMES)}" in refused, required)


def quoted(text: str) -> str:
    """A Cedar string literal."""
    return '"' + "".join(c if c.isalnum() or c in " -_./:@" else f"\\u{{{ord(c):x}}}" for c in text) + '"'
