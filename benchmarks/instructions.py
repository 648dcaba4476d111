"""Instructions that recording adds to a cached hit, counted by callgrind: `python -m benchmarks.instructions`.

Promises: the same hits with the count on and off, N and 2 N of them, in one process; what is told is the difference of
the differences, so that start, loop and interpreter cancel out; `first` is the first hit of an entry since it was
harvested, the dearest one. Clocks do not matter here: a slow machine has the same figures.
Never: counts what no hit waits for: the harvest, once a second, and the entry that is made of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from . import corpus
from .inprocess import WORDS

HITS = 64
"""Of different entries, in one round."""
ROUNDS = 400
MOST = 400
"""What recording may cost a hit, by the issue."""
HEADER = "valgrind/callgrind.h"
HELPER = f"""
#include <{HEADER}>
void begin(void) {{ CALLGRIND_START_INSTRUMENTATION; }}
void toggle(void) {{ CALLGRIND_TOGGLE_COLLECT; }}
void dump(const char* name) {{ CALLGRIND_DUMP_STATS_AT(name); }}
"""
Hits = tuple[Callable[[], object], Callable[[], object]]
"""A round of hits, and the harvest."""


def missing() -> str:
    """Why nothing can be counted here; "": it can."""
    if shutil.which("valgrind") is None or shutil.which("cc") is None:
        return "missing program: valgrind and cc (Debian: valgrind, gcc)"
    found = subprocess.run(["cc", "-E", "-"], input=f"#include <{HEADER}>\n", capture_output=True, text=True)
    return "" if found.returncode == 0 else f"missing header: {HEADER} (Debian: valgrind)"


def daemon_hits(counting: bool) -> Hits:
    """Pipelined frames through the daemon's gate."""
    from pepcore.core.cache import Cache
    from pepcore.core.gate import Gate, Stream
    from pepcore.core.page import Page

    page, cache = Page(1), Cache(slots=1024, slab=1 << 20, seed=1)
    gate, stream = Gate(cache, page, lambda stream, local, body: (1, b"\x80")), Stream()
    gate.feed(stream, corpus.hello_frame(), 1, 1)
    keys = list(corpus.distinct(corpus.corpus(10, 10), HITS))
    for number, key in enumerate(keys):
        assert cache.put(1, 1, key, b"", permit=True, id=number, expires=1 << 60, revision=0, now=1, page=page)
    if counting:
        cache.count_from(1)
    frames = b"".join(map(corpus.check_frame, keys))
    assert len(gate.feed(stream, frames, 1, 1) or b"") == HITS * (corpus.HEADER + 40), "all of them hit"
    return lambda: gate.feed(stream, frames, 1, 1), lambda: cache.harvest(1)


def client_hits(counting: bool) -> Hits:
    """Checks of a Python client that keeps answers, under a daemon's counts."""
    from pepcore.core.counts import COUNTS_BYTES, Counts
    from pepcore.core.local import Local
    from pepcore.core.page import Page
    from pepcore.core.verdict import Verdict, settle

    page, subject, action, until = Page(1), *WORDS[:2], 1 << 62
    resources = [f"Document::{number}" for number in range(HITS)]

    def miss(*question: object) -> Verdict:
        return settle(True, "", (), (), (), number=1, boot=1, expires_ns=until, kept_ns=until, stamps=b"\x07\0")

    table, counts = Local(page, miss), Counts(mmap.mmap(-1, COUNTS_BYTES), 1, made=True)
    table.renew(page, counts if counting else None)
    check = table.check

    def hits() -> None:
        for resource in resources:
            check(subject, action, resource)

    hits()
    hits()
    assert table.usage()["hits"] == HITS
    return hits, counts.harvest


KINDS: dict[str, Callable[[bool], Hits]] = {"daemon": daemon_hits, "client": client_hits}


def inside(library: str) -> None:
    """The process that callgrind looks at."""
    valgrind = ctypes.CDLL(library)
    begin, toggle, dump = valgrind.begin, valgrind.toggle, valgrind.dump
    begin()
    for kind, make in KINDS.items():
        for counting in (False, True):
            hits, harvest = make(counting)
            for which in ("first", "later"):
                for rounds in (ROUNDS, 2 * ROUNDS):
                    dump(b"nothing")
                    for _ in range(rounds):
                        if which == "first":
                            harvest()
                        toggle()
                        hits()
                        toggle()
                    dump(f"{kind} {which} {counting} {rounds}".encode())


def measure(before: str = "") -> dict[tuple[str, str], float]:
    """Instructions that counting adds to a hit, by kind and by whether it is the first of its entry. `before` is code
    that runs in that process ahead of it."""
    with tempfile.TemporaryDirectory(prefix="pepcore-callgrind-") as name:
        folder = Path(name)
        (folder / "helper.c").write_text(HELPER)
        library = folder / "helper.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, folder / "helper.c"], check=True)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no"]
        code = f"{before}\nfrom benchmarks.instructions import inside; inside({str(library)!r})"
        command += [f"--callgrind-out-file={folder}/out", sys.executable, "-c", code]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        found = dict(totals(folder))
    added = {}
    for kind in KINDS:
        for which in ("first", "later"):
            off, on = (
                found[f"{kind} {which} {counting} {2 * ROUNDS}"] - found[f"{kind} {which} {counting} {ROUNDS}"]
                for counting in (False, True)
            )
            assert off > ROUNDS * HITS * 50, "a hit takes more than that: nothing was counted"
            added[kind, which] = (on - off) / (ROUNDS * HITS)
    return added


def totals(folder: Path) -> Iterator[tuple[str, int]]:
    """What was dumped, by the name that it was given."""
    for file in folder.glob("out.*"):
        text = file.read_text()
        name, total = re.search(r"Client Request: (.+)$", text, re.M), re.search(r"^totals: ([0-9]+)", text, re.M)
        if name and total:
            yield name[1], int(total[1])


def main() -> None:
    if why := missing():
        sys.exit(why)
    for (kind, which), added in measure().items():
        print(f"{kind}: the {which} hit of an entry: {added:.1f} instructions more")


if __name__ == "__main__":
    main()
