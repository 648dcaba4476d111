"""Ways to change a record, from a flipped bit to a rewrite that only lacks the key.

Each returns False where it changed nothing. `Rewrite` makes everything fit again that needs no key: checksums, headers
and seals. What it leaves is what only the tree and the signed heads can find.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from pepcore.audit import entries
from pepcore.audit.disk import Disk
from pepcore.audit.frames import HEAD, SYNCED, frame, leaf
from pepcore.audit.heads import heads
from pepcore.audit.segments import Header, Seal, held, numbers, path_of, seals
from pepcore.audit.tree import Frontier, Span
from tests.audit.journals import decision, last_segment, places

Damage = Callable[[Path, random.Random], bool]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "lock" and path.stat().st_size)


def flip(folder: Path, random_: random.Random) -> bool:
    path = random_.choice(files(folder))
    data = bytearray(path.read_bytes())
    data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(data)
    return True


def cut(folder: Path, random_: random.Random) -> bool:
    path = random_.choice(files(folder))
    data = path.read_bytes()
    path.write_bytes(data[: random_.randrange(len(data))])
    return True


def take_out(folder: Path, random_: random.Random) -> bool:
    path = random_.choice(files(folder))
    data = path.read_bytes()
    at, length = random_.randrange(len(data)), random_.randrange(1, 40)
    changed = data[:at] + data[at + length :]
    path.write_bytes(changed)
    return changed != data


def put_in(folder: Path, random_: random.Random) -> bool:
    path = random_.choice(files(folder))
    data = path.read_bytes()
    at = random_.choice([random_.randrange(len(data)), len(data)])
    path.write_bytes(data[:at] + random_.randbytes(random_.randrange(1, 30)) + data[at:])
    return True


def remove(folder: Path, random_: random.Random) -> bool:
    random_.choice(files(folder)).unlink()
    return True


def exchange(folder: Path, random_: random.Random) -> bool:
    one, other = (path_of(folder, number) for number in random_.sample(numbers(folder), 2))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return True


def drop_line(folder: Path, random_: random.Random) -> bool:
    path = random_.choice([heads(folder).path, seals(folder).path])
    lines = path.read_bytes().splitlines(keepends=True)
    lines.pop(random_.randrange(len(lines)))
    path.write_bytes(b"".join(lines))
    return True


def swap_lines(folder: Path, random_: random.Random) -> bool:
    path = random_.choice([heads(folder).path, seals(folder).path])
    lines = path.read_bytes().splitlines(keepends=True)
    one, other = random_.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    path.write_bytes(b"".join(lines))
    return True


def resign(folder: Path, random_: random.Random) -> bool:
    """A head for another root, or of another size, with a signature that is not one."""
    file = heads(folder)
    lines = [head for _, head in file.read()[0]]
    at = random_.randrange(len(lines))
    lines[at] = msgspec.structs.replace(lines[at], wall_ns=lines[at].wall_ns + 1)
    file.path.unlink()
    for head in lines:
        file.append(Disk(), head)
    return True


def trail(folder: Path, random_: random.Random) -> bool:
    """A whole, good entry behind the end of an older segment."""
    path = path_of(folder, random_.choice(numbers(folder)[:-1]))
    path.write_bytes(path.read_bytes() + frame(entries.pack(decision(7777))))
    return True


def forge_header(folder: Path, random_: random.Random) -> bool:
    """A header that fits itself, of a tree that never was."""
    number = random_.choice([n for n in numbers(folder) if n > 1])
    each = held(path_of(folder, number), number)
    peaks = (random_.randbytes(32), *each.header.peaks[1:])
    root = Frontier(each.header.size, peaks).root()
    header = Header(each.header.journal, number, each.header.size, root, peaks)
    each.path.write_bytes(header.framed() + each.path.read_bytes()[each.start :])
    return True


Frames = list[bytes]


def rewrite(folder: Path, change: Callable[[list[Frames]], None]) -> None:
    """Change the frames of each segment, then make checksums, headers and seals fit."""
    all_ = numbers(folder)
    before = [held(path_of(folder, number), number) for number in all_]
    each = [[one.path.read_bytes()[a:b] for a, b in places(one.path)] for one in before]
    change(each)
    file = seals(folder)
    kept = [seal for _, seal in file.read()[0] if seal.segment < all_[0]]
    file.path.unlink(missing_ok=True)
    for seal in kept:
        file.append(Disk(), seal)
    tree = before[0].header.frontier()
    for one, framed in zip(before, each, strict=True):
        header = Header(one.header.journal, one.header.segment, tree.size, tree.root(), tuple(tree.peaks))
        span = Span(tree.size)
        for data in framed:
            tree.append(leaf(data))
            span.append(leaf(data))
        one.path.write_bytes(header.framed() + b"".join(framed))
        if one is not before[-1]:
            file.append(Disk(), Seal(header.segment, header.size, tree.size, tree.root(), tuple(span.parts)))


def _reframed(framed: bytes, body: bytes) -> bytes:
    return frame(body, bool(int.from_bytes(framed[:4], "big") & SYNCED))


def edit_entry(folder: Path, random_: random.Random) -> bool:
    """A deny becomes a permit, or the other way round."""

    def change(each: list[Frames]) -> None:
        segment = random_.choice([one for one in each if one])
        at = random_.randrange(len(segment))
        entry = msgspec.msgpack.decode(segment[at][HEAD:])
        entry["permit"] = not entry.get("permit", False)
        segment[at] = _reframed(segment[at], msgspec.msgpack.encode(entry))

    rewrite(folder, change)
    return True


def flip_synced(folder: Path, random_: random.Random) -> bool:
    """Nothing but the bit that says what was on disk before."""

    def change(each: list[Frames]) -> None:
        segment = random_.choice([one for one in each if one])
        at = random_.randrange(len(segment))
        segment[at] = frame(segment[at][HEAD:], not int.from_bytes(segment[at][:4], "big") & SYNCED)

    rewrite(folder, change)
    return True


def drop_entry(folder: Path, random_: random.Random) -> bool:
    def change(each: list[Frames]) -> None:
        segment = random_.choice([one for one in each if one])
        segment.pop(random_.randrange(len(segment)))

    rewrite(folder, change)
    return True


def add_entry(folder: Path, random_: random.Random) -> bool:
    """Somebody's permit that never was, anywhere but behind the last entry, where it is only a later one."""

    def change(each: list[Frames]) -> None:
        segment = random_.choice([one for one in each if one])
        segment.insert(random_.randrange(len(segment)), frame(entries.pack(decision(7777))))

    rewrite(folder, change)
    return True


def reorder(folder: Path, random_: random.Random) -> bool:
    def change(each: list[Frames]) -> None:
        segment = random_.choice([one for one in each if len(one) > 1])
        at = random_.randrange(len(segment) - 1)
        segment[at], segment[at + 1] = segment[at + 1], segment[at]

    rewrite(folder, change)
    return True


def move(folder: Path, random_: random.Random) -> bool:
    """The end of one segment becomes the beginning of the next: same entries, same tree."""
    plain = [n for n in numbers(folder)[:-1] if len(places(path_of(folder, n))) > 1]
    number = random_.choice(plain)
    path, after = path_of(folder, number), path_of(folder, number + 1)
    start = places(path)[-1][0]
    moved = path.read_bytes()[start:]
    path.write_bytes(path.read_bytes()[:start])
    each = held(after, number + 1)
    after.write_bytes(after.read_bytes()[: each.start] + moved + after.read_bytes()[each.start :])
    return True


def cut_entries(folder: Path, random_: random.Random) -> bool:
    """The newest entries go, and the heads that count them stay."""
    path = last_segment(folder)
    start = random_.choice(places(path))[0]
    path.write_bytes(path.read_bytes()[:start])
    return True


RANDOM: list[Damage] = [flip, cut, take_out, put_in, remove, exchange, drop_line, swap_lines]
CLEVER: list[Damage] = [
    resign,
    trail,
    forge_header,
    edit_entry,
    flip_synced,
    drop_entry,
    add_entry,
    reorder,
    move,
    cut_entries,
]


def cut_with_heads(folder: Path, random_: random.Random) -> bool:
    """The newest entries go, and with them every head that counts them: what is left was once all there was."""
    file = heads(folder)
    signed = [head for _, head in file.read()[0]]
    first = held(path_of(folder, numbers(folder)[0]), numbers(folder)[0]).header.size
    keep = random_.choice([head for head in signed[:-1] if head.size > first])
    file.path.unlink()
    for head in signed[: keep.number]:
        file.append(Disk(), head)
    for number in numbers(folder)[::-1]:
        each = held(path_of(folder, number), number)
        if each.header.size > keep.size:
            each.path.unlink()
            continue
        ends = [each.start, *(stop for _, stop in places(each.path))]
        each.path.write_bytes(each.path.read_bytes()[: ends[keep.size - each.header.size]])
        break
    last = int(last_segment(folder).stem)
    sealed = [seal for _, seal in seals(folder).read()[0] if seal.segment < last]
    seals(folder).path.unlink(missing_ok=True)
    for seal in sealed:
        seals(folder).append(Disk(), seal)
    return True
