"""From a question to what is recorded of it: names in plain, attribute values as keyed digests.

Promises: a value is in the record only where the config names its attribute as plain; all others are digests (BLAKE2b
with a key that is not in the record), equal for equal values of one attribute, so they can be searched for, and
guessed by nobody without the key. What is a digest stands apart from what is plain, so no value can look like one.
`whole` is true only where nothing was digested, left out or shortened: only that can be replayed.
Never: more than 16 KiB of attributes in an entry: places that are larger are one digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from ..model import Action, Entity, Question
from ..model import Decision as Said
from .entries import CHAIN, NAME, TEXT, Decision, Difference, Shortened
from .reasons import without_values

LENGTH = 16
PLACE = 16
"""Most attributes of one place that are recorded one by one."""
SLACK = 16
"""Bytes that a name, a value or a place takes beside itself, at most."""
LONG_NAME, LONG_VALUE, LONG = 128, 1024, 16384
_pack = msgspec.msgpack.Encoder(order="sorted").encode


class Recorder:
    """Makes `Decision` entries. `plain` names attributes as `context.amount`, `subject.*`, `chain.role` or `*`."""

    def __init__(self, key: bytes, plain: tuple[str, ...] = (), omit: bool = False) -> None:
        """`omit`: attributes that are not plain are left out, not digested."""
        self._key, self._omit = key, omit
        self._plain = frozenset(plain)

    def plain(self, place: str, name: str) -> bool:
        kept = self._plain
        return bool(kept) and (f"{place}.{name}" in kept or f"{place}.*" in kept or "*" in kept)

    def digest(self, place: str, name: str, value: Any) -> bytes:
        """Of a value of this attribute. Members of the chain are one place, `chain`."""
        return blake2b(_pack((place, name, value)), digest_size=LENGTH, key=self._key, person=b"pepcore attr").digest()

    def decision(
        self,
        question: Question,
        *,
        policies: tuple[str, ...] = (),
        obligations: tuple[tuple[str, str, bool | None], ...] = (),
        reason: str = "",
        fault: str = "",
        point: str = "",
        trace: str = "",
        **rest: Any,
    ) -> Decision:
        """The entry of one decided question. `rest`: the other members of `Decision`, times included."""
        short = Shortened()
        asked = self._asked(question, short)
        if len(obligations) > 2 * CHAIN:
            short.fields["obligations"] = None
        return Decision(
            **asked,
            point=short.text("point", point),
            fault=short.text("fault", fault, TEXT),
            reason=short.text("reason", reason, TEXT),
            policies=short.several("policies", policies),
            obligations=tuple([(*short.pair("obligations", i, t), done) for i, t, done in obligations[: 2 * CHAIN]]),
            trace=short.text("trace", trace, NAME // 2),
            cut=short.cut,
            **rest,
        )

    def difference(
        self, question: Question, active: Said, candidate: Said, what: tuple[str, ...], *, point: str = "", **rest: Any
    ) -> Difference:
        """The entry of a question that two policy sets decide otherwise. `rest`: its other members, times included."""
        short = Shortened()
        asked = self._asked(question, short)
        sides: dict[str, Any] = {}
        for prefix, said in (("", active), ("candidate_", candidate)):
            if len(said.obligations) > 2 * CHAIN:
                short.fields[f"{prefix}obligations"] = None
            duties = tuple([short.pair(f"{prefix}obligations", o.id, o.type) for o in said.obligations[: 2 * CHAIN]])
            sides |= {
                f"{prefix}permit": said.permit, f"{prefix}obligations": duties,
                f"{prefix}fault": short.text(f"{prefix}fault", without_values(said.fault), TEXT),
                f"{prefix}reason": short.text(f"{prefix}reason", said.reason, TEXT),
                f"{prefix}policies": short.several(f"{prefix}policies", said.policies),
            }  # fmt: skip
        return Difference(**asked, **sides, what=what, point=short.text("point", point), cut=short.cut, **rest)

    def _asked(self, question: Question, short: Shortened) -> dict[str, Any]:
        """What an entry has of a question, by member."""
        attributes: dict[str, dict[str, Any]] = {}
        digests: dict[str, dict[str, bytes]] = {}
        whole = True
        room = LONG
        for place, properties in _places(question):
            if not properties:
                continue
            kept, hidden, size = self._place(place, properties, room)
            room -= size
            whole = whole and len(kept) == len(properties)
            if kept:
                attributes[place] = kept
            if hidden and not self._omit:
                digests[place] = hidden
        if len(question.chain) > CHAIN:
            short.fields["chain"] = None
        subject = short.pair("subject", question.subject.type, question.subject.id)
        action = short.text("action", question.action.name)
        resource = short.pair("resource", question.resource.type, question.resource.id)
        chain = tuple([short.pair("chain", each.type, each.id) for each in question.chain[:CHAIN]])
        whole = whole and not {"subject", "action", "resource", "chain"} & short.fields.keys()
        return {
            "subject": subject, "action": action, "resource": resource, "chain": chain, "attributes": attributes,
            "digests": digests, "whole": whole,
        }  # fmt: skip

    def _place(self, place: str, properties: dict[str, Any], room: int) -> tuple[dict[str, Any], dict[str, bytes], int]:
        """What is kept of one place in plain, the digests of the rest, and how long they are at most."""
        named = place.partition(".")[0]
        kept: dict[str, Any] = {}
        hidden: dict[str, bytes] = {}
        size = SLACK
        if len(properties) <= PLACE and all(len(name) <= LONG_NAME for name in properties):
            for name, value in properties.items():
                size += 4 * len(name) + SLACK
                if self.plain(named, name) and (length := len(_pack(value))) <= LONG_VALUE:
                    kept[name] = value
                    size += length
                else:
                    hidden[name] = b"" if self._omit else self.digest(named, name, value)
                    size += LENGTH
            if size <= room:
                return kept, hidden, size
        return {}, {"": b"" if self._omit else self.digest(named, "", properties)}, 2 * SLACK + LENGTH


def _places(question: Question) -> Iterator[tuple[str, dict[str, Any]]]:
    places: tuple[tuple[str, Entity | Action], ...] = (
        ("subject", question.subject), ("action", question.action), ("resource", question.resource),
    )  # fmt: skip
    for place, each in places:
        yield place, each.properties
    yield "context", question.context
    for i, member in enumerate(question.chain[:CHAIN]):
        yield f"chain.{i}", member.properties


def question_of(entry: Decision) -> Question | None:
    """The question as it was asked; None where the record holds less than all of it."""
    if not entry.whole:
        return None
    held = entry.attributes
    return Question(
        Entity(*entry.subject, held.get("subject", {})),
        Action(entry.action, held.get("action", {})),
        Entity(*entry.resource, held.get("resource", {})),
        held.get("context", {}),
        tuple(Entity(*member, held.get(f"chain.{i}", {})) for i, member in enumerate(entry.chain)),
    )
