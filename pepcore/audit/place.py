"""Where the record is kept if nobody says so, and where its keys are: beside it, never in it."""

from __future__ import annotations

import os
from pathlib import Path


def state() -> Path:
    """systemd's state directory, /var/lib for root, else the user's own."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/pepcore")
    own = os.environ.get("XDG_STATE_HOME", "")
    return (Path(own) if own else Path.home() / ".local" / "state") / "pepcore"


def journal() -> Path:
    return state() / "journal"


def signing_key() -> Path:
    return state() / "keys" / "heads.key"


def digest_key() -> Path:
    return state() / "keys" / "digests.key"
