"""One daemon per socket path, and who can reach it: lock, stale files, modes, start-up failures."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import time
from pathlib import Path

import pytest
from raw import ask, check, hello

from pepcore.errors import ConfigError
from pepcore.server.place import Place


def test_a_second_daemon_on_the_same_path_refuses_and_the_first_goes_on(make, serve):
    first = serve()
    second = make()
    second.log = second.folder / "log2"
    assert second.start().wait(15) == 3
    assert "belongs to a running daemon" in second.log.read_text()
    assert len(second.log.read_text().splitlines()) == 1
    assert first.permits()


def test_the_socket_of_a_killed_daemon_is_taken_over(make, serve):
    daemon = serve()
    daemon.process.kill()
    daemon.process.wait()
    assert daemon.socket.exists()
    with pytest.raises(ConnectionRefusedError):
        daemon.client()
    daemon.ready()
    assert daemon.permits()


def test_a_file_of_another_kind_at_the_path_is_refused_and_kept(make):
    daemon = make()
    daemon.socket.parent.mkdir()
    daemon.socket.write_text("precious")
    assert daemon.start().wait(15) == 3
    assert "is a file of another kind" in daemon.log.read_text()
    assert daemon.socket.read_text() == "precious"
    daemon.socket.unlink()
    daemon.log.unlink()
    daemon.ready()
    assert daemon.permits()


def test_of_daemons_that_start_at_once_exactly_one_wins(make):
    daemons = [make() for _ in range(4)]
    for n, daemon in enumerate(daemons):
        daemon.log = daemon.folder / f"log{n}"
        daemon.start()
    until = time.monotonic() + 20
    while sum(d.process.poll() is None for d in daemons) > 1 and time.monotonic() < until:
        time.sleep(0.02)
    (winner,) = [d for d in daemons if d.process.poll() is None]
    assert [d.process.poll() for d in daemons if d is not winner] == [3, 3, 3]
    winner.wait_for("ready")
    assert winner.permits()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_directory_and_socket_have_their_modes_under_any_umask(serve, umask):
    daemon = serve(umask=umask)
    assert stat.S_IMODE(daemon.socket.parent.stat().st_mode) == 0o750
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
    assert daemon.permits()


def test_a_path_too_long_for_a_socket_is_refused_by_name():
    with pytest.raises(ConfigError, match="longer than 101 bytes"):
        Place(Path("/tmp") / ("x" * 120))


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        ("policies", "policies.cedar:1: "),
        ("missing", "cannot read"),
        ("config", "`limits.frames` is not a key"),
        ("notify", "`notify.file`"),
        ("directory", "cannot use its directory"),
    ],
)
def test_a_start_that_fails_says_one_clear_line_and_exits_3(make, break_it, says):
    daemon = make("permit(principal, action" if break_it == "policies" else "permit(principal, action, resource);")
    if break_it == "missing":
        daemon.policies.unlink()
    elif break_it == "config":
        daemon.configure("[limits]\nframes = 3\n")
    elif break_it == "notify":
        daemon.configure('[notify]\nfile = "/does/not/exist"\n')
    elif break_it == "directory":
        daemon.socket.parent.write_text("a file")
    assert daemon.start().wait(15) == 3
    text = daemon.log.read_text()
    assert says in text
    assert "Traceback" not in text
    assert len(text.splitlines()) == 1
    assert children(daemon.pid) == []


def children(pid: int) -> list[int]:
    """Processes that this one started and did not end (left behind, if any)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("state", ["idle", "stopped worker", "reloaded"])
def test_sigterm_ends_with_0_and_leaves_no_socket_and_no_process(serve, state):
    daemon = serve(config="")
    workers = daemon.workers()
    assert daemon.permits()
    if state == "stopped worker":
        os.kill(workers[0], signal.SIGSTOP)
    if state == "reloaded":
        daemon.reload()
        workers += daemon.workers()
        assert daemon.permits()
    assert daemon.stop() == 0
    assert not daemon.socket.exists()
    assert [p for p in workers if alive(p)] == []


def test_workers_of_a_killed_daemon_end_by_themselves(serve):
    daemon = serve()
    workers = daemon.workers()
    assert all(map(alive, workers))
    daemon.process.kill()
    until = time.monotonic() + 5
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(alive, workers))


def pass_socket(path: str) -> str:
    """Code that opens a listening socket as descriptor 3 and names a state directory, as systemd does."""
    return (
        "import os, socket; s = socket.socket(socket.AF_UNIX); "
        f"s.bind({path!r}); s.listen(8); os.dup2(s.fileno(), 3); "
        f"os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), STATE_DIRECTORY={path + '.d'!r})"
    )


def test_a_socket_passed_by_systemd_is_served_and_never_removed(make, tmp_path):
    path = tmp_path / "passed.sock"
    daemon = make(before=pass_socket(str(path)))
    daemon.ready()
    daemon.socket = path
    assert daemon.permits()
    assert daemon.stop() == 0
    assert path.exists()
    assert (tmp_path / "passed.sock.d" / "journal").is_dir()


def test_a_passed_descriptor_that_is_no_listening_socket_is_refused(make):
    other = "import os; f = os.open('/dev/null', 0); os.dup2(f, 3); "
    daemon = make(before=other + "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))")
    assert daemon.start().wait(15) == 3
    assert "the listening socket that was passed cannot be used" in daemon.log.read_text()
    two = make(name="two", before="import os; os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()))")
    assert two.start().wait(15) == 3
    assert "pass exactly one" in two.log.read_text()


def test_the_service_manager_hears_ready_watchdog_and_stopping(make, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        daemon = make(env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"})
        daemon.start()
        assert manager.recv(4096).decode().splitlines() == ["READY=1", "STATUS=serving 1 policies"]
        assert daemon.permits()
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        daemon.process.terminate()
        heard = b""
        while heard != b"STOPPING=1":
            heard = manager.recv(4096)
            assert heard in (b"WATCHDOG=1", b"STOPPING=1")
        assert daemon.process.wait(10) == 0


def test_sigterm_answers_what_is_in_flight(serve):
    daemon = serve(config='[limits]\ndeadline = "10s"\n')
    (worker,) = daemon.workers()
    with daemon.client() as c, daemon.client() as other:
        assert c.ask().permit
        os.kill(worker, signal.SIGSTOP)
        c.send(b"".join(check(ask(resource=f"Document::{n}"), n) for n in range(5)))  # together: none is alone
        other.send(check(ask(resource="Document::z"), 1))
        daemon.wait_until_waiting(6)
        daemon.process.terminate()
        daemon.wait_for("draining")
        refused = other.ask(ask(resource="Document::new"))
        assert (refused.permit, refused.fault) == (False, 11)
        assert c.ask().cached
        os.kill(worker, signal.SIGCONT)
        assert all(c.answer().permit for _ in range(5))
        assert other.answer().permit
        with pytest.raises(EOFError):
            c.read()
    assert daemon.process.wait(10) == 0
    assert not daemon.socket.exists()


def test_sigterm_answers_what_was_sent_before_it_also_on_connections_not_accepted_yet(serve):
    daemon = serve()
    with daemon.client() as c:
        assert c.ask().permit
        clients = [daemon.client() for _ in range(16)]
        os.kill(daemon.pid, signal.SIGSTOP)
        late = daemon.client(greet=False)
        late.send(hello(1))
        for n, client in enumerate([*clients, late]):
            client.send(check(ask(), n))
        daemon.process.terminate()
        os.kill(daemon.pid, signal.SIGCONT)
        assert late.read().op == 0x81
        for client in [*clients, late]:
            assert client.answer().permit
            with pytest.raises(EOFError):
                client.read()
            client.socket.close()
    assert daemon.process.wait(10) == 0


def test_sigterm_answers_what_the_kernel_still_holds_of_a_peer_that_reads_late(serve):
    daemon, one = serve(), check(ask(), 7)
    with daemon.client() as c:
        assert c.ask().permit
        c.socket.settimeout(0.5)
        sent, data = 0, one * 100
        try:
            while True:
                sent += c.socket.send(data[sent % len(one) :])
        except TimeoutError:
            pass
        daemon.process.terminate()
        daemon.wait_for("draining")
        c.socket.settimeout(10)
        assert all(c.answer().permit for _ in range(sent // len(one)))
        with pytest.raises(EOFError):
            c.read()
    assert daemon.process.wait(10) == 0


def test_sigterm_ends_a_daemon_that_still_loads(make):
    many = "".join(f'@id("p{n}")\npermit(principal == User::"u{n}", action, resource);\n' for n in range(20_000))
    daemon = make(many)
    daemon.start()
    until = time.monotonic() + 20
    while not children(daemon.pid) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)  # until it waits for its worker; that takes over a second
    daemon.process.terminate()
    assert daemon.process.wait(10) == 0
    assert not daemon.events("ready")
    assert daemon.events("stopped before the policies were loaded")


@pytest.mark.parametrize("stalled", [True, False])
def test_a_log_that_nobody_reads_stops_neither_answers_nor_the_end(make, stalled):
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    daemon = make(stderr=theirs)
    with open(ours, "rb", buffering=0) as log:
        daemon.start()
        os.close(theirs)
        started = log.read(65536)
        assert b'"event": "ready"' in started
        with daemon.client() as c:
            for n in range(1, 81):
                os.kill(daemon.pid, signal.SIGHUP)
                until = time.monotonic() + 10
                while c.stats()["reloads"] < n and time.monotonic() < until:
                    time.sleep(0.005)
            assert c.stats()["reloads"] == 80
            assert c.ask().permit
        told = b""
        if not stalled:
            told = log.read(65536)
            assert b'"event": "reloaded"' in told
        assert daemon.stop() == 0
