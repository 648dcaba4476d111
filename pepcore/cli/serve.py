"""`pepcore serve`: run the daemon, from flags alone or from a config file.

Promises: flags override the config; relative paths in flags count from where the command was started; a config or
path that cannot be used ends it before anything listens. Never: goes to the background; systemd or the shell do that.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from . import configured
from .parser import Parser, Usage
from .policies import existing

if TYPE_CHECKING:
    from ..config import Config

SAMPLE = Path(__file__).parents[1] / "server" / "units" / "pepcore.toml"

ABOUT = f"""Decides questions on a Unix socket until it is told to stop. SIGTERM and Ctrl-C drain and stop, SIGHUP
or a change of a policy, entity or schema file reloads; a set that does not load keeps the old one.
Without --socket it listens in $XDG_RUNTIME_DIR/pepcore, or in /run/pepcore as root. --json logs JSON
lines also on a terminal. Every key of a config, with its default and what it does, is in the sample that
lies beside the systemd units:
{SAMPLE}"""

EXAMPLES = """  pepcore serve --policies ./policies --entities entities.json
  pepcore serve --policies acl.cedar --schema company.cedarschema --socket /tmp/pep.sock
  pepcore serve --policies ./policies --shadow-policies ./policies.new
  pepcore serve --config /etc/pepcore/pepcore.toml"""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore serve [--policies PATH] [options]"
    parser.add_argument("--policies", metavar="PATH", help="a file, or a folder of *.cedar files")
    parser.add_argument("--entities", metavar="FILE", help="the entity store, in Cedar's JSON form")
    parser.add_argument("--schema", metavar="FILE", help="the schema, in Cedar's syntax or as JSON")
    parser.add_argument("--shadow-policies", metavar="PATH", help="a candidate: what it decides otherwise is recorded")
    parser.add_argument("--socket", metavar="PATH", help="where to listen (default: PEPCORE_SOCKET, then the config, "
                        "then the run directory)")  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="a pepcore.toml (default: PEPCORE_CONFIG)")
    parser.add_argument("--takeover", action="store_true", help="take over from the daemon that runs now, losing no "
                        "request")  # fmt: skip
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    config = config_of(options)
    if options.json:
        sys.stderr = _NoTerminal(sys.stderr.buffer, encoding="utf-8", line_buffering=True)
    from ..server.run import run as serve

    return serve(config, lambda: _reread(options), options.takeover)


def _reread(options: argparse.Namespace) -> Config:
    """The configuration as it is now. Raises ConfigError: the daemon then keeps the one it has."""
    try:
        return config_of(options)
    except Usage as error:
        raise ConfigError(str(error)) from None


def config_of(options: argparse.Namespace) -> Config:
    """The configuration that file, environment and flags make together, read anew. Raises Usage or ConfigError."""
    import msgspec

    from ..config import validate

    config = configured.config_of(options, "serve")
    given: dict[str, str] = {}
    for name in ("policies", "entities", "schema"):
        value = getattr(options, name)
        if value is not None:
            given[name] = str(existing(value, f"--{name}", "serve").resolve())
    policies = msgspec.structs.replace(config.policies, **given)
    if not policies.policies:
        raise Usage("serve", "there are no policies: pass `--policies PATH`, or a config that names them")
    shadow = config.shadow
    if options.shadow_policies is not None:
        candidate = existing(options.shadow_policies, "--shadow-policies", "serve").resolve()
        shadow = msgspec.structs.replace(shadow, policies=str(candidate))
    return validate(msgspec.structs.replace(config, policies=policies, shadow=shadow))


class _NoTerminal(io.TextIOWrapper):
    """Standard error as one that is not a terminal, to which the daemon logs JSON lines."""

    def isatty(self) -> bool:
        return False
