"""numpy arrays on a stream: numpy's own .npy header, then the data as they lie in memory.

The header may be made up by a peer. So it is read here and not by numpy, which takes more than it writes, and warns; and what
numpy would make of it is known before memory is.
"""

from __future__ import annotations

import ast
import io
import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.lib import format as npy

from interpeer.errors import ProtocolError

if TYPE_CHECKING:
    from interpeer._stream import Stream

Array = np.ndarray[Any, Any]
_PREFIX_BYTES = 10  # magic, version 1.0, length of the header
_MAX_HEADER_BYTES = 10_000  # numpy's own limit: the type is parsed as a literal
_HEADER = re.compile(r"\{'descr': (.+), 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? *\} *\n")
_ESCAPED = r"\\[\\'\"nrtxuU]"  # what repr() writes; anything else would make the parser warn
_LITERAL = re.compile(rf"""(?:'(?:[^'\\]|{_ESCAPED})*'|"(?:[^"\\]|{_ESCAPED})*"|[][(), 0-9])+""")
_TYPE = re.compile(r"[<>|][biufcmMSUV][0-9]+(\[[0-9]*[A-Za-z]+\])?")

_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


async def send(stream: Stream, array: Array) -> None:
    """Send the header, then lend the data to the core until they are acknowledged."""
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise TypeError(f"arrays of type {array.dtype} hold Python objects, which cannot be sent: convert them to a plain type")
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = np.ascontiguousarray(array)
    header = _header_of(array)
    try:
        await stream.write(header)
        await stream._lend(_bytes_of(array))
    except BaseException:
        stream.reset()
        raise


async def receive(stream: Stream, out: Array | None, max_bytes: int) -> Array:
    """Receive into `out`, or into a new array."""
    if out is not None and not isinstance(out, np.ndarray):
        raise TypeError(f"`out` is an array of numpy, not {type(out).__name__}")
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
        array = out if out is not None and is_direct else _make(shape, is_fortran, dtype)
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


def _make(shape: tuple[int, ...], is_fortran: bool, dtype: np.dtype[Any]) -> Array:
    """Make room for an array. Raises ProtocolError."""
    try:
        return np.empty(shape, dtype, order="F" if is_fortran else "C")
    except (ValueError, MemoryError) as error:
        raise ProtocolError(f"an array of type {dtype} and shape {shape} cannot be made here: {error}") from None


def _header_of(array: Array) -> bytes:
    """Return the header of an array. Raises ValueError if `receive` would not take it."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
    header = file.getvalue()
    try:
        if len(header) > _PREFIX_BYTES + _MAX_HEADER_BYTES:
            raise ProtocolError(f"its description has {len(header)} bytes, and {_MAX_HEADER_BYTES} are read")
        _parse(header[_PREFIX_BYTES:])
    except ProtocolError as error:
        raise ValueError(f"no peer would receive an array of this type: {error}") from None
    return header


async def _read_header(stream: Stream) -> _Header:
    """Read a header that a peer may have made up. Raises ProtocolError."""
    prefix = await stream.readexactly(_PREFIX_BYTES)
    length = int.from_bytes(prefix[8:10], "little")
    if prefix[:8] != npy.MAGIC_PREFIX + b"\x01\x00" or length > _MAX_HEADER_BYTES:
        raise ProtocolError("this is not an array: another kind of data comes on this stream")
    return _parse(await stream.readexactly(length))


def _parse(header: bytes) -> _Header:
    """Return shape, order and type. Raises ProtocolError for what numpy would not have written."""
    parts = _HEADER.fullmatch(header.decode("latin-1"))
    if parts is None or not _LITERAL.fullmatch(parts[1]):
        raise ProtocolError("the header of an array cannot be read")
    try:
        shape = tuple(int(length) for length in parts[3].split(",") if length.strip())
        descr = ast.literal_eval(parts[1])
        if not _is_plain(descr):
            raise ValueError("its type is none of plain data")
        dtype = npy.descr_to_dtype(descr)
    except Exception as error:  # whatever numpy or the parser makes of nonsense
        raise ProtocolError(f"the header of an array cannot be read: {error}") from None
    # numpy makes another type of some, such as strings without a size: the data would be longer than the header says
    if dtype.hasobject or np.empty(0, dtype).dtype != dtype:
        raise ProtocolError(f"an array of type {dtype} is not received")
    return shape, parts[2] == "True", dtype


def _is_plain(descr: object) -> bool:
    """Tell whether a description has only types of plain data: others run code, or make numpy warn."""
    if isinstance(descr, str):
        return _TYPE.fullmatch(descr) is not None
    if isinstance(descr, tuple):
        subtype = cast("tuple[object, ...]", descr)
        return len(subtype) == 2 and _is_plain(subtype[0])
    fields = cast("list[tuple[object, ...]]", descr)
    return isinstance(descr, list) and all(len(field) in (2, 3) and _is_plain(field[1]) for field in fields)
