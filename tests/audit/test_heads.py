"""Key files and signed heads: made once, kept outside, rotated with both signatures, told to syslog."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from pepcore.audit import heads as heads_module
from pepcore.audit import keys
from pepcore.audit.entries import Decision
from pepcore.audit.heads import Key, genuine, heads, key_id, previous, rotate
from pepcore.audit.lines import as_line
from pepcore.audit.verify import verify
from pepcore.audit.writer import Plan, Writer
from pepcore.errors import ConfigError
from tests.audit.journals import decision, durable, make, of_kind, writer

# ---- key files ----


def test_a_key_is_made_once_and_only_its_owner_reads_it(shm: Path) -> None:
    before = os.umask(0)
    try:
        key = keys.load_or_make(shm / "keys" / "one")
    finally:
        os.umask(before)
    assert len(key) == keys.LENGTH
    assert stat.S_IMODE((shm / "keys" / "one").stat().st_mode) == 0o600
    assert keys.load_or_make(shm / "keys" / "one") == key
    assert keys.load_or_make(shm / "keys" / "other") != key
    assert sorted(path.name for path in (shm / "keys").iterdir()) == ["one", "other"], "no draft is left"


def test_many_who_make_a_key_at_once_get_one(shm: Path) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(keys.load_or_make(shm / "key"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda path: path.chmod(0o640), "can be used by others .mode 640.: chmod 600 it"),
        (lambda path: path.write_bytes(b"x" * 31), "has 31 bytes and not 32"),
        (lambda path: path.write_bytes(b"x" * 99), "has 33 bytes and not 32"),
        (lambda path: (path.unlink(), path.mkdir()), "is not a regular file"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "is not a regular file"),
    ],
)
def test_a_key_file_that_is_not_as_it_should_be_is_refused(shm: Path, damage: object, match: str) -> None:
    keys.load_or_make(shm / "key")
    damage(shm / "key")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=match):
        keys.load_or_make(shm / "key")


def test_a_key_in_the_journals_folder_is_refused_also_through_a_link(shm: Path) -> None:
    (shm / "journal").mkdir()
    (shm / "link").symlink_to(shm / "journal")
    for path in (shm / "journal" / "key", shm / "journal" / "keys" / "key", shm / "link" / "key"):
        with pytest.raises(ConfigError, match="keep it outside"):
            Writer(shm / "journal", Plan(key=path))
    with writer(shm / "journal"):
        pass


# ---- heads ----


def test_a_head_names_its_key_and_no_bit_of_it_is_free(shm: Path) -> None:
    head = make(shm / "journal", 2)
    assert head.key == key_id(bytes.fromhex(head.public))
    assert genuine(head)
    line = as_line(head).encode()
    file = heads(shm / "journal")
    for bit in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            other = file.parse(bytes(flipped))
        except ValueError:
            continue
        assert not genuine(other), f"bit {bit}"


def test_a_head_with_another_key_in_it_is_not_genuine(shm: Path) -> None:
    head = make(shm / "journal", 1)
    other = Key(b"o" * 32)
    assert not genuine(msgspec.structs.replace(head, public=other.public.hex()))
    forged = msgspec.structs.replace(head, public=other.public.hex())
    forged = msgspec.structs.replace(forged, signature=other.sign(forged.signed()))
    assert not genuine(forged), "the id is the hash of the public half"


@pytest.mark.parametrize("field", ["public", "signature", "previous", "previous_signature", "root", "journal", "key"])
@pytest.mark.parametrize("value", ["0", "00", "0" * 63, "0" * 128])
def test_odd_and_short_hex_in_a_head_is_not_genuine(shm: Path, field: str, value: str) -> None:
    head = make(shm / "journal", 1)
    assert not genuine(msgspec.structs.replace(head, **{field: value}))


def test_heads_are_signed_at_an_interval_and_only_where_something_is_new(shm: Path) -> None:
    with writer(shm / "journal", key=shm / "key", heads_s=3600) as one:
        for i in range(20):
            durable(one, decision(i))
        assert [head.size for _, head in heads(shm / "journal").read()[0]] == [1]
    assert [head.size for _, head in heads(shm / "journal").read()[0]] == [1, 20], "and one when it is closed"
    with writer(shm / "journal", key=shm / "key"):
        pass
    assert len(heads(shm / "journal").read()[0]) == 2


def test_the_cryptography_is_not_imported_before_a_head_is_due() -> None:
    code = (
        "import sys, pepcore.audit.writer, pepcore.audit.verify; assert 'cryptography' not in sys.modules;"
        "import pepcore.audit.heads as h; h.Key(b'k' * 32); assert 'cryptography' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- rotation ----


def test_a_new_key_is_signed_for_by_the_old_one(shm: Path) -> None:
    old = make(shm / "journal", 2)
    key = shm / "keys" / "heads.key"
    rotate(key)
    assert previous(key).exists()
    assert not key.exists()
    new = make(shm / "journal", 2)
    lines = [head for _, head in heads(shm / "journal").read()[0]]
    first = next(head for head in lines if head.key == new.key)
    assert (new.key != old.key, first.previous, bool(first.previous_signature)) == (True, old.public, True)
    assert new.previous == "", "only the first head of a key is signed twice"
    for trusted in (old.key, new.key):
        assert verify(shm / "journal", outside=old, key=trusted).findings == []
    previous(key).unlink()
    make(shm / "journal", 1)
    assert verify(shm / "journal", outside=new).findings == []


def test_a_new_key_that_the_old_one_did_not_sign_for_is_found(shm: Path) -> None:
    old = make(shm / "journal", 1)
    file = heads(shm / "journal")
    stranger = Key(b"s" * 32)
    for signer in (stranger, None):
        head = msgspec.structs.replace(
            old, number=old.number + 1, key=stranger.id, public=stranger.public.hex(), signature="",
            previous=old.public if signer else "",
        )  # fmt: skip
        head = msgspec.structs.replace(
            head, signature=stranger.sign(head.signed()),
            previous_signature=stranger.sign(head.signed()) if signer else "",
        )  # fmt: skip
        before = file.path.read_bytes()
        file.append(heads_module.Disk(), head)
        reasons = [each.reason for each in verify(shm / "journal").findings]
        assert reasons == ["its signature is wrong" if signer else
                           f"the key `{stranger.id}` is new, and the one before it has not signed that"]  # fmt: skip
        file.path.write_bytes(before)


def test_a_lost_key_is_said_and_nothing_is_signed_but_entries_go_on(shm: Path) -> None:
    make(shm / "journal", 1)
    (shm / "keys" / "heads.key").unlink()
    with writer(shm / "journal", key=shm / "keys" / "heads.key", heads_s=0.0) as one:
        durable(one, decision(5000))
        durable(one, decision(5001))
        assert "is not the one before it" in one.unsigned
        assert one.error is None
    assert [each.entry.decision for each in of_kind(shm / "journal", Decision)][-1] == 5001  # type: ignore[union-attr]


def test_a_second_rotation_before_the_first_is_out_is_refused(shm: Path) -> None:
    keys.load_or_make(shm / "key")
    rotate(shm / "key")
    keys.load_or_make(shm / "key")
    with pytest.raises(ConfigError, match="from the last rotation"):
        rotate(shm / "key")
    with pytest.raises(ConfigError, match="cannot be put aside"):
        rotate(shm / "none")


# ---- syslog ----


def test_heads_go_to_syslog_where_that_is_wanted(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, str]] = []
    import syslog

    monkeypatch.setattr(syslog, "syslog", lambda priority, text: told.append((priority, text)))
    head = make(shm / "journal", 1, syslog=True)
    assert told[-1] == (syslog.LOG_NOTICE, f"audit head {as_line(head)}")


def test_verify_says_that_heads_stopped_long_before_the_end(shm: Path) -> None:
    make(shm / "journal", 2)
    assert not any("signed no more" in each for each in verify(shm / "journal").limits)
    (shm / "keys" / "heads.key").unlink()
    with writer(shm / "journal", heads_s=0.0, key=shm / "keys" / "heads.key") as one:
        durable(one, decision(5000))
        newest = decision(5001)
        durable(one, msgspec.structs.replace(newest, wall_ns=newest.wall_ns + 7200 * 10**9))
        assert "put the one before it there" in one.unsigned
    report = verify(shm / "journal")
    assert report.findings == []
    assert any("signed no more" in each and "2.0 hours" in each for each in report.limits)
