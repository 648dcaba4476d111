"""How many leases there may be: of everybody, and of each peer.

Promises: whoever asks for a lease counts from then until his is not held or he has stopped; those whose holder has no
connection any more do not stand in the way of whoever asks afresh, up to as many again.
Never: keeps a number for an owner who holds nothing.
"""

from __future__ import annotations

from .errors import Overloaded

EVERYBODY = -1
"""Among the owners: all of them."""


class Room:
    """Counts by owner."""

    def __init__(self, most: int, of_one: int) -> None:
        self.most, self.of_one = most, of_one
        self._counted: dict[int, int] = {}
        self._lost: dict[int, int] = {}

    def enter(self, owner: int) -> None:
        """Somebody asks for a lease: it counts from here on. Raises Overloaded."""
        for whose, most in ((EVERYBODY, self.most), (owner, self.of_one)):
            counted = self._counted.get(whose, 0)
            if counted - self._lost.get(whose, 0) >= most or counted >= 2 * most:
                who = "all peers hold" if whose == EVERYBODY else "this peer holds"
                raise Overloaded("lease", f"{who} {counted} leases: end some that are no longer needed")
        _add(self._counted, owner, 1)

    def leave(self, owner: int) -> None:
        """A lease that counted is not held, or not any more."""
        _add(self._counted, owner, -1)

    def lose(self, owner: int) -> None:
        """A lease that counts has no holder any more who could be told."""
        _add(self._lost, owner, 1)

    def leave_lost(self, owner: int) -> None:
        """One of these is over."""
        _add(self._lost, owner, -1)
        self.leave(owner)

    def adopt(self, owner: int) -> None:
        """A lease of a daemon before this one, which nobody asked for here."""
        _add(self._counted, owner, 1)
        self.lose(owner)


def _add(counts: dict[int, int], owner: int, step: int) -> None:
    for whose in (EVERYBODY, owner):
        counts[whose] = counts.get(whose, 0) + step
        if not counts[whose]:
            del counts[whose]
