"""Which libsodium is used, and what is said when none is. Each test takes a fresh copy of the module, so a fresh search."""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

AEGIS = "crypto_aead_aegis256_encrypt"
CHACHA = "crypto_aead_chacha20poly1305_ietf_encrypt"


@pytest.fixture
def fresh(root, monkeypatch):
    """The module as nobody has used it yet, in an environment that names no library."""
    monkeypatch.delenv("INTERPEER_LIBSODIUM", raising=False)
    spec = importlib.util.spec_from_file_location("fresh_sodium", root / "src/interpeer/_sodium.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_system(fresh, monkeypatch):
    """A machine without a libsodium of its own."""
    monkeypatch.setattr(fresh.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(fresh, "_BARE_NAMES", ())
    monkeypatch.setattr(fresh, "_FOLDERS", ())


@pytest.fixture
def elsewhere(fresh, tmp_path):
    """A working libsodium that is neither the bundled file nor the system's."""
    return Path(shutil.copy(fresh.path(), tmp_path))


def python(code, **environment):
    """Run `code` in a new interpreter; return what it prints, one value a line."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def garbage(path):
    path.write_bytes(b"\x7fELF" + bytes(60))
    return str(path)


def number(version):
    return tuple(int(part) for part in version.split("."))


def test_bundled_library_comes_before_the_systems(fresh):
    assert fresh.sodium().origin == ("bundled" if (fresh.BUNDLE / fresh._FILE).exists() else "system")
    assert os.path.isfile(fresh.path()) and os.path.isabs(fresh.path())
    assert number(fresh.version()) >= (1, 0, 18)


def test_missing_function_has_address_zero(fresh):
    assert fresh.address(CHACHA)
    assert fresh.address("crypto_of_the_future") == 0
    assert bool(fresh.address(AEGIS)) == (number(fresh.version()) >= (1, 0, 19))


def test_environment_names_the_file(fresh, elsewhere, monkeypatch):
    monkeypatch.setenv("INTERPEER_LIBSODIUM", str(elsewhere))
    monkeypatch.setattr(fresh, "_found", None)
    assert fresh.sodium().origin == "environment"
    assert os.path.samefile(fresh.path(), elsewhere)


def test_without_a_bundle_the_systems_library_is_opened(fresh, elsewhere, monkeypatch):
    """The system's own where there is one; otherwise a copy in a folder of the search stands for it."""
    monkeypatch.setattr(fresh, "BUNDLE", elsewhere.parent / "no-bundle")
    monkeypatch.setattr(fresh, "_FILE", elsewhere.name)
    monkeypatch.setattr(fresh, "_FOLDERS", (*fresh._FOLDERS, str(elsewhere.parent)))
    monkeypatch.setattr(fresh, "_found", None)
    assert fresh.sodium().origin == "system"
    assert os.path.isabs(fresh.path()) and os.path.isfile(fresh.path())
    code = """
from interpeer import _sodium
print(_sodium.sodium().origin, _sodium.path(), _sodium.version(), bool(_sodium.address("%s")), bool(_sodium.address("%s")),
      _sodium.pysodium_path(), sep="\\n")
"""
    origin, path, version, chacha, aegis, pysodium = python(code % (CHACHA, AEGIS), INTERPEER_LIBSODIUM=fresh.path())
    assert origin == "environment" and chacha == "True"
    assert os.path.samefile(path, fresh.path()) and os.path.samefile(pysodium, path)
    assert aegis == str(number(version) >= (1, 0, 19))


def test_no_library_at_all_is_an_error_that_says_what_to_do(fresh, no_system, tmp_path, monkeypatch):
    monkeypatch.setattr(fresh, "BUNDLE", tmp_path)
    with pytest.raises(ImportError) as caught:
        fresh.path()
    text = str(caught.value)
    assert "Install it" in text and "INTERPEER_LIBSODIUM" in text and f"{tmp_path / fresh._FILE}: no such file" in text


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: "libsodium.so", "not an absolute path"),
        (lambda folder: str(folder / "nowhere.so"), "no such file"),
        (lambda folder: str(folder), "no such file"),
        (lambda folder: garbage(folder / "garbage.so"), "cannot be loaded"),
        (lambda folder: importlib.util.find_spec("interpeer._core.rangeset").origin, "is not libsodium"),
    ],
    ids=["relative", "missing", "folder", "garbage", "other library"],
)
def test_unusable_file_in_the_environment_is_refused_without_trying_others(fresh, tmp_path, monkeypatch, make, reason):
    name = make(tmp_path)
    monkeypatch.setenv("INTERPEER_LIBSODIUM", name)
    with pytest.raises(ImportError, match="no other libsodium was tried") as caught:
        fresh.path()
    assert f"{name}: {reason}" in str(caught.value)


def test_damaged_bundle_is_reported_and_the_systems_library_taken(fresh, elsewhere, tmp_path, monkeypatch, caplog):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / fresh._FILE).write_bytes(b"torn")
    monkeypatch.setattr(fresh.ctypes.util, "find_library", lambda name: str(elsewhere))
    monkeypatch.setattr(fresh, "BUNDLE", bundle)
    monkeypatch.setattr(fresh, "_found", None)
    with caplog.at_level(logging.WARNING, logger="interpeer"):
        assert fresh.sodium().origin == "system"
    assert os.path.samefile(fresh.path(), elsewhere)
    assert "the bundled libsodium cannot be used" in caplog.text


def test_library_that_fails_to_initialise_is_refused(fresh, elsewhere, no_system, monkeypatch):
    class Broken:
        sodium_version_string = None

        def __init__(self, name):
            self.sodium_init = lambda: -1

    monkeypatch.setenv("INTERPEER_LIBSODIUM", str(elsewhere))
    monkeypatch.setattr(fresh, "_found", None)
    monkeypatch.setattr(fresh.ctypes, "CDLL", Broken)
    with pytest.raises(ImportError, match="sodium_init failed"):
        fresh.path()


def test_threads_find_it_once(fresh, monkeypatch):
    searches, results = [], []
    search = fresh._find
    monkeypatch.setattr(fresh, "_find", lambda: searches.append(1) or search())
    start = threading.Barrier(8)
    threads = [threading.Thread(target=lambda: (start.wait(), results.append(fresh.sodium()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(searches) == 1 and len(results) == 8 and len(set(map(id, results))) == 1


def test_pysodium_uses_the_same_file(fresh):
    code = """
import ctypes.util
before = ctypes.util.find_library
from interpeer import _sodium
print(_sodium.pysodium().__name__, _sodium.pysodium_path(), _sodium.path(), ctypes.util.find_library is before, sep="\\n")
"""
    name, used, path, restored = python(code)
    assert name == "pysodium" and used == path and restored == "True"


def test_pysodium_imported_before_keeps_its_file_and_it_is_told(fresh, elsewhere):
    code = """
import ctypes.util, os, sys
ctypes.util.find_library = lambda name: sys.argv[1]
import pysodium
from interpeer import _sodium
print(_sodium.pysodium() is pysodium, os.path.samefile(_sodium.pysodium_path(), sys.argv[1]), sep="\\n")
"""
    assert python(f"import sys; sys.argv[1:] = [{str(elsewhere)!r}]\n{code}") == ["True", "True"]
