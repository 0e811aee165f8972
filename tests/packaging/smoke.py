"""Import everything that was installed, and see that the bundled libsodium is the one in use.

Needs no other file of this repository: the wheels are tested with it on every platform that they are built for.
"""

import ctypes.util
import importlib
import os
import pkgutil
import sys

ctypes.util.find_library = lambda name: None  # as on a machine without a libsodium of its own

import interpeer  # noqa: E402
import interpeer._core  # noqa: E402
from interpeer import _sodium  # noqa: E402

modules = [info.name for info in pkgutil.iter_modules(interpeer._core.__path__)]
assert modules, "the package has no core"
for name in modules:
    importlib.import_module(f"interpeer._core.{name}")

home = os.path.dirname(os.path.realpath(interpeer.__file__))
assert os.environ.get("INTERPEER_LIBSODIUM") is None, "this must find the library by itself"
assert _sodium.sodium().origin == "bundled", _sodium.sodium()
assert os.path.realpath(_sodium.path()).startswith(home), _sodium.path()
assert _sodium.address("crypto_aead_aegis256_encrypt"), "the bundled libsodium has no AEGIS"
assert os.path.samefile(_sodium.pysodium_path(), _sodium.path()), "pysodium uses another libsodium"

if sys.platform == "linux":
    with open("/proc/self/maps") as maps:
        mapped = {line.split(maxsplit=5)[5].strip() for line in maps if "sodium" in line and len(line.split(maxsplit=5)) == 6}
    libraries = {os.path.realpath(path) for path in mapped if os.path.basename(path).startswith("libsodium.")}
    assert libraries == {os.path.realpath(_sodium.path())}, libraries

print(f"interpeer {len(modules)} modules, libsodium {_sodium.version()}, {home}")
