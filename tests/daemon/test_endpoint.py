"""The HTTP endpoint of a real daemon: every path, every refusal, hostile readers, and what /readyz says when."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raw import ask, check
from running import NOBODY, PERMIT, Daemon

from pepcore import metrics
from pepcore.server import endpoint

PROMTOOL = shutil.which("promtool")
STALLED = """
import pepcore.enforcer
pepcore.enforcer.Enforcer.next_flight = lambda *given: None
pepcore.enforcer.Enforcer.take_alone = lambda *given: None
"""


def connect(where: Path | int, seconds: float = 10.0) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET)
    sock.connect(str(where) if isinstance(where, Path) else ("127.0.0.1", where))  # waits where its queue is full
    sock.settimeout(seconds)
    return sock


def rest(sock: socket.socket) -> bytes:
    """All until the end."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            got += data
    return got


def send(where: Path | int, data: bytes) -> bytes:
    with connect(where) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        return rest(sock)


def get(where: Path | int, path: str, method: str = "GET", version: str = "1.1") -> tuple[int, dict[str, str], str]:
    raw = send(where, f"{method} {path} HTTP/{version}\r\nHost: here\r\n\r\n".encode())
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:]), body.decode()


def values(where: Path | int) -> dict[str, float]:
    """Every sample of the metrics."""
    time.sleep(endpoint.FRESH_NS / 1e9)
    found: dict[str, float] = {}
    for line in get(where, "/metrics")[2].splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name not in found
            found[name] = float(value)
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def observed(make: Callable[..., Daemon]) -> Callable[..., tuple[Daemon, Path]]:
    """A daemon that serves, and the path of its endpoint."""

    def build(policies: str = PERMIT, config: str = "", **options: object) -> tuple[Daemon, Path]:
        daemon = make(policies, "", **options)
        where = daemon.folder / "m.sock"
        daemon.configure(f'{config}\n[observe]\nlisten = "{where}"\n')
        return daemon.ready(), where

    return build


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- what it answers ----


def test_every_path_answers_get_and_head_and_nothing_else(observed):
    _, where = observed()
    assert stat.S_IMODE(where.stat().st_mode) == 0o660
    for path, status, kind in [
        ("/metrics", 200, metrics.CONTENT_TYPE),
        ("/healthz", 200, "text/plain; charset=utf-8"),
        ("/readyz", 200, "text/plain; charset=utf-8"),
        ("/readyz?verbose", 200, "text/plain; charset=utf-8"),
        ("/", 404, "text/plain; charset=utf-8"),
        ("/metrics/", 404, "text/plain; charset=utf-8"),
        ("//metrics", 404, "text/plain; charset=utf-8"),
        ("/../metrics", 404, "text/plain; charset=utf-8"),
        ("http://here/metrics", 404, "text/plain; charset=utf-8"),
    ]:
        got, headers, body = get(where, path)
        assert (got, headers["content-type"], headers["connection"]) == (status, kind, "close"), path
        assert int(headers["content-length"]) == len(body.encode()) > 0
        bare, same, nothing = get(where, path, "HEAD")
        assert (bare, same["content-type"], nothing) == (status, kind, ""), path
        assert int(same["content-length"]) > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get", "PRI"):
        status, headers, _ = get(where, "/metrics", method)
        assert (status, headers["allow"]) == (405, "get, head"), method
    assert get(where, "/healthz", version="1.0")[0] == 200


@pytest.mark.parametrize("form", ["127.0.0.1", "[::1]"])
def test_a_loopback_address_is_served_and_no_other(make, form):
    if form == "[::1]":
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                form = "127.0.0.1"  # a host without it: the other one once more
    port = free_port()
    daemon = make()
    daemon.configure(f'[observe]\nlisten = "{form}:{port}"\n')
    daemon.ready()
    family = socket.AF_INET6 if form == "[::1]" else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(10)
        sock.connect((form.strip("[]"), port))
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert rest(sock).endswith(b"\r\n\r\nok\n")
    listening = Path("/proc/net/tcp6" if family == socket.AF_INET6 else "/proc/net/tcp").read_text()
    mine = [line.split()[1] for line in listening.splitlines()[1:] if line.split()[1].endswith(f":{port:04X}")]
    ours = "0100007F" if family == socket.AF_INET else "00000000000000000000000001000000"
    assert {each.split(":")[0] for each in mine} == {ours}


def test_without_it_nothing_listens_and_nothing_is_imported(serve, tmp_path):
    seen = f"open({str(tmp_path / 'seen')!r}, 'w').write(repr({{'h11', 'prometheus_client'}} & set(sys.modules)))"
    daemon = serve(before=f"import atexit, sys; atexit.register(lambda: {seen})")
    assert daemon.permits()
    assert daemon.stop() == 0
    assert (tmp_path / "seen").read_text() == "set()"


@pytest.mark.parametrize("kind", ["file", "ours", "served", "no folder", "stale"])
def test_a_path_that_is_taken_is_refused_and_a_stale_socket_replaced(make, kind, tmp_path):
    daemon = make()
    where = tmp_path / "m.sock"
    holder = socket.socket(socket.AF_UNIX)
    if kind == "file":
        where.write_text("precious")
    elif kind == "ours":
        where = daemon.socket.with_name(daemon.socket.name + ".admin")
    elif kind == "no folder":
        where = tmp_path / "absent" / "m.sock"
    else:
        holder.bind(str(where))
        holder.listen()
        if kind == "stale":
            holder.close()
    daemon.configure(f'[observe]\nlisten = "{where}"\n')
    if kind == "stale":
        daemon.ready()
        assert get(where, "/readyz")[0] == 200
        return
    process = daemon.start()
    assert process.wait(15) == 3
    assert f"`observe.listen`: `{where}`" in daemon.log.read_text()
    assert kind != "file" or where.read_text() == "precious"
    if kind == "served":
        connect(where).close()
    holder.close()


def test_the_socket_file_goes_with_the_daemon_unless_it_is_somebody_elses(observed):
    daemon, where = observed()
    assert daemon.stop() == 0
    assert not where.exists()
    daemon.ready()
    where.unlink()
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(where))
    assert daemon.stop() == 0
    assert where.exists()
    other.close()


# ---- what it says ----


def test_the_numbers_are_those_of_the_statistics_and_counters_only_grow(observed):
    daemon, where = observed()
    before = values(where)
    with daemon.client() as c:
        for _ in range(5):
            c.ask()
        c.ask(ask(subject="User::mallory"))
        c.ask(ask(resource="Document::b"))
        after, told = values(where), c.stats()
    counters = {name for name in before if name.split("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))}
    assert counters
    assert {name for name in counters if after[name] < before[name]} == set()
    cache = told["cache"]
    for name, value in {
        "pepcore_cache_hits_total": cache["hits"],
        "pepcore_cache_misses_total": cache["misses"],
        "pepcore_cache_inserts_total": cache["inserts"],
        "pepcore_cache_entries": cache["entries"],
        "pepcore_cache_slab_bytes": cache["blocks"] * 64,
        "pepcore_pdp_questions_total": told["asked"],
        'pepcore_evaluations_total{where="inline"}': told["evaluated_inline"],
        'pepcore_evaluations_total{where="worker"}': told["evaluated_by_workers"],
        "pepcore_miss_duration_seconds_count": sum(told["miss_us"]["counts"]),
        "pepcore_connections": told["connections"],
        "pepcore_partitions": told["partitions"],
        "pepcore_policies": told["policies"],
        "pepcore_revision": told["revision"],
        "pepcore_workers": 1,
        "pepcore_ready": 1,
        'pepcore_reloads_total{result="ok"}': 0,
    }.items():
        assert after[name] == value, name
    assert (cache["hits"], cache["misses"], told["asked"]) == (4, 3, 3)
    assert after["pepcore_miss_duration_seconds_count"] == 3
    assert after["process_resident_memory_bytes"] > 1 << 20
    assert after["process_open_fds"] >= 5
    assert abs(after["process_open_fds"] - len(os.listdir(f"/proc/{daemon.pid}/fd"))) <= 3
    daemon.policies.write_text("permit(")
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait_for("reload failed, the active policies stay")
    assert values(where)['pepcore_reloads_total{result="failed"}'] >= 1


def test_no_label_grows_with_what_is_asked(observed):
    daemon, where = observed()
    before = set(values(where))
    with daemon.client() as c:
        for n in range(200):
            c.ask(ask(subject=f"User::u{n}", action=f"a{n}", resource=f"Document::d{n}"))
        c.ask(b"\xc1")
    after = set(values(where))
    assert after == before
    text = get(where, "/metrics")[2]
    assert "u7" not in text
    assert "User" not in text
    assert len(after) < 150


@pytest.mark.skipif(PROMTOOL is None, reason="missing program: promtool (Debian: prometheus)")
def test_promtool_finds_nothing_to_say(observed):
    _, where = observed()
    assert PROMTOOL is not None
    text = get(where, "/metrics")[2]
    run = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (run.returncode, run.stdout + run.stderr) == (0, "")
    wrong = text.replace("pepcore_joined_total", "pepcore_joined")
    assert subprocess.run([PROMTOOL, "check", "metrics"], input=wrong, capture_output=True, text=True).returncode != 0


# ---- ready, and not ----


def test_it_is_not_ready_before_the_policies_are_loaded(make):
    daemon = make(before="import pepcore.server.run, time\nspawn = pepcore.server.run.spawn\n"
                  "def late(source):\n    import dataclasses\n    started = spawn(source)\n"
                  "    import os, signal, threading\n    os.kill(started.pid, signal.SIGSTOP)\n"
                  "    threading.Timer(2.0, os.kill, (started.pid, signal.SIGCONT)).start()\n    return started\n"
                  "pepcore.server.run.spawn = late")  # fmt: skip
    where = daemon.folder / "m.sock"
    daemon.configure(f'[observe]\nlisten = "{where}"\n')
    daemon.start()
    until(where.exists)
    assert get(where, "/healthz")[0] == 200
    assert get(where, "/readyz")[::2] == (503, "the policies are not loaded yet\n")
    assert values(where)["pepcore_ready"] == 0
    daemon.wait_for("ready")
    assert get(where, "/readyz")[::2] == (200, "ok\n")


def test_it_is_not_ready_while_draining_and_gone_afterwards(observed):
    daemon, where = observed(before=STALLED)
    with daemon.client() as c:
        c.send(check(ask(), 7, deadline_us=3_000_000))
        daemon.wait_until_waiting(1)
        assert daemon.process is not None
        daemon.process.terminate()
        daemon.wait_for("draining")
        status, _, why = get(where, "/readyz")
        assert (status, why) == (503, "draining: this daemon is stopping\n")
        assert get(where, "/healthz")[0] == 200
        assert daemon.process.wait(15) == 0
    with pytest.raises(OSError, match="No such file"):
        connect(where)


def test_it_is_not_ready_where_the_blocks_cannot_be_read(make):
    daemon = make()
    where, state = daemon.folder / "m.sock", daemon.folder / "state"
    state.mkdir()
    (state / "blocks.json").write_text("{")
    daemon.configure(f'state = "{state}"\n[observe]\nlisten = "{where}"\n')
    daemon.ready()
    status, _, why = get(where, "/readyz")
    assert status == 503
    assert why.startswith("the list of blocks cannot be read")
    assert str(state) not in why
    assert values(where)["pepcore_blocks_unreadable"] == 1
    assert not daemon.permits()


def test_it_is_not_ready_while_no_worker_is(observed):
    daemon, where = observed()
    assert get(where, "/readyz")[0] == 200
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: get(where, "/readyz")[0] == 503)
    assert "no worker process" in get(where, "/readyz")[2]
    until(lambda: get(where, "/readyz")[0] == 200)
    assert values(where)["pepcore_workers"] == 1


def test_it_is_not_ready_where_the_lease_is_not_renewed(observed):
    _, where = observed(before="import pepcore.server.service as s\nclass Never:\n    def __init__(self, page): pass\n"
                        "    def start(self, *_): pass\n    def stop(self): pass\ns.Renewal = Never")  # fmt: skip
    status, _, why = get(where, "/readyz")
    assert (status, "lease" in why) == (503, True)


# ---- hostile ----

HOSTILE = {
    "garbage": (b"\x00\xff" * 50 + b"\r\n\r\n", 400),
    "a wire frame": (b"\x10\x00\x00\x00" + bytes(60) + b"\r\n\r\n", 400),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two lengths": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a folded name": (b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "huge headers": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 3000 + b"\r\n", 431),
    "a huge target": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "another version": (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_request_gets_an_error_and_an_end(observed, name):
    daemon, where = observed()
    data, status = HOSTILE[name]
    got = send(where, data)
    assert re.match(rb"HTTP/1\.1 %d " % status, got), got[:60]
    assert got.count(b"HTTP/1.1") == 1
    assert get(where, "/healthz")[0] == 200
    assert daemon.permits()
    assert daemon.events("an unexpected error") == []


def test_what_follows_a_request_is_not_looked_at(observed):
    _, where = observed()
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    assert send(where, one * 50).count(b"HTTP/1.1 200") == 1
    body = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    assert send(where, body).count(b"HTTP/1.1 200") == 1
    chunked = b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"
    assert send(where, chunked).startswith(b"HTTP/1.1 405")


def test_one_that_drips_or_says_nothing_is_closed_in_time(observed):
    _, where = observed()
    began = time.monotonic()
    with connect(where) as silent, connect(where) as drips:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200:
                drips.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - began < endpoint.WAIT_S + 2
        assert rest(silent) == b""
        assert rest(drips) == b""
    assert get(where, "/healthz")[0] == 200


def test_one_that_never_reads_is_closed_in_time(observed):
    daemon, where = observed()
    fds = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    with connect(where) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) > fds)
        until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= fds, endpoint.WHOLE_S + 3)


def test_two_hundred_connections_keep_nobody_out_and_leave_nothing(observed):
    daemon, where = observed()
    assert daemon.permits()
    fds = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    held = []
    for _ in range(200):
        held.append(connect(where))
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) <= fds + endpoint.MOST + 2
    assert get(where, "/healthz")[0] == 200
    assert daemon.permits()
    for sock in held:
        sock.close()
    until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= fds)
    assert daemon.events("an unexpected error") == []


FLOOD = r"""
import socket, sys, time
served, until = 0, time.monotonic() + 3
while time.monotonic() < until:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sys.argv[1])
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        while s.recv(65536): pass
        served += 1
print(served)
"""


def test_hits_are_not_delayed_by_those_who_scrape_without_end(observed):
    daemon, where = observed()
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, str(where)], stdout=subprocess.PIPE)
    took = []
    with daemon.client() as c:
        c.ask()
        while flood.poll() is None:
            at = time.perf_counter()
            assert c.ask().permit
            took.append(time.perf_counter() - at)
    assert flood.stdout is not None
    with flood.stdout as out:
        served = int(out.read())
    assert 0 < served <= 4 * endpoint.PER_SECOND + 10
    took.sort()
    assert len(took) > 1000
    assert took[len(took) * 99 // 100] < 0.005


def test_one_text_serves_all_who_ask_at_the_same_time(observed):
    _, where = observed()
    time.sleep(endpoint.FRESH_NS / 1e9)
    first = get(where, "/metrics")[2]
    assert get(where, "/metrics")[2] == first
    time.sleep(endpoint.FRESH_NS / 1e9)
    assert get(where, "/metrics")[2] != first


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before + 3


def test_a_policy_set_that_denies_all_is_ready_too(observed):
    daemon, where = observed(NOBODY)
    assert not daemon.permits()
    assert get(where, "/readyz")[0] == 200
