"""The end of a daemon whose lock file somebody removed, as cleaners of /tmp do: another one may have locked a new file.

Promises: once that is seen nobody is answered, nothing is acknowledged, no page of ours is believed, and the daemon
ends with 3, so that its service manager starts one that holds a lock. It is seen within 25 ms by the thread that renews
the lease, and before anything is answered by a daemon that was stopped meanwhile (`turn.pyx`). The same end comes
within two seconds where it is the lock of the journal: until then what must be on record is denied.
Never: touches a socket file afterwards: what lies at the path may be the successor's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import logs

if TYPE_CHECKING:
    from .listener import Listener
    from .place import Place
    from .service import Service


REMOVED = "the lock file was removed, another daemon may have a new one: this one ends"


class Fence:
    """What stands between this daemon and another one of the same place."""

    def __init__(
        self, service: Service, place: Place, listeners: tuple[Listener, ...], stop: Callable[[], None]
    ) -> None:
        self._service, self._place, self._listeners, self._stop = service, place, listeners, stop
        self._told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.fallen = False

    def start(self) -> None:
        """Be believed from now on, as long as the lock is ours."""
        service, place = self._service, self._place
        service.holds = service.turns.served.holds = self.holds
        service.fall = self.fall
        asyncio.get_running_loop().add_reader(self._told, self.fall)
        service.renewal.start(place.lock, os.fsencode(place.lock_path), self._told)

    def holds(self) -> bool:
        """Whether the lock is ours now. Where it is not, everybody has been let go when this returns."""
        if not self.fallen and not self._place.holds:
            self.fall()
        return not self.fallen

    def fall(self, why: str = REMOVED) -> None:
        """End, from here on."""
        if self.fallen:
            return
        self.fallen = True
        asyncio.get_running_loop().remove_reader(self._told)
        logs.error(why, socket=str(self._place.path))
        self._service.renewal.stop()
        self._place.passed_on()
        for listener in self._listeners:
            if listener.fileno() >= 0:
                listener.pause()
        for connection in list(self._service.connections):
            connection.drop()
        self._stop()
