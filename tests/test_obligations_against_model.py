"""The compiled obligations equal the model, in result and in fault, on whatever Hypothesis thinks of."""

import json
from random import Random

import msgspec
import pytest
from hypothesis import Phase, assume, find, given, settings
from hypothesis import strategies as st

from pepcore.core import obligation as core
from pepcore.core.obligation import Headers, Rows
from pepcore.errors import ObligationFault
from pepcore.model import Obligation
from tests.model import obligations as model
from tests.model import properties as model_properties

SETTINGS = settings(max_examples=1000, deadline=None)

# A small world, so that paths and payloads meet, and header names are one.
names = st.sampled_from(["a", "b", "a", "b", "0", "1", "01", "-", "*", "~", "/", "", "é"])
segments = st.sampled_from(["a", "b", "a", "b", "0", "1", "*", "*", "01", "-", "~0", "~1", "", "é"])
paths = st.lists(segments, min_size=0, max_size=3).map(lambda parts: "".join("/" + part for part in parts))
fields = st.fixed_dictionaries({"fields": st.lists(paths, min_size=1, max_size=3)})
below = st.fixed_dictionaries({"fields": st.lists(paths.filter(bool), min_size=1, max_size=3)})
header_names = st.sampled_from(["X-User", "x_user", "X.USER", "via", "X-Other"])
headings = st.fixed_dictionaries({"name": header_names, "value": st.sampled_from(["", "1", "a b"])})
masks = st.one_of(
    st.tuples(fields, st.sampled_from(["last-4", "fixed"])).map(lambda t: t[0] | {"style": t[1]}),
    st.tuples(fields, st.sampled_from(["k", "é"])).map(lambda t: t[0] | {"style": "hash", "salt": t[1]}),
)
ids = st.integers(1, 40).map(str)  # now and then two of one id


def of(kind, properties):
    return st.builds(Obligation, ids, st.just(kind), properties)


on_data = st.one_of(
    of("redact", fields), of("drop", below), of("keep", below), of("keep", below), of("mask", masks),
    of("limit", st.fixed_dictionaries({"rows": st.integers(0, 3)})),
)  # fmt: skip
on_headers = of("set-header", headings) | of("remove-header", st.fixed_dictionaries({"name": header_names}))
others = st.one_of(
    of("rate", st.just({"count": 1, "per": "1m"})), of("approve", st.just({})),
    of("own", st.dictionaries(names, st.integers(0, 1), max_size=2)),
    of("redact", st.just({"feilds": ["/a"]})), of("limit", st.just({"rows": True})),
    st.builds(Obligation, st.just(""), st.just("notify"), st.just({})),
)  # fmt: skip
sets = st.lists(on_data, max_size=3) | st.lists(on_data | on_headers | others, max_size=5)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([12345678, -(2**63), 2**64 - 1, 2**64, 1.5, -0.0, 1e300, float("nan"), float("inf")]),
    st.sampled_from(["", "abc", "1234567", "12345678", "4111111111111111", "ééééééééé", "\ud800", "🂡" * 9]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
cells = st.one_of(values, st.sampled_from([b"bytes", (1, 2)]))
tables = st.lists(names, min_size=0, max_size=3).flatmap(
    lambda columns: st.builds(
        Rows,
        st.just(columns),
        st.lists(
            st.lists(cells, min_size=len(columns), max_size=len(columns)) | st.just(("one too many",) * 4),
            max_size=3,
        ),
    )
)
headers = st.builds(Headers, st.lists(st.tuples(header_names, st.sampled_from(["", "é", "v"])), max_size=4))
bare = st.lists(st.tuples(header_names, scalars) | st.lists(header_names, min_size=2, max_size=2), max_size=3)
bare |= bare.map(tuple)  # pairs that nobody wrapped in Headers; empty: a list as any other
cases = st.tuples(sets, values | tables) | st.tuples(st.lists(on_headers | on_data, max_size=4), headers)
unwrapped = st.tuples(st.lists(on_headers | on_data, max_size=4), bare)


def plain(value):
    """A form in which 1, 1.0 and True differ."""
    if type(value) is Headers:
        return ("headers", repr(value.items))
    if type(value) is Rows:
        return ("rows", repr(value.columns), repr(value.rows))
    return repr(value)


encoded = msgspec.json.Encoder(order="sorted").encode


def outcome(function, *arguments):
    try:
        return "result", plain(function(*arguments))
    except ObligationFault as error:
        known = "..." if error.field.startswith("obligations.") and error.field.count(".") > 1 else error.reason
        return "fault", error.field, known  # the words of a malformed property are not modelled


@SETTINGS
@given(cases | unwrapped)
def test_a_run_equals_the_model_in_result_and_fault_and_leaves_its_input_alone(case):
    obligations, payload = case
    before = plain(payload)
    assert outcome(core_run, obligations, payload) == outcome(model.run, obligations, payload)
    assert plain(payload) == before


def core_run(obligations, payload):
    return core.compile(obligations).run(payload)


def core_run_json(obligations, data):
    return core.compile(obligations).run_json(data)


@SETTINGS
@given(sets, values, st.booleans())
def test_json_text_equals_the_model_byte_for_byte(obligations, value, spaced):
    data = json.dumps(value, ensure_ascii=spaced, indent=1 if spaced else None).encode("utf-8", "replace")
    assume(b"NaN" not in data and b"Infinity" not in data)
    assert outcome(core_run_json, obligations, data) == outcome(model.run_json, obligations, data)


@SETTINGS
@given(cases, st.randoms(use_true_random=False))
def test_the_same_set_in_any_order_gives_the_same(case, random):
    obligations, payload = case
    shuffled = random.sample(obligations, len(obligations))
    assert outcome(core_run, shuffled, payload) == outcome(core_run, obligations, payload)


@SETTINGS
@given(sets, st.sets(st.sampled_from([*core.PAYLOAD, "own"])).map(frozenset))
def test_what_cannot_stand_and_what_is_understood_equal_the_model(obligations, handles):
    reason = core.unhandled(obligations, handles)
    wanted = outcome(model.compile, obligations, handles)
    assert (reason == "") == (wanted[0] == "result")
    if wanted[0] == "fault" and wanted[2] != "...":
        assert reason == f"{wanted[1]}: {wanted[2]}"
    left = core.understood(obligations, handles)
    assert encoded(left) == encoded(model.understood(obligations, handles))
    assert core.unhandled(left, handles) == ""
    assert (reason == "") == (len(left) == len(model.in_order(obligations)))
    core.compile(left)


loose = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 1_000_000, 1_000_001, 366 * 86_400_000, 2**53 - 1, 2**53, 1.0]),
    st.sampled_from(
        [
            "",
            "x",
            "09:00",
            "24:00",
            "9:00",
            "17:60",
            "1m",
            "0s",
            "366d",
            "367d",
            "1 m",
            "last-4",
            "hash",
            "\ud800",
        ]
    ),
    st.sampled_from(["2026-01-31T09:00:00Z", "2026-02-30T09:00:00Z", "2026-01-31T24:00:00Z", "1969-01-01T00:00:00Z"]),
    st.sampled_from(["2026-01-31T09:00:00.123+01:00", "2026-01-31T09:00:00.1234Z", "2026-01-31 09:00:00Z", "٢m"]),
    st.sampled_from(["X-A", "X A", "X\n", "a\tb", "a b", " a", "é", "/a", "a", "/~2", "/a~", "/~01", "/a" * 33]),
    st.from_regex(model_properties.INSTANT, fullmatch=True),
    st.text(max_size=4),
)
looser = st.one_of(
    loose,
    st.lists(loose, max_size=3),
    st.dictionaries(st.sampled_from(["start", "end", "x"]), loose, max_size=3),
    st.fixed_dictionaries({"start": loose, "end": loose}),
)


def properties_of(kind):
    required, optional = (names.split() for names in model_properties.KINDS[kind])
    return st.fixed_dictionaries(
        dict.fromkeys(required, looser), optional=dict.fromkeys(optional, looser)
    ) | st.dictionaries(st.sampled_from([*required, *optional, "feilds"]), looser, max_size=3)


@SETTINGS
@given(st.data(), st.sampled_from(sorted(model_properties.KINDS)))
def test_malformed_properties_are_those_of_the_model(data, kind):
    properties = data.draw(properties_of(kind))
    try:
        core.check(kind, properties)
        field = ""
    except ObligationFault as error:
        field = error.field
    assert field == model_properties.check(kind, properties)


PLANTED = {
    "bare": lambda self, payload: False,
    "hidden": lambda self, value, rule: "****" if type(value) is str else value,
    "kept": lambda self, group, place: any(rule.effect == "keep" and self.on(rule, place) for rule in self.rules),
    "leading": lambda self, place: [rule for rule in self.rules if self.leads(rule, place)],
    "effects": lambda self, place: [rule.effect for rule in self.rules if rule.segments == place],
    "gone": lambda self, place: "drop" in self.effects(place),
}


@pytest.mark.parametrize("place", PLANTED)
def test_the_comparison_finds_a_planted_bug(place, monkeypatch):
    def differ(case):
        return outcome(core_run, *case) != outcome(model.run, *case)

    effort = settings(max_examples=5000, deadline=None, database=None, phases=[Phase.generate])
    monkeypatch.setattr(model.Run, place, PLANTED[place])
    find(unwrapped if place == "bare" else cases, differ, settings=effort, random=Random(1))
