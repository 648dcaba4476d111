"""The record for other programs: JSON objects, and OpenTelemetry logs as OTLP/JSON.

Promises: one entry is one line of ASCII, whatever its texts hold; digests stand under `digests`, never among the plain
`attributes`; ids of 64 bits are text, as `--decision` takes them. An OTLP line is one `LogsData` with one record, which
is what the OTLP file exporter's JSON lines are (opentelemetry.io/docs/specs/otel/protocol/file-exporter) in the JSON
mapping of OTLP 1.x (opentelemetry-proto, examples/logs.json): 64-bit numbers as text, ids of traces in hex.
Never: a number that JSON has no word for; not-a-number and infinities become text.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..version import VERSION
from . import entries
from .query import kind_of
from .reader import Recorded

IDS = frozenset({"decision", "boot", "lease"})
"""Of 64 bits, and so text: who reads JSON may round above 2^53 (jq 1.6), and OTLP ends at 2^63."""
INFO, WARN, ERROR = 9, 13, 17  # SeverityNumber of the OpenTelemetry log data model
_TRACE = re.compile(r"(?!0{32})([0-9a-f]{32})(?!0{16})([0-9a-f]{16})([0-9a-f]{2})", re.ASCII)
"""Trace id, span id and flags, as the wire carries them and the record has them: 25 bytes in hex. Ids of zeros are
none."""


def when(wall_ns: int) -> str:
    """RFC 3339 with nanoseconds, in UTC."""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"
    except (OverflowError, ValueError, OSError):
        return f"{wall_ns} ns"


def as_object(recorded: Recorded) -> dict[str, Any]:
    """One entry as JSON has it. Names are `Type::id`."""
    entry = recorded.entry
    found: dict[str, Any] = {"index": recorded.index, "kind": kind_of(entry)}
    if isinstance(entry, entries.Unknown):
        return found | {"unknown": _plain(entry.members)}
    found["time"] = when(entry.wall_ns)
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if name in IDS:
            value = str(value)
        elif isinstance(entry, entries.Question):
            if name in ("subject", "resource"):
                value = "::".join(value)
            elif name == "chain":
                value = ["::".join(member) for member in value]
            elif name in ("obligations", "candidate_obligations"):
                value = [dict(zip(("id", "type", "discharged"), each, strict=False)) for each in value]
        elif isinstance(entry, entries.Hits) and name == "served":
            value = [{"decision": str(number), "count": count} for number, count in value]
        found[name] = _plain(value)
    return found


def as_line(recorded: Recorded) -> str:
    return json.dumps(as_object(recorded), separators=(",", ":"), allow_nan=False)


def as_otlp(recorded: Recorded) -> str:
    """One line of OTLP/JSON."""
    values = as_object(recorded)
    kind, wall = values.pop("kind"), values.pop("wall_ns", 0)
    severity = _severity(recorded.entry)
    record: dict[str, Any] = {
        "timeUnixNano": str(wall),
        "observedTimeUnixNano": str(wall),
        "severityNumber": severity,
        "severityText": {INFO: "INFO", WARN: "WARN", ERROR: "ERROR"}[severity],
        "eventName": f"pepcore.{kind}",
        "body": {"stringValue": kind},
        "attributes": [
            {"key": f"pepcore.{name}", "value": _otlp(value)}
            for name, value in values.items()
            if name != "time" and value not in ("", [], {}, None)
        ],
    }
    trace = _TRACE.fullmatch(str(values.get("trace", "")))
    if trace:
        record["traceId"], record["spanId"], record["flags"] = trace[1], trace[2], int(trace[3], 16)
    service = {"key": "service.name", "value": {"stringValue": "pepcore"}}
    scope = {"scope": {"name": "pepcore.audit", "version": VERSION}, "logRecords": [record]}
    logs = {"resourceLogs": [{"resource": {"attributes": [service]}, "scopeLogs": [scope]}]}
    return json.dumps(logs, separators=(",", ":"), allow_nan=False)


def _severity(entry: entries.Entry | entries.Unknown) -> int:
    if isinstance(entry, entries.Decision):
        return ERROR if entry.fault else INFO if entry.permit else WARN
    if isinstance(entry, entries.Fault) or (isinstance(entry, entries.Reload) and not entry.ok):
        return ERROR
    return WARN if isinstance(entry, entries.Dropped | entries.Cut) else INFO


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, msgspec.msgpack.Ext):
        return bytes(value.data).hex()
    return str(value)


def _otlp(value: Any) -> dict[str, Any]:
    """An AnyValue."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)} if -(1 << 63) <= value < 1 << 63 else {"stringValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_otlp(each) for each in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": _otlp(each)} for key, each in value.items()]}}
    return {} if value is None else {"stringValue": value}
