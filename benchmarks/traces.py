"""Hit ratio of the cache on public traces, beside LRU and FIFO of as many entries.

Promises: real `Cache.put` and `Cache.get`, the traces of `../shared/vectors/traces` as they are; skipped, and said so,
where they are absent. Never: copies a trace into the project.
"""

from __future__ import annotations

import gzip
import lzma
import struct
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from pepcore.core.cache import Cache
from pepcore.core.page import Page

from .plan import Run
from .results import Table

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "vectors" / "traces"
SHARE = 0.1  # of the different keys of a trace
MOST = 200_000  # accesses of a trace that are used


def read(path: Path) -> Iterator[bytes]:
    opened = lzma.open(path) if path.suffix == ".xz" else gzip.open(path)
    with opened as stream:
        if path.name.endswith(".trace.gz"):
            for line in stream:
                yield line.strip() or b"-"
            return
        size = 4 if path.suffix == ".xz" else 8
        while len(key := stream.read(size)) == size:
            yield b"%d" % struct.unpack(">I" if size == 4 else ">Q", key)


def ours(keys: list[bytes], entries: int) -> float:
    page = Page(1)
    cache, hit = Cache(slots=entries, slab=max(1 << 16, 4 * entries * 64), seed=1, quota=1.0), 0
    for now, key in enumerate(keys, 1):
        if cache.get(1, key, now, page) is not None:
            hit += 1
        else:
            cache.put(1, 1, key, b"", permit=True, id=1, expires=1 << 60, revision=0, now=now, page=page)
    return hit / len(keys)


def ordered(keys: list[bytes], entries: int, touch: bool) -> float:
    """LRU if a hit moves its key to the end, else FIFO."""
    held: OrderedDict[bytes, None] = OrderedDict()
    hit = 0
    for key in keys:
        if key in held:
            hit += 1
            if touch:
                held.move_to_end(key)
        else:
            held[key] = None
            if len(held) > entries:
                held.popitem(last=False)
    return hit / len(keys)


def traces(run: Run) -> None:
    files = sorted(FOLDER.glob("*.?z")) if FOLDER.is_dir() else []
    rows = []
    for file in files if run.plan.rounds > 3 else files[:3]:
        run.bar.step(f"trace {file.name}")
        keys = [key for key, _ in zip(read(file), range(MOST), strict=False)]
        entries = max(64, round(len(set(keys)) * SHARE) // 8 * 8)
        ratios = (ours(keys, entries), ordered(keys, entries, True), ordered(keys, entries, False))
        rows.append([file.name.split(".")[0], f"{len(keys):,}", f"{entries:,}", *(f"{r:.1%}" for r in ratios)])
    note = "" if files else "The traces are not here: skipped."
    columns = ["trace", "accesses", "entries", "pepcore", "LRU", "FIFO"]
    run.found.tables.append(Table("Hit ratio on public traces, a tenth of the keys held", columns, rows, note))
