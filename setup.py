"""The extension modules, their flags and three switches; everything else is in pyproject.toml.

Implementation (.pyx, .h) lies in src/_core and is compiled to the package interpeer._core; interface (.pxd, .pyi)
lies in src/interpeer/_core. Every module is named: a glob would make an empty wheel from the source distribution.

INTERPEER_DEBUG=1     checks and counters in the core, no optimisation
INTERPEER_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
INTERPEER_TRACE=1     line tracing for coverage (slow; never for timing)
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = ("rangeset", "replay", "slab", "table", "timers", "crypto", "noise", "wire", "buffer", "protection", "loss", "cc", "stream", "datagram", "context", "path", "conn", "ingress", "egress", "handshake", "dial", "answer", "registry", "reception", "engine", "handles", "control", "udp", "udpsocket", "limit", "pump", "probe")

CORE = Path("src/_core")
INTERFACE = Path("src/interpeer/_core")
SOURCES = sorted(str(p) for d, kinds in ((CORE, ("*.pyx", "*.h")), (INTERFACE, ("*.pxd",))) for k in kinds for p in d.glob(k))

DEBUG, SANITIZE, TRACE = (bool(int(os.environ.get(f"INTERPEER_{name}", "0"))) for name in ("DEBUG", "SANITIZE", "TRACE"))


def flags() -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Return compiler flags, linker flags and macros for this platform and these switches."""
    macros = [("INTERPEER_DEBUG", "1")] if DEBUG else []
    macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if TRACE else []
    if sys.platform == "win32":
        return ["/O2", "/std:c11"], ["ws2_32.lib"], macros
    compile_args = ["-O0", "-g"] if DEBUG or TRACE else ["-O2", "-g0"]
    compile_args += ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wno-unused-function", "-Wno-sign-compare"]
    link_args: list[str] = []
    if sys.platform == "linux":
        macros += [("_GNU_SOURCE", "1")]
    if SANITIZE:
        compile_args += ["-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        link_args += ["-fsanitize=address,undefined"]
    return compile_args, link_args, macros


def stale() -> bool:
    """Tell whether an interface or header is newer than a generated C file.

    Cython does not see a module's own .pxd in the other folder, and would leave stale C behind."""
    generated = [p.stat().st_mtime for p in CORE.glob("*.c")]
    interface = [Path(s).stat().st_mtime for s in SOURCES if not s.endswith(".pyx")]
    return bool(generated and interface) and max(interface) > min(generated)


COMPILE_ARGS, LINK_ARGS, MACROS = flags()

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"interpeer._core.{name}",
                [str(CORE / f"{name}.pyx")],
                depends=SOURCES,
                include_dirs=[str(CORE)],
                extra_compile_args=COMPILE_ARGS,
                extra_link_args=LINK_ARGS,
                define_macros=MACROS,
            )
            for name in MODULES
        ],
        include_path=["src"],
        force=stale(),
        compiler_directives={
            "language_level": 3,
            "boundscheck": TRACE,
            "wraparound": TRACE,
            "cdivision": True,
            "initializedcheck": False,
            "auto_pickle": False,
            "embedsignature": False,
            "freethreading_compatible": True,
            "linetrace": TRACE,
        },
    )
)
