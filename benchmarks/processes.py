"""The processes of a benchmark: C programs built on the spot, servers started and ended, the load generator.

Promises: everything lives in one temporary folder and ends with it; a server is used only after it answered; a run
of the generator in which an answer was a fault or an error is refused, since its figure would mean something else.
Never: pins a process (a daemon's workers inherit its cores: pinned to one they would compete with their daemon).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import corpus

HERE = Path(__file__).resolve().parent
OTHER_UID = 12345
_SERVE = (
    "import sys; from pepcore.config import load; from pepcore.server.run import run; sys.exit(run(load(sys.argv[1])))"
)


class BenchError(Exception):
    """A benchmark cannot go on; the message says why."""


class Server:
    """A process that listens on a Unix socket."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], path: Path, ready_s: float, sizes: list[str]
    ) -> None:
        """`sizes`: what the generator must be told about an echo."""
        self.name, self.process, self.path, self.ready_s, self.sizes = name, process, path, ready_s, sizes

    def status(self, field: str) -> int:
        """A field in KiB of /proc/PID/status."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise BenchError(f"no {field} for process {self.process.pid}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Stage:
    """The temporary folder, the compiled programs and the servers of one run."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pepcore-bench."))
        self.folder.chmod(0o755)  # the flood comes from another uid
        self.servers: list[Server] = []
        self._numbers = itertools.count(1)
        self.load_path = self._build("load")
        self.echo_path = self._build("echo")

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _build(self, name: str) -> Path:
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
        if not compiler:
            raise BenchError("no C compiler: install gcc, or set CC")
        out = self.folder / name
        command = [compiler, "-O2", "-o", str(out), str(HERE / f"{name}.c")]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise BenchError(f"`{' '.join(command)}` failed: {built.stderr.strip()}")
        return out

    def _start(self, name: str, command: list[str], path: Path, sizes: list[str], folder: Path | None = None) -> Server:
        log = (self.folder / f"{path.parent.name}-{name}.log").open("wb")
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)
        log.close()
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                break
            if process.poll() is not None or time.perf_counter() - began > 60:
                process.kill()
                raise BenchError(f"{name} did not start: {Path(log.name).read_text()[-2000:]}")
            time.sleep(0.001)
        server = Server(name, process, path, time.perf_counter() - began, sizes)
        self.servers.append(server)
        return server

    def _place(self, name: str) -> Path:
        folder = self.folder / f"{name}.{next(self._numbers)}"
        folder.mkdir()
        return folder / "s"

    def echo(self, request: int, reply: int) -> Server:
        """The bare C echo."""
        path = self._place("echo")
        sizes = ["--request", str(request), "--reply", str(reply)]
        return self._start("C echo", [str(self.echo_path), "--socket", str(path), *sizes], path, sizes)

    def echo_uvloop(self, request: int, reply: int) -> Server:
        path = self._place("uvloop")
        sizes = ["--request", str(request), "--reply", str(reply)]
        program = str(HERE / "echo_uvloop.py")
        return self._start("uvloop echo", [sys.executable, program, "--socket", str(path), *sizes], path, sizes)

    def engine(self, request: int, reply: int) -> Server:
        """Bare cedarpy, woken by each request."""
        path = self._place("engine")
        sizes = ["--request", str(request), "--reply", str(reply)]
        command = [sys.executable, "-m", "benchmarks.engine", "--socket", str(path), *sizes]
        return self._start("engine", command, path, sizes, HERE.parent)

    def daemon(self, of: corpus.Corpus, cache: dict[str, Any] | None = None, record: str = "buffered") -> Server:
        """A pepcore daemon with this policy set, with a patient deadline, permits kept for the whole run."""
        path = self._place("daemon")
        of.write(path.parent)
        keep = {"permit": "1h", **(cache or {})}
        lines = [
            f'[daemon]\nsocket = "{path}"\nwatch = false',
            f'[policies]\npolicies = "{path.parent / "policies.cedar"}"\nentities = "{path.parent / "entities.json"}"',
            '[limits]\ndeadline = "1s"',  # a busy machine shows as latency, not as a refused run
            "[cache]",
            *(f"{k} = {json.dumps(v)}" for k, v in keep.items()),
            f'[record]\nkeep = "{record}"',
        ]
        config = path.parent / "pepcore.toml"
        config.write_text("\n".join(lines) + "\n")
        server = self._start("daemon", [sys.executable, "-c", _SERVE, str(config)], path, [])
        path.parent.chmod(0o755)
        path.chmod(0o666)
        return server

    def daemon_of(self, policies: str) -> Server:
        """A pepcore daemon with these policies and nothing else in its config."""
        path = self._place("daemon")
        (path.parent / "p.cedar").write_text(policies)
        config = path.parent / "pepcore.toml"
        config.write_text(f'[policies]\npolicies = "p.cedar"\n[daemon]\nsocket = "{path}"\nwatch = false\n')
        return self._start("daemon", [sys.executable, "-c", _SERVE, str(config)], path, [])

    def stop(self, server: Server) -> None:
        server.stop()
        self.servers.remove(server)

    # ---- load ----

    def command(self, server: Server, *options: object, keys: Path | None = None, other_uid: bool = False) -> list[str]:
        who = ["setpriv", f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups"] if other_uid else []
        mode = ["check", "--keys", str(keys)] if keys else ["echo", *server.sizes]
        return [*who, str(self.load_path), "--socket", str(server.path), "--mode", *mode, *map(str, options)]

    def load(self, server: Server, *options: object, keys: Path | None = None) -> dict[str, float]:
        """Run the generator; its JSON line. Refuses a run with faults or errors."""
        done = subprocess.run(self.command(server, *options, keys=keys), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"load against {server.name} failed: {done.stderr.strip()}")
        said: dict[str, float] = json.loads(done.stdout)
        if said["faults"] or said["errors"] or said["denies"]:
            raise BenchError(f"{server.name} did not permit everything: {done.stdout.strip()}")
        return said

    @contextlib.contextmanager
    def beside(self, command: list[str]) -> Iterator[dict[str, float]]:
        """Run a generator meanwhile; its own figures are in the dict afterwards. It is ended by its --duration."""
        said: dict[str, float] = {}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yield said
        finally:
            out, err = process.communicate(timeout=60)
        if process.returncode:
            raise BenchError(f"the load beside failed: {err.decode().strip()}")
        said.update(json.loads(out))


def ask_once(path: Path, body: bytes) -> bytes:
    """One hello and one check: the reply to the check, whole."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(str(path))
        s.sendall(corpus.hello_frame() + corpus.check_frame(body))
        stream = s.makefile("rb")
        for _ in range(2):
            head = stream.read(corpus.HEADER)
            if len(head) < corpus.HEADER:
                raise BenchError("the daemon closed the connection")
            reply = head + stream.read(struct.unpack_from("<I", head)[0])
    if reply[9] != 0x82 or reply[corpus.HEADER] != 1:
        raise BenchError(f"the daemon does not permit the benchmark's question: {reply!r}")
    return reply


def can_be_another() -> bool:
    return os.geteuid() == 0 and shutil.which("setpriv") is not None
