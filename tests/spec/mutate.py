"""Break the rules of the specification one at a time, and see that the tests that cite them notice.

    ./run mutate [ID...] [--sample N] [--seed S]

A mutant of mutants.toml is a change of a few characters in the source that breaks one requirement. It is applied to a copy of
the checkout in .cache/mutate, where the one module is built again, and only the tests that cite the requirement run. They must
pass on the copy as it is, and fail on the mutant. Exit status: 0 all were noticed, 1 some were not.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import secrets
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.spec.citations import citations
from tests.spec.document import ROOT

MUTANTS = Path(__file__).with_name("mutants.toml")
WORK = ROOT / ".cache/mutate"
COPIED = ("src", "tests", "docs", "build", "setup.py", "pyproject.toml")
TEST_SECONDS = 120
MEMORY_BYTES = 4 << 30


@dataclass(frozen=True)
class Mutant:
    """A change that breaks a requirement."""

    id: str
    file: str
    old: str
    new: str

    def applied_to(self, source: str) -> str:
        """Return the changed source. Raises ValueError when it is not what the mutant was made for."""
        if source.count(self.old) != 1:
            raise ValueError(f"{self.id}: {self.file} has {source.count(self.old)} times, not once: {self.old!r}")
        if self.old == self.new:
            raise ValueError(f"{self.id}: the mutant changes nothing")
        return source.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    return [Mutant(**entry) for entry in tomllib.loads(MUTANTS.read_text(encoding="utf-8"))["mutant"]]


class Broken(Exception):
    """A mutant that could not be tried: it does not build, or its tests fail without it."""


class Copy:
    """The checkout once more, to be broken."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        for name in COPIED:
            mirror(ROOT / name, self.tree / name)
        shared = folder / "shared"
        if (ROOT.parent / "shared").exists() and not shared.exists():
            shared.symlink_to((ROOT.parent / "shared").resolve())
        self.environment = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "PYTHONMALLOC")}
        self.environment |= {"PYTHONPATH": str(self.tree / "src"), "INTERPEER_DEBUG": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    @contextmanager
    def broken_by(self, mutant: Mutant) -> Iterator[None]:
        """Apply a mutant and build; put everything back in the end, times included, so that nothing is built twice.

        What was built lies in build/ as well: the next build would copy the mutant from there back into the package."""
        source = self.tree / mutant.file
        touched = [source]
        if source.suffix == ".pyx":
            for folder in ("src/interpeer/_core", "build"):
                found = (self.tree / folder).rglob(f"{source.stem}.*")
                touched += [path for path in found if path.is_file() and path.suffix not in (".pxd", ".pyi")]
        kept = [(path, self.tree.parent / f"kept-{i}") for i, path in enumerate(touched)]
        for path, backup in kept:
            shutil.copy2(path, backup)
        try:
            source.write_text(mutant.applied_to(source.read_text(encoding="utf-8")), encoding="utf-8")
            if source.suffix == ".pyx":
                self.build(source.stem)
            yield
        finally:
            for path, backup in kept:
                shutil.move(backup, path)

    def build(self, module: str | None = None) -> None:
        """Build what is out of date, or this module alone: to look at the others would take longer than that."""
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        if module:
            command[1:2] = ["-c", f"import setup; setup.build([{module!r}])"]
        result = subprocess.run(command, cwd=self.tree, env=self.environment, capture_output=True, text=True, check=False)
        if result.returncode:
            raise Broken("it does not build: " + (result.stdout + result.stderr).strip()[-2000:])

    def fails(self, tests: list[str]) -> str | None:
        """Run tests; return the first that fails, or what else went wrong, or None if all pass. Raises Broken."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests]
        try:
            result = subprocess.run(
                command, cwd=self.tree, env=self.environment, capture_output=True, text=True, check=False,
                timeout=TEST_SECONDS, preexec_fn=limit_memory if sys.platform == "linux" else None,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "the tests hang"
        if result.returncode < 0:
            return f"the tests crash with signal {-result.returncode}"
        if result.returncode > 1:
            raise Broken("its tests cannot be run: " + (result.stdout + result.stderr).strip()[-2000:])
        lines = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return (lines or ["the tests fail"])[0].split(" - ")[0] if result.returncode else None


def limit_memory() -> None:
    """A rule that bounds memory may be the one that is broken."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def mirror(source: Path, target: Path) -> None:
    """Make a copy agree with a file or folder. What was built is copied once, with its times, and then lives its own life."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in source.iterdir() if path.name != "__pycache__"}
        for path in target.iterdir():
            if path.name not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in names:
            mirror(source / name, target / name)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    elif not is_built(source) and not filecmp.cmp(source, target, shallow=False):
        shutil.copyfile(source, target)  # it is new now, and what was built of it is old


def is_built(path: Path) -> bool:
    return path.suffix == ".so" or "build" in path.relative_to(ROOT).parts


def chosen(ids: list[str], sample: int | None, seed: int) -> list[Mutant]:
    """Return the mutants that are asked for. Raises SystemExit for an id that has none."""
    every = mutants()
    unknown = set(ids) - {mutant.id for mutant in every}
    if unknown:
        raise SystemExit(f"no mutant for {', '.join(sorted(unknown))}")
    some = [mutant for mutant in every if not ids or mutant.id in ids]
    return random.Random(seed).sample(some, min(sample, len(some))) if sample is not None else some


def run(some: list[Mutant]) -> int:
    """Try mutants; return how many were not noticed, or could not be tried."""
    cited = citations()
    tests = {mutant.id: sorted(map(str, cited[mutant.id])) for mutant in some}
    copy = Copy(WORK)
    copy.build()
    failure = copy.fails(sorted({test for some_tests in tests.values() for test in some_tests}))
    if failure:
        print(f"without any mutant: {failure}", flush=True)
        return len(some)
    bad = 0
    for mutant in some:
        begin, verdict = time.monotonic(), "broken"
        try:
            with copy.broken_by(mutant):
                told = copy.fails(tests[mutant.id])
            verdict = "killed" if told else "SURVIVED"
        except (Broken, ValueError) as error:
            told = str(error)
        bad += verdict != "killed"
        print(f"{verdict:8} {mutant.id:6} {time.monotonic() - begin:5.1f} s  {told or mutant.old}", flush=True)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run mutate", description=__doc__.partition("\n")[0])
    parser.add_argument("ids", nargs="*", metavar="ID", help="paragraphs, such as HS-12; without any, all of them")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many, drawn at random")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeat a draw")
    arguments = parser.parse_args()
    some = chosen(arguments.ids, arguments.sample, arguments.seed)
    if arguments.sample is not None:
        print(f"drawn with --seed {arguments.seed}", flush=True)
    bad = run(some)
    print(f"{len(some)} mutants, {len(some) - bad} killed, {bad} survived or broken")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
