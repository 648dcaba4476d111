"""One daemon, many processes that ask, some that revoke, and what they wrote: started here, and ended here by pid."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import race_record
import race_world
from running import Daemon

HERE = Path(__file__).parent
FROM_DAEMON = "from the daemon's cache"

EVIDENCE = """
import os as _os, struct as _struct, time as _time
import pepcore.settlement as _settlement
_evidence = _os.open({path!r}, _os.O_WRONLY | _os.O_APPEND | _os.O_CREAT | _os.O_CLOEXEC, 0o600)
_apart = _time.clock_gettime_ns(_time.CLOCK_BOOTTIME) - _time.monotonic_ns()
def _shared(self, flight, *rest, original=_settlement.Settlement.shared):
    verdict, payload = original(self, flight, *rest)
    _os.write(_evidence, _struct.pack("<QQQ", verdict.boot, verdict.number, flight.asked_ns - _apart))
    return verdict, payload
_settlement.Settlement.shared = _shared
"""
"""Code for the daemon: write down when the PDP was asked for each decision. It changes nothing that the daemon does."""

SLOW_PDP = """
import asyncio as _asyncio
import pepcore.server.misses as _misses, pepcore.server.service as _service
_misses.Misses._alone = lambda self, now, waiting: False
def _came(self, flight, said, took_ns, original=_service.Service.came):
    def late():
        original(self, flight, said, took_ns)
        self.idle()
    _asyncio.get_running_loop().call_later({seconds}, late)
_service.Service.came = _came
"""
"""Code for the daemon: what a worker has decided arrives so much later, as from a PDP across a network."""


class Outcome:
    """What a race has shown."""

    def __init__(self, folder: Path) -> None:
        self.permits = [seen for file in sorted(folder.glob("*.permits")) for seen in race_record.seen(file)]
        self.revokes: list[race_record.Revoke] = []
        self.blocks: list[race_record.Block] = []
        for file in sorted(folder.glob("*.revokes")):
            revokes, blocks = race_record.revokes(file)
            self.revokes += revokes
            self.blocks += blocks
        self.asked = race_record.asked(folder / "evidence")
        self.counts: Counter[str] = Counter()
        for file in folder.glob("*.counts"):
            self.counts.update(json.loads(file.read_text()))
        self.stale = race_record.check(self.permits, self.revokes, self.blocks, self.asked)

    def shows_something(self) -> bool:
        """Whether there was anything to race for: hits in process and in the daemon, misses, revokes, blocks."""
        c = self.counts
        return bool(
            c["in process"] > 1000
            and c[FROM_DAEMON] > 100
            and c["asked anew"] > 50
            and len(self.revokes) > 50
            and len(self.blocks) > 5
            and self.asked
        )

    def __str__(self) -> str:
        c = self.counts
        boots = len({p.boot for p in self.permits})
        return (
            f"{c['checks']} checks ({c['in process']} permits in process, {c[FROM_DAEMON]} {FROM_DAEMON},"
            f" {c['asked anew']} asked anew, {c['denies']} denies, {c['faults']} faults),"
            f" {len(self.asked)} decisions of {boots} daemons, {len(self.revokes)} revokes acknowledged,"
            f" {len(self.blocks)} of them blocks, {c['forks']} forks: {len(self.stale)} stale permits"
        )


class Race:
    """The daemon and everybody else. `ask` and `revoke` start processes, `over` ends them and judges."""

    def __init__(self, folder: Path, *, before: str = "", slow_pdp: float = 0.0, twin: Path | None = None) -> None:
        """`twin`: a folder with another `pepcore` (`race_twins`), for daemon and clients; workers have the product's.
        `before` runs in the daemon before it serves; `slow_pdp`: what a PDP takes, in seconds."""
        self.folder, self.twin = folder, twin
        self.out = folder / "out"
        self.out.mkdir(parents=True)
        code = EVIDENCE.format(path=str(self.out / "evidence"))
        if slow_pdp:
            code += SLOW_PDP.format(seconds=slow_pdp)
        config = race_world.write(folder)
        elsewhere = {"env": self.env, "cwd": self.out}  # `python -c` looks for `pepcore` where it stands, first
        self.daemon = Daemon(folder, "", config, code + before, elsewhere)
        self.askers: list[subprocess.Popen[bytes]] = []
        self.forking: list[subprocess.Popen[bytes]] = []  # not those with an event loop, which has no children
        self.revokers: list[subprocess.Popen[bytes]] = []
        self.workers: set[int] = set()

    @property
    def env(self) -> dict[str, str]:
        path = [str(self.twin)] if self.twin else []
        return {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(HERE)]), "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self) -> Race:
        self.daemon.ready()
        self.workers |= set(self.daemon.events("ready")[-1]["workers"])
        return self

    def _process(self, program: str, *args: object, kind: str) -> subprocess.Popen[bytes]:
        name = self.out / f"{len(self.askers) + len(self.revokers)}{kind}"
        with (self.folder / "errors").open("ab") as errors:
            command = [sys.executable, str(HERE / program), str(self.daemon.socket), str(name), *map(str, args)]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors, env=self.env)

    def ask(self, *kinds: str) -> Race:
        for kind in kinds:
            self.askers.append(self._process("race_asker.py", kind, len(self.askers), kind=""))
            if kind != "async":
                self.forking.append(self.askers[-1])
        return self

    def revoke(self, processes: int, pause_ms: float = 8.0) -> Race:
        shares = [race_world.BLOCKED[n::processes] for n in range(processes)]
        for n, blocked in enumerate(shares):
            self.revokers.append(self._process("race_revoker.py", n, pause_ms, *blocked, kind=".revokes"))
        return self

    # ---- what may happen meanwhile ----

    def kill(self) -> None:
        """kill -9, and another daemon in its place."""
        assert self.daemon.process is not None
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.start()

    def pause(self, pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def fork(self) -> None:
        asker = random.choice(self.forking)
        assert asker.stdin is not None
        asker.stdin.write(b"fork\n")
        asker.stdin.flush()

    def go_on(self, seconds: float, *, killed: bool = False, stopped: bool = False, forked: bool = False) -> Race:
        """Let it run, with what is named happening about every half second."""
        until = time.monotonic() + seconds
        happens = [self._stop] * stopped + [self.fork] * forked + [self.kill] * killed
        turn = 0
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.4) if happens else left)
            if happens and left > 1.0:
                happens[turn % len(happens)]()
                turn += 1
        return self

    def _stop(self) -> None:
        self.pause(random.choice([self.daemon.pid, *(p.pid for p in [*self.askers, *self.revokers])]), 0.25)

    # ---- the end ----

    def over(self) -> Outcome:
        """Let everybody finish what he does, and judge. A process that failed is a failure of the test."""
        for p in [*self.revokers, *self.askers]:
            assert p.stdin is not None
            p.stdin.close()
        failed = [p.args for p in [*self.revokers, *self.askers] if p.wait(30) != 0]
        errors = (self.folder / "errors").read_text() if (self.folder / "errors").exists() else ""
        assert not failed, f"{failed}\n{errors[-4000:]}"
        outcome = Outcome(self.out)
        print(outcome, *outcome.stale[:1], sep="\n  ")
        return outcome

    def end(self) -> None:
        """End all that was started, whatever state it is in."""
        daemon = [self.daemon.process] if self.daemon.process is not None else []
        for p in [*self.askers, *self.revokers, *daemon]:
            if p.poll() is None:
                p.kill()
            p.wait()
            with contextlib.suppress(OSError):
                if p.stdin is not None:
                    p.stdin.close()
        for worker in self.workers:  # those of a daemon that was killed end by themselves, unless they are stopped
            with contextlib.suppress(OSError):
                if b"pepcore.server.worker" in Path(f"/proc/{worker}/cmdline").read_bytes():
                    os.kill(worker, signal.SIGKILL)
