"""Reading the record: from anywhere, while it grows, up to where it is damaged; searching it; exporting it."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pepcore.audit import entries, export, words
from pepcore.audit import reader as reader_module
from pepcore.audit.frames import frame
from pepcore.audit.query import Query, instant
from pepcore.audit.reader import Cursor, Recorded, read, tail
from pepcore.audit.retention import Rules
from pepcore.audit.segments import Damaged, numbers, path_of
from tests.audit.damage import RANDOM
from tests.audit.journals import decision, durable, last_segment, make, writer

NOW: Any = {"wall_ns": 1_800_000_000_123_456_789, "boottime_ns": 5}


@pytest.fixture(scope="module")
def journal(shm_module: Path) -> Path:
    make(shm_module / "journal")
    return shm_module / "journal"


def test_every_entry_comes_in_order_with_its_index_from_wherever_one_starts(journal: Path) -> None:
    whole = list(read(journal))
    assert [each.index for each in whole] == list(range(len(whole)))
    for first in range(0, len(whole), 7):
        assert list(read(journal, first)) == whole[first:]
    assert list(read(journal, len(whole) + 5)) == []
    for last in (0, 1, 5, 40, 1000):
        assert tail(journal, last)[0] == (whole[-last:] if last else [])


def test_small_pieces_read_the_same(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(read(journal))
    monkeypatch.setattr(reader_module, "PIECE", 400)
    assert list(read(journal)) == whole


def test_a_cursor_follows_across_segments_while_they_are_written(shm: Path) -> None:
    with writer(shm / "journal", segment=1500) as one:
        durable(one, decision(0))
        found, cursor, _ = tail(shm / "journal", 5)
        assert cursor is not None
        for batch in range(20):
            durable(one, *(decision(1 + batch * 4 + i) for i in range(4)))
            while more := cursor.more():
                found += more
    assert [each.entry.decision for each in found] == list(range(81))  # type: ignore[union-attr]
    assert len(numbers(shm / "journal")) > 5


def test_a_cursor_that_retention_passes_goes_on_with_what_is_kept(shm: Path) -> None:
    with writer(shm / "journal", segment=1500, retention=Rules(segments=2), key=shm / "key") as one:
        durable(one, decision(0))
        cursor = Cursor(shm / "journal")
        for i in range(1, 80):
            durable(one, decision(i))
        found = []
        while more := cursor.more():
            found += more
    seen = [each.entry.decision for each in found if isinstance(each.entry, entries.Decision)]
    assert seen[-1] == 79
    assert seen == sorted(seen)
    assert 0 not in seen


def test_half_an_entry_at_the_end_is_left_for_the_next_look(shm: Path) -> None:
    make(shm / "journal", 1)
    path = last_segment(shm / "journal")
    data = path.read_bytes()
    whole = list(read(shm / "journal"))
    cursor = Cursor(shm / "journal")
    path.write_bytes(data[:-5])
    found = []
    while more := cursor.more():
        found += more
    assert found == whole[:-1]
    path.write_bytes(data)
    assert cursor.more() == whole[-1:]


def test_everything_before_the_damage_is_read(journal: Path, shm: Path) -> None:
    copy = shm / "copy"
    shutil.copytree(journal, copy)
    path = path_of(copy, 3)
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    found: list[Recorded] = []
    with pytest.raises(Damaged, match="the checksum is wrong") as damaged:
        found.extend(read(copy))
    assert damaged.value.file == path
    whole = list(read(journal))
    assert found == whole[: len(found)]
    assert whole[len(found)].segment == 3
    for last in (0, 1, 5, 20, 10_000):
        newest, _, damage = tail(copy, last)
        if damage is None:
            assert newest == whole[len(whole) - last :], "it is further up than what is shown"
        else:
            assert (newest, damage.file) == (found[-last:] if last else [], path)
    assert tail(copy, 10_000)[2] is not None


@pytest.mark.parametrize("where", ["entry", "content", "header", "missing"])
def test_the_end_of_a_record_whose_last_segment_is_damaged_is_what_stands_before_that(
    journal: Path, shm: Path, where: str
) -> None:
    copy = shm / "copy"
    shutil.copytree(journal, copy)
    whole = list(read(journal))
    path = last_segment(copy) if where != "missing" else path_of(copy, numbers(copy)[-2])
    inside = [each for each in whole if path_of(copy, each.segment) == path]
    data = bytearray(path.read_bytes())
    if where == "entry":
        data[inside[3].offset + 20] ^= 1
        path.write_bytes(data)
    elif where == "content":  # the checksum is right
        path.write_bytes(data[: inside[3].offset] + frame(b"\xc1", False) + data[inside[4].offset :])
    elif where == "header":
        data[30] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    good = whole[: inside[3 if where in ("entry", "content") else 0].index]
    for last in (1, 3, 30, 10_000):
        found, _, damage = tail(copy, last)
        if damage is None:
            assert (where, found) == ("missing", whole[-last:]), "the segment behind the missing one has as many"
        else:
            assert found == good[-last:]
    assert damage is not None


def test_no_damage_makes_the_reader_fail_otherwise_or_invent_an_entry(journal: Path, shm: Path) -> None:
    """The fuzzer of the reader. Its planted bug is the next test."""
    assert invented(journal, shm, 400) == 0


def test_the_fuzzer_finds_a_reader_that_does_not_test_checksums(
    journal: Path, shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pepcore.audit import frames

    def end(data: bytes, offset: int) -> int:
        length = int.from_bytes(data[offset : offset + 4], "big") & ~frames.SYNCED
        if len(data) - offset < 8 or not 0 < length <= frames.LONGEST or offset + 8 + length > len(data):
            raise frames.Broken(offset, "short", True)
        return offset + 8 + length

    monkeypatch.setattr(reader_module, "end", end)
    assert invented(journal, shm, 400) > 0


def invented(journal: Path, shm: Path, cases: int) -> int:
    """How many damaged records show an entry that was never written, or end in an error that is none of ours."""
    whole = set(map(str, read(journal)))
    wrong = 0
    for seed in range(cases):
        copy, random_ = shm / "copy", random.Random(seed)
        shutil.copytree(journal, copy)
        random_.choice(RANDOM)(copy, random_)
        try:
            for each in read(copy):
                wrong += str(each) not in whole
        except (Damaged, FileNotFoundError):
            pass
        except Exception:
            wrong += 1
        shutil.rmtree(copy)
    return wrong


# ---- query ----


def recorded(entry: entries.Entry | entries.Unknown, index: int = 0) -> Recorded:
    return Recorded(index, entry, 1, 0)


DECISION = entries.Decision(
    **NOW, subject=("Agent", "a7"), action="read", resource=("Doc", "x.y"), chain=(("User", "ann"),), point="gate",
    permit=False, reason="never", decision=9,
)  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ({}, True),
        ({"subject": "Agent::a7"}, True),
        ({"subject": "Agent::*"}, True),
        ({"subject": "User::ann"}, True),
        ({"subject": "*::a*"}, True),
        ({"subject": "Agent::a"}, False),
        ({"subject": "agent::a7"}, False),
        ({"resource": "Doc::x.y"}, True),
        ({"resource": "Doc::x?y"}, False),
        ({"resource": "Doc::[x]*"}, False),
        ({"action": "re*"}, True),
        ({"action": "write"}, False),
        ({"point": "gate", "permit": False}, True),
        ({"permit": True}, False),
        ({"kinds": ("decision", "revoke")}, True),
        ({"kinds": ("revoke",)}, False),
        ({"decision": 9}, True),
        ({"decision": 8}, False),
        ({"since_ns": NOW["wall_ns"]}, True),
        ({"since_ns": NOW["wall_ns"] + 1}, False),
        ({"until_ns": NOW["wall_ns"]}, False),
        ({"until_ns": NOW["wall_ns"] + 1}, True),
        ({"subject": "Agent::a7", "action": "write"}, False),
    ],
)
def test_every_condition_must_hold_and_only_stars_are_special(conditions: Any, matches: bool) -> None:
    assert Query(**conditions).matches(recorded(DECISION)) is matches


def test_revokes_and_blocks_are_about_whom_they_name() -> None:
    wanted = Query(subject="Agent::*")
    assert wanted.matches(recorded(entries.Block(**NOW, tag="Agent::x")))
    assert wanted.matches(recorded(entries.Revoke(**NOW, tags=("Doc::1", "Agent::y"))))
    assert not wanted.matches(recorded(entries.Revoke(**NOW, all=True)))
    assert not wanted.matches(recorded(entries.Start(**NOW, boot=1, version="", pid=1)))
    assert not wanted.matches(recorded(entries.Unknown("later", {})))
    assert Query(kinds=("later",)).matches(recorded(entries.Unknown("later", {})))


def test_times_are_dates_or_how_long_ago() -> None:
    assert instant("15m", 10**18) == 10**18 - 900 * 10**9
    assert instant("1970-01-01T00:00:01Z", 0) == 10**9
    assert instant("1970-01-01T02:00:01+02:00", 0) == 10**9
    for text in ("yesterday", "15", "2026-01-31", "2026-01-31T09:00:00", ""):
        with pytest.raises(ValueError, match="is no time: write"):
            instant(text, 0)


# ---- export ----

EVIL = "a\nb\r\x1b[2J\u2028\u2029\u202e\x00\x7f\x9b\ud7ff\U000e0001\"',}{"


def test_an_exported_line_is_one_line_of_ascii_and_says_the_same(journal: Path) -> None:
    for each in read(journal):
        line = export.as_line(each)
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line)["index"] == each.index
        assert json.loads(line)["subject"] == "::".join(each.entry.subject)  # type: ignore[union-attr]


def test_values_that_json_has_no_word_for_become_text() -> None:
    entry = msgspec.structs.replace(
        DECISION, attributes={"context": {"a": math.inf, "b": [math.nan, b"\x01", {"c": None}], "d": 1 << 63}},
        digests={"context": {"ip": b"\xff" * 16}},
    )  # fmt: skip
    found = json.loads(export.as_line(recorded(entry)))
    assert found["attributes"] == {"context": {"a": "inf", "b": ["nan", "01", {"c": None}], "d": 1 << 63}}
    assert found["digests"] == {"context": {"ip": "ff" * 16}}
    otlp = json.loads(export.as_otlp(recorded(entry)))
    assert "NaN" not in json.dumps(otlp)


def test_otlp_lines_have_the_shape_of_the_specification() -> None:
    trace = "5b8efff798038103d269b633813fc60c" + "eee19b7ec3c1b174" + "01"  # as `entry_of` makes it
    line = json.loads(export.as_otlp(recorded(msgspec.structs.replace(DECISION, trace=trace), 3)))
    (resource,) = line["resourceLogs"]
    assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "pepcore"}}]
    (scope,) = resource["scopeLogs"]
    (record,) = scope["logRecords"]
    assert (record["timeUnixNano"], record["severityNumber"]) == ("1800000000123456789", 13)
    assert (record["traceId"], record["spanId"], record["flags"]) == (trace[:32], trace[32:48], 1)
    values = {each["key"]: each["value"] for each in record["attributes"]}
    assert values["pepcore.index"] == {"intValue": "3"}
    assert values["pepcore.permit"] == {"boolValue": False}
    assert values["pepcore.chain"] == {"arrayValue": {"values": [{"stringValue": "User::ann"}]}}
    assert "traceId" not in json.loads(export.as_otlp(recorded(DECISION)))["resourceLogs"][0]["scopeLogs"][0][
        "logRecords"
    ][0]  # fmt: skip


def test_ids_are_text_of_one_type_however_large() -> None:
    """jq 1.6 reads numbers as doubles, and an OTLP integer ends at 2^63."""
    for number in (1, (1 << 53) + 1, (1 << 64) - 1):
        told: dict[str, Any] = {}
        for entry, names in (
            (msgspec.structs.replace(DECISION, decision=number, boot=number), ("decision", "boot")),
            (entries.Start(**NOW, boot=number, version="", pid=1), ("boot",)),
            (entries.Stop(**NOW, boot=number), ("boot",)),
            (entries.LeaseStart(**NOW, lease=number, decision=number), ("lease", "decision")),
            (entries.LeaseEnd(**NOW, lease=number, cause="ended"), ("lease",)),
        ):
            told = json.loads(export.as_line(recorded(entry)))
            assert [told[name] for name in names] == [str(number)] * len(names)
            (scope,) = json.loads(export.as_otlp(recorded(entry)))["resourceLogs"][0]["scopeLogs"]
            values = {each["key"]: each["value"] for each in scope["logRecords"][0]["attributes"]}
            assert [values[f"pepcore.{name}"] for name in names] == [{"stringValue": str(number)}] * len(names)
        hits = entries.Hits(**NOW, served=((number, 2),), count=2, first_ns=1, last_ns=2)
        assert json.loads(export.as_line(recorded(hits)))["served"] == [{"decision": str(number), "count": 2}]


def test_every_kind_can_be_exported_and_told() -> None:
    from tests.audit.test_entries import ONE_OF_EACH

    for entry in [*ONE_OF_EACH, entries.Unknown("later", {"x": EVIL})]:
        for text in (export.as_line(recorded(entry)), export.as_otlp(recorded(entry))):
            assert isinstance(json.loads(text), dict)
        assert words.line(recorded(entry)).startswith("0 ")


def test_a_name_with_blanks_and_quotes_is_one_word() -> None:
    entry = msgspec.structs.replace(DECISION, subject=("User", 'x permit "User::boss'), reason="a b")
    line = words.line(recorded(entry))
    assert r'deny "User::x permit \"User::boss" read Doc::x.y' in line
    assert 'reason="a b"' in line


def test_hits_are_found_by_any_decision_of_theirs_and_told_in_one_line() -> None:
    served = tuple((n, n + 1) for n in range(20))
    entry = entries.Hits(**entries.times(), served=served, count=210, first_ns=1, last_ns=2)
    assert Query(decision=19).matches(recorded(entry))
    assert not Query(decision=20).matches(recorded(entry))
    assert export.as_object(recorded(entry))["served"][19] == {"decision": "19", "count": 20}
    assert 'served="0:1,1:2,2:3,3:4,4:5,5:6,6:7,7:8+12" uid=-1 count=210' in words.line(recorded(entry))
