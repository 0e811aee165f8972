"""Files on a stream: a header with the size, the bytes, and their BLAKE2b digest, which the receiver checks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from interpeer.errors import ProtocolError

if TYPE_CHECKING:
    from interpeer._stream import Stream

_MAGIC = b"IPF1"
_HEADER_BYTES = 12  # magic, size
_DIGEST_BYTES = 32
_CHUNK_BYTES = 1 << 20


async def send(stream: Stream, path: str | os.PathLike[str]) -> int:
    """Send a file; return its size. One that shrinks or grows meanwhile is an OSError."""
    try:
        with await asyncio.to_thread(open, path, "rb") as file:
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
                    raise OSError(f"{os.fspath(path)} changed while it was sent")
                await stream.write(memoryview(buffer)[:n])
                left -= n
            await stream.write(digest.digest())
            await stream._acked(stream.bytes_accepted)
    except BaseException:
        stream.reset()
        raise
    return size


async def receive(stream: Stream, path: str | os.PathLike[str], max_bytes: int | None) -> int:
    """Receive a file beside its place, and move it there once its digest is right."""
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
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
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        stream.reset()
        stream.stop()
        raise
    return size
