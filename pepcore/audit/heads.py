"""Signed heads of the tree: what somebody keeps elsewhere, to find any change of the record before it.

A head is one JSON line: journal, number, size, root, time, the signing key's id and public half, the Ed25519
signature. It goes into `heads.jsonl` in the journal's folder, and to syslog where that is wanted. The key's id is the
hash of its public half.

Rotation: `rotate` (or `mv key key.previous`, and start again) leaves the old key beside the new one. The first head of
a new key is signed by the old one as well; whoever trusts the old id thereby learns the new one, and `key.previous`
can be deleted. A new key without that signature is a finding of `verify`.
Never: signs an entry that is not on disk; imports the cryptography before the first signature is due.
"""

from __future__ import annotations

import contextlib
import os
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ..errors import ConfigError
from .disk import Disk
from .keys import load, load_or_make
from .lines import Lines, as_line

Hex = Annotated[str, Meta(pattern=r"\A[0-9a-f]*\Z", max_length=128)]
Whole = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Head(Struct, frozen=True, omit_defaults=True):
    journal: Hex
    number: Whole
    size: Whole
    root: Hex
    wall_ns: Whole
    key: Hex
    public: Hex
    signature: Hex = ""
    previous: Hex = ""
    """Public half of the key before, where this is the first head of a new one, and that key's signature."""
    previous_signature: Hex = ""

    def signed(self) -> bytes:
        """What the signatures are over: everything else."""
        bare = msgspec.structs.replace(self, signature="", previous_signature="")
        return b"pepcore signed head 1\n" + msgspec.json.encode(bare)


def heads(folder: Path) -> Lines[Head]:
    return Lines(folder / "heads.jsonl", Head)


def key_id(public: bytes) -> str:
    return sha256(b"pepcore key 1\n" + public).hexdigest()[:32]


def genuine(head: Head) -> bool:
    """Whether its signatures are those of the keys that it names."""
    pairs = [(head.public, head.signature)]
    if head.previous or head.previous_signature:
        pairs.append((head.previous, head.previous_signature))
    return all(_verifies(*pair, head) for pair in pairs)


def _verifies(public: str, signature: str, head: Head) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        if public == head.public and head.key != key_id(bytes.fromhex(public)):
            return False
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), head.signed())
    except (InvalidSignature, ValueError):  # also half a digit
        return False
    return True


class Key:
    """A private key. Made of 32 bytes from a key file."""

    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._private = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._private.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    def sign(self, data: bytes) -> str:
        return self._private.sign(data).hex()


def previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def rotate(path: Path) -> None:
    """Put the key aside; the next head is signed by a new one, and by this one as well. Raises ConfigError."""
    old = previous(path)
    if old.exists():
        raise ConfigError(f"key `{old}` is there from the last rotation: delete it once a head of the new key is out")
    try:
        os.rename(path, old)
    except OSError as error:
        raise ConfigError(f"key `{path}` cannot be put aside: {error.strerror}") from None


class Signer:
    """Signs the heads of one journal, in the order of their numbers."""

    def __init__(self, folder: Path, key: Path, last: Head | None, *, syslog: bool = False) -> None:
        """Raises ConfigError where the key cannot be used."""
        self._file, self._path, self._syslog = heads(folder), key, syslog
        self._secret = load_or_make(key, folder)
        self._key: Key | None = None
        self.last = last

    @property
    def key(self) -> str:
        """The id of the key that signs."""
        self._key = self._key or Key(self._secret)
        return self._key.id

    def sign(self, disk: Disk, journal: bytes, size: int, root: bytes, wall_ns: int) -> Head:
        """Sign, write and sync a head. Raises OSError, and ConfigError where a rotated key is not there."""
        key = self._key = self._key or Key(self._secret)
        last, old = self.last, None
        if last is not None and last.key != key.id:
            with contextlib.suppress(FileNotFoundError):
                old = Key(load(previous(self._path)))
            if old is None or old.id != last.key:
                raise ConfigError(f"key `{self._path}` is new, and `{previous(self._path)}` is not the one before it: "
                                  "put the one before it there")  # fmt: skip
        head = Head(
            journal=journal.hex(),
            number=last.number + 1 if last else 1,
            size=size,
            root=root.hex(),
            wall_ns=wall_ns,
            key=key.id,
            public=key.public.hex(),
            previous=old.public.hex() if old else "",
        )
        data = head.signed()
        head = msgspec.structs.replace(head, signature=key.sign(data), previous_signature=old.sign(data) if old else "")
        self._file.append(disk, head)
        self.last = head
        if self._syslog:
            _tell(head)
        return head


def _tell(head: Head) -> None:
    """To the host's log, which is usually sent elsewhere: whoever changes the record cannot take that back."""
    import syslog

    syslog.openlog("pepcore", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_NOTICE, f"audit head {as_line(head)}")
