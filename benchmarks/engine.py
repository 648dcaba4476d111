"""Bare `cedarpy`: called in a loop, and called by a process that a request wakes, without pepcore in it.

    python -m benchmarks.engine --socket PATH --request R --reply S

Promises: the same policies, entities and requests as a miss, in the form that is fastest for the engine.
Never: validates a request, or says what was decided: it sends S bytes for every R bytes, as the echoes do.
"""

from __future__ import annotations

import argparse
import json
import socket
import time

import cedarpy

from . import corpus
from .rounds import Figures, spread


class Bare:
    """`cedarpy.is_authorized` on a policy set, handles parsed before."""

    def __init__(self, of: corpus.Corpus) -> None:
        self.policies = cedarpy.PolicySet.from_str("\n".join(of.statements))
        self.entities = cedarpy.Entities.from_json_str(json.dumps(of.entities))
        self.requests = [
            {
                "principal": {"type": s[0], "id": s[1]},
                "action": {"type": "Action", "id": a},
                "resource": {"type": r[0], "id": r[1]},
                "context": json.dumps({"request": corpus.NONCE}),
            }
            for s, a, r in of.asked
        ]

    def call(self, i: int) -> bool:
        allowed: bool = cedarpy.is_authorized(
            self.requests[i % len(self.requests)], self.policies, self.entities
        ).allowed
        return allowed

    def run(self, seconds: float) -> Figures:
        took, until, i = [], time.perf_counter() + seconds, 0
        while time.perf_counter() < until:
            began = time.perf_counter_ns()
            self.call(i)
            took.append(time.perf_counter_ns() - began)
            i += 1
        return {"p50": spread(took).median, "n": len(took)}


def serve(path: str, request: int, reply: int) -> None:
    """Answer one connection after the other, each request with one call."""
    bare, answer, i = Bare(corpus.corpus(10, 10)), bytes(reply), 0
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            with connection:
                while connection.recv(request, socket.MSG_WAITALL):
                    bare.call(i)
                    i += 1
                    connection.sendall(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--request", type=int, required=True)
    parser.add_argument("--reply", type=int, required=True)
    options = parser.parse_args()
    serve(options.socket, options.request, options.reply)


if __name__ == "__main__":
    main()
