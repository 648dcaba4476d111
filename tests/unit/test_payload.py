"""Payloads that are deep, huge, cyclic, shared or no JSON: a fault, not a crash, beside what passes."""

import sys
import threading
import tracemalloc
from contextlib import suppress

import pytest

from pepcore.core.obligation import Rows, compile
from pepcore.core.program import MAX_PAYLOAD_DEPTH, MAX_VALUES
from pepcore.errors import ObligationFault
from tests.unit.obligation_cases import faults, fields, program


class Text(str):
    """A text that claims to be equal to everything."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("a")


class Object(dict):
    pass


class Whole(int):
    pass


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (Text("x"), "x"),
        (Object(x=1), {"x": 1}),
        ({Text("z"): 1}, {"z": 1}),
        (Whole(1), 1),
        ({1: 1}, {"1": 1}),
        ((1, 2), [1, 2]),
        ({1, 2}, [1, 2]),
        (b"x", "x"),
        (float("nan"), 0.0),
        (float("-inf"), -1e308),
        (2**64, 2**64 - 1),
        (-(2**63) - 1, -(2**63)),
        (1 << 20_000, 10**19),
        ("\ud800", "\U0010ffff"),
        ({"\udfff": 1}, {"\ue000": 1}),
        (object(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_json_value_faults_wherever_it_is(bad, good):
    run = program(("redact", fields("/none"))).run
    for place in (lambda x: {"a": x}, lambda x: {"a": [0, x]}, lambda x: {"a": {"b": x}}):
        faults("payload", run, place(bad))
        assert run(place(good)) == place(good)
    if not isinstance(bad, (tuple, set, bytes)) and type(bad) is not object:
        faults("payload", program(("redact", fields("/none"))).run, Rows(["a"], [(bad,)]))
    run({"none": bad})


def nested(depth, inner):
    for _ in range(depth):
        inner = [inner]
    return inner


def test_depth_is_bounded_exactly_and_a_payload_that_holds_itself_is_too_deep():
    run = program(("redact", fields("/none/*"))).run
    fits = {"a": nested(MAX_PAYLOAD_DEPTH - 1, 1)}
    assert run(fits) == fits
    faults("deep", run, {"a": nested(MAX_PAYLOAD_DEPTH, 1)})
    faults("deep", run, {"a": nested(100_000, 1)})
    around: list = []
    around.append(around)
    faults("deep", run, {"a": around})
    around[:] = [around] * 10
    faults("deep", run, {"a": around})
    ring: dict = {}
    ring["a"] = ring
    faults("deep", run, ring)
    data = program(("redact", fields("/x"))).run_json
    faults("deep", data, b"[" * 1_000_000)
    faults("deep", data, b'{"a":' * 100 + b"1" + b"}" * 100)
    assert data(b'{"a":' * 64 + b"1" + b"}" * 64) == b'{"a":' * 64 + b"1" + b"}" * 64


def test_a_small_payload_that_is_a_huge_tree_faults():
    tree: list = [1]
    for _ in range(40):
        tree = [tree, tree]
    faults(str(MAX_VALUES), program(("limit", {"rows": 2})).run, tree)
    row = (1,) * 1000
    faults(str(MAX_VALUES), program(("limit", {"rows": 10**6})).run, Rows(["c"] * 1000, [row] * 10**6))


def test_the_result_shares_no_list_or_object_with_the_payload():
    payload = {"a": [{"b": []}]}
    out = program(("redact", fields("/none"))).run(payload)
    out["a"][0]["b"].append(1)
    assert payload == {"a": [{"b": []}]}
    table = Rows(["a"], [[[]]])
    program(("redact", fields("/none"))).run(table).rows[0][0].append(1)
    assert table.rows == [[[]]]


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (b'{"a":1,"a":1}', b'{"a":1,"b":1}'),
        (b'{"x":[{"\\u0061":1,"a":2}]}', b'{"x":[{"a":2}]}'),
        (b"NaN", b"1"),
        (b"[-Infinity]", b"[-1]"),
        (b"1e999", b"1e99"),
        (b"9" * 5000, b"9" * 19),
        (b"18446744073709551616", b"18446744073709551615"),
        (b"01", b"0"),
        (b"", b"null"),
        (b"1 2", b" 1 "),
        (b"{'a':1}", b'{"a":1}'),
        (b"[1,]", b"[1]"),
        (b'"\n"', b'"\\n"'),
        (b'"\xff"', '"ÿ"'.encode()),
        (b'"\\ud800"', b'"\\ud83d\\ude00"'),
        (b"\xef\xbb\xbf1", b"1"),
        ("1".encode("utf-16"), b"1"),
        ("1", b"1"),
        (bytearray(b"1"), b"1"),
    ],
)
def test_json_text_is_read_strictly(bad, good):
    run_json = compile([]).run_json
    faults("payload", run_json, bad)
    assert run_json(run_json(good)) == run_json(good)


def test_a_payload_that_another_thread_changes_gives_a_result_or_a_fault():
    run = program(("redact", fields("/*/*"))).run
    payload: dict = {str(i): {"a": 1} for i in range(200)}
    stop = threading.Event()

    def change():
        n = 0
        while not stop.is_set():
            n += 1
            payload[f"x{n % 97}"] = {"a": n}
            payload.pop(f"x{(n * 7) % 97}", None)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=change)
    thread.start()
    try:
        seen = set()
        for _ in range(500):
            try:
                seen.update(each["a"] for each in run(payload).values())
            except ObligationFault as error:
                assert "could not be worked on" in str(error)  # noqa: PT017
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert seen <= {None}


def test_threads_share_one_program():
    run = program(("keep", fields("/*/a")), ("mask", {**fields("/*/a"), "style": "fixed"})).run
    results: list = []
    threads = [
        threading.Thread(target=lambda: results.extend(run([{"a": "x", "b": 1}]) for _ in range(500))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[{"a": "****"}]] * 2000


def test_a_run_and_a_fault_leak_nothing():
    run = program(("mask", {**fields("/*/a"), "style": "last-4"}), ("drop", fields("/*/b"))).run

    def work(n):
        for _ in range(n):
            run([{"a": "0123456789", "b": 1}])
            with suppress(ObligationFault):
                run([{"a": 1.5}])

    work(50)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work(500)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000
