"""A process that takes access away all the time: `race_revoker.py SOCKET OUT SEED PAUSE_MS BLOCKED...`.

It revokes by subject, resource, chain member, role, folder, policy, tag, several at once, and everything; it blocks and
lifts the subjects named (no other process blocks these). Only what was acknowledged is written down; a call that raised
may or may not have had its effect, and proves nothing. It stops when its standard input ends.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import time
from pathlib import Path
from typing import Any

from pepclient.client import Client
from race_world import REVOKED

from pepcore.errors import Fault

now = time.monotonic_ns


class Revoker:
    def __init__(self, socket: str, out: str, seed: int, pause_ms: float, blocked: list[str]) -> None:
        self.client = Client(socket, deadline=1.0)
        self.out = open(out, "w")  # noqa: SIM115
        self.rng = random.Random(seed)
        self.pause, self.blocked = pause_ms / 1e3, blocked
        self.lost = 0

    def run(self) -> None:
        while not self.wait(self.rng.random() * 2 * self.pause):
            try:
                if self.blocked and self.rng.random() < 0.2:
                    self.block()
                else:
                    self.revoke()
            except Fault:
                self.lost += 1
                time.sleep(0.01)
        self.out.close()
        Path(self.out.name + ".counts").write_text(json.dumps({"not acknowledged": self.lost}))

    def wait(self, seconds: float) -> bool:
        """Whether it is over."""
        return bool(select.select([0], [], [], seconds)[0]) and not os.read(0, 64)

    def revoke(self) -> None:
        choice, start = self.rng.random(), 0
        tags = self.rng.sample(REVOKED, 1 if choice < 0.85 else 3)
        what: dict[str, Any] = {"tag": tags}
        if choice < 0.02:
            tags, what = [], {"all": True}
        elif "::" in tags[0] and choice < 0.5:
            tags = tags[:1]
            what = {self.rng.choice(("subject", "resource")): tags[0]}
        start = now()
        told = self.client.revoke(**what)
        self.write("revoke", tags, start, now(), told)

    def block(self) -> None:
        tag = self.rng.choice(self.blocked)
        start = now()
        told = self.client.block(tag, reason="race")
        ack = now()
        self.wait(self.rng.random() * 0.03)
        lifted = now()
        self.write("block", [tag], start, ack, told, lifted)
        while True:
            start = now()
            try:
                told = self.client.unblock(tag)
            except Fault:  # it is not lifted for good before somebody says so
                time.sleep(0.01)
                continue
            self.write("unblock", [tag], start, now(), told)
            return

    def write(self, what: str, tags: list[str], start: int, ack: int, told: Any, lifted: int = 0) -> None:
        line = {"what": what, "tags": tags, "start": start, "ack": ack, "lifted": lifted}
        self.out.write(json.dumps({**line, "boot": told.boot, "revision": told.revision}) + "\n")
        self.out.flush()


if __name__ == "__main__":
    Revoker(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:]).run()
