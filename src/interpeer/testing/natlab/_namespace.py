"""Network namespaces by name: make and remove them, and run commands, functions and sockets inside."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, final

_MOUNTED: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_TOOLS: Final = {"ip": "iproute2", "nft": "nftables", "conntrack": "conntrack"}  # and their packages
_GRACE_S: Final = 1.0  # what a process has to end by itself before it is killed
_P = ParamSpec("_P")
_T = TypeVar("_T")


class LabError(RuntimeError):
    """The laboratory cannot do what was asked of it: something is missing, or the system has refused."""


def require() -> None:
    """Raise LabError, saying what is missing, unless namespaces can be made here."""
    if not os.path.isdir("/proc/self/ns"):
        raise LabError("the laboratory needs network namespaces, which only Linux has; interpeer.testing.SimNet runs everywhere")
    if os.geteuid():
        raise LabError("the laboratory needs root to make network namespaces; interpeer.testing.SimNet needs no rights")
    if missing := [package for tool, package in _TOOLS.items() if not shutil.which(tool)]:
        raise LabError(f"the laboratory needs the packages {', '.join(missing)}, in Debian: apt-get install {' '.join(missing)}")


def tell(words: Sequence[str], text: str | None = None) -> str:
    """Run a command of the system and return what it printed. Raises LabError with its complaint."""
    done = subprocess.run(words, check=False, input=text, capture_output=True, text=True)
    if done.returncode:
        complaint = "; ".join((done.stderr or done.stdout).strip().splitlines()[:3])
        raise LabError(f"{' '.join(words)[:200]}: {complaint[:500]}")
    return done.stdout


def names(prefix: str) -> list[str]:
    """Return the namespaces that there are whose names begin so."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(_MOUNTED) if name.startswith(prefix))
    return []


def remove(names: Sequence[str]) -> None:
    """End whatever runs in these namespaces and remove them."""
    end_processes(names)
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            tell(["ip", "netns", "delete", name])


def end_processes(names: Sequence[str]) -> None:
    """End the processes in these namespaces, and wait until they are gone."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _GRACE_S
        while processes := _processes(names):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, kind)
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        else:
            return


def _processes(names: Sequence[str]) -> list[int]:
    """Return the processes, but not this one: a thread of it may be inside."""
    inside = {_identity(_MOUNTED / name) for name in names}
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if _identity(Path("/proc", entry, "ns/net")) in inside:
                    found.append(int(entry))
    return found


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@final
class Namespace:
    """One namespace, which is there for as long as the laboratory runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = str(_MOUNTED / name)

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command that runs another inside."""
        return ["ip", "netns", "exec", self.name, *words]

    def tell(self, *words: str, text: str | None = None) -> str:
        """Run a command of the system inside and return what it printed."""
        return tell(self.command(words), text)

    def ip(self, *lines: str) -> None:
        """Carry out commands of `ip`, one a line, all in one process."""
        tell(["ip", "-n", self.name, "-batch", "-"], "".join(f"{line}\n" for line in lines))

    def sysctl(self, **values: int | str) -> None:
        """Set parameters of /proc/sys/net; double underscores stand for slashes. A kernel may lack IPv6 or bridges."""

        def write() -> None:
            for key, value in values.items():
                path = Path("/proc/sys/net", key.replace("__", "/"))
                if path.exists() or not key.startswith(("ipv6", "bridge")):
                    path.write_text(str(value))

        self.call(write)

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in a thread that is inside, and return what it returns; raise what it raises."""
        outcome: list[Any] = []

        def run() -> None:
            try:
                enter(self.path)
                outcome.append((function(*args, **kwargs), None))
            except BaseException as error:
                outcome.append((None, error))

        thread = threading.Thread(target=run, name=f"in {self.name}")
        thread.start()
        thread.join()
        value, error = outcome.pop()
        try:
            if error is not None:
                raise error
            return value  # type: ignore[no-any-return]
        finally:
            del error  # the traceback holds this frame


def make(name: str) -> Namespace:
    """Make a namespace, with loopback."""
    tell(["ip", "-batch", "-"], f"netns add {name}\nnetns exec {name} ip link set lo up\n")
    return Namespace(name)


def enter(path: str) -> None:
    """Move the calling thread into a namespace."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc().setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}", path)
    finally:
        os.close(descriptor)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)  # os.setns is there from Python 3.12 on
