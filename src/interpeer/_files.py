"""Files on a stream: a header with the size, the bytes, and their BLAKE2b digest, which the receiver checks."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import stat
from contextlib import suppress
from io import FileIO
from typing import TYPE_CHECKING, BinaryIO

from interpeer.errors import ProtocolError

if TYPE_CHECKING:
    from interpeer._stream import Stream

_MAGIC = b"IPF1"
_HEADER_BYTES = 12  # magic, size
_DIGEST_BYTES = 32
_CHUNK_BYTES = 1 << 20
_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)

Path = str | os.PathLike[str]


# --- sending ---


async def send(stream: Stream, path: Path) -> int:
    """Send a file; return its size. One that shrinks or grows meanwhile is an OSError."""
    name = os.fsdecode(path)  # not a number, which os.open would take for a descriptor
    try:
        with await _open_there(name) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
            await stream.write(_MAGIC + size.to_bytes(8, "big"))
            buffer = bytearray(_CHUNK_BYTES)

            def read() -> int:
                n = file.readinto(buffer)
                digest.update(memoryview(buffer)[:n])
                return n

            left = size
            while left:
                n = await asyncio.to_thread(read)
                if n == 0 or n > left:
                    raise OSError(f"{name} changed while it was sent")
                await stream.write(memoryview(buffer)[:n])
                left -= n
            await stream.write(digest.digest())
            await stream._acked(stream.bytes_accepted)
    except BaseException:
        stream.reset()
        raise
    return size


async def _open_there(name: str) -> FileIO:
    """Open a file on another thread; if this is cancelled meanwhile, it is closed again."""
    opening = asyncio.get_running_loop().run_in_executor(None, _open, name)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_opened)
        raise


def _close_opened(opening: asyncio.Future[FileIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open(name: str) -> FileIO:
    """Open a plain file to read. Raises OSError; it does not wait for the other end of a pipe."""
    descriptor = os.open(name, os.O_RDONLY | _FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "this is no plain file, which alone can be sent", name)
        return FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


# --- receiving ---


async def receive(stream: Stream, path: Path, max_bytes: int | None) -> int:
    """Receive a file beside its place, and move it there once its digest is right."""
    name = os.fsdecode(path)
    temporary = ""
    try:
        old_mode = _mode_of(name)
        temporary = os.path.join(os.path.dirname(name), f".{secrets.token_hex(8)}.part")
        mode = 0o666 if old_mode is None else 0o600  # less the umask
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, mode)
        with os.fdopen(descriptor, "wb") as file:
            size = await _receive_into(stream, file, max_bytes)
            if old_mode is not None and os.name == "posix":
                os.fchmod(descriptor, old_mode)
        os.replace(temporary, name)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        stream.reset()
        stream.stop()
        raise
    return size


def _mode_of(name: str) -> int | None:
    """Return the mode of the plain file that will be replaced, or None. Raises OSError for a place that cannot be taken."""
    if os.path.basename(name) in ("", ".", ".."):
        raise IsADirectoryError(errno.EISDIR, "this names a folder, and no file in it", name)
    try:
        mode = os.lstat(name).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "this exists and is no plain file, so it is not replaced", name)
    return stat.S_IMODE(mode)


async def _receive_into(stream: Stream, file: BinaryIO, max_bytes: int | None) -> int:
    header = await stream.readexactly(_HEADER_BYTES)
    if header[:4] != _MAGIC:
        raise ProtocolError("this is not a file: another kind of data comes on this stream")
    size = int.from_bytes(header[4:], "big")
    if max_bytes is not None and size > max_bytes:
        raise ValueError(f"the file has {size} bytes, more than max_bytes ({max_bytes})")
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    buffer = bytearray(_CHUNK_BYTES)

    def write(n: int) -> None:
        digest.update(memoryview(buffer)[:n])
        file.write(memoryview(buffer)[:n])

    left = size
    while left:
        n = min(left, _CHUNK_BYTES)
        if await stream._fill(buffer, n) < n:
            raise ProtocolError("the stream ended in the middle of a file")
        await asyncio.to_thread(write, n)
        left -= n
    if await stream.readexactly(_DIGEST_BYTES) != digest.digest():
        raise ProtocolError("the file's digest is wrong: it was damaged at the sender, or here")
    return size
