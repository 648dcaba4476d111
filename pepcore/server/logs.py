"""Logs: JSON lines off a terminal, readable ones on it.

Promises: one event is one line whatever is in it (control and bidirectional characters are escaped), so no input can
forge a line or colour a terminal; `limited` says an event at most once a second and counts the rest.
Never: logs a question's attribute values, a token, a payload.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

_log = logging.getLogger("pepcore")
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m"}
_suppressed: dict[str, tuple[float, int]] = {}


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(event, default=str)  # ASCII only: nothing in it can move a cursor


class _Readable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        fields = " ".join(f"{k}={json.dumps(v, default=str)}" for k, v in getattr(record, "fields", {}).items())
        colour = "" if os.environ.get("NO_COLOR") else _COLOURS.get(level, "")
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {level:<7} {record.getMessage()} {fields}"
        return f"{colour}{line}\x1b[0m" if colour else line


def start() -> None:
    """Send the daemon's log to standard error, in the form that fits it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Readable() if sys.stderr.isatty() else _Lines())
    _log.handlers[:] = [handler]
    _log.propagate = False
    _log.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a full disk or a closed pipe must not reach the loop


def info(event: str, **fields: Any) -> None:
    _log.info(event, extra={"fields": fields})


def warning(event: str, **fields: Any) -> None:
    _log.warning(event, extra={"fields": fields})


def error(event: str, **fields: Any) -> None:
    _log.error(event, extra={"fields": fields})


def limited(event: str, **fields: Any) -> None:
    """A warning that a peer can cause at will: at most one a second of each kind."""
    now = time.monotonic()
    last, dropped = _suppressed.get(event, (-1.0, 0))
    if now - last < 1.0:
        _suppressed[event] = (last, dropped + 1)
        return
    _suppressed[event] = (now, 0)
    warning(event, **fields, **({"not_shown": dropped} if dropped else {}))
