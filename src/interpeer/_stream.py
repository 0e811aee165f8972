"""A stream: bytes in order, both ways, with back-pressure."""

from __future__ import annotations

import asyncio
import os
import re
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from interpeer._core import stream_handle
from interpeer._priority import MOST_URGENT, check_priority
from interpeer.errors import ClosedError, LocalError, StreamReset

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Buffer

    from interpeer._connection import Connection

CHUNK_BYTES = 262_144
"""What iteration and `read` take at a time: large enough that Python's share of the cost is small."""
MAX_READ_BYTES = 1 << 30
"""What `read()` without a limit takes at the most, so that a peer cannot make it grow without end."""


def bytes_in(data: Buffer) -> int:
    """Return the size of a buffer. Raises TypeError if Python objects are in it: pointers, which mean nothing elsewhere."""
    with memoryview(data) as view:
        if "O" in view.format and "O" in re.sub(":[^:]*:", "", view.format):  # between colons are the names of fields
            raise TypeError("this buffer holds Python objects, which cannot be sent: convert them to a plain type")
        return view.nbytes


@final
class Stream:
    """Carry bytes both ways between two peers, in order, each at its own speed.

    Made by `Connection.open_stream` and `Connection.accept_stream`. Leaving `async with` finishes our side; leaving it with
    an exception resets it. A stream that is dropped without either is read no more, and a peer
    that sends more is asked to stop; and it is reset if something was written, since that may be only a part.

    Cancelling `read*` loses nothing. Cancelling `write` leaves a prefix sent: `bytes_accepted` tells how much. One task
    reads and one writes at a time: a second reader is refused with LocalError.

    >>> import asyncio, interpeer
    >>> import numpy as np
    >>> async def send(node, address):
    ...     async with node.connect(address) as connection, connection.open_stream() as stream:
    ...         await stream.write(b"a grid: ")
    ...         await stream.send_array(np.arange(6).reshape(2, 3))
    >>> async def main():
    ...     async with interpeer.Node() as a, interpeer.Node() as b:
    ...         sending = asyncio.create_task(send(a, b.address))
    ...         stream = await (await b.accept()).accept_stream()
    ...         print(await stream.readexactly(8), (await stream.recv_array()).shape, await stream.read())
    ...         await sending
    >>> asyncio.run(main())
    b'a grid: ' (2, 3) b''
    """

    __slots__ = ("__weakref__", "_connection", "_handle", "_stash", "_waiters")

    def __init__(self, connection: Connection, handle: stream_handle.StreamHandle) -> None:
        self._connection = connection
        self._handle = handle
        self._waiters = connection._waiters_of_stream(handle.id)
        self._stash = bytearray()  # taken from the core by a read that was cancelled or failed: the next one starts with it

    # --- what it is ---

    @property
    def id(self) -> int:
        """The stream's number on its connection: even for the side that called."""
        return self._handle.id

    @property
    def connection(self) -> Connection:
        """The connection that it belongs to."""
        return self._connection

    @property
    def bytes_accepted(self) -> int:
        """How many bytes `write` has taken since the stream was opened."""
        return self._handle.bytes_accepted

    @property
    def priority(self) -> int:
        """How urgent what we send is, from -4 to 3 (most urgent), beside other streams and channels. May be set at any time.

        Raises ValueError for another number."""
        return MOST_URGENT - self._handle.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        check_priority(priority)
        self._handle.priority = MOST_URGENT - priority

    def __repr__(self) -> str:
        return f"<Stream {self.id} of {self._connection!r}>"

    # --- writing ---

    async def write(self, data: Buffer) -> None:
        """Send bytes: any buffer; it is copied before this returns. Waits while the peer, or the network, is slower.

        Raises StreamReset when the peer reads no more, ClosedError after `finish` or `reset`, and the connection's error
        when it is over; TypeError for a buffer of Python objects. Cancelled, a prefix is sent."""
        self._waiters.check_loop()
        handle = self._handle
        size = len(data) if type(data) is bytes else bytes_in(data)
        done = 0
        while True:
            done += handle.write(data, done)
            if done == size and size:
                return
            if not handle.can_write:
                raise self._write_error()
            if done == size:
                return
            await self._waiters.wait(stream_handle.WRITABLE, handle.want_writable)

    async def finish(self) -> None:
        """End our side, and wait until the peer's transport has all of it. The peer then reads to the end.

        Raises StreamReset when the peer has stopped reading, or the connection's error when it is over before that.
        Cancelled, the end is still sent."""
        handle = self._handle
        handle.finish()
        await self._acked(handle.bytes_accepted)

    async def _acked(self, mark: int) -> None:
        """Wait until the peer's transport has everything up to `mark`, and the end if our side is finished."""
        handle = self._handle
        while not (has_acked := handle.has_acked(mark)):
            if has_acked is None:
                raise self._write_error()
            await self._waiters.wait(stream_handle.ACKED, lambda: handle.want_acked(mark))

    async def _lend(self, data: memoryview) -> None:
        """Send a buffer without copying it; it is acknowledged when this returns, and given back in any case."""
        handle = self._handle
        if not data.nbytes:
            return
        if not handle.lend(data):
            raise self._write_error()
        try:
            await self._acked(handle.bytes_accepted)
        finally:
            handle.return_loan()

    def reset(self, code: int = 0) -> None:
        """Give our side up: the peer's reads fail with StreamReset and this code. What was not acknowledged is lost.

        Raises ValueError for a code that is not from 0 to 2**62 - 1."""
        self._handle.reset(code)

    def _write_error(self) -> Exception:
        handle = self._handle
        code = handle.stop_code
        if code is not None:
            return StreamReset(f"the peer reads this stream no more (code {code})", code)
        if not self._connection.is_open:
            return self._connection._error()
        return ClosedError("our side of this stream is finished or reset")

    # --- reading ---

    async def read(self, n: int = -1, *, max_bytes: int = MAX_READ_BYTES) -> bytes:
        """Read up to `n` bytes, at least one; or everything up to the end, without `n`. `b""` means the end.

        Without `n`, raises ValueError when more than `max_bytes` come. Raises StreamReset when the peer gave the stream up,
        and the connection's error when it is over before the end. Cancelled or failed, nothing is lost: the next read
        starts where this one did."""
        if n >= 0:
            return await self._read_some(n) if n else b""
        collected, self._stash = self._stash, bytearray()
        try:
            while len(collected) <= max_bytes:
                chunk = await self._read_some(CHUNK_BYTES)
                if not chunk:
                    return bytes(collected)
                collected += chunk
            raise ValueError(f"the stream has more than {max_bytes} bytes: read it in pieces, or raise max_bytes")
        except BaseException:
            self._stash = collected
            raise

    async def readexactly(self, n: int) -> bytes:
        """Read exactly `n` bytes.

        Raises asyncio.IncompleteReadError, with what there was, when the stream ends before; otherwise as `read`.
        Cancelled, nothing is lost."""
        if not self._stash:
            data = self._handle.read(n, n)
            if data is not None and len(data) == n:
                return data
            self._stash = bytearray(data or b"")  # the peer has given the stream up meanwhile, and with it the rest
        buffer = bytearray(n)
        done = await self._fill(buffer, n)
        if done < n:
            raise asyncio.IncompleteReadError(bytes(buffer[:done]), n)
        return bytes(buffer)

    async def readinto(self, buffer: Buffer) -> int:
        """Read into a writable buffer what has come, at least one byte; return how many. 0 means the end.

        Raises as `read`. Cancelled, nothing is lost."""
        view = memoryview(buffer).cast("B")
        self._check_unread()
        if self._stash or not view:
            return self._unstash_into(view)
        while True:
            if n := self._handle.readinto(view):
                return n
            if not self._can_come():
                return 0
            if n := await self._receive_into(view, 0, 1):
                return n

    async def _read_some(self, n: int) -> bytes:
        self._check_unread()
        if self._stash:
            data = bytes(memoryview(self._stash)[:n])
            del self._stash[:n]  # which moves nothing: a bytearray begins later then
            return data
        while True:
            read = self._handle.read(n)
            if read is not None:
                return read
            if not await self._more():
                return b""

    async def _fill(self, buffer: bytearray | memoryview, n: int) -> int:
        """Fill the first `n` bytes of a buffer; return how many there were. Stash them if it cannot be done."""
        self._check_unread()
        view = memoryview(buffer).cast("B")
        done = self._unstash_into(view[:n])
        try:
            while done < n:
                done += self._handle.readinto(view[:n], done)
                if done == n or not self._can_come():
                    break
                done += await self._receive_into(view[:n], done, n - done)
        except BaseException:
            self._stash[:0] = view[:done]
            raise
        return done

    async def _receive_into(self, view: memoryview, start: int, mark: int) -> int:
        """Let the core put what comes into a buffer until there are `mark` bytes; return how many (0: look again)."""
        try:
            await self._waiters.wait(stream_handle.READABLE, lambda: self._handle.post(view, start, mark))
        except BaseException:
            done = self._handle.unpost()
            self._stash += view[start : start + done]
            raise
        return self._handle.unpost()

    def _check_unread(self) -> None:
        """Raise LocalError while another task reads, which would get a part of what this one wants, or has lent its buffer."""
        if self._waiters.is_waited_for(stream_handle.READABLE) or self._handle.has_post:
            raise LocalError("another task is reading this stream: one reads at a time")

    def _unstash_into(self, view: memoryview) -> int:
        n = min(len(self._stash), len(view))
        view[:n] = memoryview(self._stash)[:n]
        del self._stash[:n]
        return n

    async def _more(self) -> bool:
        """Wait until it is worth reading again; False at the end. Raises what ended it otherwise."""
        if not self._can_come():
            return False
        await self._waiters.wait(stream_handle.READABLE, self._handle.want_readable)
        return True

    def _can_come(self) -> bool:
        """Tell whether there is more to read, now or later; False at the end. Raises what ended it otherwise."""
        state = self._handle.reading()
        if state == stream_handle.MORE:
            return True
        if state == stream_handle.END:
            return False
        if state == stream_handle.STOPPED:
            raise ClosedError("this side has stopped reading this stream")
        if state == stream_handle.OVER:
            raise self._connection._error()
        code = self._handle.reset_code
        assert code is not None
        self._handle.told()
        raise StreamReset(f"the peer gave this stream up (code {code})", code)

    def stop(self, code: int = 0) -> None:
        """Read no more, and ask the peer to stop: its writes fail with StreamReset and this code.

        Raises ValueError for a code that is not from 0 to 2**62 - 1."""
        self._handle.stop(code)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Read the next chunk, of whatever size has come."""
        if chunk := await self._read_some(CHUNK_BYTES):
            return chunk
        raise StopAsyncIteration

    # --- arrays and files ---

    async def send_array(self, array: np.ndarray[Any, Any]) -> None:
        """Send a numpy array, with its shape and type; it is not copied, and acknowledged when this returns.

        Do not change it before. Raises TypeError for object arrays (they hold pointers, not data), otherwise as `write`.
        Cancelled, the stream is reset."""
        from interpeer import _arrays

        await _arrays.send(self, array)

    async def recv_array(
        self, out: np.ndarray[Any, Any] | None = None, *, max_bytes: int = MAX_READ_BYTES
    ) -> np.ndarray[Any, Any]:
        """Receive an array that `send_array` sends; into `out`, if given, which must have its shape and type.

        Raises ValueError for an array of more than `max_bytes`, or one that does not fit `out`, ProtocolError for what is no
        array, otherwise as `read`. Cancelled, the stream is reset."""
        from interpeer import _arrays

        return await _arrays.receive(self, out, max_bytes)

    async def send_file(self, path: str | os.PathLike[str]) -> int:
        """Send a plain file's bytes and their digest; return how many. Raises OSError, otherwise as `write`.

        Cancelled, the stream is reset."""
        from interpeer import _files

        return await _files.send(self, path)

    async def recv_file(self, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> int:
        """Receive a file that `send_file` sends, and verify it; return its bytes. An existing file is replaced at the end, and
        its mode is kept; anything else that exists, links included, is an OSError before anything is received.

        Raises ProtocolError when the digest does not match, ValueError for one of more than `max_bytes`, OSError, otherwise as
        `read`. Cancelled or failed, nothing is left behind, and the stream is reset."""
        from interpeer import _files

        return await _files.receive(self, path, max_bytes)

    # --- lifetime ---

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.reset()
        elif self._handle.can_write:
            await self.finish()

    def __del__(self) -> None:
        self._connection._forget_stream(self._handle.id)
