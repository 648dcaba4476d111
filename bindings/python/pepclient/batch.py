"""A batch of questions on its way, for both forms of the client.

Promises: what cannot be sent is answered here, the rest is sent in as few frames as possible; answers stand in the
order of the questions. Never: sends anything; raises for a question that is malformed or too large.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from pepcore.core.verdict import Verdict, deny
from pepcore.errors import Fault

from . import frames
from .questions import canonical_item, ends, semantic_code


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Batch:
    """A batch on its way: what cannot be sent is answered here, the rest is sent in as few frames as possible."""

    def __init__(self, questions: Iterable[Any], semantic: Any, frame_limit: int) -> None:
        self.semantic = semantic_code(semantic)
        self.here: dict[int, Fault] = {}
        self.send: list[bytes] = []
        self.count = 0
        for i, item in enumerate(questions):
            self.count += 1
            try:
                question = canonical_item(item)
                fault = frames.alone(question, frame_limit)
            except Fault as wrong:
                fault = wrong
            if fault is None:
                self.send.append(question)
                continue
            self.here[i] = fault
            if ends(self.semantic, False):
                break

    def reader(self, count: int, handles: frozenset[str]) -> Callable[[bytes], list[Verdict]]:
        """What reads the reply to the next `count` questions, of which the clock starts now."""
        now = boottime_ns()
        return lambda body: frames.read_many(body, count, self.semantic, handles, now)

    def failed(self, fault: Fault, verdicts: list[Verdict]) -> list[Verdict]:
        """The batch where nothing more can be learned: every question not answered yet is a deny."""
        missing = len(self.send) - len(verdicts)
        return self.finish([*verdicts, *(deny(fault) for _ in range(missing))])

    def finish(self, verdicts: list[Verdict]) -> list[Verdict]:
        """All answers in the order of the questions, up to the one that ends the batch."""
        out: list[Verdict] = []
        answers = iter(verdicts)
        for i in range(self.count):
            fault = self.here.get(i)
            verdict = deny(fault) if fault else next(answers, None)
            if verdict is None:
                break
            out.append(verdict)
            if ends(self.semantic, verdict.permit):
                break
        return out
