"""Standard input and output at speed: each on a thread of its own, with a few buffers, so that the event loop never waits.

A descriptor may be a file, a pipe or a terminal; only a thread can wait for all of them alike. The threads are daemons: one
that waits for a terminal must not keep the process.
"""

from __future__ import annotations

import asyncio
import io
import os
import queue
import select
import sys
import threading
from contextlib import suppress
from typing import final

BUFFER_BYTES = 1 << 20
BUFFERS = 4


@final
class Reader:
    """Read a descriptor ahead of whoever takes."""

    def __init__(self, descriptor: int) -> None:
        _widen(descriptor)
        self._file = io.FileIO(descriptor, "rb", closefd=False)
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._full: asyncio.Queue[tuple[bytearray, int | OSError]] = asyncio.Queue()
        self._taken: bytearray | None = None
        self._loop = asyncio.get_running_loop()
        for _ in range(BUFFERS):
            self._free.put(bytearray(BUFFER_BYTES))
        threading.Thread(target=self._run, name="interpeer input", daemon=True).start()

    async def read(self) -> memoryview:
        """Return what has come, valid until the next call; nothing at the end. Raises OSError."""
        if self._taken is not None:
            self._free.put(self._taken)
        self._taken, size = await self._full.get()
        if isinstance(size, OSError):
            raise size
        return memoryview(self._taken)[:size]

    def _run(self) -> None:
        size: int | OSError = 1
        while not isinstance(size, OSError) and size:
            buffer = self._free.get()
            try:
                size = self._fill(buffer)
            except OSError as error:
                size = error
            with suppress(RuntimeError):  # the loop is closed: nobody listens
                self._loop.call_soon_threadsafe(self._full.put_nowait, (buffer, size))

    def _fill(self, buffer: bytearray) -> int:
        while (size := self._file.readinto(buffer)) is None:  # somebody made it non-blocking
            select.select([self._file], [], [])
        return size


@final
class Writer:
    """Write to a descriptor behind whoever gives."""

    def __init__(self, descriptor: int) -> None:
        _widen(descriptor)
        self._descriptor = descriptor
        self._file = io.FileIO(descriptor, "wb", closefd=False)
        self._given: queue.SimpleQueue[tuple[bytearray, int] | None] = queue.SimpleQueue()
        self._free: asyncio.Queue[bytearray | OSError] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        for _ in range(BUFFERS):
            self._free.put_nowait(bytearray(BUFFER_BYTES))
        threading.Thread(target=self._run, name="interpeer output", daemon=True).start()

    async def buffer(self) -> bytearray:
        """Return a buffer to be filled and given to `write`. Raises OSError when something before could not be written."""
        buffer = await self._free.get()
        if isinstance(buffer, OSError):
            self._free.put_nowait(buffer)
            raise buffer
        return buffer

    def write(self, buffer: bytearray, size: int) -> None:
        """Write the first bytes of a buffer, soon."""
        self._given.put((buffer, size))

    async def close(self) -> None:
        """Wait until everything is written, and close the descriptor, so that its reader sees the end. Raises OSError."""
        for _ in range(BUFFERS):
            await self.buffer()
        self._given.put(None)
        os.close(self._descriptor)
        if self._descriptor == 1:
            sys.stdout = None  # nobody shall write into what gets this number next

    def _run(self) -> None:
        try:
            while (given := self._given.get()) is not None:
                buffer, size = given
                self._drain(memoryview(buffer)[:size])
                self._tell(buffer)
        except OSError as error:
            self._tell(error)

    def _drain(self, data: memoryview) -> None:
        while data:
            count = self._file.write(data)
            if count is None:
                select.select([], [self._file], [])
            data = data[count or 0 :]

    def _tell(self, result: bytearray | OSError) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._free.put_nowait, result)


def _widen(descriptor: int) -> None:
    """Make a pipe hold a whole buffer, where that can be done (Linux)."""
    try:
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, BUFFER_BYTES)
    except (ImportError, AttributeError, OSError):
        pass
