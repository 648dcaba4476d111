"""Whose turn it is: of the questions that wait for the PDP, and of those who wait for a decision that has come.

Promises: the next question is of the owner whose questions have taken the least time; who comes back has saved nothing
up, who took much waits until the others took as much; owners that took the same come in turn, and each one's questions
in the order they were asked. What is decided is released in slices, owners in turn.
Never: measures (the host tells what an evaluation took); looks at more owners than it passes over.

INVARIANT: an owner has a place if and only if it has flights; the entry of `_turns` with that place is the one that
counts.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from .errors import Fault
from .flight import Flight
from .model import Decision
from .modes import Settled

SPARE = 1024  # entries that do not count and are not worth a sweep
IN_TURN = 4
"""Of those who wait for a decision of one owner, before another owner's are served."""

May = Callable[[Flight], bool]
"""Whether the host takes this question now."""


class Backlog:
    """Questions that nobody has taken yet."""

    def __init__(self) -> None:
        self._flights: dict[int, OrderedDict[Flight, None]] = {}
        self._spent: dict[int, int] = {}
        self._turns: list[tuple[int, int, int]] = []  # a heap of (spent, place, owner); spent may have grown since
        self._place: dict[int, int] = {}
        self._places = itertools.count()
        self._least = 0  # what the owner that was served last had spent

    def __bool__(self) -> bool:
        return bool(self._flights)

    def put(self, flight: Flight) -> None:
        owner = flight.partition.owner
        if owner not in self._flights:
            self._flights[owner] = OrderedDict()
            self._spent[owner] = max(self._spent.get(owner, 0), self._least)
            self._line_up(owner)
        self._flights[owner][flight] = None

    def _line_up(self, owner: int) -> None:
        place = self._place[owner] = next(self._places)
        heappush(self._turns, (self._spent[owner], place, owner))
        if len(self._turns) > 2 * len(self._place) + SPARE:
            self._turns = [turn for turn in self._turns if self._place.get(turn[2]) == turn[1]]
            heapify(self._turns)

    def take(self, may: May | None = None) -> Flight | None:
        """The next question, passing over owners whose next one the host does not take now. None: there is none."""
        passed: list[tuple[int, int, int]] = []
        found: Flight | None = None
        while self._turns and found is None:
            turn = heappop(self._turns)
            spent, place, owner = turn
            if self._place.get(owner) != place:
                continue
            first = next(iter(self._flights[owner]))
            if spent < self._spent[owner]:
                self._line_up(owner)
            elif may is not None and not may(first):
                passed.append(turn)
            else:
                self._least, found = max(self._least, spent), first
                self._line_up(owner)
                self.remove(first)
        for turn in passed:
            heappush(self._turns, turn)
        return found

    def remove(self, flight: Flight) -> None:
        owner = flight.partition.owner
        flights = self._flights[owner]
        del flights[flight]
        if not flights:
            del self._flights[owner], self._place[owner]

    def charge(self, owner: int, took_ns: int) -> None:
        """An owner's question has taken so long. Where nobody waits, that is owed to nobody who comes later."""
        self._spent[owner] = self._spent.get(owner, 0) + took_ns
        if not self._flights:
            self._least = max(self._least, self._spent[owner])


Answered = tuple[Flight, Decision | Fault, Settled | None]
"""A flight, what the PDP said, and the verdict that serves all its waiters, if there is one."""


class Decided:
    """Flights whose answer has come, with those who still wait for it."""

    def __init__(self) -> None:
        self._of_owner: OrderedDict[int, deque[Answered]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._of_owner)

    def put(self, answered: Answered) -> None:
        self._of_owner.setdefault(answered[0].partition.owner, deque()).append(answered)

    def first(self) -> Answered:
        """Whose turn it is, until `go_on`."""
        return next(iter(self._of_owner.values()))[0]

    def go_on(self) -> None:
        """A slice of the first was served: the next owner's turn. A flight that nobody waits for any more leaves."""
        owner, answers = next(iter(self._of_owner.items()))
        if not answers[0][0].waiters:
            answers.popleft()
        if answers:
            self._of_owner.move_to_end(owner)
        else:
            del self._of_owner[owner]
