"""The vulnerable twins: the product with one guard left out, by a switch that the product does not have.

Compiled guards are cut out of a copy of the package, of which only the changed units are compiled again; the rest is
the product's. Guards in Python are replaced in the daemon that the test starts, by code that runs in it before it
serves. Guards of the client in C are cut out of a copy of its header.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

PRODUCT = Path(__file__).parents[2] / "pepcore"
HEADER = Path(__file__).parents[2] / "bindings/c/pepcore.h"

BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
sources = {f"pepcore.{u}": [f"pepcore/{u.replace('.', '/')}.pyx"] for u in sys.argv[1:]}
units = [Extension(name, files, extra_compile_args=["-O1"]) for name, files in sources.items()]
directives = {"language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True}
setup(name="twin", packages=[], script_args=["build_ext", "--inplace"],
      ext_modules=cythonize(units, compiler_directives=directives, quiet=True))
"""


class Cut(NamedTuple):
    """One guard: the file that has it, its text and what stands there instead, and the units to compile anew."""

    file: str
    guard: str
    instead: str
    units: tuple[str, ...]


CUTS = {
    "a client that ignores its slots": Cut(
        "core/local.pyx",
        "        if e.revision == revision:\n            return True\n",
        "        if e.revision == revision or True:\n            return True\n",
        ("core.local",),
    ),
    "a client that does not look at the lease": Cut(
        "core/page.pxd",
        "    return not page.leased or load(page.words + LEASE) - <uint64_t> now <= <uint64_t> PEP_LEASE_NS",
        "    return True",
        ("core.local", "core.page"),
    ),
    "a daemon whose cache ignores its slots": Cut(
        "core/cache.pyx",
        "    if not untouched(words, stamps, s.stamps, s.revision):\n        return False\n",
        "",
        ("core.cache", "core.gate"),
    ),
    "a process whose memory is not wiped in a fork": Cut(
        "core/forks.pyx",
        "    madvise(found, ROOM, WIPE_ON_FORK)",
        "    pass",
        ("core.forks",),
    ),
    "a lease of four seconds": Cut(
        "core/page.pxd",
        "#define PEP_LEASE_NS 100000000LL",
        "#define PEP_LEASE_NS 4000000000LL",
        ("core.local", "core.page", "server.renewal"),
    ),
}

IN_C = {
    "a client in C that ignores its slots": Cut(
        HEADER.name,
        "  if (!pep_i_untouched(page, e->bytes + e->question_len, e->body_len, e->revision)) return 0;\n",
        "",
        (),
    ),
    "a client in C that does not look at the lease": Cut(
        HEADER.name,
        "  if (lease - now > PEP_I_LEASE_NS) return 0;\n",
        "  (void)lease;\n",
        (),
    ),
    "a client in C whose memory is not wiped in a fork": Cut(
        HEADER.name,
        "  if (madvise(at, sets * sizeof(pep_i_set), PEP_I_WIPE_ON_FORK))\n",
        "  if (0)\n",
        (),
    ),
}

STAMPS_AFTER_ASKING = """
from pepcore.enforcer import Enforcer as _E
def _late(name, original):
    def answer(self, flight, *rest):
        flight.revision = self.page.revision
        return original(self, flight, *rest)
    setattr(_E, name, answer)
_late("answer", _E.answer)
_late("answer_alone", _E.answer_alone)
"""
"""The revision is read when the answer comes, not before the PDP is asked."""

JOINS_ANY_FLIGHT = """
from pepcore import freshness as _f
_f.may_join = lambda flight, page: True
_f.stamps_hold = lambda slots, asked, page: True
"""
"""Whoever comes later is served by what is on its way already, and what arrives is released without a look."""

ACKNOWLEDGES_FIRST = """
import asyncio as _asyncio
from pepcore.revocation import Revocation as _R
def _revoke(self, tags, original=_R.revoke):
    _asyncio.get_running_loop().call_later(0.02, original, self, list(tags))
    return self.page.revision + 1
_R.revoke = _revoke
_R.revoke_all = lambda self, original=_R.revoke_all: (
    _asyncio.get_running_loop().call_later(0.02, original, self), self.page.revision + 1)[1]
"""
"""A revoke, and that of a block, takes effect 20 ms after it was acknowledged."""

NO_FENCE = """
from pepcore.server.administration import Administration as _A
def _init(self, service, file, fence_ns, original=_A.__init__):
    original(self, service, file, 0)
_A.__init__ = _init
"""
"""A new daemon acknowledges at once, also while the page of the one before may be believed."""

BLOCKS_NOBODY = """
from pepcore.revocation import Revocation as _R
_R.denied = lambda self, key, wall_ms: None
"""
"""The list of blocks is kept, and nobody looks at it."""

LINGERS = """
import asyncio as _asyncio
import pepcore.server.handover as _handover
async def _lingers(*given, original=_handover.hand_over):
    handed = await original(*given)
    await _asyncio.sleep(0.3)
    return handed
_handover.hand_over = _lingers
"""
"""A daemon that has handed over takes its time to end. It may: no guard is out, and its successor serves already."""

KEEPS_ITS_LEASE = (
    LINGERS
    + """
class _Renewal:
    def __init__(self, renewal):
        self.renewal = renewal  # held: it stops when it is freed
    def start(self, *given):
        pass
    def stop(self):
        pass
async def _keeps(service, *rest, original=_handover.hand_over):
    service.renewal = _Renewal(service.renewal)
    return await original(service, *rest)
_handover.hand_over = _keeps
"""
)
"""A daemon that hands over does not end the lease of its page: it is believed for as long as it lingers."""

KEEPS_ITS_CLIENTS = (
    LINGERS
    + """
_handover._others = lambda service, successor, original=_handover._others: [
    c for c in original(service, successor) if c.administrator]
"""
)
"""A daemon that hands over neither drains nor drops who asks: it answers them for as long as it lingers."""

HANGS_ON_THE_REVISION = """
from pepcore import freshness as _f
_f.stamps_of = lambda flight, outcome, page: b""
"""
"""Answers have no slots: every revoke ends each of them. Safe, and no cache at all in an incident."""


def build(folder: Path, *cuts: Cut) -> Path:
    """A copy of the package without these guards, to be put in front of the product on a path."""
    shutil.copytree(PRODUCT, folder / "pepcore", ignore=shutil.ignore_patterns("__pycache__"))
    units: dict[str, None] = {}
    for cut in cuts:
        source = folder / "pepcore" / cut.file
        text = source.read_text()
        assert text.count(cut.guard) == 1, f"the guard is no longer where {cut.file} had it"
        source.write_text(text.replace(cut.guard, cut.instead))
        units |= dict.fromkeys(cut.units)
    for unit in units:
        for built in (folder / "pepcore").glob(unit.replace(".", "/") + ".cpython-*.so"):
            built.unlink()
    command: Sequence[str] = [sys.executable, "-c", BUILD, *units]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def asker(folder: Path, cut: Cut | None = None) -> Path:
    """The process in C that asks (race_asker.c), compiled with its header, or with one that misses a guard."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "cc", "gcc", "clang"))), None)
    assert compiler is not None, "no C compiler: install gcc, which the set-up of pepcore needs, too"
    header = HEADER.read_text()
    if cut is not None:
        assert header.count(cut.guard) == 1, f"the guard is no longer where {cut.file} had it"
        header = header.replace(cut.guard, cut.instead)
    (folder / HEADER.name).write_text(header)
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{folder}", "-o", str(folder / "race_asker")]
    source = Path(__file__).with_name("race_asker.c")
    run = subprocess.run([compiler, str(source), *flags], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return folder / "race_asker"


Build = Callable[[str], Path]
