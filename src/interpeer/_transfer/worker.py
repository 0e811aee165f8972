"""Blocking work on a thread of its own, with buffers that are used again and again.

A `Worker` runs a generator: it takes items in order, and what it yields comes to the event loop in the same order. So disk,
digests and network overlap, and the loop is woken once for each chunk.
"""

from __future__ import annotations

import asyncio
import ctypes
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar, final

from interpeer import _sodium
from interpeer._transfer.protocol import CHUNK_BYTES, DIGEST_BYTES, HEADER_BYTES

BUFFERS = 4
"""In flight at once: one is filled, one is digested, one is sent, and one spare."""


@final
class Buffer:
    """Hold one chunk behind room for its header."""

    __slots__ = ("_address", "view")

    def __init__(self) -> None:
        memory = bytearray(HEADER_BYTES + CHUNK_BYTES)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.view = memoryview(memory)
        """The header's room, and the chunk."""

    @property
    def chunk(self) -> memoryview:
        """The chunk's room."""
        return self.view[HEADER_BYTES:]

    def digest(self, size: int) -> bytes:
        """Return the digest of the first bytes of the chunk: BLAKE2b by libsodium, a fifth faster than hashlib's."""
        out = ctypes.create_string_buffer(DIGEST_BYTES)
        data = ctypes.c_void_p(self._address + HEADER_BYTES)
        if _generichash()(out, ctypes.c_size_t(DIGEST_BYTES), data, ctypes.c_ulonglong(size), None, ctypes.c_size_t(0)) != 0:
            raise RuntimeError("libsodium's crypto_generichash failed")
        return out.raw


def _generichash() -> Callable[..., int]:
    return _sodium.library().crypto_generichash  # ctypes lets other threads run meanwhile


class Stopped(Exception):
    """Tell a worker's thread that nobody waits for it any more."""


@final
class Pool:
    """Lend buffers to a thread, which waits while all of them are on their way."""

    def __init__(self) -> None:
        self._free: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(Buffer())

    def take(self) -> Buffer:
        """Return a buffer that nobody uses. Raises Stopped after `close`."""
        buffer = self._free.get()
        if buffer is None:
            raise Stopped
        return buffer

    def give_back(self, buffer: Buffer) -> None:
        """Let a buffer be used again."""
        self._free.put(buffer)

    def close(self) -> None:
        """Let nobody wait any more."""
        self._free.put(None)


Item = TypeVar("Item")
Result = TypeVar("Result")


@final
class Worker(Generic[Item, Result]):
    """Run a generator over items on a thread, as long as the block lasts."""

    def __init__(self, work: Callable[[Iterator[Item]], Iterator[Result]], on_stop: Callable[[], None] | None = None) -> None:
        self._work = work
        self._on_stop = on_stop
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._results: asyncio.Queue[Result | BaseException | None] = asyncio.Queue()
        self._thread = threading.Thread(target=self._run, name="interpeer transfer", daemon=True)
        self._is_stopped = False

    def put(self, item: Item) -> None:
        """Give it one item more."""
        self._items.put(item)

    def put_end(self) -> None:
        """Tell it that no item comes any more."""
        self._items.put(None)

    async def get(self) -> Result | None:
        """Return its next result; None when the work is over. Raises what the work raised."""
        result = await self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_stopped = True
        self.put_end()
        if self._on_stop is not None:
            self._on_stop()
        await asyncio.shield(asyncio.to_thread(self._thread.join))

    def _take(self) -> Iterator[Item]:
        while (item := self._items.get()) is not None and not self._is_stopped:
            yield item
        if self._is_stopped:
            raise Stopped

    def _run(self) -> None:
        end: BaseException | None = None
        results = self._work(self._take())
        try:
            for result in results:
                if self._is_stopped:
                    break
                self._tell(result)
        except Stopped:
            pass
        except BaseException as error:
            end = error
        finally:
            results.close()  # type: ignore[attr-defined]  # a generator: it closes its files
        self._tell(end)

    def _tell(self, result: Result | BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._results.put_nowait, result)
        except RuntimeError:  # the loop is closed
            self._is_stopped = True
