"""The extension modules, their flags and four switches, and what goes into distributions; the rest is in pyproject.toml.

Implementation (.pyx, .h) lies in src/_core and is compiled to the package interpeer._core; interface (.pxd, .pyi)
lies in src/interpeer/_core. Every module is named: a glob would make an empty wheel from the source distribution.

INTERPEER_DEBUG=1     for a debugger: symbols, no optimisation
INTERPEER_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
INTERPEER_FUZZ=1      both, and what libFuzzer is guided by: which edges were taken, what was compared (clang)
INTERPEER_TRACE=1     line tracing for coverage (slow; never for timing)
"""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

MODULES = (
    "crypto",
    "rangeset",
    "replay",
    "relay",
    "slab",
    "table",
    "timers",
    "tunnel",
    "tunnels",
    "wire",
    "bbr",
    "bbr_model",
    "buffer",
    "cc",
    "cubic",
    "datagram",
    "fec",
    "ledbat",
    "channel",
    "inbox",
    "loss",
    "noise",
    "pacing",
    "path",
    "path_handle",
    "early",
    "signals",
    "signal_in",
    "signal_handle",
    "paths",
    "pmtud",
    "portmap",
    "protection",
    "raw",
    "repairs",
    "rekey",
    "stream",
    "stun",
    "trace",
    "answer",
    "binding",
    "builder",
    "channel_in",
    "channel_out",
    "channels",
    "carrier",
    "conn",
    "compose",
    "cids",
    "context",
    "deadlines",
    "delivery",
    "dial",
    "egress",
    "handshake",
    "ingress",
    "tracing",
    "keys",
    "shards",
    "engine",
    "calling",
    "reception",
    "relaying",
    "registry",
    "channel_handle",
    "connection_handle",
    "control",
    "entry",
    "legs",
    "stream_handle",
    "udp",
    "udpsocket",
    "pump",
    "address_class",
    "natfacts",
    "punch_message",
    "retry",
    "spray",
    "spray_budget",
    "punch",
    "limit",
    "probe",
    "probe_cc",
    "probe_channel",
    "probe_conn",
    "probe_fec",
    "probe_handshake",
    "probe_loops",
    "probe_paths",
    "probe_pmtud",
    "probe_punch",
    "probe_memory",
    "probe_rekey",
    "probe_relay",
    "probe_shards",
    "probe_transport",
    "probe_wire",
)

CORE = Path("src/_core")
INTERFACE = Path("src/interpeer/_core")
BUNDLE = Path("src/interpeer/_lib")
SHARED = sorted(str(p) for p in (*CORE.glob("*.h"), *INTERFACE.glob("*.pxd")))  # any of them may be in any module

DEBUG, SANITIZE, FUZZ, TRACE = (
    bool(int(os.environ.get(f"INTERPEER_{name}", "0"))) for name in ("DEBUG", "SANITIZE", "FUZZ", "TRACE")
)
GENERATED = Path("." if TRACE else "build/c")  # coverage looks for the C beside its source

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": TRACE,
    "wraparound": TRACE,
    "cdivision": True,
    "initializedcheck": False,
    "auto_pickle": False,
    "embedsignature": False,
    "freethreading_compatible": True,
    "linetrace": TRACE,
}


def flags() -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Return compiler flags, linker flags and macros for this platform and these switches."""
    macros = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if TRACE else []
    if sys.platform == "win32":
        return ["/O2", "/std:c11"], ["ws2_32.lib"], macros
    compile_args = ["-O0", "-g"] if DEBUG or TRACE else ["-O2", "-g0"]
    compile_args += ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wno-unused-function", "-Wno-sign-compare"]
    link_args: list[str] = []
    if sys.platform == "linux":
        macros += [("_GNU_SOURCE", "1")]
    if SANITIZE or FUZZ:
        sanitizers = "-fsanitize=address,undefined" + (",fuzzer-no-link" if FUZZ else "")
        compile_args += ["-g", "-O1", "-fno-omit-frame-pointer", sanitizers, "-fno-sanitize-recover=all"]
        link_args += [sanitizers]
    return compile_args, link_args, macros


def stale() -> bool:
    """Tell whether an interface or header is newer than a generated C file.

    Cython does not see a module's own .pxd in the other folder, and would leave stale C behind."""
    translated = [p for p in (GENERATED / CORE / f"{name}.c" for name in MODULES) if p.exists()]
    return any(p.stat().st_mtime < max(os.path.getmtime(s) for s in SHARED) for p in translated)


class BuildCore(build_ext):
    """Uses all processors, and translates to C only when something is compiled: a source distribution carries no C."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self) -> None:
        translated = cythonize(
            self.extensions,
            include_path=["src"],
            build_dir=str(GENERATED),
            force=stale(),
            nthreads=self.parallel,
            compiler_directives=DIRECTIVES,
        )
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        super().build_extensions()


class SourceDistribution(sdist):
    """Adds what a distributor needs to build, test and read, and leaves out the library that was built here."""

    def make_distribution(self) -> None:
        for name in ("run", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
            self.filelist.include(name)
        for folder in (".ci", "benchmarks", "docs", "examples", "tests", "tools"):
            self.filelist.graft(folder)
        self.filelist.prune(str(BUNDLE))
        self.filelist.global_exclude("*.py[cod]")
        super().make_distribution()


class Wheel(bdist_wheel):
    """Puts the bundled library's bill of materials where PEP 770 wants it."""

    def write_wheelfile(self, wheelfile_base: str, *args: str) -> None:
        super().write_wheelfile(wheelfile_base, *args)
        bill = BUNDLE / "sbom.cdx.json"
        if bill.exists():
            folder = Path(wheelfile_base) / "sboms"
            folder.mkdir(exist_ok=True)
            shutil.copyfile(bill, folder / "libsodium.cdx.json")


def build(modules: Iterable[str]) -> None:
    """Do what the command line asks for, with these modules of the core."""
    compile_args, link_args, macros = flags()
    setup(
        cmdclass={"build_ext": BuildCore, "sdist": SourceDistribution, "bdist_wheel": Wheel},
        ext_modules=[
            Extension(
                f"interpeer._core.{name}",
                [str(CORE / f"{name}.pyx")],
                depends=[str(CORE / f"{name}.pyx"), *SHARED],
                include_dirs=[str(CORE)],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
                define_macros=macros,
            )
            for name in modules
        ],
    )


if __name__ == "__main__":  # translating in parallel starts processes, which import this file on some systems
    build(MODULES)
