"""What this machine is, as far as it matters for speed, in words."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

from interpeer import _sodium
from interpeer._run import loop_factory


def python() -> str:
    """Return the implementation and version of Python, and whether it has a global lock."""
    is_locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"{platform.python_implementation()} {platform.python_version()}{'' if is_locked else ', free-threaded'}"


def loop() -> str:
    """Return the event loop that commands run on, with its version."""
    if loop_factory() is None:
        return "asyncio"
    return f"uvloop {importlib.metadata.version('uvloop')}"


def describe() -> str:
    """Return it all in one line."""
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} processors, {system}, {python()}, {loop()}, libsodium {_sodium.version()}"
