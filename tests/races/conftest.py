"""Races of one test, ended by their process ids whatever the test did to them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

for folder in (Path(__file__).parent, Path(__file__).parent.parent / "daemon"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import race_twins  # noqa: E402
from race_run import Race  # noqa: E402


@pytest.fixture
def race(tmp_path: Path, in_c: race_twins.Build) -> Iterator[Callable[..., Race]]:
    """A race whose daemon serves already; nobody asks yet. `guard_in_c`: what the client in C misses."""
    made: list[Race] = []

    def start(*, guard_in_c: str = "", **options: Any) -> Race:
        made.append(Race(tmp_path / f"r{len(made)}", asker_in_c=in_c(guard_in_c), **options))
        return made[-1].start()

    yield start
    for one in made:
        one.end()


@pytest.fixture(scope="session")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> race_twins.Build:
    """The asker in C; with a name in `race_twins.IN_C`, without that guard. Compiled once each."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = race_twins.asker(tmp_path_factory.mktemp("in-c"), race_twins.IN_C[name] if name else None)
        return made[name]

    return get


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> race_twins.Build:
    """A package without a guard (a name in `race_twins.CUTS`), compiled once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = race_twins.build(tmp_path_factory.mktemp("twin"), race_twins.CUTS[name])
        return made[name]

    return get
