"""`pepcore audit` as its users meet it, and what hostile text in the record can do to a terminal: nothing."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from pepcore.audit import entries, words
from pepcore.audit.digest import Recorder
from pepcore.audit.heads import Head
from pepcore.audit.reader import read
from pepcore.audit.writer import Keep, Plan, Writer
from pepcore.cli.terminal import plain
from pepcore.model import Action, Entity, Question
from tests.audit.journals import decision, durable, make, path_of, writer


def audit(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pepcore", "audit", *arguments],
        capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(shm_module: Path) -> tuple[str, Head]:
    folder = shm_module / "journal"
    head = make(folder)
    with writer(folder, key=shm_module / "keys" / "heads.key") as one:
        durable(
            one,
            entries.Block(**entries.times(), tag="Agent::x", reason="loops"),
            decision(1000, permit=False, subject=("Agent", "x"), fault="", reason="blocked"),
        )
    return str(folder), head


def test_tail_shows_the_newest(made: tuple[str, Head]) -> None:
    done = audit("tail", "-n", "2", "--journal", made[0])
    first, second = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert "block" in first
    assert "tag=Agent::x" in first
    assert "deny Agent::x read Document::roadmap reason=blocked" in second
    (line,) = audit("tail", "-n", "1", "--json", "--journal", made[0]).stdout.splitlines()
    assert json.loads(line)["reason"] == "blocked"


def test_tail_follows(shm: Path) -> None:
    with writer(shm / "journal") as one:
        durable(one, decision(1))
        command = [sys.executable, "-m", "pepcore", "audit", "tail", "-f", "--json", "--journal", str(shm / "journal")]
        follower = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert follower.stdout is not None
            assert json.loads(follower.stdout.readline())["decision"] == "1"
            durable(one, decision(2))
            began = time.monotonic()
            assert json.loads(follower.stdout.readline())["decision"] == "2"
            assert time.monotonic() - began < 3
        finally:
            follower.kill()
            follower.wait(10)


def test_query_exits_1_where_nothing_matches(made: tuple[str, Head]) -> None:
    some = audit("query", "--subject", "Agent::*", "--deny", "--since", "1h", "--json", "--journal", made[0])
    assert (some.returncode, len(some.stdout.splitlines())) == (0, 1)
    both = audit("query", "--subject", "Agent::x", "--journal", made[0])
    assert len(both.stdout.splitlines()) == 2, "the block and the deny"
    none = audit("query", "--subject", "Nobody::*", "--journal", made[0])
    assert (none.returncode, none.stdout, none.stderr) == (1, "", "")


def test_export_is_json_lines_or_otlp(made: tuple[str, Head]) -> None:
    lines = audit("export", "--journal", made[0]).stdout.splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(len(lines)))
    otlp = audit("export", "--otlp", "--journal", made[0]).stdout.splitlines()
    assert len(otlp) == len(lines)
    assert all("resourceLogs" in json.loads(line) for line in otlp)


def test_head_and_verify_work_together(made: tuple[str, Head], shm: Path) -> None:
    printed = audit("head", "--journal", made[0])
    assert printed.returncode == 0
    (shm / "head.json").write_text(printed.stdout)
    for head in (str(shm / "head.json"), printed.stdout.strip()):
        done = audit("verify", "--head", head, "--journal", made[0])
        assert (done.returncode, done.stderr) == (0, "")
        assert "nothing was changed" in done.stdout
        assert "not tested" not in done.stdout
    without = audit("verify", "--journal", made[0])
    assert without.returncode == 0
    assert "cannot be found that the newest entries were cut off together with their heads" in without.stdout
    key = Path(made[0]).parent / "keys" / "heads.key"
    assert audit("verify", "--key", str(key), "--journal", made[0]).returncode == 0
    other = audit("verify", "--key", "0" * 32, "--journal", made[0])
    assert (other.returncode, "no head is signed by the trusted key" in other.stdout) == (1, True)


def test_verify_names_the_place_and_exits_1(shm: Path) -> None:
    make(shm / "journal")
    path = path_of(shm / "journal", 2)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    done = audit("verify", "--journal", str(shm / "journal"))
    assert done.returncode == 1
    assert re.search(rf"^{path} at byte \d+: wrong: the checksum is wrong$", done.stdout, re.MULTILINE)
    report = json.loads(audit("verify", "--json", "--journal", str(shm / "journal")).stdout)
    assert report["ok"] is False
    assert report["findings"][0]["file"] == str(path)
    read_on = audit("query", "--kind", "decision", "--journal", str(shm / "journal"))
    assert (read_on.returncode, len(read_on.stdout.splitlines()) > 0) == (3, True)
    assert "the checksum is wrong" in read_on.stderr
    newest = audit("tail", "-n", "10000", "--journal", str(shm / "journal"))
    assert (newest.returncode, newest.stdout) == (3, read_on.stdout)
    assert "the checksum is wrong" in newest.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "say what to do with the record"),
        (("tail", "query"), "say what to do with the record"),
        (("burn",), "say what to do with the record"),
        (("tail", "--journal", "/nowhere"), "--journal `/nowhere` cannot be read"),
        (("tail", "--journal", ""), "--journal is empty: name a path"),
        (("tail", "--socket", ""), "--socket is empty: name a path"),
        (("tail", "--socket", "/nowhere/s"), "the journal `/nowhere/s.state/journal` cannot be read"),
        (
            ("tail", "--socket", "/nowhere/s"),
            "if the daemon's config places it (`record.folder`, `daemon.state`), pass",
        ),
        (("tail", "--config", "/nowhere/c"), "`/nowhere/c` cannot be read"),
        (("tail", "--journal", "/"), "--journal `/` holds no segments: name the folder"),
        (("tail", "-n", "-1"), "`-1` is not a number of entries"),
        (("tail", "-n", "x"), "`x` is not a number of entries"),
        (("verify", "--subject", "a"), "`--subject` means nothing to `verify`"),
        (("query", "--head", "a"), "`--head` means nothing to `query`"),
        (("query", "--permit", "--deny"), "not allowed with"),
    ],
)
def test_wrong_arguments_say_what_to_do(arguments: tuple[str, ...], reason: str) -> None:
    done = audit(*arguments)
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("query", "--kind", "nonsense"), "--kind `nonsense` is none: choose of decision"),
        (("query", "--since", "soon"), "--since: `soon` is no time"),
        (("verify", "--head", "/nowhere"), "is neither a head nor a file"),
        (("verify", "--head", '{"journal":"00"}'), "--head holds no head"),
        (("verify", "--key", "/nowhere"), "is neither an id of 32 hex digits nor a key file"),
    ],
)
def test_wrong_values_say_what_to_do(made: tuple[str, Head], arguments: tuple[str, ...], reason: str) -> None:
    done = audit(*arguments, "--journal", made[0])
    assert (done.returncode, reason in done.stderr) == (2, True), done.stderr


def test_a_journal_without_a_head_says_so(shm: Path) -> None:
    with writer(shm / "journal") as one:
        durable(one, decision(1))
    done = audit("head", "--journal", str(shm / "journal"))
    assert (done.returncode, "has no signed head yet" in done.stderr) == (3, True)


# ---- hostile text ----

HOSTILE = [
    "a\n999 2026-01-01T00:00:00.000Z permit User::boss read Document::secret",
    "a\r\x1b[2K\x1b[1Apermit", "\x1b]0;title\x07", "\x9b2J", "a\u2028b\u2029c", "\u202epermit\u202c", "\u2066x\u2069",
    "\x00", "\x7f", "\x85", '","permit":true,"x":"', "}\n{", "\U000e0041\U000e0042", "\ufeff\u200b\u200d\u00ad",
    "\x0b\x0c", 'x" permit User::boss "', "\\n\\u001b", "a  permit", "\uffff",
]  # fmt: skip


def hostile(seed: int) -> str:
    random_ = random.Random(seed)
    if seed < len(HOSTILE):
        return HOSTILE[seed]
    pool = [*range(0, 0x21), 0x22, 0x5C, *range(0x7F, 0xA1), *range(0x2000, 0x2070), 0xFEFF, 0xE0001, 0x61, 0x3A]
    return "".join(chr(random_.choice(pool)) for _ in range(random_.randrange(1, 20)))


def everywhere(text: str) -> list[entries.Entry]:
    """Entries with this text in every field that takes one."""
    now: Any = entries.times()
    question = Question(
        Entity(text, text, {text[:60]: text}), Action(text, {text[:60]: text}), Entity(text, text), {text[:60]: [text]},
        (Entity(text, text, {text[:60]: text}),),
    )  # fmt: skip
    made_: list[entries.Entry] = [
        Recorder(b"k" * 32, ("*",)).decision(
            question, **now, permit=False, policies=(text,), obligations=((text, text, None),), reason=text,
            fault=text, point=text, trace=text,
        )
    ]  # fmt: skip
    made_ += [entries.Revoke(**now, tags=(text,), reason=text), entries.Block(**now, tag=text, reason=text),
              entries.Unblock(**now, tag=text, reason=text), entries.LeaseEnd(**now, lease=1, cause=text),
              entries.LeaseStart(**now, lease=1, point=text), entries.Fault(**now, what=text, reason=text),
              entries.Reload(**now, ok=False, reason=text), entries.Dropped(**now, count=1, why=text),
              entries.Start(**now, boot=1, version=text, pid=1), entries.Stop(**now, boot=1, reason=text)]  # fmt: skip
    return made_


def forged(lines: list[str], count: int, ascii_: bool) -> bool:
    """Whether there are other lines than entries, or a character that a terminal obeys or hides."""
    bad = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return len(lines) != count or any(
        (ascii_ and not line.isascii()) or any(unicodedata.category(c) in bad for c in line) for line in lines
    )


def test_no_input_can_forge_a_record_line(shm: Path) -> None:
    one = Writer(shm / "journal", Plan(queue=1 << 20))
    count = 0
    for seed in range(300):
        for entry in everywhere(hostile(seed)):
            assert one.append(entry, Keep.buffered)
            count += 1
    one.close()
    back = list(read(shm / "journal"))
    assert len(back) == count, "no text made a second entry, and none ate another"
    folder = str(shm / "journal")
    for arguments, ascii_ in (
        (("query", "--since", "1h"), False), (("export",), True), (("export", "--otlp"), True),
        (("query", "--json"), True), (("tail", "-n", "100000"), False),
    ):  # fmt: skip
        text = audit(*arguments, "--journal", folder, env={"PYTHONIOENCODING": "utf-8"}).stdout
        lines = text.split("\n")
        assert lines.pop() == ""
        assert not forged(lines, count, ascii_), arguments
        if ascii_ and "--otlp" not in arguments:
            assert [json.loads(line)["index"] for line in lines] == list(range(count))
        if not ascii_:
            assert [int(line.split(" ", 1)[0]) for line in lines] == list(range(count))


def test_the_hostile_texts_find_a_printer_that_does_not_escape(shm: Path) -> None:
    with writer(shm / "journal") as one:
        durable(one, *everywhere(HOSTILE[5]))
    back = list(read(shm / "journal"))
    naked = [words.line(each) for each in back]
    assert forged(naked, len(back), False)
    assert not forged([plain(line) for line in naked], len(back), False)


def test_a_record_line_of_a_permit_cannot_be_told_by_a_deny() -> None:
    """What follows the verdict word is quoted wherever it could be taken for the next word."""
    for seed in range(300):
        text = hostile(seed)
        entry = everywhere(text)[0]
        from pepcore.audit.reader import Recorded

        line = plain(words.line(Recorded(0, entry, 1, 0)))
        outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        assert "permit" not in outside.split(), (text, line)


def test_an_id_survives_from_json_to_the_option_and_finds_the_hits_that_a_subject_does_not(shm: Path) -> None:
    number = (1 << 63) + (1 << 53) + 1
    with writer(shm / "journal") as one:
        durable(
            one,
            decision(number),
            entries.Hits(**entries.times(), served=((number, 3),), count=3, first_ns=1, last_ns=2),
        )
    place = ("--journal", str(shm / "journal"))
    (line,) = audit("query", "--kind", "decision", "--json", *place).stdout.splitlines()
    told = json.loads(line, parse_int=float)["decision"]  # as jq 1.6 reads numbers
    assert told == str(number)
    assert "count=3" in audit("query", "--kind", "hits", "--decision", told, *place).stdout
    assert audit("query", "--kind", "hits", "--subject", f"User::u{number}", *place).returncode == 1
    assert "no subject, action or resource" in audit("--help").stdout
