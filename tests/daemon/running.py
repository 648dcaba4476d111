"""A real daemon in a folder of its own: its policies, config, log and socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from raw import Client, Verdict

PERMIT = '@id("readers")\npermit(principal == User::"alice", action == Action::"read", resource);\n'
NOBODY = '@id("closed")\nforbid(principal, action, resource);\n'

START = """
import sys
from pathlib import Path
from pepcore.config import load
from pepcore.errors import ConfigError
from pepcore.server.run import run
file = Path(sys.argv[1])
exec(sys.argv[2])
try:
    sys.exit(run(load(file), lambda: load(file), takeover="takeover" in sys.argv[3:]))
except ConfigError as error:
    print(f"pepcore: {error}", file=sys.stderr)
    sys.exit(3)
"""


class Daemon:
    """A daemon and its folder: policies, config, log, socket."""

    def __init__(self, folder: Path, policies: str, config: str, before: str, popen: dict[str, Any]) -> None:
        self.folder = folder
        self.policies = folder / "policies.cedar"
        self.config = folder / "pepcore.toml"
        self.socket = folder / "run" / "pepcore.sock"
        self.log = folder / "log"
        self.policies.write_text(policies)
        self.configure(config)
        self.before, self.popen = before, popen
        self.under: list[str] = []
        """A program that runs it, by `exec`, and that program's arguments."""
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, config: str = "") -> None:
        head = f'[daemon]\nsocket = "{self.socket}"\nworkers = 1\n'
        if "policies =" not in config:
            head = f'[policies]\npolicies = "{self.policies}"\n' + head
        self.config.write_text(head + config)

    def start(self, *, takeover: bool = False) -> subprocess.Popen[bytes]:
        """`takeover`: from the daemon that runs now, which is no longer ours to know."""
        command = [*self.under, sys.executable, "-c", START, str(self.config), self.before, *["takeover"] * takeover]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, **{"stderr": log, **self.popen})
        return self.process

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def events(self, event: str = "") -> list[dict[str, Any]]:
        """What the log says; fails where a line is not JSON."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [json.loads(line) for line in lines]
        return [e for e in found if not event or e["event"] == event]

    def wait_for(self, event: str, count: int = 1, seconds: float = 15.0) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.events(event) if self.log.exists() and self.log.read_bytes().endswith(b"\n") else []
            if len(found) >= count:
                return found[count - 1]
            if self.process is not None and self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"the daemon never said `{event}`: {self.log.read_text()}")

    def ready(self) -> Daemon:
        self.start()
        self.wait_for("ready", len(self.events("ready")) + 1)
        return self

    def reload(self, policies: str | None = None, config: str | None = None) -> None:
        """Change something, ask for a reload and wait until it is announced."""
        before = len(self.events("reloaded"))
        if policies is not None:
            self.policies.write_text(policies)
        if config is not None:
            self.configure(config)
        os.kill(self.pid, signal.SIGHUP)
        self.wait_for("reloaded", before + 1)

    def client(self, **options: Any) -> Client:
        return Client(self.socket, **options)

    def permits(self, question: bytes | None = None, **options: Any) -> bool:
        """Ask on a connection of its own."""
        with self.client() as c:
            answer = c.ask(question, **options)
            return isinstance(answer, Verdict) and answer.permit

    def workers(self) -> list[int]:
        """Process ids of those that are there; one that ended is replaced a moment later."""
        until = time.monotonic() + 10
        with self.client(greet=False) as c:
            while not (found := c.stats()["workers"]) and time.monotonic() < until:
                time.sleep(0.01)
            return list(found)

    def wait_until_waiting(self, count: int, seconds: float = 15.0) -> None:
        """Until so many requests wait for a decision; at least, since others may come."""
        until = time.monotonic() + seconds
        with self.client(greet=False) as c:
            while (waiting := c.stats()["waiting"]) < count:
                assert time.monotonic() < until, f"{waiting} of {count} wait"
                time.sleep(0.002)

    def stop(self, seconds: float = 10.0) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)
