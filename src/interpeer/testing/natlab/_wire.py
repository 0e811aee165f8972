"""Links with delay, loss and rate between namespaces: a process in C, compiled at first use, since kernels may lack netem."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast, final

from interpeer.testing._link import Link
from interpeer.testing.natlab._namespace import LabError, Namespace

HERE: Final = Path(__file__).parent
FLAGS: Final = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{HERE}")
_SECONDS: Final = {"delay_s": "delay_ns", "jitter_s": "jitter_ns", "reorder_s": "reorder_ns"}
_NOT_HERE: Final = ("codel_target_s", "codel_interval_s")


def compiler() -> str | None:
    """Return a C compiler, if there is one."""
    return shutil.which(os.environ.get("CC", "cc").split()[-1]) or shutil.which("gcc")


def compiled(source: Path, cache: Path) -> Path:
    """Return a program in C that uses link.h, compiled; it is kept for as long as neither changes. Raises LabError."""
    text = source.read_bytes() + (HERE / "link.h").read_bytes()
    built = cache / f"{source.stem}-{hashlib.blake2b(text, digest_size=8).hexdigest()}"
    if not built.exists():
        cc = compiler()
        if cc is None:
            raise LabError("a link with delay, loss or rate needs a C compiler, in Debian: apt-get install gcc libc6-dev")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as fresh:
            pass
        done = subprocess.run([cc, *FLAGS, "-o", fresh.name, str(source)], check=False, capture_output=True, text=True)
        if done.returncode:
            os.unlink(fresh.name)
            raise LabError(f"{cc} could not compile {source.name}: {done.stderr.strip()[:500]}")
        os.replace(fresh.name, built)  # another process may have been quicker: then it is the same
    return built


def settings(link: Link, overhead_bytes: int | None = None) -> str:
    """Return a link's settings as a program with link.h reads them."""
    if link.codel_target_s is not None:
        raise ValueError("links between processes have no CoDel: use ecn_mark_bytes, or a simulated link")
    words = [] if overhead_bytes is None else [f"overhead_bytes={overhead_bytes}"]
    for field in dataclasses.fields(link):
        value = getattr(link, field.name)
        if field.name in _SECONDS:
            words.append(f"{_SECONDS[field.name]}={round(value * 1e9)}")
        elif field.name not in _NOT_HERE:
            words.append(f"{field.name}={-1 if value is None else float(value):.12g}")
    return " ".join(words)


@final
class Wires:
    """All links of a laboratory. The process begins with the first of them, and ends with whoever holds its standard input."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._numbers = itertools.count()
        self._process: subprocess.Popen[str] | None = None

    def add(self, near: tuple[Namespace, str], far: tuple[Namespace, str], up: Link, down: Link) -> int:
        """Make an interface at each end; "up" is from the near one to the far. Return the link's number."""
        lines = [settings(up), settings(down)]  # a wrong one is told before anything is made
        number = next(self._numbers)
        (near_space, near_name), (far_space, far_name) = near, far
        ends = f"{near_space.path} {near_name} {far_space.path} {far_name}"
        self._ask(f"link {number} {self._seed + number} {ends}")
        for way, line in zip(("up", "down"), lines, strict=True):
            self._ask(f"set {number} {way} {line}")
        return number

    def set(self, number: int, up: Link, down: Link) -> None:
        """Change a link's settings; what is on its way keeps its time."""
        for way, line in (("up", settings(up)), ("down", settings(down))):
            self._ask(f"set {number} {way} {line}")

    def stats(self, number: int) -> dict[str, dict[str, int]]:
        """Return what a link has counted, "up" and "down"."""
        return cast(dict[str, dict[str, int]], self._ask(f"stats {number}"))

    def remove(self, number: int) -> None:
        """Remove a link and its interfaces."""
        self._ask(f"unlink {number}")

    def close(self) -> None:
        """End the process; the interfaces go with it."""
        if self._process is not None:
            for stream in _streams(self._process):
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
            self._process.wait()
            self._process = None

    def _ask(self, line: str) -> Any:
        if self._process is None:
            program = str(compiled(HERE / "wire.c", cache_folder()))
            self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        asking, answering = _streams(self._process)
        asking.write(line + "\n")
        asking.flush()
        answer = answering.readline()
        if not answer:
            raise LabError(f"the process that carries the links has ended with {self._process.wait()}")
        told = json.loads(answer)
        if "error" in told:
            raise LabError(f"{line}: {told['error']}")
        return told


def _streams(process: subprocess.Popen[str]) -> Sequence[Any]:
    return cast(Sequence[Any], (process.stdin, process.stdout))


def cache_folder() -> Path:
    """Return where compiled programs are kept, for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interpeer"
