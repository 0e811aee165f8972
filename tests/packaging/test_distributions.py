"""What is published: the source distribution is complete, and the wheel built from it works on a bare machine."""

import email
import hashlib
import importlib.machinery
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"


@pytest.fixture(scope="session")
def dist(request, root, tmp_path_factory):
    """A folder with the source distribution and the wheel built from it."""
    given = request.config.getoption("--dist")
    if given:
        return given.resolve()
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, HERE / "distributions.py", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def sdist_names(dist):
    """The files in the source distribution, without the leading folder."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="session")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="session")
def metadata(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def sources(root, folder, *patterns):
    return {path.relative_to(root).as_posix() for pattern in patterns for path in (root / folder).rglob(pattern)}


def test_sdist_carries_every_source_and_nothing_that_was_built(sdist_names, root, core_modules):
    assert {f"src/_core/{name}.pyx" for name in core_modules} <= sdist_names
    assert sources(root, "src", "*.pyx", "*.h", "*.pxd", "*.pyi", "*.py", "py.typed") <= sdist_names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py", "run", ".ci/libsodium.sh"} <= sdist_names
    written_in_c = sources(root, "tests/net", "*.c") | sources(root, "src/interpeer/testing/natlab", "*.c")
    assert sources(root, "tests", "*.py") | sources(root, "tools", "*.lua") | written_in_c <= sdist_names
    built = {name for name in sdist_names if re.search(r"\.(c|so|pyd|dll|dylib|pyc)$|_lib/|__pycache__", name)}
    assert built <= written_in_c


def test_wheel_carries_the_core_its_types_and_the_library(wheel, root, core_modules):
    names = set(wheel.namelist())
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    assert {name for name in names if name.endswith(suffix)} == {f"interpeer/_core/{module}{suffix}" for module in core_modules}
    package = {name.removeprefix("src/") for name in sources(root, "src/interpeer", "*.py", "*.pyi", "*.pxd", "py.typed")}
    assert package <= names
    assert [name for name in names if re.fullmatch(r"interpeer/_lib/libsodium\.(so|dylib|dll)", name)]
    assert "interpeer/_lib/LICENSE.libsodium" in names
    laboratory = {name.removeprefix("src/") for name in sources(root, "src/interpeer/testing/natlab", "*.c", "*.h")}
    assert {name for name in names if re.search(r"\.(pyx|c|h|pyc)$", name)} == laboratory, (
        "it compiles its links when they are asked for"
    )
    assert not [name for name in names if not re.match(r"interpeer(/|-[\w.]+\.dist-info/)", name)]


def test_wheel_is_for_this_interpreter_and_typed_as_such(wheel):
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.search(rf"-{tag}-{tag}t?-\w+\.whl$", wheel.filename)


def test_bill_of_materials_names_the_library_in_the_wheel(wheel):
    (name,) = [name for name in wheel.namelist() if ".dist-info/sboms/" in name]
    (bundled,) = [name for name in wheel.namelist() if name.startswith("interpeer/_lib/libsodium.")]
    bill = json.loads(wheel.read(name))
    (library,) = bill["components"]
    assert bill["bomFormat"] == "CycloneDX"
    assert library["name"] == "libsodium" and library["licenses"] == [{"license": {"id": "ISC"}}]
    assert library["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read(bundled)).hexdigest()}]


def test_metadata_tells_what_package_indexes_show(metadata):
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == README.read_text().strip()


def closure(requirements):
    """Return the distributions that these requirements bring on this machine, with what they require in turn."""
    found = set()
    for text in requirements or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found |= {requirement.name} | closure(importlib.metadata.requires(requirement.name))
    return found


@pytest.fixture(scope="session")
def clean_python(dist, metadata, tmp_path_factory):
    """An interpreter with the wheel, what the wheel requires, and nothing else. (Copied from here: no test needs a network.)"""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('platlib'))"
    site = Path(subprocess.check_output([python, "-c", code], text=True).strip())
    for name in closure(metadata.get_all("Requires-Dist")):
        for file in importlib.metadata.files(name):
            if ".." not in file.parts:  # a script
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), site / file)
    (wheel,) = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-index", "--no-deps", wheel]
    subprocess.run(pip, check=True)
    return python


def test_wheel_works_without_compiler_and_without_a_libsodium_of_the_system(clean_python, tmp_path):
    environment = {"PATH": str(clean_python.parent)} | {k: v for k, v in os.environ.items() if k == "SYSTEMROOT"}
    assert not [tool for tool in ("cc", "gcc", "clang", "cl") if shutil.which(tool, path=environment["PATH"])]
    done = subprocess.run(
        [clean_python, "-I", HERE / "smoke.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(clean_python.parents[1]) in done.stdout
