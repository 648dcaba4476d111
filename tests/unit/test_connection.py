"""A connection that has ended: nothing keeps it, so that its buffers do not wait for a collection."""

import asyncio
import gc
import socket
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pepcore.core.cache import Cache
from pepcore.core.frame import header
from pepcore.core.gate import Gate
from pepcore.core.page import Page
from pepcore.server.connection import Connection
from pepcore.server.turns import Turns


def connected(ask: Callable[..., None]) -> tuple[Connection, socket.socket]:
    """A connection of a service that hands its asks to `ask`, and the peer's end of it."""
    service: Any = SimpleNamespace(
        gate=Gate(Cache(slots=8, slab=1024, seed=1), Page(1), lambda *_: (1, b"")),
        turns=Turns(lambda *_: None, lambda *_: None),
        partial_s=9.0,
        unread_s=9.0,
        ask=ask,
        gone=lambda _: None,
        enforcer=SimpleNamespace(draining=False),
        config=SimpleNamespace(limits=SimpleNamespace(queued=1 << 30)),
    )
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer: Any = SimpleNamespace(owner=1, uid=1)
    return Connection(service, ours, peer), theirs


@pytest.mark.parametrize("ends", ["while idle", "with half a frame", "with an ask", "with unread replies"])
def test_a_connection_that_was_dropped_is_gone_without_a_collection(ends: str):
    async def lives_on() -> bool:
        connection, theirs = connected(lambda c, asks, now, wall_ms: c.asks.extend(asks))
        with theirs:
            if ends == "with half a frame":
                theirs.send(header(1, 0, 100) + b"half")
            elif ends == "with an ask":
                theirs.send(header(8, 1, 0))
            elif ends == "with unread replies":
                connection.send(bytes(1 << 22))
            await asyncio.sleep(0.01)
            assert (connection.stream.waiting > 0) == (ends == "with half a frame")
            assert bool(connection.asks) == (ends == "with an ask")
            gone = weakref.ref(connection)
            connection.drop()
            connection.drop()  # a second time changes nothing
            del connection
            await asyncio.sleep(0)
            return gone() is not None

    gc.collect()
    gc.disable()
    try:
        assert not asyncio.run(lives_on())
    finally:
        gc.enable()


def test_what_goes_on_after_a_drop_finds_the_connection_closed():
    async def asks() -> Connection:
        connection, theirs = connected(lambda c, asks, now, wall_ms: c.drop())  # as where its replies cannot be sent
        with theirs:
            connection.service.gate.feed(connection.stream, header(8, 1, 0) + header(1, 0, 100) + b"half", 1, 1)
            connection._rest(1, 1, True, b"")  # not through its turn, which would keep an error to itself
            connection.resume()
            connection.send(b"late")
        return connection

    assert asyncio.run(asks()).closed
