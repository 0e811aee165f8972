"""Every example that a reader sees runs: docstrings, README, examples/. (docs/testing.md: tests/sim/test_documentation.py)"""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import interpeer

EXAMPLES = ("arrays", "behind_nat", "chat", "files", "game", "keys", "messages", "rpc", "simulated", "two_paths")


def modules():
    """Name all modules of the package but the compiled ones, the command line's entry and what is Windows' alone."""
    for module in pkgutil.walk_packages(interpeer.__path__, "interpeer."):
        if not module.name.startswith("interpeer._core") and not module.name.endswith("__main__"):
            yield module.name
    yield "interpeer"


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    done = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert done.failed == 0


def test_every_public_class_has_an_example_or_is_plain_data(root):
    without = {
        name
        for name in interpeer.__all__
        if isinstance(thing := getattr(interpeer, name), type)
        and not issubclass(thing, BaseException)
        and ">>>" not in (thing.__doc__ or "")
    }
    data = {"ChannelOptions", "ChannelStats", "EventsDropped", "PathStats", "MessageStats", "Stats"}
    assert without <= data


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def run_script(script, cwd):
    done = subprocess.run([sys.executable, script], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_programs_in_the_readme(root, tmp_path):
    """A block of Python is a program of its own; what it prints stands in the block of text behind it."""
    shown = re.findall(r"^```python\n(.*?)^```\n+```text\n(.*?)^```", (root / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(shown) == len(blocks(root / "README.md", "python")) > 0
    for program, printed in shown:
        script = tmp_path / "example.py"
        script.write_text(program)
        assert run_script(script, tmp_path) == printed


def documented_programs():
    """Return the blocks of Python in docs/, page and number of each; testing.md's go on, and natlab.md's need root: they have
    tests of their own."""
    docs = Path(__file__).parents[2] / "docs"
    for page in sorted(docs.rglob("*.md")):
        if page.name not in ("testing.md", "natlab.md"):
            for number in range(len(blocks(page, "python"))):
                yield str(page.relative_to(docs)), number


@pytest.mark.parametrize(("page", "number"), list(documented_programs()))
def test_programs_in_the_documentation(root, tmp_path, page, number):
    """A block of Python is a program of its own that checks itself."""
    program = blocks(root / "docs" / page, "python")[number]
    assert "assert " in program
    script = tmp_path / "example.py"
    script.write_text(program)
    assert run_script(script, tmp_path) == ""


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_print_what_they_say(root, tmp_path, name):
    """The last paragraph of an example's docstring, indented, is what it prints."""
    script = root / "examples" / f"{name}.py"
    said = re.search(r'"""(.*?)"""', script.read_text(), re.DOTALL)
    assert said
    expected = "".join(line[4:] + "\n" for line in said[1].split("Prints:\n\n")[1].splitlines() if line.strip())
    assert run_script(script, tmp_path) == expected


def test_every_example_is_run(root):
    assert {path.stem for path in (root / "examples").iterdir() if path.suffix} == set(EXAMPLES)


@pytest.mark.parametrize("page", ["README.md", "docs/cgnat.md", "docs/performance.md", "docs/reaching.md", "docs/seeing.md"])
def test_commands_that_are_shown(root, tmp_path, page):
    """What is shown of the command line is real: every command there is one, with options that it has."""
    environ = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    shown = [line for text in blocks(root / page, "sh") for line in text.splitlines() if re.search(r"(^|\| )interpeer ", line)]
    assert shown
    for line in shown:
        words = re.search(r"(?:^|\| )interpeer ([a-z]+)(.*)", line)
        assert words, line
        told = subprocess.run(
            [sys.executable, "-m", "interpeer", words[1], "--help"], capture_output=True, text=True, env=environ, check=False
        )
        assert told.returncode == 0 and all(option in told.stdout for option in re.findall(r" (--?\w+)", words[2])), line
