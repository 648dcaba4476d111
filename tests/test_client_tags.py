"""What revokes and blocks name: Cedar's notation is read, what names nobody is refused with one kind of error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pepclient
import pytest
from pepclient.tags import tag_of

import pepcore
from pepcore.errors import BadRequest
from pepcore.model import Entity


@pytest.mark.parametrize(
    ("entity", "tag"),
    [
        ("Agent::x", "Agent::x"),
        ("Agent::x y", "Agent::x y"),
        ("A::B::c", "A::B::c"),
        ("Agent::it's", "Agent::it's"),
        ('Agent::say "x"', 'Agent::say "x"'),
        ('Agent::"x"', "Agent::x"),
        ('App::Agent::"x"', "App::Agent::x"),
        ('Agent::" x "', "Agent:: x "),
        ('Agent::"a::b"', "Agent::a::b"),
        (r'Agent::"\"x\""', 'Agent::"x"'),
        (r'Agent::"a\\b\n\t\r\0\'"', "Agent::a\\b\n\t\r\0'"),
        (r'Agent::"\u{1F512}\x41"', "Agent::\U0001f512A"),
        (Entity("Agent", '"x"'), 'Agent::"x"'),
        (Entity("Agent", "x "), "Agent::x "),
        ({"type": "Agent", "id": '"x"'}, 'Agent::"x"'),
    ],
)
def test_an_entity_is_read_as_it_is_written_and_in_cedars_notation(entity: Any, tag: str) -> None:
    assert tag_of(entity) == tag


WRONG: list[tuple[Any, str]] = [
    ("Agent::", "has no id: write it as `Type::id`"),
    ('Agent::""', "has no id"),
    ("Agent", "is not an entity: write it as `Type::id`"),
    ("::x", "is not an entity"),
    ('::"x"', "is not an entity"),
    ("Agent::x ", "white space around its id"),
    ("Agent:: x", "white space around its id"),
    ("Agent::\tx", "white space around its id"),
    (" Agent::x", "white space around its type"),
    ('Agent ::"x"', "white space around its type"),
    ('Agent::"x" ', "begins a quotation and does not end it"),
    ('Agent::"x', "begins a quotation and does not end it"),
    ('Agent::"', "begins a quotation and does not end it"),
    ('Agent::"x"y"', "begins a quotation and does not end it"),
    (r'Agent::"\q"', r"has `\q`, which is no escape"),
    (r'Agent::"\u{D800}"', "which is no escape"),
    (r'Agent::"\u{110000}"', "which is no escape"),
    ("Agent::\ud800", "has a lone surrogate: send valid text"),
    (Entity("Agent", ""), "neither type nor id may be empty"),
    (Entity("Agent", "\ud800"), "has a lone surrogate"),
    ({"type": "Agent", "id": 5}, "`5` is not a text"),
    ({"type": "Agent"}, "is neither `Type::id`, an Entity, nor a dict"),
    (5, "is neither `Type::id`, an Entity, nor a dict"),
]


@pytest.mark.parametrize(("entity", "why"), WRONG, ids=lambda each: ascii(each))
def test_what_names_nobody_is_refused_by_every_form_of_revoke_and_block(entity: Any, why: str) -> None:
    client, embedded = pepclient.connect("/nowhere"), pepcore.embedded("permit(principal, action, resource);")
    waiting: list[Callable[[pepclient.AsyncClient], Any]] = [
        lambda c: c.block(entity), lambda c: c.unblock(entity), lambda c: c.revoke(resource=entity),
    ]  # fmt: skip

    async def apart(call: Callable[[pepclient.AsyncClient], Any]) -> None:
        async with await pepclient.aconnect("/nowhere") as c:
            await call(c)

    calls: list[tuple[str, Callable[[], Any]]] = [
        ("subject", lambda: client.block(entity)),
        ("subject", lambda: client.unblock(entity)),
        ("subject", lambda: client.revoke(subject=entity)),
        ("resource", lambda: client.revoke(resource=entity)),
        ("subject", lambda: embedded.revoke(subject=entity)),
        ("resource", lambda: embedded.revoke(resource=entity)),
        *(("", lambda call=call: asyncio.run(apart(call))) for call in waiting),  # type: ignore[misc]
    ]
    for field, call in calls:
        with pytest.raises(BadRequest) as refused:
            call()
        assert refused.value.field.startswith(field)
        assert why in refused.value.reason
        str(refused.value).encode()


@pytest.mark.parametrize(
    ("what", "field"),
    [
        ({"tag": 5}, "tag"),
        ({"tag": [5]}, "tag"),
        ({"tag": ["x", "\ud800"]}, "tag"),
        ({"tag": "\ud800"}, "tag"),
        ({"tag": "x", "reason": "\ud800"}, "reason"),
        ({"tag": "x", "reason": 5}, "reason"),
    ],
    ids=ascii,
)
def test_a_tag_or_a_reason_that_cannot_be_sent_is_a_bad_request(what: dict[str, Any], field: str) -> None:
    for pep in (pepclient.connect("/nowhere"), pepcore.embedded("permit(principal, action, resource);")):
        with pytest.raises(BadRequest) as refused:
            pep.revoke(**what)
        assert refused.value.field == field
