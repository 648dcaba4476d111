"""An incident: a hundred revokes a second, and a PDP that takes 50 ms (that it does is the only artificial part).

Every question crosses five revokes on its way, and who is not touched keeps what it has, and gets what it asks anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import race_twins as twins
from pepclient.client import Client
from race_asker import Watched, asks
from race_run import Race

Start = Callable[..., Race]
PDP_S = 0.05
REVOKES = 100
SECONDS = 3.0
QUIET = "User::quiet", "read"


class Incident(threading.Thread):
    """Revokes at this pace, from a thread of its own, until it is told that it is over."""

    def __init__(self, race: Race) -> None:
        super().__init__()
        self.socket, self.over, self.sent = race.daemon.socket, threading.Event(), 0

    def run(self) -> None:
        began = time.monotonic()
        with Client(self.socket, deadline=5.0) as admin:
            while not self.over.wait(max(0.0, self.sent / REVOKES - (time.monotonic() - began))):
                admin.revoke(tag=("User::u0", "policy:p0", "Role::r1", "Document::d0")[self.sent % 4])
                self.sent += 1


def ratio(race: Race, seconds: float = SECONDS) -> dict[str, float]:
    """Ask about the quiet subject while others are revoked: an old question all the time, new ones three times each."""
    denied = old = new = old_hits = new_hits = local = 0
    incident = Incident(race)
    with Watched(race.daemon.socket, deadline=5.0) as client:
        assert client.check(*QUIET, "Document::d1")
        until = time.monotonic() + seconds
        incident.start()
        try:
            while time.monotonic() < until:
                for _ in range(20):
                    asks.missed = False
                    old_hits += client.check(*QUIET, "Document::d1").cached
                    local += not asks.missed
                    old += 1
                first, *again = (client.check(*QUIET, "Document::d1", {"n": old}) for _ in range(3))
                new += 1
                denied += not first
                new_hits += sum(v.cached for v in again)
        finally:
            incident.over.set()
            incident.join()
    return {"revokes": incident.sent / seconds, "old": old_hits / old, "new": new_hits / (2 * new), "asked anew": new,
            "in process": local / old, "denied": denied}  # fmt: skip


def test_100_revokes_a_second_against_a_pdp_that_takes_50_ms_leave_the_hit_ratio_of_untouched_subjects(
    race: Start,
) -> None:
    told = ratio(race(slow_pdp=PDP_S))
    print(told)
    assert told["asked anew"] >= 5
    assert told["denied"] == 0
    assert told["revokes"] > REVOKES / 3
    for what in ("old", "new", "in process"):
        assert told[what] > 0.95, what


@pytest.mark.slow
def test_where_every_answer_hangs_on_the_revision_an_incident_ends_all_caching(race: Start) -> None:
    told: dict[str, Any] = ratio(race(slow_pdp=PDP_S, before=twins.HANGS_ON_THE_REVISION))
    print(told)
    assert told["new"] < 0.2
    assert told["old"] < 0.5
