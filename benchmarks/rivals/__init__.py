"""The libraries that users would take instead, each under the same loads and in the same units.

    run_once(rival, load, seconds)          one run, for a table that runs everything interleaved
    measure(rival, load, seconds, runs)     the median of several runs
    compare(rivals, load, seconds, runs)    the same for several rivals, their runs interleaved

What a rival cannot do here is left out and says why. `benchmarks/README.md` says what each figure means.
"""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from interpeer._bench.end import RESIDENT, Facts
from interpeer._bench.figures import LoadBroken, figures, median_of
from interpeer._bench.loads import PARTS
from interpeer._bench.process import EndFailed, run_pair

RUNS = 5


@dataclass(frozen=True, slots=True)
class Rival:
    """A peer program: a module of this package with `serve`, `dial` and `version`, and what it needs."""

    module_name: str
    about: str
    packages: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return f"{__name__}.{self.module_name}"

    def version(self) -> str:
        """Return the versions of what was measured."""
        return str(importlib.import_module(self.module).version())

    def why_not(self, load: str) -> str | None:
        """Return why this rival cannot be measured under the load on this machine, or None if it can."""
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            return f"needs {', '.join(missing)}: pip install --group bench"
        if load == "idle" and not RESIDENT.exists():
            return f"the memory of a process is read from {RESIDENT}, which this system lacks"
        return None


_TLS = ("cryptography", "uvloop")

RIVALS = {
    "tls": Rival("tls", "TLS 1.3 over TCP on uvloop", _TLS, {"loop": "uvloop"}),
    "tls-asyncio": Rival("tls", "TLS 1.3 over TCP on asyncio", _TLS, {"loop": "asyncio"}),
    "aioquic": Rival("quic", "QUIC in Python", ("aioquic", "cryptography", "uvloop")),
    "iroh": Rival("iroh", "QUIC in Rust, binding repaired", ("iroh", "uvloop"), {"as_shipped": False}),
    "iroh-as-shipped": Rival("iroh", "QUIC in Rust, as pip installs it", ("iroh", "uvloop"), {"as_shipped": True}),
    "pyzmq": Rival("zeromq", "ZeroMQ with CURVE over TCP", ("zmq",)),
}


def run_once(rival: str, load: str, seconds: float) -> Facts:
    """Run a load once, each part of it for so many seconds, and return its figures.

    Raises EndFailed if an end dies and LoadBroken if the ends disagree about what was done."""
    program = RIVALS[rival]
    result: Facts = {}
    for part in PARTS[load]:
        ends = run_pair(f"{program.module}:serve", f"{program.module}:dial", part=part, seconds=seconds, **program.arguments)
        result |= figures(part, *ends)
    return result


def measure(rival: str, load: str, seconds: float, runs: int = RUNS) -> Facts:
    """Return the median figures of a rival under a load, or `left_out` with the reason why there are none."""
    return compare([rival], load, seconds, runs)[0]


def compare(rivals: Iterable[str], load: str, seconds: float, runs: int = RUNS) -> list[Facts]:
    """Measure several rivals under a load, run by run in turn, so that a busy machine is busy for all of them."""
    left_out = {rival: RIVALS[rival].why_not(load) for rival in rivals}
    results: dict[str, list[Facts]] = {rival: [] for rival in left_out}
    for _ in range(runs):
        for rival in left_out:
            if left_out[rival]:
                continue
            try:
                results[rival].append(run_once(rival, load, seconds))
            except (EndFailed, LoadBroken) as error:
                left_out[rival] = str(error)
    return [_result(rival, load, seconds, results[rival], left_out[rival]) for rival in left_out]


def _result(rival: str, load: str, seconds: float, runs: list[Facts], left_out: str | None) -> Facts:
    head = {"rival": rival, "load": load}
    if left_out:
        return head | {"left_out": left_out}
    return head | {"version": RIVALS[rival].version(), "seconds": seconds} | median_of(runs)
