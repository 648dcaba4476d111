"""The C binding against the golden frames, JSON, and replies that an independent reader judges, too."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import frames
import pytest
from harness import VECTORS, Driver, Peer, read_frame


def vectors(name: str) -> list[Any]:
    items = json.loads((VECTORS / f"{name}.json").read_text())
    return [pytest.param(item, id=item["name"]) for item in items]


def test_the_vectors_are_what_their_program_writes() -> None:
    subprocess.run([sys.executable, VECTORS / "make.py", "--check"], check=True)


@pytest.mark.parametrize(
    ("point", "handles", "says"),
    [
        ("p" * 65, [], f"point `{'p' * 20}...` has 65 characters, more than 64: use a shorter one"),
        ("\u00e9" * 65, [], "point `" + "\u00e9" * 20 + "...` has 65 characters"),
        (b"\xff", [], "point is not valid UTF-8"),
        ("", ["mask", ""], "handle 2 is empty: name an obligation type"),
        ("", ["mask", "h" * 65], f"handle `{'h' * 20}...` has 65 characters, more than 64"),
        ("", [b"\xc3"], "handle is not valid UTF-8"),
        ("", [f"h{i}" for i in range(65)], "handles are 65 obligation types, more than 64: name those"),
    ],
)
def test_what_no_daemon_takes_in_a_hello_is_refused_at_once(
    driver: Driver, point: str | bytes, handles: list[str | bytes], says: str
) -> None:
    def told(point: str | bytes, *handles: str | bytes) -> str:
        words = [word.encode() if isinstance(word, str) else word for word in (point, *handles)]
        return driver("connect", "/x", *words)

    assert told(point, *handles).startswith(f'error "{says}')
    for within in ("p" * 64, "\u00e9" * 64):
        assert told(within, "\u00e9" * 64, "h" * 64) == "ok"
    assert told("", *(f"h{i}" for i in range(64)), "h0", "h63") == "ok"


@pytest.mark.parametrize("vector", [v for v in vectors("requests") if v.values[0]["op"] == "hello"])
def test_hello_has_the_golden_bytes(driver: Driver, vector: dict[str, Any]) -> None:
    shuffled = [*reversed(vector["handles"]), *vector["handles"][:1]]  # unsorted and not unique
    assert driver("connect", "/x", vector["point"].encode(), *(h.encode() for h in shuffled)) == "ok"
    assert driver("hello") == vector["hex"]


@pytest.mark.parametrize("vector", [v for v in vectors("requests") if v.values[0]["op"] == "check"])
def test_check_has_the_golden_bytes(driver: Driver, vector: dict[str, Any]) -> None:
    assert driver.ask(vector["question"]) == frames.pack(vector["question"]).hex()
    if "not_after" in vector:
        driver("not_after", vector["not_after"])
    if "min_revision" in vector:
        driver("min_revision", *vector["min_revision"])
    built, golden = driver("frame", vector["id"], vector.get("deadline_us", 5)), vector["hex"]
    if "deadline_us" in vector and "trace" not in vector:  # the binding always sends a deadline, and never a trace
        assert built == golden
    question = frames.pack(vector["question"]).hex()
    assert built[48 : 48 + len(question)] == golden[48 : 48 + len(question)] == question


@pytest.mark.parametrize("vector", [v for v in vectors("questions") if v.values[0]["outcome"] == "canonical"])
def test_questions_are_built_in_canonical_form(driver: Driver, vector: dict[str, Any]) -> None:
    assert driver.ask(vector["question"]) == vector["hex"]


def test_large_containers_have_the_widest_heads(driver: Driver) -> None:
    question = [["U", "a", {}], ["r", {}], ["D", "b", {}], {}, []]
    question[3] = {"s": "a" * 65536, "l": [0] * 65536, "m": {f"{n:06}": n for n in range(65535, -1, -1)}}
    assert driver.ask(question) == frames.pack(question).hex()


@pytest.mark.parametrize("vector", vectors("replies"))
def test_replies_mean_what_the_vectors_say(driver: Driver, vector: dict[str, Any], serve: Callable[..., Peer]) -> None:
    def behave(peer: socket.socket, _: int) -> None:
        read_frame(peer)
        read_frame(peer)
        peer.sendall(bytes.fromhex(vector["hex"]))

    path = serve(behave).path
    driver("connect", path, b"", *(handle.encode() for handle in vector["handles"]))
    driver("ask", b"User::alice", b"read", b"Document::roadmap")
    answer, expect = driver.check(), vector["expect"]
    assert {key: answer[key] for key in expect} == expect
    assert bool(answer["error"]) == bool(expect["fault"])


GOOD_JSON = [
    *("0", "-0", "1", "-1", "127", "128", "18446744073709551615", "-9223372036854775808"),
    *("1.0", "-0.0", "1e2", "1E+2", "0.1", "5e-324", "1.7976931348623157e308", "2.5e-1", "1e-400"),
    *("0." + "0" * 300 + "1", "-" + "9" * 200 + ".5", "1" + "0" * 400 + "e-400", "1.5e" + "0" * 200 + "1"),
    "1" * 128 + ".0",
    "9007199254740992." + "9" * 15 + "0" * 200 + "1",  # between two doubles: every digit counts
    "1." + "0" * 15 + "1110223024625156540423631668090820312500" + "0" * 300 + "1",  # just above half of the last bit
    *(
        '""',
        '"a"',
        '"\\u0041\\n\\"\\\\\\/\\b\\f\\r\\t"',
        '"\\ud83d\\ude00"',
        '"\u00e9\U0001f600"',
        '"\\u0000"',
    ),
    *("true", "false", "null", "[]", "{}", " [ 1 , 2 ] ", "[" * 14 + "]" * 14),
    *('{"b":1,"a":{"d":[],"c":null}}', '{"":0,"\u00e9":1,"z":2}'),
]
BAD_JSON = [
    *("1" + "0" * 400 + ".5", "9" * 200, "1." + "0" * 200 + "x"),
    *(
        "",
        " ",
        "eng",
        "tru",
        "truex",
        "True",
        "NaN",
        "Infinity",
        "-Infinity",
        "-",
        "+1",
        "01",
        "1.",
        ".5",
        "1e",
    ),
    *("1e+", "0x1", "1 2", "18446744073709551616", "-9223372036854775809", "1e999"),
    *('"', '"a', "'a'", '"\n"', '"\\x"', '"\\u12g4"', '"\\u123"', '"\ufeff', "\ufeff1", "nul\0", "1\0"),
    *('"\\ud800"', '"\\udc00"', '"\\ud800\\u0041"', '"\\ud800x"', "[", "[1", "[1,]", "[,1]", "[1 2]"),
    *("{", '{"a"', '{"a":', '{"a":1', '{"a":1,}', "{a:1}", "{1:1}", "[" * 15 + "]" * 15),
    *('{"a":1,"a":1}', '{"a":1,"b":2,"\\u0061":3}', '[{"x":{"k":0,"k":0}}]'),
]


def test_json_becomes_canonical_msgpack(driver: Driver) -> None:
    for text in GOOD_JSON:
        driver("new")
        driver("ask", b"U::a", b"r", b"D::b")
        assert driver("json", 3, b"k", text.encode()) == "ok", text
        context = frames.pack({"k": json.loads(text)}).hex()
        sealed = driver("seal")
        assert sealed.endswith(context + "90"), text
        value = bytes.fromhex(context)[3:]
        again = json.loads(driver("tojson", value))
        assert frames.pack(again) == value, text


@pytest.mark.parametrize("text", BAD_JSON)
def test_json_that_is_not_strict_is_refused(driver: Driver, text: str) -> None:
    driver("new")
    driver("ask", b"U::a", b"r", b"D::b")
    assert driver("json", 3, b"k", text.encode()).startswith('error "the value of `k` is not valid JSON: ')
    assert driver("seal").startswith("error "), "a request that failed once must stay failed"


@pytest.mark.parametrize(
    "raw", [b'"\xc3"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xff"', b"\x80"]
)
def test_json_that_is_not_utf8_is_refused(driver: Driver, raw: bytes) -> None:
    driver("new")
    assert "error" in driver("json", 3, b"k", raw)
    driver("new")
    assert "not valid UTF-8" in driver("string", 3, b"k", raw.strip(b'"'))


def test_a_field_given_twice_is_refused_and_once_is_not(driver: Driver) -> None:
    for second, expected in ((b"k", 'error "`k` is given twice in context: keep one"'), (b"j", None)):
        driver("new")
        driver("ask", b"U::a", b"r", b"D::b")
        driver("int", 3, b"k", 1)
        driver("bool", 3, second, 1)
        sealed = driver("seal")
        assert sealed == expected if expected else not sealed.startswith("error")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((b"alice", b"read", b"D::b"), "subject `alice` has no type"),
        ((b"::alice", b"read", b"D::b"), "subject `::alice` has no type"),
        ((b"U::a", b"", b"D::b"), "action is empty"),
        ((b"U::a", b"read", b"D:b"), "resource `D:b` has no type"),
        ((b"U::\xff", b"read", b"D::b"), "subject is not valid UTF-8"),
    ],
)
def test_malformed_names_are_refused(driver: Driver, words: tuple[bytes, ...], complaint: str) -> None:
    driver("new")
    assert complaint in driver("ask", *words)
    driver("connect", "/nonexistent", b"")
    answer = driver.check()
    assert (answer["permit"], answer["fault"]) == (False, 2)


def test_a_chain_has_at_most_16_members(driver: Driver) -> None:
    driver("new")
    assert [driver("behalf", f"U::{n}".encode()) for n in range(16)] == ["ok"] * 16
    assert "over 16 members" in driver("behalf", b"U::16")
