"""Take from the core what its trace has seen, and see that it is written: qlog files and the key log.

The event loop only copies records out; a thread turns them into text and writes them, so that neither a slow disk nor a
full one holds packets up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import final

from interpeer._config import Config
from interpeer._core import control, engine, pump
from interpeer._qlog import QlogWriter

logger = logging.getLogger("interpeer")

COLLECT_S = 1.0
"""What has happened is in the files after this time at the latest, if the disk can follow."""
MAX_WAITING_BYTES = 64 << 20
"""Records that wait to be written: half a million. More are left out and counted."""

_KEY = struct.Struct("=QQQQ32s16s")  # TraceKey in trace.pxd
_HEADING = "# interpeer key log 1: what it is for, and what can be read with it, is in docs/seeing.md\n"


def make_tracers(
    cores: Iterable[engine.Engine],
    config: Config,
    loop: asyncio.AbstractEventLoop,
    stack: ExitStack,
    *,
    is_simulated: bool,
) -> dict[engine.Engine, Tracer]:
    """Switch the trace of each engine on, if settings or environment ask for it; what is opened, the stack closes.

    Raises OSError for a key log that cannot be."""
    folder = config.qlog_dir or os.environ.get("INTERPEER_QLOG") or os.environ.get("QLOGDIR")
    key_log = config.key_log or os.environ.get("INTERPEER_KEYLOG")
    if not folder and not key_log:
        return {}
    keys = KeyLog(Path(key_log)) if key_log else None
    if keys is not None:
        stack.callback(keys.close)
    tracers: dict[engine.Engine, Tracer] = {}
    for core in cores:
        tracers[core] = Tracer(core, loop, Path(folder) if folder else None, config.qlog_max_bytes, keys, is_simulated)
        stack.callback(tracers[core].close)
    return tracers


@final
class KeyLog:
    """Add secrets to a file, a line each, at once and in one piece: several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
        if os.fstat(self._descriptor).st_size == 0:
            os.write(self._descriptor, _HEADING.encode())
        logger.warning("the keys of all connections are written to %s: whoever has that file can read everything", path)

    def write(self, keys: bytes) -> str | None:
        """Write what the core has given; return why it cannot be, or None."""
        lines = [
            f"INTERPEER_SECRET {cid:016x} {other:016x} {suite} {epoch} {secret.hex()} {mask.hex()}\n"
            for cid, other, suite, epoch, secret, mask in _KEY.iter_unpack(keys)
        ]
        try:
            for line in lines:
                os.write(self._descriptor, line.encode())
        except OSError as error:
            return f"cannot write the key log {self._path}: {error.strerror}"
        return None

    def close(self) -> None:
        os.close(self._descriptor)


@final
class Tracer:
    """Empty an engine's trace, now and then and when it asks for it."""

    def __init__(
        self,
        core: engine.Engine,
        loop: asyncio.AbstractEventLoop,
        folder: Path | None,
        max_bytes: int,
        keys: KeyLog | None,
        is_simulated: bool,
    ) -> None:
        self._core = core
        self._loop = loop
        self._keys = keys
        self._has_complained = False
        self._left_out = self._bytes_dropped = self._failures = 0
        self._keys_left_out = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writer: QlogWriter | None = None
        self._thread: threading.Thread | None = None
        self._queue: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        self._put = self._taken = 0  # bytes in all, by the loop and by the thread
        control.trace_start(core, folder is not None, keys is not None)
        if folder is not None:
            offset_ms = 0.0 if is_simulated else time.time() * 1000 - pump.now_ns() / 1e6
            self._writer = QlogWriter(folder, max_bytes, lambda ns: round(ns / 1e6 + offset_ms, 3), self._complain)
            self._timer = loop.call_later(COLLECT_S, self._tick)
            if not is_simulated:  # where time stands still while somebody writes
                self._thread = threading.Thread(target=self._run, name="interpeer-qlog", daemon=True)
                self._thread.start()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(COLLECT_S, self._tick)
        self.collect()

    def collect(self, *, only_if_ripe: bool = False) -> None:
        """Take what there is, perhaps only if it is much, and hand it to the thread that writes it."""
        records, keys, left_out, keys_left_out = control.trace_take(self._core, only_if_ripe)
        if keys and self._keys is not None and (trouble := self._keys.write(keys)):
            self._failures += 1
            self._complain(trouble)
        if keys_left_out > self._keys_left_out:
            self._keys_left_out = keys_left_out
            self._complain("more connections at once than the key log can follow: some keys are left out")
        if not records:
            return
        missing, self._left_out = left_out - self._left_out, left_out
        if self._thread is None:
            self._write(records, missing)
        elif self._put - self._taken > MAX_WAITING_BYTES:
            self._bytes_dropped += len(records)
            self._left_out -= missing  # told with the next batch
        else:
            self._put += len(records)
            self._queue.put((records, missing))

    def _run(self) -> None:
        """Write batches until there is a None."""
        while (batch := self._queue.get()) is not None:
            self._taken += len(batch[0])
            self._write(*batch)

    def _write(self, records: bytes, left_out: int) -> None:
        """Write a batch; what goes wrong is told once, and stops nothing."""
        assert self._writer is not None
        try:
            self._writer.write(records, left_out)
        except Exception as error:
            self._failures += 1
            self._complain(f"a part of the qlog is lost: {error!r}")

    def _complain(self, why: str) -> None:
        if not self._has_complained:
            self._has_complained = True
            logger.warning("%s (this is said once)", why)

    def counters(self) -> dict[str, int]:
        """Return what could not be logged, by cause."""
        failures = self._failures + (self._writer.failures if self._writer is not None else 0)
        return {
            "trace_left_out": self._left_out,
            "trace_bytes_dropped": self._bytes_dropped,
            "trace_failures": failures,
            "key_log_left_out": self._keys_left_out,
        }

    def close(self) -> None:
        """Write what is left, and close the files."""
        if self._timer is not None:
            self._timer.cancel()
        self.collect()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        if self._writer is not None:
            self._writer.close()
