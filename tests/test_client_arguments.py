"""What callers pass to the Python clients: what can never work says so by its name, and no value's own text leaks out.

Every refusal has a neighbour beside it that is taken. No daemon is needed: a question that is well-formed finds none.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Any

import pytest

import pepcore
from tests.both_clients import Both

HUGE = 10**5000
"""An integer that Python refuses to write as text, with advice about Python's own settings."""


@pytest.fixture(params=["connect", "aconnect"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(kind: str, **settings: Any) -> Any:
    if kind == "connect":
        return pepcore.connect(**settings)
    return asyncio.run(pepcore.aconnect(**settings))


class Point(enum.StrEnum):
    GATEWAY = "gateway"


# ---- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("point", 5, "point 5 is not a string: pass the name of an enforcement point"),
        ("point", b"gateway", "point b'gateway' is not a string"),
        ("point", 0, "point 0 is not a string"),
        ("point", "\ud800", r"point '\ud800' has a lone surrogate"),
        ("point", "x" * 65, "is longer than 64 characters"),
        ("point", HUGE, "point (a `int`) is not a string"),
        ("handles", 5, "handles 5 is not a list: pass a list of obligation types"),
        ("handles", None, "handles None is not a list"),
        ("handles", "mask", "handles 'mask' is one string: pass a list of obligation types"),
        ("handles", b"mask", "handles b'mask' is one string"),
        ("handles", ["mask", 5], "handles must be a list of obligation types of 1 to 64 characters: 5 is not a string"),
        ("handles", [["mask"]], "['mask'] is not a string"),
        ("handles", [HUGE], "(a `int`) is not a string"),
        ("handles", ["\ud800"], r"'\ud800' has a lone surrogate"),
        ("handles", [""], "'' is empty"),
        ("handles", ["x" * 65], "is longer than 64 characters"),
        ("handles", [f"t{i}" for i in range(65)], "handles must be at most 64 obligation types: 65 are given"),
        ("deadline", "soon", "deadline 'soon' is not a number of seconds above 0, at most 3600"),
        ("deadline", None, "deadline None is not a number of seconds"),
        ("deadline", -1, "deadline -1 is not a number of seconds"),
        ("deadline", HUGE, "deadline (a `int`) is not a number of seconds"),
        ("path", 5, "path 5 is not the path of a socket: pass a string or a Path, or None"),
        ("path", "/run/\ud800", r"path '/run/\ud800' is not the path of a socket"),
        ("path", "", "path '' is empty: name where the daemon listens"),
        ("path", b"", "path b'' is empty"),
        ("path", "/run/a\0b", r"path '/run/a\x00b' has a NUL character: name a socket in the file system"),
        ("path", "\0abstract", "has a NUL character"),
        ("path", "/" + "x" * 107, "has 108 bytes, more than a socket's 107: use a shorter one"),
        ("path", "/" + "\u00e9" * 54, "has 109 bytes"),
    ],
    ids=lambda value: "HUGE" if value is HUGE else None,
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(kind: str, setting: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{setting}") as caught:
        made(kind, **{setting: value})
    assert says in str(caught.value)
    assert "set_int_max_str_digits" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"point": None},
        {"point": ""},
        {"point": "\u00e9" * 64},
        {"point": Point.GATEWAY},
        {"handles": {"mask": 1, "redact": 2}},
        {"handles": {"mask"}},
        {"handles": ["x" * 64]},
        {"handles": [f"t{i}" for i in range(64)] * 2},
        {"deadline": 3600},
        {"path": b"/nowhere/pepcore.sock"},
    ],
)
def test_settings_at_the_bounds_are_taken(kind: str, settings: dict[str, Any]) -> None:
    said = Both(kind, **{"path": "/nowhere/pepcore.sock", **settings}).check("User::alice", "read", "Document::1")
    assert "no daemon at `/nowhere/pepcore.sock`" in said.error


@pytest.mark.parametrize("path", ["/" + "x" * 106, "/" + "\u00e9" * 53, "x"])
def test_a_path_at_the_bound_of_a_socket_is_taken(kind: str, path: str) -> None:
    assert f"no daemon at `{path}`: No such file" in Both(kind, path=path).check("User::alice", "read", "D::1").error


def test_the_path_of_the_environment_is_refused_like_any_other(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEPCORE_SOCKET", "/" + "x" * 107)
    with pytest.raises(ValueError, match=r"^path '/xx.* has 108 bytes"):
        made(kind)
    monkeypatch.setenv("PEPCORE_SOCKET", "/" + "x" * 106)
    made(kind)


# ---- questions ----------------------------------------------------------------------------------------------------

ALICE = ("User::alice", "read", "Document::1")
AUTHZEN = {"subject": "User::alice", "action": "read", "resource": "Document::1"}


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ((*ALICE, {"n": HUGE}), "bad-question: context.n: is an integer outside 64 bits: send it as text"),
        ((*ALICE, {"n": [{"m": -HUGE}]}), "bad-question: context.n.m: is an integer outside 64 bits: send it as text"),
        ((*ALICE, {HUGE: 1}), "bad-question: context: has a key that is not a string"),
        ((HUGE, *ALICE[1:]), "bad-question: subject: must be `Type::id`, an Entity or a dict, not `int`"),
        (({"type": "User", "id": HUGE}, *ALICE[1:]), "bad-question: subject.id: must be a string, not `int`"),
        (
            ({"type": "User", "id": "alice", HUGE: 1}, *ALICE[1:]),
            "bad-question: subject: has a key that is not a string",
        ),
        ((ALICE[0], {"name": "read", HUGE: 1}, ALICE[2]), "bad-question: action: has a key that is not a string"),
        ((*ALICE[:2], {"type": "D", "id": "1", HUGE: 1}), "bad-question: resource: has a key that is not a string"),
    ],
    ids=range(8),
)
def test_an_integer_of_5000_digits_is_a_fault_that_names_its_place(kind: str, question: Any, says: str) -> None:
    pep = Both(kind, path="/nowhere/pepcore.sock")
    assert pep.check(*question).error == says
    assert [v.error for v in pep.check_many([question])] == [says]
    assert "unreachable" in pep.check(*ALICE, {"n": 2**64 - 1}).error


def test_an_integer_of_5000_digits_in_any_other_argument_is_a_fault_too(kind: str) -> None:
    pep = Both(kind, path="/nowhere/pepcore.sock")
    bad_key = "bad-question: on_behalf_of: has a key that is not a string"
    assert pep.check(*ALICE, on_behalf_of=[{"type": "User", "id": "bob", HUGE: 1}]).error == bad_key
    assert pep.check(*ALICE, min_revision=(HUGE, 1)).error.startswith("bad-request: min_revision: must be")
    for far in (HUGE, -HUGE, 1e308, -1e308, 1e300):  # a time, if only just
        assert "unreachable" in pep.check(*ALICE, not_after=far).error
    said = pep.check_many([HUGE, {**AUTHZEN, HUGE: 1}, AUTHZEN])
    assert [v.error.partition("no daemon")[0] for v in said] == [
        "bad-question: question: must be a tuple or a dict, not `int`",
        "bad-question: question: has a key that is not a string",
        "unreachable: ",
    ]
    assert pep.check_many([AUTHZEN], HUGE)[0].error.startswith(
        "bad-request: semantic: (a `int`) is not one of execute_all"
    )


class Silent(Exception):
    def __repr__(self) -> str:
        raise self


class Hostile(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise Silent


def test_an_error_that_cannot_even_be_shown_is_a_fault(kind: str) -> None:
    def broken() -> Any:
        yield ALICE
        raise Silent

    pep = Both(kind, path="/nowhere/pepcore.sock")
    hostile = Hostile(type="User", id="alice")
    assert pep.check(hostile, *ALICE[1:]).error == "bad-question: question: cannot be read: (a `Silent`)"
    assert [v.error for v in pep.check_many(broken())] == ["bad-request: questions: cannot be read: (a `Silent`)"]
    assert "unreachable" in pep.check(dict(hostile), *ALICE[1:]).error
