"""Build the source distribution, and a wheel from it, into a folder: `python tests/packaging/distributions.py dist`.

Through the standard hooks of pyproject.toml, with the build tools installed here, and without any download: libsodium
comes from the cache of .ci/libsodium.sh, which ./run has filled.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path, **environment: str) -> None:
    """Run a command that must succeed; what it says is shown only if it does not."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed in {cwd}:\n{done.stdout}")


def build_sdist(into: Path) -> Path:
    """Build the source distribution of the checkout."""
    code = "import setuptools.build_meta, sys; setuptools.build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, into.resolve(), cwd=ROOT)
    (sdist,) = into.glob("*.tar.gz")
    return sdist


def build_wheel(sdist: Path, into: Path) -> Path:
    """Build a wheel from a source distribution and nothing else, the way the release does: library first."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which 3.11.3 and older do not know
            archive.extractall(folder)
        (source,) = Path(folder).iterdir()
        run("sh", ".ci/libsodium.sh", cwd=source, PYTHON=sys.executable, INTERPEER_CACHE=str(ROOT / ".cache"))
        pip = (sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation")
        run(*pip, "--wheel-dir", into.resolve(), ".", cwd=source)
    (wheel,) = into.glob("*.whl")
    return wheel


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(build_wheel(build_sdist(folder), folder))
