"""The text of the metrics: every number where it belongs, in the units of Prometheus, with labels that are known."""

import copy
import re
from typing import Any

import pytest

from pepcore import metrics
from pepcore.errors import NAMES
from pepcore.latency import BOUNDS_US, Latency, quantile

NUMBERS: dict[str, Any] = {
    "server": "pepcore/1.2.3", "pid": 7, "uptime_ms": 1500, "ready": True, "boot": 99, "revision": 17,
    "connections": 3, "partitions": 2, "waiting": 1, "asked": 11, "joined": 12, "late": 13, "asked_again": 14,
    "cache": {"hits": 21, "misses": 22, "inserts": 23, "evictions": 24, "declined": 25, "entries": 26, "slots": 32,
              "blocks": 10, "blocks_used": 4},
    "clients": {"hits": 27, "per_second": 0.0},
    "faults": {"7": 5, "13": 1, "99": 2},
    "evaluated_inline": 31, "evaluated_by_workers": 32, "workers": [8, 9], "workers_ready": 2,
    "miss_us": {"bounds": [100, 1000], "counts": [1, 2, 3], "sum": 2_500_000},
    "policies": 41, "entities": 42, "load_ms": 12.5, "reloads": 51, "failed_reloads": 52, "revokes": 53,
    "blocks_set": 54, "blocks": 55, "blocks_broken": False,
    "leases": {"held": 61, "started": 62, "ended": 63, "untold": 64},
    "record": {"entries": 81, "lost": 82, "failing": 1, "unsigned": 0},
    "passed": {"told": 91, "would_deny": 92, "faults": 93},
    "compared": {"compared": 94, "different": 95, "skipped": 96, "failed": 97},
    "process": {"rss_bytes": 71, "open_fds": 72, "max_fds": 73, "cpu_ms": 7400},
}  # fmt: skip


def samples(numbers: dict[str, Any]) -> dict[str, float]:
    lines = [line for line in metrics.text(numbers).decode().splitlines() if not line.startswith("#")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_each_number_stands_at_its_name_in_its_unit():
    found = samples(NUMBERS)
    for name, value in {
        "pepcore_cache_hits_total": 21, "pepcore_cache_misses_total": 22, "pepcore_cache_entries": 26,
        "pepcore_client_hits_total": 27,
        "pepcore_cache_slab_bytes": 640, "pepcore_cache_slab_used_bytes": 256, "pepcore_pdp_questions_total": 11,
        "pepcore_joined_total": 12, "pepcore_late_answers_total": 13, "pepcore_asked_again_total": 14,
        'pepcore_evaluations_total{where="inline"}': 31, 'pepcore_evaluations_total{where="worker"}': 32,
        'pepcore_reloads_total{result="ok"}': 51, 'pepcore_reloads_total{result="failed"}': 52,
        "pepcore_revokes_total": 53, "pepcore_blocks_set_total": 54, "pepcore_blocks": 55,
        "pepcore_blocks_unreadable": 0, "pepcore_leases": 61, "pepcore_leases_started_total": 62,
        "pepcore_record_entries_total": 81, "pepcore_record_lost_total": 82, "pepcore_record_failing": 1,
        "pepcore_passes_total": 91, "pepcore_passes_would_deny_total": 92, "pepcore_candidate_different_total": 95,
        "pepcore_leases_ended_total": 63, "pepcore_leases_untold": 64, "pepcore_uptime_seconds": 1.5,
        "pepcore_policies_load_seconds": 0.0125, "process_cpu_seconds_total": 7.4, "process_open_fds": 72,
        "pepcore_ready": 1, "pepcore_revision": 17, 'pepcore_build_info{version="1.2.3"}': 1,
        'pepcore_miss_duration_seconds_bucket{le="0.0001"}': 1, 'pepcore_miss_duration_seconds_bucket{le="0.001"}': 3,
        'pepcore_miss_duration_seconds_bucket{le="+Inf"}': 6, "pepcore_miss_duration_seconds_count": 6,
        "pepcore_miss_duration_seconds_sum": 2.5,
    }.items():  # fmt: skip
        assert found[name] == pytest.approx(value), name


def test_every_number_of_a_metric_is_looked_at():
    """Each one that is changed changes the text: none was declared at the place of another."""
    whole = samples(NUMBERS)
    for declared in (*metrics.COUNTERS, *metrics.GAUGES):
        changed = copy.deepcopy(NUMBERS)
        *path, last = declared.at.split(".")
        inner = changed
        for member in path:
            inner = inner[member]
        inner[last] = not inner[last] if isinstance(inner[last], bool) else inner[last] + 1
        found = samples(changed)
        differing = {name for name in whole if found[name] != whole[name]}
        assert {name.removesuffix("_total") for name in differing} == {declared.name}


def test_faults_have_the_names_that_are_known_from_the_start_and_one_for_all_others():
    found = samples(NUMBERS)
    faults = {name: n for name, n in found.items() if name.startswith("pepcore_faults_total")}
    assert len(faults) == len(NAMES) + 1
    assert faults['pepcore_faults_total{fault="deadline"}'] == 5
    assert faults['pepcore_faults_total{fault="expired"}'] == 1
    assert faults['pepcore_faults_total{fault="refused"}'] == 0
    assert faults['pepcore_faults_total{fault="other"}'] == 2


def test_names_follow_the_conventions():
    text = metrics.text(NUMBERS).decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.M))
    assert kinds.keys() == helps.keys()
    for name, kind in kinds.items():
        assert re.fullmatch(r"(pepcore|process)_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|us|kb|count|sum|bucket)$", name), name
    assert set(re.findall(r"\{(\w+)=", text)) == {"where", "result", "fault", "le", "version"}


def test_a_number_that_is_missing_is_a_defect_and_no_zero():
    numbers = {name: value for name, value in NUMBERS.items() if name != "waiting"}
    with pytest.raises(KeyError, match="waiting"):
        metrics.text(numbers)


def test_a_histogram_counts_what_took_so_long_at_most():
    latency = Latency()
    for us in (0, 50, 51, 10_000_000, 10_000_001):
        latency.observe(1, 1 + us * 1000)
    latency.observe(0, 5)  # nothing that began
    latency.observe(10, 5)  # no clock goes backwards, but nothing must be below 0
    told = latency.told()
    assert told["counts"][:2] == [3, 1]
    assert told["counts"][-2:] == [1, 1]
    assert (sum(told["counts"]), told["sum"]) == (6, 20_000_102)
    assert len(told["counts"]) == len(BOUNDS_US) + 1
    assert list(BOUNDS_US) == sorted(set(BOUNDS_US))


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [([0, 0, 0], 0.5, 0), ([4, 0, 0], 0.5, 50), ([4, 4, 0], 0.75, 150), ([0, 4, 0], 1.0, 200), ([1, 0, 9], 0.99, 200)],
)
def test_a_quantile_lies_where_the_counts_say(counts: list[int], share: float, value: float):
    assert quantile([100, 200], counts, share) == value
