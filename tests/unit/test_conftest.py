"""The suite's own machinery, run on small suites in a temporary folder."""

import textwrap

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester, root, monkeypatch):
    """Run `source` as a test module under this suite's conftest.py and return the result."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a plugin would be imported anew by each run
    pytester.makeconftest((root / "tests/conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers =\n  system(*programs): needs these\n  soak: takes minutes\n")

    def run(source, *arguments):
        pytester.makepyfile(textwrap.dedent(source))
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)

    return run


def test_system_and_soak_tests_are_left_out_unless_asked_for(suite):
    source = """
        import pytest
        @pytest.mark.system
        def test_other_program(): pass
        @pytest.mark.soak
        def test_for_hours(): pass
        def test_own(): pass
    """
    suite(source).assert_outcomes(passed=1, deselected=2)
    suite(source, "--system").assert_outcomes(passed=2, deselected=1)
    suite(source, "--soak").assert_outcomes(passed=2, deselected=1)


def test_system_test_whose_programs_are_missing_is_left_out_and_names_them(suite):
    source = """
        import pytest
        pytestmark = pytest.mark.system("sh")
        @pytest.fixture(scope="module")
        def costly(): raise AssertionError
        def test_here(): pass
        @pytest.mark.system("no-such-program", "nor-this")
        def test_not_here(costly): pass
    """
    result = suite(source, "--system", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*not installed: no-such-program, nor-this (./run test --system does that*"])


def test_failure_prints_the_seed_that_repeats_it(suite):
    result = suite("def test_chance(seed): assert seed != 0x1234\n", "--seed", "0x1234")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*repeat with --seed 0x1234*"])


@pytest.mark.parametrize(
    ("leak", "name"),
    [
        ("import socket; KEEP.append(socket.socket())", "socket:*"),
        ("import os; KEEP.extend(os.pipe())", "pipe:*"),
        ("KEEP.append(threading.Thread(target=STOP.wait, name='forgotten')); KEEP[0].start()", "thread forgotten*"),
    ],
    ids=["socket", "pipe", "thread"],
)
def test_leak_fails_the_test_that_made_it(suite, leak, name):
    source = f"""
        import os, threading
        KEEP, STOP = [], threading.Event()
        def test_leaks():
            {leak}
        def teardown_module():
            STOP.set()
            for kept in KEEP:
                os.close(kept) if isinstance(kept, int) else getattr(kept, "close", getattr(kept, "join", None))()
    """
    result = suite(source)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"*left behind: {name}"])


def test_folder_adds_its_own_counters(suite, pytester):
    pytester.mkpydir("inner")
    (pytester.path / "inner/conftest.py").write_text(
        "from collections import Counter\nALIVE = Counter()\ndef pytest_live_objects(): return ALIVE\n"
    )
    (pytester.path / "inner/test_inner.py").write_text("from .conftest import ALIVE\ndef test_slot(): ALIVE['slot'] += 2\n")
    result = suite("def test_outer(): pass\n")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*left behind: slot x2"])
