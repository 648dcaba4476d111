"""A real daemon in a folder of its own, ended by its process id whatever a test did to it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import raw
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
    sys.exit(run(load(file), lambda: load(file)))
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
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, config: str = "") -> None:
        head = f'[daemon]\nsocket = "{self.socket}"\nworkers = 1\n'
        if "policies =" not in config:
            head = f'[policies]\npolicies = "{self.policies}"\n' + head
        self.config.write_text(head + config)

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, str(self.config), self.before], **{"stderr": log, **self.popen}
            )
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


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Daemons that are not started yet."""
    made: list[Daemon] = []

    def build(policies: str = PERMIT, config: str = "", *, before: str = "", name: str = "d", **popen: Any) -> Daemon:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        made.append(Daemon(folder, policies, config, before, popen))
        return made[-1]

    yield build
    for daemon in made:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


@pytest.fixture
def serve(make: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """Daemons that serve already."""
    return lambda *args, **kwargs: make(*args, **kwargs).ready()


class Other:
    """A process of another user that asks, and what it was told.

    It is a fork: what another user may not read (a clone below /root, its environment) is loaded already.
    """

    def __init__(self, daemon: Daemon, uid: int, gid: int, code: str) -> None:
        reach(daemon.folder)
        self._out, theirs = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(theirs)
            return
        status = 1
        try:
            sys.stdout = os.fdopen(theirs, "w")
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            exec(compile(code, "<other>", "exec"), {**vars(raw), "path": str(daemon.socket)})
            sys.stdout.flush()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def wait(self) -> Any:
        """What it printed, as JSON; at most 30 s."""
        told, until = b"", time.monotonic() + 30
        with open(self._out, "rb", buffering=0) as out:
            while select.select([out], [], [], max(0, until - time.monotonic()))[0] and (data := out.read(65536)):
                told += data
            if time.monotonic() >= until:
                os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        assert status == 0
        return json.loads(told)


def reach(folder: Path) -> None:
    """Let other users come to the socket of a test: the modes of the daemon's own are tested elsewhere."""
    (folder / "run").chmod(0o755)
    (folder / "run" / "pepcore.sock").chmod(0o666)
    for parent in [folder, *folder.parents]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)


@pytest.fixture
def other_uid() -> Callable[..., Other]:
    """Run code as another user, with `path` and everything of `raw` at hand; it prints JSON."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")

    def start(daemon: Daemon, code: str, uid: int = 12345, gid: int = 12345) -> Other:
        return Other(daemon, uid, gid, code)

    return start
