"""Daemons of one test, ended by their process ids whatever the test did to them, and processes of other users."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import raw
from running import PERMIT, Daemon


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
            tasks = Path(f"/proc/{daemon.pid}/task").glob("*/children")  # a child belongs to the thread that started it
            workers = [int(pid) for task in tasks for pid in task.read_text().split()]
            daemon.process.kill()
            daemon.process.wait()
            for worker in workers:  # one that a test has stopped does not see that its daemon is gone
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


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
