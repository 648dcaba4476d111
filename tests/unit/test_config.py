"""The configuration: every word is understood, or the file is refused with the key that is wrong."""

import os
from pathlib import Path

import pytest

from pepcore.config import Config, load, milliseconds, validate
from pepcore.errors import ConfigError, Overloaded
from pepcore.leaseroom import Room
from pepcore.pointconfig import not_enforced

WHOLE = """
[daemon]
socket = "run/pep.sock"
workers = 2
watch = false
drain = "2s"
[policies]
policies = "policies"
entities = "entities.json"
open_types = ["Request"]
[limits]
frame = 4096
depth = 8
deadline = "50ms"
[cache]
slots = 1000
quota = 0.5
permit = "5m"
[notify]
file = "/var/log/notices"
[[peers]]
user = 0
administer = true
[[peers]]
points = ["gateway"]
subjects = ["Service::*"]
"""


def read(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "pepcore.toml"
    file.write_text(text)
    return load(file)


def test_an_empty_file_is_the_defaults_and_they_are_safe(tmp_path: Path):
    config = read(tmp_path, "")
    assert config == Config()
    assert config.peers == ()
    assert config.notify.file == ""
    assert config.policies.open_types is None
    assert validate(Config()) == Config()


def test_a_whole_file_is_read_and_its_paths_count_from_its_folder(tmp_path: Path):
    config = read(tmp_path, WHOLE)
    assert config.daemon.socket == str(tmp_path / "run/pep.sock")
    assert config.policies.policies == str(tmp_path / "policies")
    assert (config.policies.schema, config.notify.file) == ("", "/var/log/notices")
    assert (config.daemon.workers, config.limits.depth, config.cache.quota) == (2, 8, 0.5)
    assert config.peers[1].points == ("gateway",)
    assert config.peers[0].administer
    assert not config.peers[1].administer


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[daemon]\nsokcet = 'x'", "sokcet"),
        ("[other]", "other"),
        ("[daemon]\nworkers = '2'", "daemon.workers"),
        ("[daemon]\nworkers = 65", "daemon.workers"),
        ("[limits]\nframe = 1023", "limits.frame"),
        ("[limits]\nframe = 16777217", "limits.frame"),
        ("[limits]\ndepth = 3", "limits.depth"),
        ("[limits]\ndepth = 33", "limits.depth"),
        ("[limits]\nvalues = 63", "limits.values"),
        ("[limits]\nvalues = 1048577", "limits.values"),
        ("[limits]\nconnections = 0", "limits.connections"),
        ("[limits]\nqueued = 1", "limits.queued"),
        ("[limits]\nwaiting = 0", "limits.waiting"),
        ("[limits]\ndeadline = '1 s'", "limits.deadline"),
        ("[limits]\nlongest_deadline = '-1s'", "limits.longest_deadline"),
        ("[cache]\nquota = 0", "cache.quota"),
        ("[cache]\nquota = 1.5", "cache.quota"),
        ("[cache]\nslots = 7", "cache.slots"),
        ("[cache]\nslab_mib = 0", "cache.slab_mib"),
        ("[cache]\npermit = 'forever'", "cache.permit"),
        ("[[peers]]\nuser = 'nobody-of-that-name'", "nobody-of-that-name"),
        ("[[peers]]\ngroup = 'no-such-group-here'", "no-such-group-here"),
        ("[[peers]]\nadminister = 'yes'", "administer"),
        *(
            (f"[observe]\nlisten = {listen}", "observe.listen")
            for listen in (
                "9470", "true", "'9470'", "':9470'", "'0.0.0.0:9470'", "'*:9470'", "'[::]:9470'", "'localhost:9470'",
                "'127.0.0.2:9470'", "'192.168.1.2:9470'", "'[::ffff:127.0.0.1]:9470'", "'::1:9470'", "'[::1%lo]:9470'",
                "'127.0.0.1:0'", "'127.0.0.1:65536'", "'127.0.0.1:09470'", "'127.0.0.1'", "'127.0.0.1:9470 '",
                "'http://127.0.0.1:9470'", "'metrics.sock'", "'/run/x/'", "' '", "'@m'", '"/run/m\\u0000"',
                f"'/{'x' * 107}'", "'127.0.0.1:\u0661'",
            )
        ),
        ("[observe]\nlistens = ''", "observe.listens"),
        ("[points.pay]\nmode = 'audit'", "points[].mode"),
        ("[points.pay]\nmoed = 'off'", "moed"),
        ("[record]\nkeep = 'off'\n[points.pay]\nmode = 'shadow'", "points.pay.mode"),
        ("[points.pay]\nmode = 'off'\nrecord = 'off'", "points.pay.record"),
        ("[daemon", "TOML"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_its_key(tmp_path: Path, text: str, word: str):
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    assert word in str(refused.value)
    assert "pepcore.toml" in str(refused.value)
    assert read(tmp_path, "[limits]\nframe = 1024\ndepth = 32\n[cache]\nquota = 1\nslots = 8\n[[peers]]\nuser = 0")


@pytest.mark.parametrize(
    ("listen", "taken"),
    [
        ("", ""),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("[::1]:65535", "[::1]:65535"),
        ("/run/pepcore/metrics.sock", "/run/pepcore/metrics.sock"),
        ("/run/a:9470", "/run/a:9470"),
        ("./m.sock", "FOLDER/m.sock"),
        ("run/m.sock", "FOLDER/run/m.sock"),
    ],
)
def test_where_metrics_are_told(tmp_path: Path, listen: str, taken: str):
    found = read(tmp_path, f"[observe]\nlisten = '{listen}'").observe.listen
    assert found == taken.replace("FOLDER", str(tmp_path))


def test_a_file_that_is_absent_or_no_text_is_refused_with_its_name(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load(tmp_path / "absent.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"bytes\.toml"):
        load(tmp_path / "bytes.toml")
    (tmp_path / "fine.toml").write_text("")
    assert load(tmp_path / "fine.toml") == Config()


@pytest.mark.parametrize(
    ("text", "value"),
    [("0ms", 0), ("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("2d", 172_800_000)],
)
def test_durations(text: str, value: int):
    assert milliseconds(text) == value


@pytest.mark.parametrize("text", ["", "5", "1w", "1.5s", " 1s", "1s ", "1S", "9999999999999s", "-1s", "\u0661s"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="write it as `500ms`"):
        milliseconds(text)


def test_a_config_cannot_be_changed_once_it_is_loaded(tmp_path: Path):
    config = read(tmp_path, WHOLE)
    with pytest.raises(AttributeError):
        config.daemon.workers = 3  # type: ignore[misc]
    assert os.path.isabs(config.policies.entities)


def test_a_point_enforces_unless_the_config_names_it_and_its_mode_and_it_has_a_record(tmp_path: Path):
    config = read(
        tmp_path, "[points.pay]\nmode = 'shadow'\n[points.gone]\nmode = 'off'\nrecord = 'lossy'\n[points.'*']"
    )
    assert [config.mode_of(p) for p in ("pay", "gone", "", "other", "PAY", "*")] == ["shadow", "off", *["enforce"] * 4]
    assert not_enforced(config.points) == {"shadow": ["pay"], "off": ["gone"]}
    assert not_enforced(Config().points) == {}
    assert read(tmp_path, "[record]\nkeep = 'off'\n[points.pay]\nmode = 'enforce'").mode_of("pay") == "enforce"


def test_one_peer_may_hold_ten_thousand_leases_and_leaves_room_for_others() -> None:
    leases = Config().leases
    assert 10_000 <= leases.held_per_peer < leases.held
    room = Room(leases.held, leases.held_per_peer)
    for _ in range(10_000):
        room.enter(1)
    with pytest.raises(Overloaded, match="this peer holds 10000 leases"):
        room.enter(1)
    room.enter(2)
