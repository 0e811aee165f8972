"""What every test has: the options --system, --soak and --seed, the fixture `seed`, and a look for leaks at teardown.

A directory's own conftest.py adds to the leak check by defining the hook `pytest_live_objects` (see `LeakHooks`).
"""

from __future__ import annotations

import ast
import gc
import os
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
SEED = pytest.StashKey[int]()

settings.register_profile("quick", deadline=None, max_examples=50, stateful_step_count=40)
settings.register_profile("thorough", deadline=None, max_examples=1000, stateful_step_count=100)  # --hypothesis-profile
settings.load_profile("quick")


class LeakHooks:
    """Hooks that this suite adds to pytest's own."""

    def pytest_live_objects(self) -> Counter[str]:
        """Count, by name, things that a test must not leave behind: they are counted before and after each test."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(LeakHooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("interpeer")
    group.addoption("--system", action="store_true", help="also run the tests that need other programs of the system")
    group.addoption("--soak", action="store_true", help="also run the tests that take minutes")
    group.addoption("--seed", type=lambda text: int(text, 0), help="repeat the random choices of the run that printed this")
    group.addoption("--dist", type=Path, metavar="DIR", help="test the distributions in DIR, do not build others")


def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--seed")
    config.stash[SEED] = secrets.randbits(64) if given is None else given


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unasked = {marker for marker in ("system", "soak") if not config.getoption(f"--{marker}")}
    left_out = [item for item in items if any(map(item.get_closest_marker, unasked))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not any(map(item.get_closest_marker, unasked))]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a test whose programs are not here, before anything is set up for it."""
    wanted = {program for marker in item.iter_markers("system") for program in marker.args}
    missing = sorted(program for program in wanted if shutil.which(program) is None)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (./run test --system does that, on Debian and Ubuntu)")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Put aside what there is by now: looking through all of it for leaks, twice for each test, took longer than most tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of every random choice in a simulation; a failure prints it, --seed repeats it."""
    value = request.config.stash[SEED]
    request.node.add_report_section("setup", "seed", f"repeat with --seed {value:#x}")
    return value


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def core_modules() -> tuple[str, ...]:
    """The names in MODULES of setup.py, read without running it."""
    for statement in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", None) == "MODULES":
            return ast.literal_eval(statement.value)
    raise LookupError("setup.py assigns no MODULES")


def pytest_live_objects() -> Counter[str]:
    live = Counter(f"thread {thread.name}" for thread in threading.enumerate())
    if os.path.isdir("/proc/self/fd"):
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{descriptor}")
            except FileNotFoundError:  # the one that listdir itself had open
                continue
            if target.startswith(("socket:", "pipe:", "anon_inode:")):
                live[target] += 1
    return live


def live_objects(config: pytest.Config) -> Counter[str]:
    return sum(config.hook.pytest_live_objects(), Counter())


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread, a descriptor or an object of the core alive. Set up first, so torn down last."""
    before = live_objects(request.config)
    yield
    gc.collect()  # what only waits for the collector is no leak
    left = live_objects(request.config) - before
    gc.freeze()  # what stays is not looked through again: with each test there is more of it
    if left:
        pytest.fail("left behind: " + ", ".join(f"{name} x{count}" for name, count in sorted(left.items())), pytrace=False)
