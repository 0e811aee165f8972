"""Run the QUIC interop runner's cases, between two real processes and in the simulator, and print them as a table.

    python -m benchmarks interop                              every case, 20 runs each, both ways; more than an hour
    python -m benchmarks interop goodput blackhole --runs 3   some cases
    python -m benchmarks interop --only simulator --json      one JSON object a case

A run passes when the caller has everything as it was sent, what the case asks for holds, and no node has sent more to an address
that had proved nothing than had come from there. Cases that cannot pass yet are left out unless they are named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable

from benchmarks import command
from benchmarks.interop.cases import CASES, NOT_YET, Case, Facts
from benchmarks.interop.simulated import simulate
from interpeer._bench.process import EndFailed

WAYS = ("simulator", "processes")
RUNS = 20
SEEDS_APART = 1000
_SHOWN = ("seconds", "mbit_per_s", "longest_pause_s", "share")


def main(arguments: list[str]) -> int:
    asked = _parse(arguments)
    names = asked.cases or [name for name in CASES if name not in NOT_YET]
    if not asked.json:
        print(f"{'case':<22}{'way':<11}{'passed':>8}  {'seconds':>16}  {'Mbit/s':>14}  {'longest pause s':>16}")
    has_failed = False
    for name in names:
        for way in asked.only:
            facts = measure(CASES[name], way, asked.runs, asked.seed)
            has_failed |= facts["passed"] < asked.runs
            print(json.dumps(facts) if asked.json else _line(facts), flush=True)
    return int(has_failed)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = command.parser("interop", __doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(CASES)}")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"of each case (default: {RUNS})")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each run has another one")
    parser.add_argument("--only", choices=WAYS, help="in the simulator, or between processes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if asked.runs < 1:
        parser.error("--runs is at least 1")
    asked.only = [asked.only] if asked.only else WAYS
    return asked


def run_one(case: Case, way: str, seed: int) -> tuple[Facts, str | None]:
    """Run a case once; return what was seen, and what was wrong."""
    try:
        facts = _runner(way)(case, seed)
    except (EndFailed, OSError, ValueError, RuntimeError, AssertionError) as error:
        return {}, f"{type(error).__name__}: {error}"
    return facts, case.check(facts)


def _runner(way: str) -> Callable[[Case, int], Facts]:
    if way == "simulator":
        return simulate
    from benchmarks.interop.processes import run_between_processes  # needs Linux and a compiler

    return run_between_processes


def measure(case: Case, way: str, runs: int, seed: int) -> Facts:
    """Run a case several times; return how often it passed, the medians and what went wrong."""
    found: list[Facts] = []
    wrong: list[str] = []
    for number in range(runs):
        facts, error = run_one(case, way, seed + number * SEEDS_APART)
        if facts:
            found.append(facts)
        if error is not None:
            wrong.append(f"seed {seed + number * SEEDS_APART}: {error}")
    figures = {name: [one[name] for one in found if name in one] for name in _SHOWN}
    spread = {name: [min(values), statistics.median(values), max(values)] for name, values in figures.items() if values}
    return {
        "case": case.name,
        "about": case.about,
        "way": way,
        "runs": runs,
        "passed": runs - len(wrong),
        **spread,
        "wrong": wrong,
    }


def _line(facts: Facts) -> str:
    def spread(name: str, form: str) -> str:
        if name not in facts:
            return "-"
        least, median, most = facts[name]
        return f"{median:{form}} ({least:{form}}-{most:{form}})" if facts["runs"] > 1 else f"{median:{form}}"

    passed = f"{facts['passed']}/{facts['runs']}"
    line = f"{facts['case']:<22}{facts['way']:<11}{passed:>8}  {spread('seconds', '.2f'):>20}  {spread('mbit_per_s', '.2f'):>18}"
    line += f"  {spread('longest_pause_s', '.2f'):>18}"
    if "share" in facts:
        line += f"  share {spread('share', '.2f')}"
    return "\n".join([line, *(f"    {one}" for one in facts["wrong"])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
