"""The package as type checkers see it: the core's stubs against the compiled modules, and the package under --strict."""

import importlib
import subprocess
import sys

import pytest

UNTYPED = "probe"  # what starts like this is a door for tests and benchmarks, which are not type-checked


@pytest.fixture
def stubs(core_modules, root):
    """The modules of the core that have a stub."""
    return [name for name in core_modules if (root / f"src/interpeer/_core/{name}.pyi").exists()]


def check(root, *command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_module_without_a_stub_offers_nothing_to_python(core_modules, stubs):
    for name in set(core_modules) - set(stubs):
        if name.startswith(UNTYPED):
            continue
        module = importlib.import_module(f"interpeer._core.{name}")
        assert not [member for member in vars(module) if not member.startswith("_")], f"{name} needs a stub"


def test_every_stub_belongs_to_a_module(core_modules, root):
    assert {path.stem for path in (root / "src/interpeer/_core").glob("*.pyi")} <= set(core_modules)


def test_stubs_match_the_compiled_modules(stubs, root):
    allowed = root / "tests/typing/stubtest.allow"
    names = [f"interpeer._core.{name}" for name in stubs]
    check(root, "mypy.stubtest", *names, "--allowlist", str(allowed), "--concise")


def test_package_is_clean_under_mypy_strict(root):
    check(root, "mypy")


@pytest.mark.system
def test_package_is_clean_under_pyright(root):
    check(root, "pyright", "--pythonpath", sys.executable)
