"""The clocks of the hit path: a wall clock that somebody sets ends every entry that was measured against it."""

import socket

from pepcore.core.cache import Cache
from pepcore.core.gate import Gate, Stream
from pepcore.core.page import Page
from pepcore.server.turn import Served, Share, Turn

SECOND_NS, SECOND_MS = 1_000_000_000, 1_000


def test_clocks_that_run_together_are_not_taken_for_a_jump():
    served = Served()
    for s in range(100):
        assert not served.wall_was_set(s * SECOND_NS, 5_000 + s * SECOND_MS + s % 7)


def test_a_wall_clock_that_was_set_is_seen_once_in_either_direction():
    served = Served()
    assert not served.wall_was_set(0, 1_000_000)
    assert served.wall_was_set(SECOND_NS, 1_000_000 - 3600 * SECOND_MS)
    assert not served.wall_was_set(2 * SECOND_NS, 1_000_000 - 3599 * SECOND_MS)
    assert served.wall_was_set(3 * SECOND_NS, 1_010_000)


def test_steps_too_small_to_be_a_jump_are_seen_once_they_add_up():
    served = Served()
    seen = [served.wall_was_set(s * SECOND_NS, 10_000_000 + s * SECOND_MS - s * 300) for s in range(9)]
    assert seen == [False, False, False, False, True, False, False, False, True]


def test_a_jump_bumps_the_page_at_the_next_read():
    page, served = Page(1), Served()
    gate = Gate(Cache(slots=8, slab=1024, seed=1), page, lambda *_: (1, b""))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        turn = Turn(
            ours.fileno(), gate, Stream(None), served, Share(), 0, lambda *_: None, lambda: None, lambda _: None
        )
        theirs.send(b"x")
        turn.readable()
        assert page.revision == 0
        served.wall_was_set(0, 0)  # as if the wall clock had stood elsewhere at the last read
        theirs.send(b"y")
        turn.readable()
        assert page.revision == 1


def piped(served: Served, share: Share, **calls):
    """A turn on a socket pair, and the other end of it."""
    gate = Gate(Cache(slots=8, slab=1024, seed=1), Page(1), lambda *_: (1, b""))
    ours, theirs = socket.socketpair()
    does = {"rest": lambda *_: None, "later": lambda: None, "ended": lambda _: None, **calls}
    return ours, theirs, Turn(ours.fileno(), gate, Stream(None), served, share, 0, **does)


def test_an_owner_whose_share_is_used_up_is_read_for_later_only_where_others_are_connected():
    said: list[str] = []
    served, share = Served(), Share()
    ours, theirs, turn = piped(served, share, rest=lambda *_: said.append("read"), later=lambda: said.append("later"))
    with ours, theirs:
        theirs.send(b"x")
        share.spent_ns = 10**9
        turn.readable()
        assert (said, share.used_up) == (["read"], True)
        served.contested = True
        turn.readable()
        assert said == ["read", "later"]
        share.spent_ns = 0
        theirs.send(b"y")
        turn.readable()
        assert said == ["read", "later", "read"]
        assert share.spent_ns > 0


def test_an_error_that_was_not_expected_ends_the_connection_and_is_not_raised_into_the_loop():
    ended: list[object] = []

    def broken(*_: object) -> None:
        raise OverflowError("planted")

    ours, theirs, turn = piped(Served(), Share(), rest=broken, ended=ended.append)
    with ours, theirs:
        theirs.send(b"x")
        turn.readable()
        theirs.close()
        turn.readable()
    assert [repr(error) for error in ended] == ["OverflowError('planted')", "None"]
