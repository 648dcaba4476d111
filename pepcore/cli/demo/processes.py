"""The processes of a demo: one daemon, one asker for each point or the loop of one, and a run directory.

Promises: whatever happens, leaving the `with` block ends every process that was started and removes the directory;
should this process be killed, the kernel ends them (PR_SET_PDEATHSIG). They are in sessions of their own, so that
Ctrl-C reaches only this process, which ends them in order.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from ...errors import Unreachable
from .questions import ENTITIES, POINTS, POLICIES

Process = subprocess.Popen[bytes]
_SET_PDEATHSIG = 1
_OURS = ("PEPCORE_CONFIG", "PEPCORE_SOCKET", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")
_prctl = ctypes.CDLL(None).prctl


def _die_with_parent() -> None:
    _prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Company:
    """The running company. `askers` maps points to processes that write JSON lines."""

    def __init__(self) -> None:
        self.askers: dict[str, Process] = {}
        self.daemon: Process | None = None
        folder = tempfile.mkdtemp(prefix="pepcore-demo-")
        if len(folder) > 80:  # a socket's path has 107 bytes
            shutil.rmtree(folder)
            folder = tempfile.mkdtemp(prefix="pepcore-demo-", dir="/tmp")
        self.folder = Path(folder)
        self.socket = self.folder / "pepcore.sock"
        self._log = self.folder / "daemon.log"
        self._environment = {name: value for name, value in os.environ.items() if name not in _OURS}

    def __enter__(self) -> Company:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def start_daemon(self) -> None:
        """Start the daemon; it is ready when `ready` says so."""
        with self._log.open("wb") as log:
            files = ["--policies", str(POLICIES), "--entities", str(ENTITIES), "--socket", str(self.socket)]
            self.daemon = self._start(["pepcore", "serve", *files], subprocess.DEVNULL, log, log)

    def ready(self) -> bool:
        """Whether the daemon accepts connections. Raises Unreachable where it never will."""
        self.look()
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def start_askers(self, seed: str) -> None:
        for name in POINTS:
            self.start(name, "pepcore.cli.demo.asker", str(self.socket), name, seed)

    def start(self, name: str, *command: str) -> None:
        """Start a module with its arguments as an asker."""
        self.askers[name] = self._start(list(command), subprocess.PIPE, subprocess.PIPE, subprocess.PIPE)

    def look(self) -> None:
        """Raise Unreachable where a process ended that should run."""
        if self.daemon is not None and self.daemon.poll() is not None:
            raise Unreachable("", f"the daemon ended: {self._last_words(self._log.read_text(errors='replace'))}")
        for name, asker in self.askers.items():
            if asker.poll() is not None and asker.stderr is not None:
                words = asker.stderr.read().decode(errors="replace")
                raise Unreachable("", f"the process `{name}` ended: {self._last_words(words)}")

    @staticmethod
    def _last_words(text: str) -> str:
        lines = text.strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _start(self, command: list[str], stdin: int, stdout: int | IO[bytes], stderr: int | IO[bytes]) -> Process:
        return subprocess.Popen(  # noqa: S603 (our own modules)
            [sys.executable, "-m", *command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=self._environment,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    def end(self) -> None:
        """End everything that was started; the askers first, so that the daemon has nothing to drain."""
        for asker in self.askers.values():
            if asker.stdin is not None:
                asker.stdin.close()
        for asker in self.askers.values():
            _end(asker)
            for pipe in (asker.stdout, asker.stderr):
                if pipe is not None:
                    pipe.close()
        self.askers = {}
        if self.daemon is not None:
            self.daemon.terminate()
            _end(self.daemon)
            self.daemon = None
        shutil.rmtree(self.folder, ignore_errors=True)


def _end(process: Process) -> None:
    """Wait for a process that was told to end; make it end where it does not."""
    deadline = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    if process.poll() is None:
        process.kill()
        process.wait()
