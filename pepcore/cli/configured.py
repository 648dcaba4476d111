"""The configuration of a daemon, as its flags, the environment and its file make it together.

Promises: `serve` and whatever looks for what a daemon keeps read it in one way: a flag goes before the environment,
that before the file; relative paths in flags count from where the command was started, in the file from its folder.
Never: guesses a file that nobody named.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .parser import Usage

if TYPE_CHECKING:
    from ..config import Config


def config_of(options: argparse.Namespace, command: str) -> Config:
    """What `--config` and `--socket` name, read anew. Raises Usage, ConfigError."""
    import msgspec

    from ..config import Config, load

    for name in ("config", "socket"):
        if getattr(options, name) == "":
            raise Usage(command, f"--{name} is empty: name a path")
    file = options.config or os.environ.get("PEPCORE_CONFIG", "")
    config = load(file) if file else Config()
    socket = options.socket or os.environ.get("PEPCORE_SOCKET", "") or config.daemon.socket
    daemon = msgspec.structs.replace(config.daemon, socket=str(Path(socket).absolute()) if socket else "")
    return msgspec.structs.replace(config, daemon=daemon)
