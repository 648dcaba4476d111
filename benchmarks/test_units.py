"""Units of a hit, timed by pytest-benchmark: `pytest benchmarks`. Nothing here fails for being slow."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import corpus, inprocess, misses
from pepcore.core.compose import compose
from pepcore.core.question import canonical


@pytest.fixture(scope="module")
def small() -> corpus.Corpus:
    return corpus.corpus(10, 10)


@pytest.fixture(scope="module")
def parts(small: corpus.Corpus) -> inprocess.Parts:
    return inprocess.Parts(small)


def test_cache_hit(benchmark: Any, parts: inprocess.Parts) -> None:
    assert benchmark(parts.cache.get, 1, parts.key, 1, parts.page)[0]


def test_gate_feed_one_hit(benchmark: Any, parts: inprocess.Parts) -> None:
    reply = benchmark(parts.gate.feed, parts.stream, parts.one, 1, 1)
    assert reply[corpus.HEADER] == 1


def test_gate_feed_64_pipelined_hits(benchmark: Any, parts: inprocess.Parts) -> None:
    assert len(benchmark(parts.gate.feed, parts.stream, parts.one * 64, 1, 1)) == 64 * (corpus.HEADER + 40)


def test_compose(benchmark: Any) -> None:
    key = benchmark(compose, *inprocess.WORDS, {"ip": "10.0.0.1"})
    assert key == canonical(key)


def test_canonical_question(benchmark: Any, parts: inprocess.Parts) -> None:
    assert benchmark(canonical, parts.key) == parts.key


def test_bare_cedarpy(benchmark: Any, small: corpus.Corpus) -> None:
    assert benchmark(misses.Bare(small).call, 0)


def test_lru_cache_hit(benchmark: Any) -> None:
    assert benchmark(inprocess.lru_hit(), *inprocess.WORDS)
