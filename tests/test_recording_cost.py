"""What recording adds to a cached hit, in instructions: callgrind counts the same on slow machines and on fast ones."""

from __future__ import annotations

import pytest

from benchmarks import instructions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(instructions.missing()), reason=instructions.missing() or "nothing is missing"),
]
DEAR = """
import benchmarks.instructions as i
def dear(counting, original=i.client_hits):
    hits, harvest = original(counting)
    return (lambda: (hits(), [sum(range(50)) for _ in range(i.HITS)])) if counting else hits, harvest
i.KINDS["client"] = dear
"""


def test_recording_costs_a_hit_at_most_400_instructions_in_the_daemon_and_in_a_client() -> None:
    added = instructions.measure()
    print(added)
    assert {kind for kind, _ in added} == {"daemon", "client"}
    assert [each for each in added.items() if not 1 < each[1] <= instructions.MOST] == []


def test_a_count_that_costs_more_is_seen() -> None:
    added = instructions.measure(DEAR)
    assert added["client", "later"] > instructions.MOST
    assert added["daemon", "later"] < instructions.MOST
