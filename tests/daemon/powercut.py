"""What would be on the disk of a daemon's journal if the power went: kept beside it, for a test to judge by.

Promises: only what a sync that succeeded had covered is in it; what a failed one covered is lost for good, though the
file still shows it, as Linux does it (ATC '20); a name is in it once its folder was synced.
Never: asks the product what it believes to be on disk.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

KEEPS = """
import os as _os
import msgspec as _msgspec
from pepcore.audit.disk import Disk as _Disk
_kept = _os.open({path!r}, _os.O_WRONLY | _os.O_APPEND | _os.O_CREAT | _os.O_CLOEXEC, 0o600)
_dirty = {{}}
def _keep(*what):
    body = _msgspec.msgpack.encode(what)
    body = len(body).to_bytes(4, "little") + body
    while body:
        body = body[_os.write(_kept, body) :]
def _create(self, path, original=_Disk.create):
    file = original(self, path)
    number = _os.fstat(file).st_ino
    _dirty.pop(number, None)
    _keep("new", number)
    return file
def _write(self, file, data, offset, original=_Disk.write):
    _dirty.setdefault(_os.fstat(file).st_ino, []).append((offset, len(data)))  # some of it may come through
    original(self, file, data, offset)
def _sync(self, file, original=_Disk.sync):
    number = _os.fstat(file).st_ino
    covered = _dirty.pop(number, [])
    original(self, file)
    _keep("synced", number, _os.fstat(file).st_size, [(at, _os.pread(file, size, at)) for at, size in covered])
def _sync_folder(self, path, original=_Disk.sync_folder):
    original(self, path)
    _keep("named", [(each.name, each.inode()) for each in _os.scandir(path)])
_Disk.create, _Disk.write, _Disk.sync, _Disk.sync_folder = _create, _write, _sync, _sync_folder
"""
"""Code for the daemon. It changes nothing that the daemon does, and nothing of it is open to the faults of `pwrite`."""


def keeps(path: Path) -> str:
    """Code for a daemon that writes down at `path` what its disk has."""
    return KEEPS.format(path=str(path))


def restore(kept: Path, journal: Path, into: Path) -> Path:
    """A folder as the disk would have it: what was written down at `kept`, of the files that `journal` still has."""
    files: dict[int, bytearray] = {}
    names: dict[str, int] = {}
    data = kept.read_bytes()
    while data:
        size = int.from_bytes(data[:4], "little")
        what, data = msgspec.msgpack.decode(data[4 : 4 + size]), data[4 + size :]
        if what[0] == "new":
            files[what[1]] = bytearray()
        elif what[0] == "named":
            names = dict(what[1])
        else:
            file = files[what[1]]
            del file[what[2] :]
            file.extend(bytes(what[2] - len(file)))
            for at, written in what[3]:
                file[at : at + len(written)] = written
    into.mkdir()
    for each in journal.iterdir():
        if names.get(each.name) == each.stat().st_ino and each.stat().st_ino in files:
            (into / each.name).write_bytes(files[each.stat().st_ino])
    return into
