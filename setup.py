"""Two import packages, the compiled units, and the C program `pep`.

`PEPCORE_BUILD` picks the flavour: release (default), debug, trace (Cython line coverage), asan.
"""

import os
from distutils.ccompiler import new_compiler
from distutils.command.build_scripts import build_scripts
from distutils.sysconfig import customize_compiler
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

FLAVOUR = os.environ.get("PEPCORE_BUILD", "release")
CFLAGS = {
    "release": ["-O3", "-g1"],
    "debug": ["-O0", "-g3"],
    "trace": ["-O0", "-g1", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1", "-DCYTHON_USE_SYS_MONITORING=0"],
    "asan": ["-O1", "-g3", "-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover"],
}[FLAVOUR]
CHECKED = FLAVOUR != "release"
PROGRAMS = {"pep": ["bindings/c/pep.c"]}


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


units = [
    Extension(
        path[:-4].replace(os.sep, "."),
        [path],
        extra_compile_args=[*CFLAGS, "-Wno-unused-function"],
        extra_link_args=["-fsanitize=address,undefined"] if FLAVOUR == "asan" else [],
    )
    for path in sorted(glob("pepcore/core/*.pyx"))
]

setup(
    packages=[*find_packages(include=["pepcore*"]), "pepclient"],
    package_dir={"pepclient": "bindings/python/pepclient"},
    package_data={"": ["*.pyi", "*.pxd", "py.typed", "*.cedar", "*.json", "*.toml", "*.cedarschema"]},
    exclude_package_data={"": ["*.c", "*.pyx"]},
    ext_modules=cythonize(
        units,
        build_dir=f"build/cython-{FLAVOUR}",
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
    cmdclass={"build_scripts": build_programs},
)
