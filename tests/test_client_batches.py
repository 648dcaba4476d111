"""A question of a batch that fits no frame, with a real daemon: a fault of its own, in its place, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.both_clients import Both
from tests.conftest import Daemon

YES, NO = ("User::alice", "read", "Document::1"), ("User::mallory", "read", "Document::1")
BIG = ("User::alice", "read", "Document::" + "x" * 70_000)
BROKEN = ("alice", "read", "Document::1")


@pytest.fixture(params=["connect", "aconnect"])
def ask(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Callable[..., list[tuple[bool, int]]]]:
    pep = Both(request.param, path=daemon.socket, deadline=5.0)

    def run(questions: list[Any], semantic: str = "execute_all") -> list[tuple[bool, int]]:
        return [(v.permit, v.fault) for v in pep.check_many(questions, semantic)]

    yield run
    pep.close()


PERMIT, DENY, LARGE, MALFORMED = (True, 0), (False, 0), (False, 3), (False, 2)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("semantic", "questions", "answers"),
    [
        ("execute_all", [BIG, YES], [LARGE, PERMIT]),
        ("execute_all", [YES, BIG, NO, BIG, YES], [PERMIT, LARGE, DENY, LARGE, PERMIT]),
        ("execute_all", [BIG, BROKEN, YES], [LARGE, MALFORMED, PERMIT]),
        ("execute_all", [BIG], [LARGE]),
        ("deny_on_first_deny", [YES, BIG, YES], [PERMIT, LARGE]),
        ("deny_on_first_deny", [NO, BIG], [DENY]),
        ("deny_on_first_deny", [BIG, YES], [LARGE]),
        ("permit_on_first_permit", [BIG, NO, YES, BIG], [LARGE, DENY, PERMIT]),
        ("permit_on_first_permit", [NO, BIG, NO], [DENY, LARGE, DENY]),
        ("permit_on_first_permit", [BIG, BIG], [LARGE, LARGE]),
    ],
)
def test_a_question_that_fits_no_frame_is_a_fault_of_its_own(
    ask: Callable[..., Any], warm: bool, semantic: str, questions: list[Any], answers: list[tuple[bool, int]]
) -> None:
    if warm:
        assert ask([YES]) == [PERMIT]
    assert ask(questions, semantic) == answers


@pytest.mark.parametrize(("size", "answer"), [(65_536, PERMIT), (65_537, LARGE)])
def test_the_largest_question_that_a_batch_takes_is_asked(
    ask: Callable[..., Any], size: int, answer: tuple[bool, int]
) -> None:
    """What a frame has besides it: a deadline, semantic and count, and the question's own length."""
    empty = len(b"\x95\x93\xa4User\xa5alice\x80\x92\xa4read\x80\x93\xa8Document\xda\x00\x00\x80\x80\x90")
    question = ("User::alice", "read", "Document::" + "x" * (size - 4 - 8 - 4 - empty))
    assert ask([question, YES]) == [answer, PERMIT]
    assert ask([YES, question]) == [PERMIT, answer]
