"""The measured side: run one end of a load in this process (`python -m interpeer._bench.end module:function ARGUMENTS`).

Standard output belongs to the JSON lines; whatever a library prints goes to standard error instead.
"""

import asyncio
import gc
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TextIO

if sys.platform != "win32":
    import resource

RESIDENT = Path("/proc/self/statm")
DESCRIPTORS = 1 << 16

Facts = dict[str, Any]  # what an end tells; anything that JSON can carry


class Control:
    """What an end says to the measuring side, and how it hears that it shall finish."""

    def __init__(self, lines: TextIO, stop_fd: int) -> None:
        self._lines = lines
        self._stop_fd = stop_fd

    def tell(self, **facts: Any) -> None:
        """Send one line: for a server how to reach it, for either end its figures."""
        print(json.dumps(facts), file=self._lines, flush=True)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when this end shall stop, for ends with a poller."""
        return self._stop_fd

    def wait_stop(self) -> None:
        """Block until the measuring side asks this end to stop, or is gone."""
        while os.read(self._stop_fd, 4096):
            pass

    async def stopped(self) -> None:
        """Wait for the stop on an event loop.

        By a thread, since not every loop can watch a pipe; a daemon, since an end that fails shall not wait for it."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()

        def wait() -> None:
            self.wait_stop()
            loop.call_soon_threadsafe(stopped.set)

        threading.Thread(target=wait, daemon=True).start()
        await stopped.wait()


def run(main: Coroutine[Any, Any, Facts | None], *, uvloop: bool) -> Facts | None:
    """Run an end on the event loop that was asked for."""
    factory = None
    if uvloop:
        import uvloop as uvloop_module

        factory = uvloop_module.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


class Stopwatch:
    """Seconds on the clock, and of the processor in all threads of this process, since it was made."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._start_s = time.perf_counter()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self._start_s, "cpu_s": time.process_time() - self._cpu_s}


def resident_bytes() -> int:
    """Return this process's resident memory after a garbage collection; OSError on systems without RESIDENT."""
    gc.collect()
    return int(RESIDENT.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def raise_descriptor_limit() -> None:
    """Allow this process as many open descriptors as the system permits without privilege."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def main(function: str, arguments: str) -> None:
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    control = Control(lines, 0)
    module, _, name = function.partition(":")
    figures = getattr(importlib.import_module(module), name)(control, **json.loads(arguments))
    if figures is not None:
        control.tell(**figures)


if __name__ == "__main__":
    main(*sys.argv[1:])
