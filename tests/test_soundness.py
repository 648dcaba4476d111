"""Invariants 24 and 25 by comparison: a seeded generator against the unsliced engine, and planted omissions.

PEPCORE_SOUNDNESS_CASES sets the number of cases (3,000 unless told), PEPCORE_SOUNDNESS_SEED the first world.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode adds no folder by itself

from soundness.compare import run
from soundness.twins import TWINS

CASES = int(os.environ.get("PEPCORE_SOUNDNESS_CASES", "3000"))
SEED = int(os.environ.get("PEPCORE_SOUNDNESS_SEED", "0")) or int.from_bytes(os.urandom(4), "little")
BOUND = 6000


@pytest.mark.parametrize("omission", TWINS)
def test_the_generator_finds_a_slicer_that_omits(omission: str, monkeypatch: pytest.MonkeyPatch) -> None:
    TWINS[omission](monkeypatch.setattr)
    for n, (_, _, difference) in enumerate(run(1, BOUND)):
        if difference:
            print(f"{omission}: found after {n + 1} cases")
            return
    pytest.fail(f"{BOUND} cases did not find that the slicer omits {omission}")


def test_sliced_and_unsliced_decisions_and_errors_are_equal() -> None:
    print(f"seed {SEED}, {CASES} cases")
    for seed, case, difference in run(SEED, CASES):
        assert not difference, f"world {seed}: {difference}\n{case}"
