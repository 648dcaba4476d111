"""The configuration: what is wrong is refused with a message that names it, and its neighbour is taken."""

from __future__ import annotations

import pytest

from pepcore.config import Config, load
from pepcore.errors import ConfigError

WRONG = {
    "colour = 1": "`colour`",
    "[limits]\nframes = 1": "`limits.frames`",
    "[limits]\nframe = '1'": "`limits.frame`",
    "[limits]\nframe = 1023": "`limits.frame`",
    "[limits]\nframe = 16777217": "`limits.frame`",
    "[limits]\ndepth = 3": "`limits.depth`",
    "[limits]\ndepth = 33": "`limits.depth`",
    "[limits]\nconnections = 0": "`limits.connections`",
    "[limits]\nconnections_per_peer = 0": "`limits.connections_per_peer`",
    "[limits]\nqueued = 1": "`limits.queued`",
    "[limits]\nwaiting = 0": "`limits.waiting`",
    "[limits]\nwaiting_per_peer = -1": "`limits.waiting_per_peer`",
    "[limits]\nwaiting_bytes_per_peer = 65536": "`limits.waiting_bytes_per_peer`",
    "[limits]\npartial = '0s'": "`limits.partial`",
    "[limits]\npartial = '1 s'": "`limits.partial`",
    "[limits]\nunread = '-1s'": "`limits.unread`",
    "[limits]\ndeadline = 200": "`limits.deadline`",
    "[limits]\ndeadline = '1m'": "`limits.deadline`",
    "[limits]\nlongest_deadline = 'never'": "`limits.longest_deadline`",
    "[cache]\nslots = 7": "`cache.slots`",
    "[cache]\nslab_mib = 0": "`cache.slab_mib`",
    "[cache]\nquota = 0.0": "`cache.quota`",
    "[cache]\nquota = 1.1": "`cache.quota`",
    "[cache]\nquota = nan": "`cache.quota`",
    "[cache]\npermit = '1w'": "`cache.permit`",
    "[cache]\npermit = '999999999h'": "`cache.permit`",
    "[limits]\nunread = '1194h'": "`limits.unread`",
    "[cache]\ndeny = ''": "`cache.deny`",
    "[daemon]\nworkers = 0": "`daemon.workers`",
    "[daemon]\nworkers = 65": "`daemon.workers`",
    "[daemon]\nwatch = 1": "`daemon.watch`",
    "[daemon]\ndrain = '5'": "`daemon.drain`",
    "[policies]\npolicy = 'x'": "`policies.policy`",
    "[notify]\npath = 'x'": "`notify.path`",
    "[[peers]]\nuser = 'no-such-user-here'": "no-such-user-here",
    "[[peers]]\nuser = 0\ngroup = 'no-such-group-here'": "no-such-group-here",
    "[[peers]]\nuser = -1": "`-1`",
    "[[peers]]\nuser = 1.5": "user",
    "[[peers]]\nsubjects = ['alice']": "`alice`",
    "[[peers]]\nsubject = ['User::a']": "subject",
    "[[peers]]\nadminister = 'yes'": "administer",
    "[limits": "not valid TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_key_or_value_is_refused_by_name(tmp_path, text):
    file = tmp_path / "pepcore.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert WRONG[text] in str(refused.value)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[limits]\nframe = 1024\ndepth = 4\nqueued = 65536\npartial = '1ms'\ndeadline = '30s'",
        "[cache]\nslots = 8\nslab_mib = 1\nquota = 1\npermit = '0s'\ndeny = '1h'",
        "[daemon]\nworkers = 1\nwatch = false\ndrain = '0s'",
        "[[peers]]\nuser = 'root'\ngroup = 0\nsubjects = ['*', 'User::*']\npoints = ['']\nshare = 'x'",
    ],
)
def test_what_lies_just_within_is_taken(tmp_path, text):
    file = tmp_path / "pepcore.toml"
    file.write_text(text)
    assert isinstance(load(file), Config)


def test_relative_paths_count_from_the_folder_of_the_config(tmp_path):
    file = tmp_path / "pepcore.toml"
    file.write_text("[policies]\npolicies = 'p'\n[daemon]\nsocket = 'run/s'\n[notify]\nfile = '/var/n'")
    config = load(file)
    assert config.policies.policies == str(tmp_path / "p")
    assert config.daemon.socket == str(tmp_path / "run/s")
    assert config.notify.file == "/var/n"


def test_a_config_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.toml")
