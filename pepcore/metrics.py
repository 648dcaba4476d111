"""Every metric that the daemon offers, and the text that Prometheus reads: this file is the list.

Promises: what a counter counts never falls while the daemon lives; units stand in the names; each label has a handful
of values that are known here, and those not met yet are there as 0, so that a rate exists from the first on.
Never: reads a clock, a file or a socket (the caller brings numbers, `server/statistics.py` has them); puts a name that
a peer or a policy chose into a label.

`prometheus_client` is imported with this unit: whoever offers no metrics does not import it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from .errors import NAMES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format that every Prometheus reads."""
OTHER = "other"
"""The label of a fault that has no name here."""


class Declared(NamedTuple):
    """One metric. `at` is where its number stands, members apart by dots; `unit` is what one of it is worth."""

    name: str
    at: str
    help: str
    unit: float = 1


class Split(NamedTuple):
    """A counter with one label: each of its values, and where that number stands."""

    name: str
    label: str
    at: Mapping[str, str]
    help: str


COUNTERS = (
    Declared("pepcore_cache_hits", "cache.hits", "Checks that the daemon's cache answered. Those that clients answered "
             "by themselves, from what they keep under the page, are `pepcore_client_hits_total`."),
    Declared("pepcore_client_hits", "clients.hits", "Checks that clients answered by themselves, as they count them; "
             "fetched once a second. Only where there is a record: those of points with `record = \"off\"` are not "
             "counted."),
    Declared("pepcore_cache_misses", "cache.misses", "Checks that the cache did not answer."),
    Declared("pepcore_cache_inserts", "cache.inserts", "Answers that were taken into the cache."),
    Declared("pepcore_cache_evictions", "cache.evictions", "Answers that made room for others before their time."),
    Declared("pepcore_cache_declined", "cache.declined", "Answers that found no room in the cache, or were too large."),
    Declared("pepcore_pdp_questions", "asked", "Questions that the PDP was asked."),
    Declared("pepcore_joined", "joined", "Checks that waited for the answer to a question that was asked already."),
    Declared("pepcore_late_answers", "late", "Answers that were too old when they came and were not used."),
    Declared("pepcore_asked_again", "asked_again", "Checks that were asked about once more because an answer was too "
             "old."),
    Declared("pepcore_revokes", "revokes", "Revokes by administrators."),
    Declared("pepcore_blocks_set", "blocks_set", "Blocks that administrators have set."),
    Declared("pepcore_leases_started", "leases.started", "Leases that were granted, here or by the daemon before."),
    Declared("pepcore_leases_ended", "leases.ended", "Leases that ended, by whomever."),
    Declared("pepcore_record_entries", "record.entries", "Entries that were appended to the record."),
    Declared("pepcore_record_lost", "record.lost", "Entries that are not in the record and should be."),
    Declared("pepcore_passes", "passed.told", "Permits of points that do not enforce (`shadow`, `off`)."),
    Declared("pepcore_passes_would_deny", "passed.would_deny", "Of these, what would have been denied."),
    Declared("pepcore_candidate_compared", "compared.compared", "Decisions that a candidate policy set made, too."),
    Declared("pepcore_candidate_different", "compared.different", "Of these, what it decided otherwise."),
    Declared("pepcore_candidate_skipped", "compared.skipped", "Decisions that the candidate had no time for."),
    Declared("process_cpu_seconds", "process.cpu_ms", "Processor time of the daemon, without its workers.", 1e-3),
)  # fmt: skip

SPLIT = (
    Split("pepcore_evaluations", "where", {"inline": "evaluated_inline", "worker": "evaluated_by_workers"},
          "Evaluations, in the daemon itself and in its worker processes."),
    Split("pepcore_reloads", "result", {"ok": "reloads", "failed": "failed_reloads"},
          "Reloads of policies and configuration; after one that failed, what was active stays."),
)  # fmt: skip

GAUGES = (
    Declared("pepcore_ready", "ready", "1 where /readyz says 200, else 0."),
    Declared("pepcore_uptime_seconds", "uptime_ms", "Time since this daemon started.", 1e-3),
    Declared("pepcore_revision", "revision", "Revocations so far, those by reloads among them; begins anew with each "
             "daemon."),
    Declared("pepcore_connections", "connections", "Connections that are open."),
    Declared("pepcore_partitions", "partitions", "Partitions of the cache."),
    Declared("pepcore_waiting", "waiting", "Requests that wait for a decision."),
    Declared("pepcore_workers", "workers_ready", "Worker processes that have the policies."),
    Declared("pepcore_policies", "policies", "Policies of the active set."),
    Declared("pepcore_entities", "entities", "Entities of the active store."),
    Declared("pepcore_policies_load_seconds", "load_ms", "Time that a worker took to load the active set.", 1e-3),
    Declared("pepcore_cache_entries", "cache.entries", "Answers in the cache."),
    Declared("pepcore_cache_slots", "cache.slots", "Answers that the cache has places for."),
    Declared("pepcore_cache_slab_bytes", "cache.blocks", "Memory for questions and answers, taken at the start.", 64),
    Declared("pepcore_cache_slab_used_bytes", "cache.blocks_used", "Memory for questions and answers that is in use.",
             64),
    Declared("pepcore_blocks", "blocks", "Blocks in force."),
    Declared("pepcore_blocks_unreadable", "blocks_broken", "1 where the list of blocks cannot be read, so that "
             "everything is denied; else 0."),
    Declared("pepcore_leases", "leases.held", "Leases that are held."),
    Declared("pepcore_leases_untold", "leases.untold", "Leases that ended and whose holders may not have stopped yet."),
    Declared("pepcore_record_failing", "record.failing", "1 where the record takes no entries; else 0."),
    Declared("pepcore_record_unsigned", "record.unsigned", "1 where no head can be signed; else 0."),
    Declared("process_resident_memory_bytes", "process.rss_bytes", "Memory of the daemon in RAM, without its workers."),
    Declared("process_open_fds", "process.open_fds", "Descriptors that the daemon has open."),
    Declared("process_max_fds", "process.max_fds", "Descriptors that the daemon may have open."),
)  # fmt: skip

FAULTS = (
    "pepcore_faults",
    "fault",
    "Requests that were denied, refused or not understood because something was wrong, by the name of the fault.",
)
MISSES = (
    "pepcore_miss_duration_seconds",
    "From a miss to its decision, once for each question that the PDP was asked.",
)
BUILD = ("pepcore_build", "The version of the daemon.")


class _Numbers:
    """A collector of one moment."""

    def __init__(self, numbers: Mapping[str, Any]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        for declared in COUNTERS:
            yield CounterMetricFamily(declared.name, declared.help, value=self._at(declared.at) * declared.unit)
        for split in SPLIT:
            counter = CounterMetricFamily(split.name, split.help, labels=[split.label])
            for value, at in split.at.items():
                counter.add_metric([value], self._at(at))
            yield counter
        yield self._faults()
        for declared in GAUGES:
            yield GaugeMetricFamily(declared.name, declared.help, value=self._at(declared.at) * declared.unit)
        yield self._misses()
        build = GaugeMetricFamily(f"{BUILD[0]}_info", BUILD[1], labels=["version"])
        build.add_metric([str(self._numbers["server"]).rpartition("/")[2]], 1)
        yield build

    def _at(self, place: str) -> float:
        found: Any = self._numbers
        for member in place.split("."):
            found = found[member]
        return float(found)

    def _faults(self) -> Metric:
        name, label, about = FAULTS
        counter = CounterMetricFamily(name, about, labels=[label])
        counts = dict.fromkeys([*NAMES.values(), OTHER], 0)
        for code, count in self._numbers["faults"].items():
            counts[NAMES.get(int(code), OTHER)] += count
        for fault, count in counts.items():
            counter.add_metric([fault], count)
        return counter

    def _misses(self) -> Metric:
        told = self._numbers["miss_us"]
        total, buckets = 0, []
        for bound, count in zip([*told["bounds"], None], told["counts"], strict=True):
            total += count
            buckets.append(("+Inf" if bound is None else repr(bound / 1e6), total))
        histogram = HistogramMetricFamily(*MISSES)
        histogram.add_metric([], buckets=buckets, sum_value=told["sum"] / 1e6)
        return histogram


def text(numbers: Mapping[str, Any]) -> bytes:
    """The metrics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(numbers))
    return generate_latest(registry)
