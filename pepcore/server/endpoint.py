"""Metrics and health over HTTP/1.1, for the host: GET and HEAD of /metrics, /healthz, /readyz, and nothing else.

Promises: a client costs the loop one accept a turn, at most PER_SECOND of them, and one text of the metrics in
FRESH_NS, however many ask; one that is slow, silent or sends too much is closed, and the oldest makes room where MOST
are open; one request per connection, and what follows it is not looked at.
Never: reads a body; tells anything but numbers (`metrics.py`) and reasons of ours (`health.py`); listens on an address
that other hosts reach (`config.py` refuses it).

`h11` and `prometheus_client` are imported with this unit, which is imported only where `observe.listen` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import time
from collections import deque
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import h11

from .. import metrics
from ..config import tcp_address
from ..errors import ConfigError
from . import clock, logs
from .health import unready
from .statistics import numbers

if TYPE_CHECKING:
    from .service import Service

MOST = 32
"""Connections at one time."""
PER_SECOND = 50
"""Connections that are taken in a second: several scrapers and probes, and at most a few percent of the loop."""
FRESH_NS = 100_000_000
"""How long one text of the metrics serves all who ask."""
HEAD = 8192
"""Bytes of a request's line and headers."""
READ = 2048
WAIT_S = 2.0
"""How long a request may take to come."""
WHOLE_S = 5.0
"""How long a connection may take."""
LINGER = 16
"""Reads of what follows the request and is thrown away: to close on unread bytes could take the reply with it."""
REST_S = 0.1
BACKLOG = 64


class Answer(NamedTuple):
    """Status, body, content type; `bare`: the body is not sent, only how long it is."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    bare: bool = False


def bind(listen: str, taken: tuple[Path, ...] = ()) -> socket.socket:
    """The socket of `observe.listen`; `taken` are paths that this daemon uses itself. Raises ConfigError."""
    address = tcp_address(listen)
    if address is not None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _bound(sock, address, listen)
    path = Path(listen)
    if path in taken:
        raise ConfigError(f"`observe.listen`: `{path}` is a path that this daemon uses itself: name another one")
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    before = os.umask(0o117)  # its mode is 0660 from the moment it exists
    try:
        return _bound(sock, listen, listen)
    finally:
        os.umask(before)


def _bound(sock: socket.socket, address: str | tuple[str, int], listen: str) -> socket.socket:
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"`observe.listen`: `{listen}` cannot be bound: {error.strerror}") from None
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody answers. Raises ConfigError where it is anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"`observe.listen`: `{path}` is a file of another kind: remove it, or name another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as probe:
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except BlockingIOError:  # its queue is full: somebody listens
        raise ConfigError(f"`observe.listen`: `{path}` belongs to a running process: name another path") from None
    except OSError as error:
        raise ConfigError(f"`observe.listen`: `{path}` cannot be looked at: {error.strerror}") from None
    else:
        raise ConfigError(f"`observe.listen`: `{path}` belongs to a running process: name another path")


class Endpoint:
    """Answers on a bound socket until closed."""

    def __init__(self, service: Service, sock: socket.socket) -> None:
        self._service, self._sock = service, sock
        self._loop = asyncio.get_running_loop()
        self._open: dict[asyncio.Task[None], None] = {}
        self._taken: deque[float] = deque(maxlen=PER_SECOND)
        self._text, self._text_ns = b"", 0
        name = sock.getsockname()
        self._path = Path(name) if isinstance(name, str) else None
        self._made = self._path.lstat() if self._path else None
        self._accepting = self._loop.create_task(self._accept())

    async def _accept(self) -> None:
        while True:
            try:
                sock, _ = await self._loop.sock_accept(self._sock)
            except OSError as failed:  # descriptors are short, or the peer has gone again
                logs.limited("a reader of the metrics could not be accepted", reason=failed.strerror)
                await asyncio.sleep(REST_S)
                continue
            if len(self._open) >= MOST:
                oldest = next(iter(self._open))
                oldest.cancel()
                await asyncio.wait([oldest])
            task = self._loop.create_task(self._serve(sock))
            self._open[task] = None
            task.add_done_callback(self._closed)
            self._taken.append(time.monotonic())
            if len(self._taken) == PER_SECOND and (left := self._taken[0] + 1 - time.monotonic()) > 0:
                await asyncio.sleep(left)

    def _closed(self, task: asyncio.Task[None]) -> None:
        del self._open[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            logs.unexpected("a reader of the metrics was closed", error)

    async def _serve(self, sock: socket.socket) -> None:
        """One request and its reply."""
        with sock, contextlib.suppress(TimeoutError, OSError):  # slow, or gone
            async with asyncio.timeout(WHOLE_S):
                http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
                async with asyncio.timeout(WAIT_S):
                    answer = await self._asked(http, sock)
                if answer is not None:
                    await self._loop.sock_sendall(sock, _written(http, answer))
                    sock.shutdown(socket.SHUT_WR)
                    for _ in range(LINGER):
                        if not await self._loop.sock_recv(sock, READ):
                            break

    async def _asked(self, http: h11.Connection, sock: socket.socket) -> Answer | None:
        """Read until the request is whole. None: the client has gone."""
        try:
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await self._loop.sock_recv(sock, READ))
        except h11.RemoteProtocolError as wrong:
            return Answer(
                wrong.error_status_hint, b"this cannot be read as a request, or is longer than is taken here\n"
            )
        if not isinstance(event, h11.Request):
            return None
        if event.http_version not in (b"1.0", b"1.1"):
            return Answer(505, b"send version 1.1 of HTTP\n")
        if event.method not in (b"GET", b"HEAD"):
            return Answer(405, b"send GET or HEAD\n")
        return self._found(event.target.partition(b"?")[0])._replace(bare=event.method == b"HEAD")

    def _found(self, path: bytes) -> Answer:
        if path == b"/metrics":
            return Answer(200, self._metrics(), metrics.CONTENT_TYPE)
        if path == b"/healthz":
            return Answer(200, b"ok\n")
        if path == b"/readyz":
            reasons = unready(self._service)
            return Answer(503 if reasons else 200, "".join(f"{why}\n" for why in reasons or ["ok"]).encode())
        return Answer(404, b"there are /metrics, /healthz and /readyz\n")

    def _metrics(self) -> bytes:
        now = clock.now()
        if not self._text or now - self._text_ns > FRESH_NS:
            self._text, self._text_ns = metrics.text(numbers(self._service)), now
        return self._text

    def close(self) -> None:
        """Answer nobody any more, and remove our socket file."""
        self._accepting.cancel()
        for task in list(self._open):
            task.cancel()
        self._sock.close()
        if self._path is not None and self._made is not None:
            with contextlib.suppress(OSError):  # somebody else has removed it
                if os.path.samestat(self._path.lstat(), self._made):
                    self._path.unlink()


def _written(http: h11.Connection, answer: Answer) -> bytes:
    """The reply as it is sent; to HEAD without the body."""
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", answer.kind),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]
    if answer.status == 405:
        headers.append(("Allow", "GET, HEAD"))
    out = (
        http.send(
            h11.Response(status_code=answer.status, headers=headers, reason=HTTPStatus(answer.status).phrase.encode())
        )
        or b""
    )
    return out + (b"" if answer.bare else http.send(h11.Data(data=answer.body)) or b"")
