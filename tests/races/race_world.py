"""What the races are about: real Cedar policies, entities, a fixed list of questions, and every tag of each by hand.

The tags are written from the design (subject, chain, resource, ancestors of subject and resource, deciding policy,
`@tag`), not asked from the product: a tag that the product forgets is a violation that the checker sees.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

POLICIES = """
@id("p0") @tag("[\\"t0\\"]") permit(principal in Role::"r0", action == Action::"read", resource in Folder::"f0");
@id("p1") @tag("[\\"t1\\"]") permit(principal in Role::"r1", action == Action::"read", resource in Folder::"f1");
@id("agents") permit(principal == Agent::"a", action == Action::"read", resource in Folder::"f0");
@id("peeking") @tag("[\\"t0\\"]") permit(principal in Role::"r0", action == Action::"peek", resource)
  when { context.now < datetime("2099-01-01") };
@id("quiet") permit(principal in Role::"quiet", action == Action::"read", resource);
"""
MANY = tuple(f"Role::m{n}" for n in range(40))
"""More roles than an answer has stamps: it hangs on the revision itself."""
PARENTS: dict[str, tuple[str, ...]] = {
    "User::u0": ("Role::r0",),
    "User::u1": ("Role::r0", "Role::r1"),
    "User::u2": ("Role::r1",),
    "User::u3": ("Role::r0", *MANY),
    "User::quiet": ("Role::quiet",),
    "Role::r0": ("Role::staff",),
    "Role::r1": ("Role::staff",),
    "Role::staff": (),
    "Role::quiet": (),
    **dict.fromkeys(MANY, ()),
    "Document::d0": ("Folder::f0",),
    "Document::d1": ("Folder::f1",),
    "Folder::f0": ("Folder::root",),
    "Folder::f1": ("Folder::root",),
    "Folder::root": (),
}


class Asked(NamedTuple):
    """A question, and what besides its entities decides it."""

    subject: str
    action: str
    resource: str
    chain: tuple[str, ...] = ()
    policy: str = ""
    tag: str = ""

    @property
    def blockable(self) -> frozenset[str]:
        return frozenset((self.subject, *self.chain))

    @property
    def tags(self) -> frozenset[str]:
        named = {f"policy:{self.policy}", *self.chain}
        return frozenset(named | ancestors(self.subject) | ancestors(self.resource) | ({self.tag} - {""}))


def ancestors(entity: str) -> set[str]:
    """An entity and all that it is in."""
    return {entity}.union(*(ancestors(parent) for parent in PARENTS.get(entity, ())))


QUESTIONS = (
    Asked("User::u0", "read", "Document::d0", (), "p0", "t0"),
    Asked("User::u1", "read", "Document::d0", (), "p0", "t0"),
    Asked("User::u1", "read", "Document::d1", (), "p1", "t1"),
    Asked("User::u2", "read", "Document::d1", (), "p1", "t1"),
    Asked("User::u3", "read", "Document::d0", (), "p0", "t0"),
    Asked("User::u0", "peek", "Document::d1", (), "peeking", "t0"),
    Asked("Agent::a", "read", "Document::d0", (), "agents"),
    Asked("Agent::a", "read", "Document::d0", ("User::u0",), "agents"),
    Asked("Agent::a", "read", "Document::d0", ("Agent::b", "User::u2"), "agents"),
    Asked("User::quiet", "read", "Document::d1", (), "quiet"),
)
REVOKED = sorted(frozenset().union(*(q.tags for q in QUESTIONS)) - {"policy:quiet", "Role::quiet", "User::quiet"})
"""What revokers choose from. The quiet subject's own are left out: only what it shares with others may end it."""
BLOCKED = ("User::u0", "User::u1", "User::u2", "Agent::a", "Agent::b")


def write(folder: Path) -> str:
    """Write policies and entities, and return the part of the config that names them."""
    (folder / "race.cedar").write_text(POLICIES)
    stored = [
        {"uid": _uid(name), "attrs": {}, "parents": [_uid(parent) for parent in parents]}
        for name, parents in PARENTS.items()
    ]
    (folder / "race.json").write_text(json.dumps(stored))
    return f'[policies]\npolicies = "{folder}/race.cedar"\nentities = "{folder}/race.json"\n'


def _uid(name: str) -> dict[str, str]:
    kind, _, number = name.partition("::")
    return {"type": kind, "id": number}
