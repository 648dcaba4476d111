"""What a check in the caller's own process costs, under pytest-benchmark: `pytest benchmarks/bench_inprocess.py`.

The row of DESIGN (at most 1.0 x a `functools.lru_cache` hit) is measured by `ratio`, which alternates both sides in
one run; `pepcore bench` prints it. These groups show the parts: three strings, one made anew, a context, a miss.
Never: enforces a target; times on a shared machine say nothing by themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.inprocess import POLICY, WORDS, lru_hit, timed
from benchmarks.rounds import alternate
from pepcore import Embedded, embedded

CONTEXT: dict[str, Any] = {"port": 22, "tool": "psql", "read_only": True, "region": "eu"}


@pytest.fixture(scope="module")
def pep() -> Iterator[Embedded]:
    with embedded(POLICY) as made:
        yield made


def ratio(rounds: int = 9) -> float:
    """A cached `embedded.check` of three strings over a `functools.lru_cache` hit: median of alternating rounds."""
    with embedded(POLICY) as pep:
        assert pep.check(*WORDS)
        found = alternate(rounds, {"ours": timed(pep.check, *WORDS), "lru": timed(lru_hit(), *WORDS)})
    return found.ratio("ours", "lru", "ns").median


@pytest.mark.benchmark(group="three strings")
def test_hit(benchmark: Callable[..., Any], pep: Embedded) -> None:
    pep.check(*WORDS)
    assert benchmark(pep.check, *WORDS).cached


@pytest.mark.benchmark(group="three strings")
def test_lru_cache_hit(benchmark: Callable[..., Any]) -> None:
    assert benchmark(lru_hit(), *WORDS)


@pytest.mark.benchmark(group="a resource string made anew")
def test_hit_with_a_new_string(benchmark: Callable[..., Any], pep: Embedded) -> None:
    pep.check(*WORDS)
    name = WORDS[2][10:]
    assert benchmark(lambda: pep.check("User::alice", "read", f"Document::{name}")).cached


@pytest.mark.benchmark(group="a resource string made anew")
def test_lru_cache_hit_with_a_new_string(benchmark: Callable[..., Any]) -> None:
    check, name = lru_hit(), WORDS[2][10:]
    assert benchmark(lambda: check("User::alice", "read", f"Document::{name}"))


@pytest.mark.benchmark(group="a context of four")
def test_hit_with_a_context(benchmark: Callable[..., Any], pep: Embedded) -> None:
    pep.check(*WORDS, CONTEXT)
    assert benchmark(pep.check, *WORDS, CONTEXT).cached


@pytest.mark.benchmark(group="a context of four")
def test_lru_cache_hit_with_a_context(benchmark: Callable[..., Any]) -> None:
    @functools.lru_cache(maxsize=1024)
    def check(subject: str, action: str, resource: str, context: tuple[tuple[str, Any], ...]) -> bool:
        return bool(context)

    assert benchmark(lambda: check(*WORDS, tuple(CONTEXT.items())))


@pytest.mark.benchmark(group="miss")
def test_miss(benchmark: Callable[..., Any], pep: Embedded) -> None:
    numbers = iter(range(10**9))
    assert not benchmark(lambda: pep.check("User::alice", "read", f"Document::{next(numbers)}"))


if __name__ == "__main__":
    print(f"embedded check, three strings, cached: {ratio():.2f} x functools.lru_cache")
