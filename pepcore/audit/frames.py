"""One entry on disk: u32 word, u32 CRC-32 of word and body, body; all big endian.

Promises: the word's low 31 bits are the body's length, tested against the limit before anything is read; its top bit
says that everything before this entry was on disk when it was written, so that after a crash a hole in what was
acknowledged is told from a torn write; the leaf of the tree is made of word and body, so no bit of a frame is free.
Never: guesses where the next entry begins, except to tell those two apart.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import sha256
from zlib import crc32

LONGEST = 0xFFFF
"""Bytes of a body."""
SYNCED = 1 << 31
HEAD = 8
_words = struct.Struct(">II")
_word = struct.Struct(">I")


class Broken(Exception):
    """No whole entry stands at this offset. `short`: what is there may be the beginning of one."""

    def __init__(self, offset: int, reason: str, short: bool = False) -> None:
        self.offset, self.reason, self.short = offset, reason, short
        super().__init__(f"at byte {offset}: {reason}")


def frame(body: bytes, synced: bool = False) -> bytes:
    """Raises ValueError for a body that no frame holds."""
    if not 0 < len(body) <= LONGEST:
        raise ValueError(f"an entry of {len(body)} bytes does not fit: at most {LONGEST}")
    word = _word.pack(len(body) | SYNCED if synced else len(body))
    return b"".join((word, _word.pack(crc32(body, crc32(word))), body))


def leaf(framed: bytes) -> bytes:
    """The hash of a whole frame's leaf."""
    return sha256(b"".join((b"\x00", framed[:4], framed[HEAD:]))).digest()


def end(data: bytes, offset: int) -> int:
    """Where the frame ends that begins here. Raises Broken."""
    if len(data) - offset < HEAD:
        raise Broken(offset, f"{len(data) - offset} bytes are no entry: it ends within its first {HEAD}", True)
    word, check = _words.unpack_from(data, offset)
    length = word & ~SYNCED
    if not 0 < length <= LONGEST:
        raise Broken(offset, f"the length `{length}` is not 1 to {LONGEST}")
    stop = int(offset + HEAD + length)
    if stop > len(data):
        raise Broken(offset, f"an entry of {length} bytes ends {stop - len(data)} bytes behind the file", True)
    if crc32(data[offset + HEAD : stop], crc32(data[offset : offset + 4])) != check:
        raise Broken(offset, "the checksum is wrong")
    return stop


def frames(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of each frame from this offset on. Raises Broken at the first that is none."""
    while offset < len(data):
        stop = end(data, offset)
        yield offset, stop
        offset = stop


def synced_behind(data: bytes, offset: int) -> int:
    """Where a whole frame stands, behind this broken place, that was written after this place was on disk; -1: none."""
    top = _word.pack(SYNCED)[:2]  # a length has 16 bits
    at = data.find(top, offset + 1)
    while at >= 0:
        try:
            end(data, at)
        except Broken:
            at = data.find(top, at + 1)
        else:
            return at
    return -1
