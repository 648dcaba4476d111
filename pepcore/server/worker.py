"""A worker process: evaluates misses, one after the other, and nothing else (D11).

Promises: answers every question it was given, in order, with a decision or a fault; ends when the daemon's end of the
socket pair closes. Never: caches, stamps, talks to a peer, keeps a question.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time

from ..core.obligation import check
from ..errors import ConfigError, PolicyError
from ..model import Decision
from ..pdp.cedar import Cedar
from ..pdp.cedar_explain import explain
from ..pdp.cedar_source import build
from ..settlement import read_question
from .messages import Answer, Ask, Explained, Frames, Load, Loaded, frame, to_worker


def main(number: int) -> None:
    """Serve on the inherited socket with this file number until it closes."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the daemon decides when its workers end
    daemon = socket.socket(fileno=number)
    with contextlib.suppress(ConnectionError):
        serve(daemon)


def serve(daemon: socket.socket) -> None:
    frames = Frames()
    cedar: Cedar | None = None
    while data := daemon.recv(262_144):
        for body in frames.feed(data):
            message = to_worker.decode(body)
            if isinstance(message, Load):
                cedar, loaded = load(message)
                daemon.sendall(frame(loaded))
            else:
                daemon.sendall(frame(answer(cedar, message)))


def load(message: Load) -> tuple[Cedar | None, Loaded]:
    started = time.perf_counter()
    try:
        cedar = build(message.source, check)
    except PolicyError as error:
        return None, Loaded(0.0, file=error.file, line=error.line, error=error.reason)
    except ConfigError as error:
        return None, Loaded(0.0, error=str(error))
    except Exception as error:
        return None, Loaded(0.0, error=f"the policies cannot be built: {type(error).__name__}: {error}")
    ms = (time.perf_counter() - started) * 1e3
    return cedar, Loaded(ms, len(cedar.policies), len(cedar.store.entities))


def answer(cedar: Cedar | None, ask: Ask) -> Answer | Explained:
    if cedar is None:
        return Answer(ask.number, Decision(False, "this worker has no policies"))
    began = time.process_time_ns()
    try:
        question = read_question(ask.question)
        said = explain(cedar, question, ask.wall_ms) if ask.explain else cedar.decide([question], ask.wall_ms)[0]
    except Exception as error:  # a defect of the engine denies this question and no other
        said = Decision(False, f"the PDP raised {type(error).__name__}")
    took_ns = time.process_time_ns() - began
    return Answer(ask.number, said, took_ns) if isinstance(said, Decision) else Explained(ask.number, said, took_ns)


if __name__ == "__main__":
    main(int(sys.argv[1]))
