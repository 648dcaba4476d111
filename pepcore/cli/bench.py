"""`pepcore bench`: measure this machine against the targets, with the programs in `benchmarks/` of the repository.

Never: measures by itself; it finds the benchmarks, or says what to do where they are not.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from .parser import Parser, Usage

ABOUT = """Builds a C load generator and a bare C echo, starts daemons, and prints what a check costs beside the bare
socket, with the targets that are met and missed. Charts go to benchmarks/out. It needs the repository, a C
compiler, and about ten minutes in which the machine does nothing else."""

EXAMPLES = """  pepcore bench --quick
  pepcore bench --only in-flight miss
  pepcore bench --json > figures.json"""


def configure(parser: Parser) -> None:
    parser.usage = "pepcore bench [options]"
    parser.add_argument("--quick", action="store_true", help="about a minute instead of about ten")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where charts and figures go")
    parser.add_argument("--only", metavar="NAME", nargs="+", default=[], help="some parts only, such as `in-flight`")
    parser.teach(run, ABOUT, EXAMPLES)


def run(options: argparse.Namespace) -> int:
    root = repository()
    if root is None:
        raise Usage("bench", "benchmarks/ is not here: clone the repository and run `pepcore bench` from its root")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    runner = importlib.import_module("benchmarks.run")
    unknown = [name for name in options.only if name not in runner.parts()]
    if unknown:
        raise Usage("bench", f"`{unknown[0]}` is not a part: choose from {', '.join(runner.parts())}")
    options.out = options.out or runner.OUT
    return int(runner.main(options))


def repository() -> Path | None:
    """The folder that holds `benchmarks/`: of this source tree, or the current one."""
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (root / "benchmarks" / "load.c").is_file():
            return root
    return None
