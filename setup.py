"""Two import packages, the compiled units, and the C program `pep`.

Promises: `pip install .`, `pip install -e .`, a wheel and an sdist all give the same files, and in each of them
`import pepcore` works from the repository's root and `pep` and `pepcore` are on PATH.
`PEPCORE_BUILD` picks the flavour: release (default), debug, trace (Cython line coverage), asan. Each flavour has its
own folder below build/, so that switching back costs no compiling.
Never: downloads anything, or needs a file that is not in the repository.
"""

import os
from glob import glob

import setuptools  # noqa: F401  first: it is what brings distutils from Python 3.12 on

# isort: split
from distutils.ccompiler import new_compiler
from distutils.command.build_scripts import build_scripts
from distutils.sysconfig import customize_compiler

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

FLAVOUR = os.environ.get("PEPCORE_BUILD", "release")
CFLAGS = {
    "release": ["-O3", "-g1"],
    "debug": ["-O0", "-g3"],
    "trace": ["-O0", "-g1", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1", "-DCYTHON_USE_SYS_MONITORING=0"],
    "asan": ["-O1", "-g3", "-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover"],
}
if FLAVOUR not in CFLAGS:
    raise SystemExit(f"PEPCORE_BUILD is `{FLAVOUR}`: choose one of {', '.join(CFLAGS)}")
CHECKED = FLAVOUR != "release"
PROGRAMS = {"pep": ["bindings/c/pep.c"]}
SOURCES = [
    "LICENSE",
    "CHANGELOG.md",
    ".ci/run",
    *(f"{folder}/**/*" for folder in ("pepcore", "bindings", "tests", "benchmarks")),
]


class build_units(build_ext):
    """Leave the compiled units beside their sources too: Python finds the source folder first in the repository."""

    def run(self):
        super().run()
        self.force = True  # what lies there may be newer and of another flavour
        self.copy_extensions_to_source()


class build_programs(build_scripts):
    """Compile each C program to where scripts are collected: `scripts=` itself refuses ELF files."""

    def run(self):
        self.mkpath(self.build_dir)
        compiler = new_compiler(verbose=self.verbose, force=self.force)
        customize_compiler(compiler)
        temp = self.get_finalized_command("build").build_temp
        for name, sources in PROGRAMS.items():
            flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Ibindings/c"]
            objects = compiler.compile(sources, output_dir=temp, extra_postargs=flags)
            compiler.link_executable(objects, name, output_dir=self.build_dir)

    def get_source_files(self):
        return [source for sources in PROGRAMS.values() for source in sources]

    def get_outputs(self):
        return [os.path.join(self.build_dir, name) for name in PROGRAMS]


class whole_sdist(sdist):
    """Ship what is written by hand, tests and bindings included, and nothing that is generated from it."""

    def make_distribution(self):
        found = {path for pattern in SOURCES for path in glob(pattern, recursive=True) if os.path.isfile(path)}
        listed = {path for path in self.filelist.files if not path.startswith("build" + os.sep)}
        self.filelist.files = sorted(
            path for path in listed | found if not path.endswith((".so", ".pyc")) and "benchmarks/out/" not in path
        )
        super().make_distribution()


units = [
    Extension(
        path[:-4].replace(os.sep, "."),
        [path],
        extra_compile_args=[*CFLAGS[FLAVOUR], "-Wno-unused-function"],
        extra_link_args=["-fsanitize=address,undefined"] if FLAVOUR == "asan" else [],
    )
    for path in sorted(glob("pepcore/core/*.pyx") + glob("pepcore/server/*.pyx"))
]

setup(
    packages=[*find_packages(include=["pepcore*"]), "pepclient"],
    package_dir={"pepclient": "bindings/python/pepclient"},
    package_data={
        "": ["*.pyi", "*.pxd", "py.typed", "*.cedar", "*.json", "*.toml", "*.cedarschema"],
        "pepcore.server": ["units/*"],
        "pepcore.cli.demo": ["company/*"],
    },
    exclude_package_data={"": ["*.c", "*.pyx"]},
    ext_modules=cythonize(
        units,
        build_dir=None if FLAVOUR == "trace" else f"build/{FLAVOUR}/cython",  # Cython.Coverage looks beside the source
        compiler_directives={
            "language_level": 3,
            "boundscheck": CHECKED,
            "wraparound": False,
            "initializedcheck": CHECKED,
            "cdivision": True,
            "linetrace": FLAVOUR == "trace",
        },
    ),
    scripts=[source for sources in PROGRAMS.values() for source in sources],
    cmdclass={"build_ext": build_units, "build_scripts": build_programs, "sdist": whole_sdist},
    options={"build": {"build_base": f"build/{FLAVOUR}"}, "build_ext": {"parallel": os.cpu_count()}},
)
