"""Key files: 32 random bytes, made on first use.

Promises: a key is made once, whole and with mode 0600, or not at all (it is linked into place, and whoever comes
second takes the first one's); a file that others can read, that is no regular file or that has another length is
refused with its path and what to do.
Never: writes over a key; keeps one in the journal's folder, where whoever copies the record would copy it, too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from ..errors import ConfigError

LENGTH = 32


def load_or_make(path: Path, journal: Path | None = None) -> bytes:
    """The key in this file, made if there is none. Raises ConfigError."""
    if journal is not None and path.resolve().is_relative_to(journal.resolve()):
        raise ConfigError(f"key `{path}` is in the journal's folder: keep it outside of `{journal}`")
    try:
        with contextlib.suppress(FileNotFoundError):
            return load(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(path)
    except OSError as error:
        raise ConfigError(f"key `{path}` cannot be made: {error.strerror}") from None
    return load(path)


def load(path: Path) -> bytes:
    """The key in this file. Raises FileNotFoundError, ConfigError."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"key `{path}` cannot be read: {error.strerror}") from None
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(f"key `{path}` is not a regular file")
        if about.st_mode & 0o077:
            raise ConfigError(f"key `{path}` can be used by others (mode {about.st_mode & 0o777:o}): chmod 600 it")
        if about.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"key `{path}` belongs to user {about.st_uid}: it must be your own or root's")
        key = os.read(file, LENGTH + 1)
    finally:
        os.close(file)
    if len(key) != LENGTH:
        raise ConfigError(f"key `{path}` has {len(key)} bytes and not {LENGTH}: put the right file there")
    return key


def _make(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(file, secrets.token_bytes(LENGTH))
            os.fsync(file)
        finally:
            os.close(file)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # as O_EXCL, but never half a key
    finally:
        os.unlink(draft)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
