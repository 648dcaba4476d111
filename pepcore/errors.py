"""Every error of pepcore, in one tree.

::

    PepError
    ├── Denied              enforce() or apply() said no; carries the verdict
    ├── ConfigError         a config file, policy set, entity store or schema cannot be used
    │   └── PolicyError     the same with file and line
    └── Fault               something is broken; a waiting caller gets a deny that says so
        ├── BadFrame        1   the framing is lost or a header field is malformed
        ├── BadQuestion     2   the question is malformed
        ├── BadRequest      3   anything else in a frame is malformed
        ├── Refused         4   this peer may not ask that
        ├── NotAvailable    5   specified, but not built or not configured
        ├── Overloaded      6   a limit is reached
        ├── DeadlinePassed  7   no decision within the request's deadline
        ├── PdpFault        8   the PDP failed or gave no usable answer
        ├── ObligationFault 9   an obligation is unknown, malformed or failed
        ├── Unreachable    10   no daemon answers (clients only)
        ├── Draining       11   the daemon is stopping
        ├── Stale          12   the answer is older than `min_revision`, or crossed two reloads
        └── Expired        13   the caller's own `not_after` has passed

The number is the fault code on the wire. An error never decides: deny is the default.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

SHOWN = 20
"""Most errors of one policy set that a message tells."""


class PepError(Exception):
    """Base of everything that pepcore raises."""


class Denied(PepError):
    """The action must not happen. `verdict` says why."""

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict
        super().__init__(verdict.reason or verdict.error or "denied: no policy permits this")


class ConfigError(PepError):
    """A config file, policy set, entity store or schema cannot be used."""


class PolicyError(ConfigError):
    """A policy set that does not parse or validate: where (line 0: the file as a whole), and why.

    `each` has every place that is wrong as (file, line, reason), the first is `file` and `line`; `reason` and the text
    tell all of them, one on a line.
    """

    def __init__(self, file: str, line: int, reason: str, others: Iterable[tuple[str, int, str]] = ()) -> None:
        self.file, self.line = file, line
        self.each = ((file, line, reason), *others)
        rest = [f"{_place(f, n)}: {why}" for f, n, why in self.each[1:SHOWN]]
        if len(self.each) > SHOWN:
            rest.append(f"and {len(self.each) - SHOWN} more: mend these first")
        self.reason = "\n".join([reason, *rest])
        super().__init__(f"{_place(file, line)}: {self.reason}")


def _place(file: str, line: int) -> str:
    return f"{file}:{line}" if line else file


class Fault(PepError):
    """Something is broken. `field` names the place (may be empty), `reason` says what is wrong."""

    code = 0

    def __init__(self, field: str, reason: str) -> None:
        self.field, self.reason = field, reason
        super().__init__(f"{field}: {reason}" if field else reason)


class BadFrame(Fault):
    code = 1


class BadQuestion(Fault):
    code = 2


class BadRequest(Fault):
    code = 3


class Refused(Fault):
    code = 4


class NotAvailable(Fault):
    code = 5


class Overloaded(Fault):
    code = 6


class DeadlinePassed(Fault):
    code = 7


class PdpFault(Fault):
    code = 8


class ObligationFault(Fault):
    code = 9


class Unreachable(Fault):
    code = 10


class Draining(Fault):
    code = 11


class Stale(Fault):
    code = 12


class Expired(Fault):
    code = 13


FAULTS: dict[int, type[Fault]] = {kind.code: kind for kind in Fault.__subclasses__()}
NAMES: dict[int, str] = {
    1: "bad-frame", 2: "bad-question", 3: "bad-request", 4: "refused", 5: "not-available", 6: "overloaded",
    7: "deadline", 8: "pdp", 9: "obligation", 10: "unreachable", 11: "draining", 12: "stale", 13: "expired",
}  # fmt: skip


def place_of(error: BaseException) -> str:
    """Where an error was raised, as `file.py:line`; "" where nobody knows."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


def unexpected(error: BaseException) -> str:
    """A defect, for the log: its kind and place, since its text may quote what was asked."""
    place = place_of(error)
    return f"{type(error).__name__} at {place}" if place else type(error).__name__
