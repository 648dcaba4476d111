"""Embedded Cedar: the policy decision point inside pepcore.

`load` reads policies, entities and schema once; the `Cedar` it returns never changes. For a question it
takes the slice of policies that can apply (`cedar_slices`), the entities they may see (`cedar_entities`),
asks the engine through handles parsed before, and reads the answer: notes joined from annotations, lifetime
from `@ttl` and time literals, tags for revocation.

Promises: never raises for a question: what cannot be decided is a Decision with a fault. An evaluation
error in a `forbid`, or one that cannot be laid to a `permit`, is a fault (DESIGN, D5); an erring `permit`
does not apply. Never: parses policies, schema or the store for a warm question; or keeps anything that a
question says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from cedarpy import Entities

from ..errors import Fault, PdpFault, PolicyError
from ..model import Decision, Question
from .cedar_annotations import CheckObligation, Joined, join
from .cedar_engine import Said, evaluate
from .cedar_entities import Store
from .cedar_links import add_links
from .cedar_places import together
from .cedar_policies import Policy, Uid, parse
from .cedar_request import Trust, action_uid, brought, brought_json, context_of, roots_of
from .cedar_schema import Reserved, load_schema, validate
from .cedar_slices import Slice, Slices
from .cedar_statements import PolicyFile, Statement, read_files, refuse_other, statements
from .cedar_times import as_text, until_next

_ERROR = re.compile(r"error while evaluating policy `policy([0-9]+)`: (.*)", re.DOTALL)
_encode = msgspec.json.Encoder().encode
_JOINED = 4096


class Asked(NamedTuple):
    """A question, ready for the engine."""

    mask: int
    slice: Slice
    request: dict[str, Any]
    entities: Entities
    unused: bool


class Answered(NamedTuple):
    """What the engine said, in our policies."""

    permit: bool
    determining: list[Policy]
    errors: list[tuple[Policy, str]]


class Cedar:
    """A policy set with its entities and schema, ready to decide. Built by `load`; immutable."""

    def __init__(self, policies: list[Policy], slices: Slices, store: Store, open_types: frozenset[str] | None) -> None:
        self.policies = tuple(policies)
        self.slices = slices
        self.store = store
        self.trust = Trust(store, open_types)
        self._reserved = None if store.schema is None else Reserved(store.schema)
        self._joined: dict[tuple[int, ...], tuple[tuple[str, ...], Joined]] = {}

    def decide(self, questions: Sequence[Question], wall_ms: int) -> list[Decision]:
        """Return one decision per question, in order."""
        return [self._decide(q, wall_ms) for q in questions]

    def _decide(self, question: Question, wall_ms: int) -> Decision:
        try:
            asked = self.ask(question, wall_ms)
            answered = read(evaluate(*engine_arguments(asked, self.store)), asked.slice)
            return self._decision(question, asked, answered, wall_ms)
        except Fault as e:
            return Decision(False, str(e))
        except Exception as e:
            # Whatever the engine or a hostile value did: the question gets a deny, the caller goes on.
            return Decision(False, f"cedar could not decide: {type(e).__name__}: {e}")

    def ask(self, question: Question, wall_ms: int, *, exact: bool = False) -> Asked:
        """Make a question ready for the engine. `exact` builds the smallest slice even where it is new."""
        store, slices = self.store, self.slices
        action = action_uid(question.action.name)
        principal, resource = uid(question.subject), uid(question.resource)
        of_action = store.mask(slices, 1, action)
        mask = store.mask(slices, 0, principal) & of_action & store.mask(slices, 2, resource)
        slice_ = slices.exact(mask) if exact else slices.get(mask, of_action, principal[0], resource[0])
        context = context_of(question, self.trust.typed)
        wants_now = slice_.reads.clock is not None
        if self._reserved is not None and action in store.entities:
            said = self._reserved.of(action)
            wants_now = (wants_now and said.now_declared) or "now" in said.required
            for name, empty in (("on_behalf_of", []), ("action", {})):
                if name in said.required:
                    context.setdefault(name, empty)
        if wants_now:
            context["now"] = {"__extn": {"fn": "datetime", "arg": as_text(wall_ms)}}
        entities, made, unused = store.handle, None, False
        if question.subject.properties or question.resource.properties or question.chain:
            made, unused = brought(question, self.trust)
            if made:
                roots = roots_of(question, action, context, made)
                entities = self._with_added(slice_, roots, brought_json(made))
        request: dict[str, Any] = {
            "principal": {"type": principal[0], "id": principal[1]},
            "action": {"type": action[0], "id": action[1]},
            "resource": {"type": resource[0], "id": resource[1]},
        }
        if context:
            request["context"] = _encode(context).decode()
        return Asked(mask, slice_, request, entities, unused)

    def _with_added(self, slice_: Slice, roots: list[Uid], json: str) -> Entities:
        try:
            return self.store.with_added(slice_, roots, json)
        except ValueError as e:
            cause = f": {e.__cause__}" if e.__cause__ else ""
            raise PdpFault("properties", f"the engine refuses these as an entity: {e}{cause}") from None

    def _decision(self, question: Question, asked: Asked, answered: Answered, wall_ms: int) -> Decision:
        for policy, reason in answered.errors:
            if policy.effect != "permit":
                return Decision(False, f"policy `{policy.id}` (forbid) failed: {reason}")
        ids, joined = self.joined(answered.determining)
        if joined.clash:
            return Decision(False, f"{joined.clash}; policies {', '.join(f'`{i}`' for i in ids)}", ids)
        max_age = joined.ttl_ms
        clock = asked.slice.reads.clock
        if clock is not None:
            left = until_next(clock, wall_ms)
            if left is not None and (max_age is None or left < max_age):
                max_age = left
        of = self.store.tags
        tags = joined.tags + of(uid(question.subject)) + of(uid(question.resource))
        for member in question.chain:
            tags += of(uid(member))
        timed = clock is not None
        return Decision(answered.permit, "", ids, joined.reason, joined.obligations, max_age, tags, timed)

    def joined(self, determining: list[Policy]) -> tuple[tuple[str, ...], Joined]:
        """The ids of these policies in order, and what their annotations say together."""
        key = tuple(sorted([p.number for p in determining]))
        found = self._joined.get(key)
        if found is None:
            if len(self._joined) >= _JOINED:
                self._joined.clear()
            ids = tuple(sorted(p.id for p in determining))
            found = self._joined[key] = (ids, join((p.id, p.notes) for p in determining))
        return found

    def explain(self, question: Question, wall_ms: int) -> dict[str, Any]:
        """Decide once more and tell why, as plain values."""
        from .cedar_explain import explain  # it needs this unit

        return explain(self, question, wall_ms)


def uid(entity: Any) -> Uid:
    return entity.type, entity.id


def engine_arguments(asked: Asked, store: Store) -> tuple[Any, ...]:
    return asked.request, asked.slice.handle, asked.entities, store.schema


def read(said: Said, slice_: Slice) -> Answered:
    """Read the engine's answer. Raises PdpFault where it gave no decision, or an error that is nobody's."""
    decision, diagnostics = said.decision, said.diagnostics
    if decision not in ("Allow", "Deny"):
        raise PdpFault("", f"cedar cannot evaluate this question: {'; '.join(diagnostics.errors)}")
    members = slice_.members
    errors = []
    for text in diagnostics.errors:
        m = _ERROR.fullmatch(text)
        if m is None:
            raise PdpFault("", f"cedar reports an error of no policy: {text}")
        errors.append((members[int(m[1])], m[2]))
    determining = [members[int(name[6:])] for name in diagnostics.reason]
    return Answered(decision == "Allow", determining, errors)


def load(
    policies: str | Path,
    entities: Path | str | list[dict[str, Any]] | None = None,
    schema: Path | str | None = None,
    *,
    open_types: frozenset[str] | None = None,
    links: Sequence[dict[str, Any]] = (),
    check_obligation: CheckObligation | None = None,
) -> Cedar:
    """Read a policy set. Raises PolicyError with file, line and reason of what is wrong; the caller keeps what it had.
    An argument that is neither path nor what else it may be is a ConfigError that names it.

    `policies`: a file, a folder of `*.cedar`, or Cedar text. `entities`: a path or a list, in Cedar's JSON
    form. `schema`: a path or text, in Cedar's syntax or JSON. `open_types`: types that a question may bring
    entities of; None: those of which the store holds none. `check_obligation(type, properties)` raises a
    Fault for properties that no point could discharge.
    """
    refuse_other("policies", policies, str | Path, "a path as str or Path, or Cedar text")
    refuse_other("entities", entities, str | Path | list | None, "a path as str or Path, a list of entities, or None")
    refuse_other("schema", schema, str | Path | None, "a path as str or Path, the text of a schema, or None")
    files, link_files = read_files(policies)
    return assemble(
        files, link_files, entities, schema, open_types=open_types, links=links, check_obligation=check_obligation
    )


def assemble(
    files: Sequence[PolicyFile],
    link_files: Sequence[PolicyFile],
    entities: Path | str | tuple[str, str] | list[dict[str, Any]] | None,
    schema: Path | str | tuple[str, str] | None,
    *,
    open_types: frozenset[str] | None = None,
    links: Sequence[dict[str, Any]] = (),
    check_obligation: CheckObligation | None = None,
) -> Cedar:
    """Build a policy set from files that were read before; the rest as `load`."""
    found: list[Statement] = []
    errors: list[PolicyError] = []
    for file in files:
        try:
            found.extend(statements(file))
        except PolicyError as e:
            errors.append(e)
    try:
        written, full = parse(found, check_obligation)
    except PolicyError as e:
        errors.append(e)
    if errors:
        raise together(errors)
    every, full = add_links(written, full, link_files, links, check_obligation)
    rules = load_schema(schema)
    if rules is not None:
        validate(every, rules)
    return Cedar(every, Slices(every, full), Store(entities, rules), open_types)
