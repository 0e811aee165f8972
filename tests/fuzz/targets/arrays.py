"""A stream on which an array is said to come: a ProtocolError, an array too large, a stream that ends, or an array."""

import asyncio
import warnings

import numpy as np

from interpeer import _arrays
from interpeer.errors import ProtocolError
from tests.fuzz.source import Source

MAX_BYTES = 1 << 16


class Played:
    """What `recv_array` needs of a stream, with these bytes on it."""

    def __init__(self, data: bytes) -> None:
        self.source = Source(data)

    async def readexactly(self, n: int) -> bytes:
        found = self.source.take(n)
        if len(found) < n:
            raise asyncio.IncompleteReadError(found, n)
        return found

    async def _fill(self, view: memoryview, n: int) -> int:
        found = self.source.take(n)
        view[: len(found)] = found
        return len(found)

    def reset(self) -> None: ...

    stop = reset


def feed(data: bytes) -> None:
    source = Source(data)
    kind = source.byte(4)
    data = source.rest()
    if kind:  # behind the beginning that it must have
        text, _, values = data.partition(b"\n")
        data = b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(4, "little")[:2] + text + b"\n" + values
    out = np.zeros((2, 3), "<f8") if kind == 3 else None
    coroutine = _arrays.receive(Played(data), out, MAX_BYTES)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            coroutine.send(None)
        except StopIteration as done:
            assert done.value.nbytes <= MAX_BYTES and not done.value.dtype.hasobject
        except (ProtocolError, ValueError, asyncio.IncompleteReadError):
            pass
