"""The words of pepcore as values: entity, action, question, obligation, decision.

Question, Entity and Action are arrays on the wire (`bindings/README.md`), always with every position, so that
one question has one canonical form. All are frozen: what was asked cannot change while it is being answered.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Entity(Struct, frozen=True, array_like=True):
    """A subject, a resource, or a member of the principal chain: `Type::"id"` with its attributes."""

    type: str
    id: str
    properties: dict[str, Any] = {}


class Action(Struct, frozen=True, array_like=True):
    """What the subject wants to do."""

    name: str
    properties: dict[str, Any] = {}


class Question(Struct, frozen=True, array_like=True):
    """All that may change the answer (the information model of AuthZEN 1.0, section 5, plus the chain)."""

    subject: Entity
    action: Action
    resource: Entity
    context: dict[str, Any] = {}
    chain: tuple[Entity, ...] = ()


class Obligation(Struct, frozen=True, array_like=True):
    """What must be done for a permit to stand (AuthZEN obligations profile, draft 1)."""

    id: str
    type: str
    properties: dict[str, Any] = {}


class Decision(Struct, frozen=True):
    """What the PDP said. A non-empty `fault` is enforced as a deny and never cached.

    `max_age_ms` is the lifetime that the PDP sets, from the moment it was asked; None leaves it to the
    configured cap, 0 forbids caching. `tags` name what a revoke may later hit.
    `timed`: it was measured on the wall clock, and ends when that is set.
    """

    permit: bool
    fault: str = ""
    policies: tuple[str, ...] = ()
    reason: str = ""
    obligations: tuple[Obligation, ...] = ()
    max_age_ms: int | None = None
    tags: tuple[str, ...] = ()
    timed: bool = False
