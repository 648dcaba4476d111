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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import race_record
import race_world
from running import Daemon

HERE = Path(__file__).parent
FROM_DAEMON = "from the daemon's cache"
IN_C = " in C"
"""What the process in C puts behind the name of what it counts."""

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
        self.in_c = {seen for file in folder.glob("*.c*.permits") for seen in race_record.seen(file)}
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
        """Whether there was anything to race for, in both languages: hits in process and in the daemon, misses,
        revokes, blocks."""
        c = self.counts
        return bool(
            all(c["in process" + who] > 1000 for who in ("", IN_C))
            and all(c[FROM_DAEMON + who] > 100 for who in ("", IN_C))
            and all(c["asked anew" + who] > 50 for who in ("", IN_C))
            and len(self.revokes) > 50
            and len(self.blocks) > 5
            and self.asked
        )

    def __str__(self) -> str:
        c = self.counts
        boots = len({p.boot for p in self.permits})
        asked = " and ".join(
            f"{c['checks' + who]} checks{who} ({c['in process' + who]} permits in process,"
            f" {c[FROM_DAEMON + who]} {FROM_DAEMON}, {c['asked anew' + who]} asked anew, {c['denies' + who]} denies,"
            f" {c['faults' + who]} faults)"
            for who in ("", IN_C)
        )
        return (
            f"{asked}, {len(self.asked)} decisions of {boots} daemons, {len(self.revokes)} revokes acknowledged,"
            f" {len(self.blocks)} of them blocks, {c['not acknowledged']} not, {c['forks']} forks, {c['kills']} kills,"
            f" {c['hand-overs']} hand-overs: {len(self.stale)} stale permits"
            f" ({sum(s.permit in self.in_c for s in self.stale)} in C)"
        )


class Race:
    """The daemon and everybody else. `ask` and `revoke` start processes, `over` ends them and judges."""

    def __init__(
        self, folder: Path, *, asker_in_c: Path, before: str = "", slow_pdp: float = 0.0, twin: Path | None = None
    ) -> None:
        """`twin`: a folder with another `pepcore` (`race_twins`), for daemon and clients; workers have the product's.
        `before` runs in the daemon before it serves; `slow_pdp`: what a PDP takes, in seconds."""
        self.folder, self.twin, self.asker_in_c = folder, twin, asker_in_c
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
        self.before: list[subprocess.Popen[bytes]] = []  # daemons that were replaced
        self.start_s = 1.0  # what the last start took
        self.happened: Counter[str] = Counter()
        self._log_read = 0
        self._begun = 0.0

    @property
    def env(self) -> dict[str, str]:
        path = [str(self.twin)] if self.twin else []
        return {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(HERE)]), "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self) -> Race:
        self._begin()
        self._serves()
        return self

    def _begin(self, *, takeover: bool = False) -> subprocess.Popen[bytes]:
        if self.daemon.process is not None:
            self.before.append(self.daemon.process)
        self._log_read = self.daemon.log.stat().st_size if self.daemon.log.exists() else 0
        self._begun = time.monotonic()
        return self.daemon.start(takeover=takeover)

    def _serves(self) -> None:
        """Wait until the daemon that was started last says that it serves. Two of them may write that log."""
        while not (said := [e for e in self._said() if e["event"] == "ready" and e["pid"] == self.daemon.pid]):
            assert self.daemon.process is not None
            ended = self.daemon.process.poll()
            log = self.daemon.log.read_text()[-4000:]
            assert ended is None, log
            assert time.monotonic() < self._begun + 30.0, log
            time.sleep(0.01)
        self.workers |= set(said[0]["workers"])
        self.start_s = time.monotonic() - self._begun

    def _said(self) -> list[dict[str, Any]]:
        """What the log says since it was looked at last."""
        with self.daemon.log.open("rb") as log:
            log.seek(self._log_read)
            whole, ended, _ = log.read().rpartition(b"\n")
        self._log_read += len(whole) + len(ended)
        return [json.loads(line) for line in whole.splitlines()]

    def _process(self, *program: object, kind: str, args: tuple[object, ...]) -> subprocess.Popen[bytes]:
        name = self.out / f"{len(self.askers) + len(self.revokers)}{kind}"
        with (self.folder / "errors").open("ab") as errors:
            command = [*map(str, program), str(self.daemon.socket), str(name), *map(str, args)]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors, env=self.env)

    def ask(self, *kinds: str) -> Race:
        """Start a process of each kind: those of race_asker.py, or of race_asker.c, whose begin with `c`."""
        for kind in kinds:
            args: tuple[object, ...] = (kind, len(self.askers))
            if kind in ("c", "c-settled"):
                questions = ["|".join((q.subject, q.action, q.resource, *q.chain)) for q in race_world.QUESTIONS]
                self.askers.append(self._process(self.asker_in_c, kind=".c", args=(*args, *questions)))
            else:
                self.askers.append(self._process(sys.executable, HERE / "race_asker.py", kind="", args=args))
            if kind != "async":
                self.forking.append(self.askers[-1])
        return self

    def revoke(self, processes: int, pause_ms: float = 8.0) -> Race:
        shares = [race_world.BLOCKED[n::processes] for n in range(processes)]
        for n, blocked in enumerate(shares):
            args = (n, pause_ms, *blocked)
            self.revokers.append(self._process(sys.executable, HERE / "race_revoker.py", kind=".revokes", args=args))
        return self

    # ---- what may happen meanwhile ----

    def kill(self) -> None:
        """kill -9, and another daemon in its place."""
        assert self.daemon.process is not None
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.happened["kills"] += 1
        self.start()

    def take_over(self, stopped: bool = False) -> None:
        """A successor takes everything from the daemon, which ends. `stopped`: one of them is, in the middle of it."""
        old = self.daemon.process
        assert old is not None
        new = self._begin(takeover=True)
        if stopped:
            self._sometime()
            self.pause(random.choice((old, new)).pid, 0.25)
        self._serves()
        assert old.wait(30) == 0, self.daemon.log.read_text()[-4000:]
        self.happened["hand-overs"] += 1

    def kill_both(self) -> None:
        """kill -9 of both in the middle of a hand-over, the one a moment after the other, and another daemon."""
        assert self.daemon.process is not None
        both = [self.daemon.process, self._begin(takeover=True)]
        self._sometime()
        random.shuffle(both)
        for p in both:
            p.kill()
            time.sleep(random.random() * 0.05)
        for p in both:
            p.wait()
        self.happened["kills"] += 2
        self.start()

    def _sometime(self) -> None:
        """Anywhere in a hand-over, which comes at the end of a start."""
        time.sleep(self.start_s * (0.5 + 0.6 * random.random()))

    def pause(self, pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def fork(self) -> None:
        asker = random.choice(self.forking)
        assert asker.stdin is not None
        asker.stdin.write(b"fork\n")
        asker.stdin.flush()

    def go_on(
        self, seconds: float, *, killed: bool = False, stopped: bool = False, forked: bool = False, handed: bool = False
    ) -> Race:
        """Let it run, with what is named happening about every half second, each in its turn."""
        until = time.monotonic() + seconds
        happens: list[Callable[[], None]] = [self._stop] * stopped + [self.fork] * forked + [self.kill] * killed
        happens += [self.take_over] * handed
        happens += [lambda: self.take_over(stopped=True)] * (handed and stopped)
        happens += [self.kill_both] * (handed and killed)
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
        outcome.counts += self.happened
        print(outcome, *outcome.stale[:1], sep="\n  ")
        return outcome

    def end(self) -> None:
        """End all that was started, whatever state it is in."""
        daemon = [self.daemon.process] if self.daemon.process is not None else []
        for p in [*self.askers, *self.revokers, *self.before, *daemon]:
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
