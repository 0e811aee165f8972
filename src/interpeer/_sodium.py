"""The one libsodium of this process: where it is, what it can do, and the same one for pysodium.

The core links against nothing. It asks here for the address of each function, so that one wheel runs with the bundled
library and with an older one of the system, and a function that is missing is an address of 0, not a failed import.
Looked for, first to last:

1. the file that INTERPEER_LIBSODIUM names, an absolute path; if it cannot be used, nothing else is tried;
2. the copy bundled with the package, interpeer/_lib/;
3. the system's: what the dynamic loader finds, then the usual folders of Homebrew, MacPorts and hand-made installs.

`sodium_init` is called before anything else: until then libsodium has not looked at the processor, AEGIS is 40 times
slower and AES-GCM says that it is unavailable. The library is opened once, at first use, and never closed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

VARIABLE = "INTERPEER_LIBSODIUM"
BUNDLE = Path(__file__).parent / "_lib"

if sys.platform == "win32":
    _FILE = "libsodium.dll"
    _BARE_NAMES: tuple[str, ...] = ()
    _FOLDERS: tuple[str, ...] = ()
elif sys.platform == "darwin":
    _FILE = "libsodium.dylib"
    _BARE_NAMES = ()
    _FOLDERS = ("/opt/homebrew/lib", "/usr/local/lib", "/opt/local/lib")
else:
    _FILE = "libsodium.so"
    _BARE_NAMES = ("libsodium.so.26", "libsodium.so.23")  # find_library needs ldconfig or a compiler; the loader does not
    _FOLDERS = ("/usr/local/lib", "/opt/local/lib")

_lock = threading.RLock()
_found: Sodium | None = None
_log = logging.getLogger("interpeer")


@dataclass(frozen=True, slots=True)
class Sodium:
    """The library in use."""

    library: ctypes.CDLL
    path: str
    """The file, absolute."""
    version: str
    """As the library tells it, such as "1.0.20"."""
    origin: str
    """"environment", "bundled" or "system": which of the three places it came from."""


class _Unusable(Exception):
    """A file that is no working libsodium; the text says why."""


def sodium() -> Sodium:
    """Find, open and initialise libsodium; later calls return the same.

    Raises:
        ImportError: there is none; the message lists every place tried and what to do.
    """
    global _found
    with _lock:
        if _found is None:
            _found = _find()
        return _found


def library() -> ctypes.CDLL:
    """Return the library, initialised."""
    return sodium().library


def path() -> str:
    """Return the absolute path of the library's file."""
    return sodium().path


def version() -> str:
    """Return the library's version."""
    return sodium().version


def address(name: str) -> int:
    """Return the address of the function `name`, or 0 if this libsodium does not have it."""
    try:
        return ctypes.cast(getattr(library(), name), ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


def pysodium() -> ModuleType:
    """Import pysodium so that it uses this same file.

    pysodium looks for the library by itself while it is imported, and would load the system's beside ours. It cannot be
    steered any more if the application has imported it before; `pysodium_path` tells which file it uses.
    """
    with _lock:
        chosen, find_library = path(), ctypes.util.find_library

        def steered(name: str) -> str | None:
            return chosen if name in ("sodium", "libsodium") else find_library(name)

        ctypes.util.find_library = steered
        try:
            return importlib.import_module("pysodium")
        finally:
            ctypes.util.find_library = find_library


def pysodium_path() -> str:
    """Return the absolute path of the libsodium that pysodium uses; imports it if need be."""
    return _file_of(pysodium().sodium)


def _find() -> Sodium:
    tried: list[str] = []
    for origin, name in _candidates():
        try:
            return _open(name, origin)
        except _Unusable as reason:
            tried.append(f"{name}: {reason}")
            if origin == "bundled" and os.path.exists(name):
                _log.warning("the bundled libsodium cannot be used, trying the system's: %s: %s", name, reason)
    if os.environ.get(VARIABLE):
        raise ImportError(f"{VARIABLE} is set, so no other libsodium was tried; {tried[0]}")
    raise ImportError(
        "no libsodium found. Install it from the system (Debian: libsodium23, Fedora, Alpine, Homebrew: libsodium), "
        f"or set {VARIABLE} to the absolute path of one. Tried " + "; ".join(tried)
    )


def _candidates() -> Iterator[tuple[str, str]]:
    """Yield (origin, absolute path, or a name for the system's loader) in the order of preference."""
    wanted = os.environ.get(VARIABLE)
    if wanted:
        yield "environment", wanted
        return
    yield "bundled", str(BUNDLE / _FILE)
    for name in ("sodium", "libsodium"):
        found = ctypes.util.find_library(name)
        if found:
            yield "system", found
    for name in _BARE_NAMES:
        yield "system", name
    for folder in _FOLDERS:
        yield "system", os.path.join(folder, _FILE)


def _open(name: str, origin: str) -> Sodium:
    if origin != "system":
        if not os.path.isabs(name):
            raise _Unusable("not an absolute path")
        if not os.path.isfile(name):
            raise _Unusable("no such file")
    try:
        opened = ctypes.CDLL(name)
    except OSError as error:
        raise _Unusable(f"cannot be loaded: {error}") from None
    try:
        initialise, version_string = opened.sodium_init, opened.sodium_version_string
    except AttributeError:
        raise _Unusable("is not libsodium: it has no sodium_init") from None
    if initialise() < 0:
        raise _Unusable("sodium_init failed")
    version_string.restype = ctypes.c_char_p
    return Sodium(opened, _file_of(opened), version_string().decode(), origin)


class _Symbol(ctypes.Structure):
    """Dl_info of <dlfcn.h>."""

    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def _file_of(opened: ctypes.CDLL) -> str:
    """Return the file that a loaded libsodium came from: the loader's own word, whatever name it was asked for."""
    if sys.platform == "win32":
        buffer = ctypes.create_unicode_buffer(32768)
        ctypes.windll.kernel32.GetModuleFileNameW(ctypes.c_void_p(opened._handle), buffer, len(buffer))
        return buffer.value
    symbol = _Symbol()
    if ctypes.CDLL(None).dladdr(opened.sodium_init, ctypes.byref(symbol)) and symbol.file:
        return os.path.abspath(os.fsdecode(symbol.file))
    return opened._name
