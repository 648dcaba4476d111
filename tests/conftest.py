"""Fixtures for tests that talk to a real daemon."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

POLICIES = """
@id("readers") @reason("alice reads")
permit(principal == User::"alice", action == Action::"read", resource);
@id("masked") @obligation("[{\\"id\\":\\"o1\\",\\"type\\":\\"mask\\",\\"properties\\":{\\"fields\\":[\\"/ssn\\"],\\"style\\":\\"last-4\\"}}]")
permit(principal == User::"bob", action == Action::"read", resource);
@id("local") permit(principal, action == Action::"connect", resource) when { context.port == 22 };
@id("delegated") permit(principal == Agent::"a7", action == Action::"read", resource)
  when { context.on_behalf_of == [User::"alice"] };
@id("limited") @obligation("[{\\"id\\":\\"r1\\",\\"type\\":\\"rate\\",\\"properties\\":{\\"count\\":2,\\"per\\":\\"1h\\"}}]")
permit(principal == Service::"job", action == Action::"run", resource);
@id("never") @reason("nobody reads the secret")
forbid(principal, action, resource == Document::"secret");
"""  # noqa: E501
"""Policies of the tests of clients: plain, with an obligation, over the context, over the chain, single use, forbid."""


class Daemon:
    """A running `pepcore serve` with a socket of its own."""

    def __init__(self, folder: Path, policies: str) -> None:
        self.socket = folder / "pepcore.sock"
        self.policies = folder / "policies.cedar"
        self.policies.write_text(policies)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "pepcore", "serve"]
        self.process = subprocess.Popen(
            [*command, "--policies", str(self.policies), "--socket", str(self.socket)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        until = time.monotonic() + 20
        for line in self.process.stderr:
            if "ready" in line:
                return
            assert time.monotonic() < until, "the daemon is not ready after 20 seconds"
        raise AssertionError(f"the daemon ended with {self.process.wait()}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=20)


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon on these policies, in a folder of its own."""
    started: list[Daemon] = []

    def start(policies: str = POLICIES) -> Daemon:
        folder = tmp_path / f"daemon{len(started)}"
        folder.mkdir()
        started.append(Daemon(folder, policies))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests that leave it as it was."""
    running = Daemon(tmp_path_factory.mktemp("daemon"), POLICIES)
    yield running
    running.stop()
