"""Fuzzes what reads hostile bytes: ./run fuzz [TARGET ...] [--seconds N] [--json]

atheris (libFuzzer for Python) makes inputs and watches which edges of the core and of the package they take; the core is built
with AddressSanitizer and UndefinedBehaviorSanitizer. What was learned stays in .cache/fuzz/corpus, and the next run goes on from
there. An input that ends in an error is written to tests/fuzz/corpus/TARGET: it stays there, and the tests feed it for ever.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fuzz.targets import CORPUS, TARGETS

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/fuzz"
SECONDS = 10
MAX_INPUT_BYTES = 2048
OPTIONS = ("-rss_limit_mb=2048", "-timeout=10", f"-max_len={MAX_INPUT_BYTES}", "-len_control=20", "-use_value_profile=1")
FOUND = re.compile(r"Test unit written to (\S+)")
PULSE = re.compile(
    r"^#(?P<executions>\d+)\t\w+ +cov: (?P<edges>\d+) ft: \d+ (?:corp: (?P<corpus>\d+)/\w+ )?.*?exec/s: (?P<per_s>\d+)",
    re.MULTILINE,
)
CAUSE = re.compile(r"^(?:.*(?:ERROR: |runtime error: )|(?:\w+\.)*\w*(?:Error|Exception)\b).*", re.MULTILINE)


@dataclass(frozen=True)
class Report:
    """What one target did."""

    target: str
    executions: int
    executions_per_s: int
    edges: int
    """Places in the core and the package that inputs have led to."""
    corpus: int
    """Inputs that are worth keeping, since each leads somewhere else."""
    finding: str | None
    """The file with the input that failed."""
    cause: str | None

    def __str__(self) -> str:
        done = f"{self.executions:10,} executions {self.executions_per_s:8,}/s"
        line = f"{self.target:12} {done} {self.edges:7,} edges {self.corpus:6,} inputs"
        return line if self.cause is None else f"{line}\n  {self.cause}\n  {self.finding}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run fuzz", description="Feed made-up bytes to whatever reads those of others.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=SECONDS, metavar="N", help=f"for each target (default: {SECONDS})")
    parser.add_argument("--json", action="store_true", help="print one object at the end")
    options = parser.parse_args()
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(f"there is no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    reports = []
    for name in options.targets or TARGETS:
        report = fuzz(name, options.seconds)
        print(report, file=sys.stderr if options.json else sys.stdout, flush=True)
        reports.append(report)
    failed = [report for report in reports if report.cause]
    if options.json:
        print(json.dumps({"ok": not failed, "targets": [asdict(report) for report in reports]}))
    return 1 if failed else 0


def fuzz(name: str, seconds: int) -> Report:
    """Run a target for so long, or until it fails."""
    learned, given = CACHE / "corpus" / name, CORPUS / name
    learned.mkdir(parents=True, exist_ok=True)
    given.mkdir(parents=True, exist_ok=True)
    arguments = [*OPTIONS, f"-max_total_time={seconds}", f"-artifact_prefix={given}{os.sep}", str(learned), str(given)]
    with open(CACHE / f"{name}.log", "w+", errors="replace") as log:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.one", name, *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
        log.seek(0)
        return read_log(name, log.read(), done.returncode)


def environment() -> dict[str, str]:
    """Return that of a process in which the core finds the fuzzer and the sanitizers."""
    import atheris

    return {
        **os.environ,
        "LD_PRELOAD": str(Path(atheris.path()) / "asan_with_fuzzer.so"),
        "PYTHONPATH": str(CACHE / "lib"),
        "PYTHONMALLOC": "malloc",  # Python's own allocator would hide overruns
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def read_log(name: str, log: str, exit_code: int) -> Report:
    """Make a report of what libFuzzer has said."""
    executions = edges = corpus = per_s = 0
    for pulse in PULSE.finditer(log):
        executions, edges, corpus, per_s = (int(pulse[key] or 0) for key in ("executions", "edges", "corpus", "per_s"))
    found, cause = FOUND.search(log), CAUSE.search(log)
    if exit_code and not cause:
        told = f"exit code {exit_code}: the end of .cache/fuzz/{name}.log says why"
    else:
        told = cause[0].strip() if cause and exit_code else None
    return Report(name, executions, per_s, edges, corpus, found[1] if found else None, told)


if __name__ == "__main__":
    sys.exit(main())
