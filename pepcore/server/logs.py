"""Logs: JSON lines off a terminal, readable ones on it.

Promises: one event is one line whatever is in it (control and bidirectional characters are escaped), so no input can
forge a line or colour a terminal; `limited` says an event at most once a second and counts the rest.
Never: logs a question's attribute values, a token, a payload; waits for whoever reads the log: lines that find no room
are dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
import time
from typing import Any

from ..errors import place_of

_log = logging.getLogger("pepcore")
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m"}
LINES = 1000
"""Lines that may wait for a slow reader."""
LAST_S = 1.0
LINGER_S = 0.005
"""Between two looks for more lines while there are some: to wake a thread costs the loop more than to make a line."""
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


class _Writer(logging.Handler):
    """Writes lines from a thread: standard error may be a pipe that nobody reads, or a terminal that was stopped.

    The file number is written to as it is. To make it non-blocking would make it so for every process that shares it,
    and a buffered file could not be left behind by a thread that hangs in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[logging.LogRecord] = queue.Queue(LINES)
        self._dropped = 0
        threading.Thread(target=self._write, daemon=True, name="pepcore-log").start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._dropped and self._lines.qsize() < LINES // 2:
            record.__dict__.setdefault("fields", {})["lines_dropped"] = self._dropped
            self._dropped = 0
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while True:
            self._put_out(self._lines.get())
            if self._lines.empty():
                time.sleep(LINGER_S)

    def _put_out(self, record: logging.LogRecord) -> None:
        # a closed pipe, a full disk, what cannot be told: the line is lost, and the thread goes on
        with contextlib.suppress(Exception):
            line = self.format(record).encode() + b"\n"
            while line:
                line = line[os.write(2, line) :]
        self._lines.task_done()

    def drain(self, seconds: float) -> None:
        """Wait for the last lines, but not for ever."""
        until = time.monotonic() + seconds
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)


def start() -> None:
    """Send the daemon's log to standard error, in the form that fits it."""
    handler = _Writer()
    handler.setFormatter(_Readable() if sys.stderr.isatty() else _Lines())
    _log.handlers[:] = [handler]
    _log.propagate = False
    _log.setLevel(logging.INFO)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # nothing says them
    logging.raiseExceptions = False  # a full disk or a closed pipe must not reach the loop


def stop() -> None:
    """Let the last lines out before the process ends."""
    for handler in _log.handlers:
        if isinstance(handler, _Writer):
            handler.drain(LAST_S)


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


def unexpected(event: str, error: BaseException | None, **fields: Any) -> None:
    """A defect, in one line: what kind of error was raised, and where. Its text may quote whatever was asked."""
    place = place_of(error) if error is not None else ""
    limited("an error was not expected", what=event, error=_kind(error), place=place, **fields)


def _kind(error: BaseException | None) -> str:
    name = type(error).__name__
    return f"{name}: {error.strerror}" if isinstance(error, OSError) else name
