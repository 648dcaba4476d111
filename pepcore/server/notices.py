"""Where `notify` obligations go: a file of JSON lines, appended.

Promises: a permit that demands a notice stands only after the whole line was written; what is in a notice cannot
make a second line. Never: keeps a question's attributes, only who asked for what.
"""

from __future__ import annotations

import json
import os

from ..errors import ObligationFault
from ..flight import Partition
from ..model import Obligation, Question
from . import clock


class Notices:
    """An open file that notices are appended to."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

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
        data = line.encode() + b"\n"
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise ObligationFault(obligation.id, f"the notice cannot be written: {error.strerror}") from None
        if written != len(data):
            raise ObligationFault(obligation.id, "the notice was written only in part: the disk is full")

    def close(self) -> None:
        os.close(self._file)
