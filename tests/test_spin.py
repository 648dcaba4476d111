"""The page as Spin models (`spin/*.pml`, each says what it leaves out), with every state visited, and their mutants.

Promises: a model holds only if the search was complete; a mutant, and a probe (what a model claims to reach), fails
with an assertion, not with a deadlock, a compiler's error or a limit.
`-s` prints states, memory and seconds. A trail: `spin -a -DMUTANT MODEL`, `gcc -DSAFETY -o pan pan.c`, `./pan`,
`spin -t -p -DMUTANT MODEL`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

MODELS = Path(__file__).parent / "spin"
MISSING = [f"{p} (Debian: {p})" for p in ("spin", "gcc") if shutil.which(p) is None]
MEGABYTES = 1000
SECONDS = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"missing program: {', '.join(MISSING)}"),
]

MUTANTS = [
    ("page", "STAMP_BY_CLIENT"),
    ("page", "STAMP_AFTER_ASKING"),
    ("page", "NO_TEST_ON_ANSWER"),
    ("page", "JOIN_ANY"),
    ("page", "REVISION_BEFORE_SLOTS"),
    ("page", "BUMP_BEFORE_COMMIT"),
    ("page", "REMEMBER_UNTESTED"),
    ("page", "READ_REVISION_LAST"),
    ("page", "SHARED NO_LOCK"),
    ("lease", "NO_FENCING_LOCK"),
    ("lease", "ACK_INSIDE_OLD_LEASE"),
    ("lease", "NO_LEASE"),
    ("lease", "SAME_BOOT"),
    ("lease", "STORE_OVER_BOOTS"),
    ("lease", "HAND_OVER HAND_OVER_ANSWERING"),
    ("lease", "HAND_OVER RENEWER_NOT_JOINED"),
    ("lease", "HAND_OVER LEASE_NOT_ZEROED"),
    ("lease", "REMOVED NO_LOOK"),
    ("lease", "REMOVED LOOK_BEFORE_CLOCK"),
    ("lease", "REMOVED ANSWERS_WITHOUT_LOOK"),
    ("lease", "REMOVED ACKS_WITHOUT_LOOK"),
    ("tear", "ACKNOWLEDGE_FIRST"),
]
PROBES = [
    ("page", "SEE_REMEMBERED"),
    ("page", "SEE_DAEMON_HIT"),
    ("page", "SEE_JOINED"),
    ("page", "SEE_ASKED_AGAIN"),
    ("page", "SEE_KEPT_OVER_ANOTHERS_REVOKE"),
    ("lease", "SEE_LAPSE"),
    ("lease", "SEE_HIT_ON_NEW_PAGE"),
    ("lease", "SEE_RENEWED_HIT"),
    ("lease", "SEE_LATE_ANSWER"),
    ("lease", "REMOVED SEE_HIT_BESIDE"),
    ("tear", "SEE_TORN"),
    ("tear", "SEE_HIT_AFTER_DEATH"),
]


def verify(folder: Path, model: str, defines: str) -> str:
    """Search all states of a model; returns what the verifier printed."""
    options = [f"-D{define}" for define in defines.split()]
    source = str(MODELS / f"{model}.pml")
    compiler = ["gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048", f"-DMEMLIM={MEGABYTES}"]
    for command in (["spin", *options, "-a", source], [*compiler, "-o", "pan", "pan.c"]):
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
        assert made.returncode == 0, made.stdout + made.stderr
    start = time.monotonic()
    run = subprocess.run(["./pan", "-m100000"], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    seconds = time.monotonic() - start
    states = re.search(r"(\S+) states, stored", run.stdout)
    memory = re.search(r"(\S+)\ttotal actual memory usage", run.stdout)
    assert states, run.stdout + run.stderr
    assert memory, run.stdout + run.stderr
    print(f"{model} {defines}: {states[1]} states, {memory[1]} MB, {seconds:.1f} s")
    return run.stdout


def holds(said: str) -> bool:
    """No error in any state, and every state was visited: no limit of depth, memory or time cut the search."""
    cut = re.search(r"Search not completed|max search depth too small|reached -DMEMLIM|out of memory|interrupted", said)
    whole = re.search(r"^Full statespace search for:$", said, re.M)
    return "errors: 0" in said and whole is not None and cut is None


def violates(said: str) -> bool:
    return "errors: 1" in said and "assertion violated" in said


@pytest.mark.parametrize("variant", ["", "WIDE", "SHARED"])
def test_the_page_lets_no_stale_permit_through_in_any_interleaving(tmp_path: Path, variant: str) -> None:
    said = verify(tmp_path, "page", variant)
    assert holds(said), said


@pytest.mark.parametrize("variant", ["", "HAND_OVER", "REMOVED", "AHEAD=1", "BEHIND=1"])
def test_no_stale_permit_comes_through_a_stopped_killed_or_replaced_daemon(tmp_path: Path, variant: str) -> None:
    said = verify(tmp_path, "lease", variant)
    assert holds(said), said


def test_a_writer_that_dies_in_the_middle_of_a_revoke_hangs_nobody_and_admits_nothing(tmp_path: Path) -> None:
    said = verify(tmp_path, "tear", "")
    assert holds(said), said


@pytest.mark.parametrize(("model", "mutant"), MUTANTS)
def test_every_mutant_of_the_page_lets_a_stale_permit_through(tmp_path: Path, model: str, mutant: str) -> None:
    said = verify(tmp_path, model, mutant)
    assert violates(said), said


def test_a_sequence_that_is_odd_during_a_write_hangs_readers_of_a_dead_writer(tmp_path: Path) -> None:
    said = verify(tmp_path, "tear", "SEQLOCK")
    assert violates(said), said
    assert "ended==2" in said


def test_a_clock_that_is_behind_by_a_lease_or_more_revives_the_page_of_a_dead_daemon(tmp_path: Path) -> None:
    said = verify(tmp_path, "lease", "BEHIND=3")
    assert violates(said), said


@pytest.mark.parametrize(("model", "probe"), PROBES)
def test_the_models_reach_what_they_claim_to_cover(tmp_path: Path, model: str, probe: str) -> None:
    said = verify(tmp_path, model, probe)
    assert violates(said), said


def test_a_search_that_was_cut_short_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "MEGABYTES", 150)
    assert not holds(verify(tmp_path, "page", ""))
