"""A listening socket: accepts peers, names them, hands them on.

Promises: a peer is named by the kernel before a byte of it is read; a peer that is not admitted sees its connection
closed behind an error frame, which a client takes as a deny; running out of descriptors closes the surplus at once
instead of leaving it to wait (a spare descriptor is kept for that, and won back when it was lost).
Never: reads from a peer; accepts without end in one turn of the loop; spins while nobody can be accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

from ..errors import Fault
from ..wire import error
from . import logs
from .connection import Connection

if TYPE_CHECKING:
    from .service import Service

AT_ONCE = 16
LAST = 4096
"""Of those who connected before a drain; a socket that systemd passes queues no more unless told."""
REST_S = 0.1
"""How long nobody is accepted where not even the spare descriptor is there: the peers who wait stay readable."""


class Listener:
    """Accepts for a service until closed; `administrators`: nobody else."""

    def __init__(self, service: Service, sock: socket.socket, administrators: bool = False) -> None:
        self._service, self._sock, self._administrators = service, sock, administrators
        self._spare = -1
        self._resting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._win_spare()
        sock.setblocking(False)
        self._loop.add_reader(sock, self._accept)

    def _accept(self, most: int = AT_ONCE) -> None:
        for _ in range(most):
            try:
                sock, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as failed:
                if failed.errno in (errno.EMFILE, errno.ENFILE):
                    self._turn_away()
                logs.limited("a peer could not be accepted", reason=failed.strerror)
                return
            sock.setblocking(False)
            try:
                peer = self._service.admit(sock, self._administrators)
            except (Fault, OSError) as refused:
                logs.limited("a peer was refused", reason=str(refused))
                if isinstance(refused, Fault):
                    with contextlib.suppress(OSError):
                        sock.send(error(1, 0, refused))  # to the hello that it has sent, or is about to send
                sock.close()
                continue
            self._service.connected(Connection(self._service, sock, peer, self._administrators))

    def _turn_away(self) -> None:
        """No descriptor is left: use the spare one to close the next peer, so that it need not wait."""
        if self._spare < 0:
            self._rest()
            return
        self._drop_spare()
        with contextlib.suppress(OSError):  # another thread may be faster: the peer is turned away after a rest
            self._sock.accept()[0].close()
        self._win_spare()

    def _win_spare(self) -> None:
        with contextlib.suppress(OSError):
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _rest(self) -> None:
        self._loop.remove_reader(self._sock)
        self._resting = self._loop.call_later(REST_S, self._resume)

    def _resume(self) -> None:
        self._resting = None
        self._win_spare()
        self._loop.add_reader(self._sock, self._accept)

    def _drop_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def pause(self) -> None:
        """Accept nobody: who connects waits in the backlog, for whoever listens next."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._sock)

    def go_on(self) -> None:
        """Accept again, after a pause."""
        self._loop.add_reader(self._sock, self._accept)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        """Accept nobody any more, but those who connected already."""
        self._accept(LAST)
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._drop_spare()
