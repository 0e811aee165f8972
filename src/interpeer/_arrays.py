"""numpy arrays on a stream: numpy's own .npy header, then the data as they lie in memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from interpeer.errors import ProtocolError

if TYPE_CHECKING:
    from interpeer._stream import Stream

Array = np.ndarray[Any, Any]
_PREFIX_BYTES = 10  # magic, version 1.0, length of the header
_MAX_HEADER_BYTES = 10_000  # numpy's own limit: the header is parsed as a literal


async def send(stream: Stream, array: Array) -> None:
    """Send the header, then lend the data to the core until they are acknowledged."""
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise TypeError(f"arrays of type {array.dtype} hold Python objects, which cannot be sent: convert them to a plain type")
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = np.ascontiguousarray(array)
    header = io.BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(array))
    try:
        await stream.write(header.getvalue())
        await stream._lend(_bytes_of(array))
    except BaseException:
        stream.reset()
        raise


async def receive(stream: Stream, out: Array | None, max_bytes: int) -> Array:
    """Receive into `out`, or into a new array."""
    try:
        shape, is_fortran, dtype = await _read_header(stream)
        nbytes = dtype.itemsize
        for length in shape:
            nbytes *= length
        if nbytes > max_bytes:
            raise ValueError(f"the array has {nbytes} bytes, more than max_bytes ({max_bytes})")
        if out is not None and (out.shape != shape or out.dtype != dtype or not out.flags.writeable):
            raise ValueError(f"an array of shape {shape} and type {dtype} does not fit `out` ({out.shape}, {out.dtype})")
        is_direct = out is not None and out.flags.c_contiguous and not is_fortran
        array = out if out is not None and is_direct else np.empty(shape, dtype, order="F" if is_fortran else "C")
        view = _bytes_of(array)
        if await stream._fill(view, view.nbytes) < view.nbytes:
            raise ProtocolError("the stream ended in the middle of an array")
        if out is not None and out is not array:
            np.copyto(out, array)
    except BaseException:
        stream.reset()
        stream.stop()
        raise
    return array if out is None else out


def _bytes_of(array: Array) -> memoryview:
    """Return the memory of a contiguous array, whatever its type (dates have no buffer of their own)."""
    flat = (array if array.flags.c_contiguous else array.T).reshape(-1)
    return flat.view(np.uint8).data if flat.nbytes else memoryview(bytearray())


async def _read_header(stream: Stream) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a header that a peer may have made up. Raises ProtocolError."""
    prefix = await stream.readexactly(_PREFIX_BYTES)
    length = int.from_bytes(prefix[8:10], "little")
    if prefix[:8] != npy.MAGIC_PREFIX + b"\x01\x00" or length > _MAX_HEADER_BYTES:
        raise ProtocolError("this is not an array: another kind of data comes on this stream")
    text = await stream.readexactly(length)
    try:
        shape, is_fortran, dtype = npy.read_array_header_1_0(io.BytesIO(prefix[8:] + text), _MAX_HEADER_BYTES)
    except Exception as error:
        raise ProtocolError(f"the header of an array cannot be read: {error}") from None
    if dtype.hasobject or any(n < 0 for n in shape):
        raise ProtocolError(f"an array of type {dtype} and shape {shape} is not received")
    return shape, is_fortran, dtype
