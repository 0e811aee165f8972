"""A stream, for threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, final

from interpeer import _stream
from interpeer._stream import MAX_READ_BYTES
from interpeer.blocking._thread import Each, LoopThread, Wrapper

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Buffer

    from interpeer.blocking._connection import Connection


@final
class Stream(Wrapper[_stream.Stream]):
    """Carry bytes both ways; see `interpeer.Stream`."""

    def __init__(self, thread: LoopThread, inner: _stream.Stream, connection: Connection) -> None:
        super().__init__(thread, inner)
        self._connection = connection

    @property
    def id(self) -> int:
        """The stream's number on its connection."""
        return self._inner.id

    @property
    def connection(self) -> Connection:
        """The connection that it belongs to."""
        return self._connection

    @property
    def priority(self) -> int:
        """How urgent what we send is, from -4 to 3."""
        return self._inner.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._inner.priority = priority

    @property
    def bytes_accepted(self) -> int:
        """How many bytes `write` has taken."""
        return self._inner.bytes_accepted

    def write(self, data: Buffer, *, timeout: float | None = None) -> None:
        """Send bytes; waits while the peer is slower."""
        self._thread.call(lambda: self._inner.write(data), timeout)

    def finish(self, *, timeout: float | None = None) -> None:
        """End our side, and wait until the peer's transport has all of it."""
        self._thread.call(self._inner.finish, timeout)

    def read(self, n: int = -1, *, max_bytes: int = MAX_READ_BYTES, timeout: float | None = None) -> bytes:
        """Read up to `n` bytes, or everything up to the end."""
        return self._thread.call(lambda: self._inner.read(n, max_bytes=max_bytes), timeout)

    def readexactly(self, n: int, *, timeout: float | None = None) -> bytes:
        """Read exactly `n` bytes, or raise asyncio.IncompleteReadError."""
        return self._thread.call(lambda: self._inner.readexactly(n), timeout)

    def readinto(self, buffer: Buffer, *, timeout: float | None = None) -> int:
        """Read into a buffer what has come, at least one byte; 0 means the end."""
        return self._thread.call(lambda: self._inner.readinto(buffer), timeout)

    def reset(self, code: int = 0) -> None:
        """Give our side up."""
        self._thread.do(lambda: self._inner.reset(code))

    def stop(self, code: int = 0) -> None:
        """Read no more."""
        self._thread.do(lambda: self._inner.stop(code))

    def send_array(self, array: np.ndarray[Any, Any], *, timeout: float | None = None) -> None:
        """Send a numpy array, without copying it."""
        self._thread.call(lambda: self._inner.send_array(array), timeout)

    def recv_array(
        self, out: np.ndarray[Any, Any] | None = None, *, max_bytes: int = MAX_READ_BYTES, timeout: float | None = None
    ) -> np.ndarray[Any, Any]:
        """Receive an array."""
        return self._thread.call(lambda: self._inner.recv_array(out, max_bytes=max_bytes), timeout)

    def send_file(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> int:
        """Send a file."""
        return self._thread.call(lambda: self._inner.send_file(path), timeout)

    def recv_file(self, path: str | os.PathLike[str], *, max_bytes: int | None = None, timeout: float | None = None) -> int:
        """Receive a file, and verify it."""
        return self._thread.call(lambda: self._inner.recv_file(path, max_bytes=max_bytes), timeout)

    def chunks(self, *, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over what comes, in chunks of whatever size; wait for each no longer than `timeout`."""
        return Each(lambda: self._thread.call(self._inner.__anext__, timeout), (StopAsyncIteration,))

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks()
