"""Fixtures of the tests of the C binding; what they are made of is in harness.py."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "vectors")]

from harness import ROOT, SANITIZE, Driver, Peer, compile_c, permit_all  # noqa: E402


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("c")
    drive, pep = ROOT / "tests/c/drive.c", ROOT / "bindings/c/pep.c"
    return {
        "plain": compile_c(drive, out / "drive", "-O2"),
        "sanitized": compile_c(drive, out / "drive-sanitized", *SANITIZE),
        "pep": compile_c(pep, out / "pep", "-O2"),
        "pep-sanitized": compile_c(pep, out / "pep-sanitized", *SANITIZE),
    }


@pytest.fixture(params=["plain", "sanitized"])
def driver(request: pytest.FixtureRequest, programs: dict[str, Path]) -> Iterator[Driver]:
    driver = Driver(programs[request.param])
    yield driver
    driver.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def start(behave: Callable[[socket.socket, int], None] = permit_all, name: str = "s") -> Peer:
        peers.append(Peer(tmp_path / name, behave))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()
