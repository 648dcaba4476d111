"""The lease of the page and the fence behind it, by force (invariant 4)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import race_twins as twins
from race_record import Seen
from race_run import HERE, Outcome, Race

Start = Callable[..., Race]
MS = 1_000_000
PROMISED_NS = 200 * MS


class Hitter:
    """A process that is answered in process all the time, and since when no more."""

    def __init__(self, race: Race) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "race_hitter.py"), str(race.daemon.socket)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=race.env,
        )
        race.revokers.append(self.process)  # ended with the others, whatever happens
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        time.sleep(0.2)

    def periods(self) -> list[list[int]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        told: list[list[int]] = json.loads(self.process.stdout.read())
        return told


def hits_after(race: Race, number: int, seconds: float = 0.6) -> tuple[int, list[list[int]], int]:
    """Send a signal to the daemon: when, the periods of hits in process, when it went on again (if it was stopped)."""
    hitter = Hitter(race)
    os.kill(race.daemon.pid, number)
    sent = time.monotonic_ns()
    time.sleep(seconds)
    again = time.monotonic_ns()
    if number == signal.SIGSTOP:
        os.kill(race.daemon.pid, signal.SIGCONT)
        time.sleep(seconds)
    return sent, hitter.periods(), again


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM], ids=lambda n: n.name)
def test_a_dead_or_stopped_daemon_ends_hits_in_process_within_200_ms(race: Start, number: signal.Signals) -> None:
    sent, periods, again = hits_after(race(), number)
    last = max(end for start, end in periods if start < sent + PROMISED_NS)
    late = (last - sent) / MS
    print(f"{number.name}: the last hit in process {late:.1f} ms after the signal")
    assert last - sent < PROMISED_NS
    assert not [p for p in periods if sent + PROMISED_NS < p[0] < again], "it was believed again while it was not there"
    if number == signal.SIGSTOP:
        assert periods[-1][0] > again, "a daemon that goes on is believed again"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda n: n.name)
def test_hits_in_process_go_on_without_a_daemon_where_nobody_looks_at_the_lease(
    race: Start, twin: twins.Build, number: signal.Signals
) -> None:
    sent, periods, again = hits_after(race(twin=twin("a client that does not look at the lease")), number)
    assert max(end for _, end in periods) >= again > sent + PROMISED_NS


def hits_in_c_after(race: Race, number: int, seconds: float = 0.6) -> tuple[int, list[Seen], int]:
    """The same of the client in C: when the signal was sent, its hits in process, when the daemon went on again."""
    race.ask("c-settled").go_on(1.0)
    os.kill(race.daemon.pid, number)
    sent = time.monotonic_ns()
    time.sleep(seconds)
    again = time.monotonic_ns()
    if number == signal.SIGSTOP:
        os.kill(race.daemon.pid, signal.SIGCONT)
        time.sleep(seconds)
    outcome = race.over()
    return sent, [p for p in outcome.permits if p.local and p in outcome.in_c], again


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM], ids=lambda n: n.name)
def test_a_dead_or_stopped_daemon_ends_hits_in_process_in_c_within_200_ms(race: Start, number: signal.Signals) -> None:
    sent, hits, again = hits_in_c_after(race(), number)
    last = max(p.last_start for p in hits if p.first_start < again)
    print(f"{number.name}: the last hit in process in C {(last - sent) / MS:.1f} ms after the signal")
    assert last > sent - 50 * MS, "it was not hit all the time: this shows nothing"
    assert last - sent < PROMISED_NS, "it was believed, or believed again, while it was not there"
    if number == signal.SIGSTOP:
        assert max(p.last_start for p in hits) > again, "a daemon that goes on is believed again"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda n: n.name)
def test_hits_in_process_in_c_go_on_without_a_daemon_where_nobody_looks_at_the_lease(
    race: Start, number: signal.Signals
) -> None:
    sent, hits, again = hits_in_c_after(race(guard_in_c="a client in C that does not look at the lease"), number)
    assert max(p.last_start for p in hits if p.first_start < again) > again - 50 * MS > sent + PROMISED_NS


def replaced(race: Start, seconds: float, *, handed: bool = False, **options: Any) -> Outcome:
    """A daemon is killed and replaced inside its lease (four seconds here, so that any start is quick enough).

    `handed`: and who came in its place hands over at once. (The client in C has its own constant for the lease.)"""
    running = race(**options).ask("settled", "settled").go_on(2.0)
    running.kill()
    if handed:
        running.take_over()
    outcome = running.revoke(2).go_on(seconds).over()
    assert outcome.revokes, "the new daemon has acknowledged nothing yet"
    assert len({p.boot for p in outcome.permits} | {r.boot for r in outcome.revokes}) == 2
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("handed", [False, True], ids=["in its place", "handed over at once"])
def test_no_daemon_acknowledges_a_revoke_while_an_older_page_is_live(
    race: Start, twin: twins.Build, handed: bool
) -> None:
    lease = twin("a lease of four seconds")
    outcome = replaced(race, 10.0, handed=handed, twin=lease)
    assert not outcome.stale, "\n".join(map(str, outcome.stale[:5]))
    unfenced = replaced(race, 3.0, handed=handed, twin=lease, before=twins.NO_FENCE)
    assert unfenced.stale, "without the fence the permits of the old page were not seen: this shows nothing"
    assert all(s.permit.local for s in unfenced.stale)
