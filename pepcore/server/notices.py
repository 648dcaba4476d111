"""Where `notify` obligations go: a file of JSON lines, appended.

Promises: a permit that demands a notice stands only after the whole line was written; what is in a notice cannot
make a second line. Never: keeps a question's attributes, only who asked for what.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat

from ..errors import ConfigError, ObligationFault
from ..flight import Partition
from ..model import Obligation, Question
from . import clock


class Notices:
    """An open file that notices are appended to; with an empty path, none."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError where the file cannot be opened."""
        self._file = _open(path)

    def reopen(self, path: str) -> None:
        """Go on in this file: after a change of the config, or after somebody rotated it. Raises ConfigError."""
        old, self._file = self._file, _open(path)
        if old >= 0:
            os.close(old)

    def __call__(self, partition: Partition, question: Question, obligation: Obligation) -> None:
        """Append one notice. Raises ObligationFault where it cannot be written whole."""
        line = json.dumps(
            {
                "wall_ms": clock.wall_ms(),
                "point": partition.point,
                "subject": f"{question.subject.type}::{question.subject.id}",
                "action": question.action.name,
                "resource": f"{question.resource.type}::{question.resource.id}",
                "obligation": obligation.id,
                "notice": obligation.properties,
            }
        )
        if self._file < 0:
            raise ObligationFault(obligation.id, "`notify` has no place to go here: set `notify.file` in the config")
        data = line.encode() + b"\n"
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise ObligationFault(obligation.id, f"the notice cannot be written: {error.strerror}") from None
        if written != len(data):
            self._take_back(written)
            raise ObligationFault(obligation.id, "the notice was written only in part: the disk is full")

    def _take_back(self, written: int) -> None:
        """Half a line must not become the head of the next one."""
        try:
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
        except OSError:
            with contextlib.suppress(OSError):
                os.write(self._file, b"\n")


def _open(path: str) -> int:
    if not path:
        return -1
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
    except OSError as error:
        raise ConfigError(f"`notify.file`: `{path}` cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ConfigError(f"`notify.file`: `{path}` is not a regular file")
    return file
