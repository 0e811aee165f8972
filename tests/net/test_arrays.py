"""numpy arrays over real sockets."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import interpeer

ARRAYS = {
    "float32": np.arange(300_000, dtype="f4").reshape(100, -1),
    "big-endian": np.arange(10, dtype=">i4"),
    "complex": np.array([1 + 2j, 3 - 4j]),
    "bool": np.array([True, False]),
    "text": np.array(["ab", "ü"]),
    "dates": np.array(["2026-11-22"], dtype="M8[D]"),
    "records": np.array([(1, 2.5)], dtype=[("a", "i2"), ("b", "f8")]),
    "empty": np.zeros((0, 3)),
    "no dimension": np.array(7.0),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(20)[::3],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_arrives_as_it_was(run, pair, name):
    array = ARRAYS[name]

    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            receiving = asyncio.ensure_future(peer.recv_array())
            await stream.send_array(array)
            got = await receiving
            assert got.dtype == array.dtype
            assert got.shape == array.shape
            assert (got == array).all()

    run(main())


def test_many_arrays_share_a_stream_with_other_data(run, pair):
    array = np.arange(1_000_000)

    async def main():
        async with pair() as p:
            stream, peer = await p.streams()

            async def send():
                for i in range(3):
                    await stream.write(b"next")
                    await stream.send_array(array + i)

            sending = asyncio.ensure_future(send())
            into = np.empty_like(array)
            for i in range(3):
                assert await peer.readexactly(4) == b"next"
                assert await peer.recv_array(out=into) is into
                assert (into == array + i).all()
            await sending

    run(main())


def test_what_cannot_be_an_array_is_refused(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            with pytest.raises(TypeError, match="Python objects"):
                await stream.send_array(np.array([object()]))
            receiving = asyncio.ensure_future(peer.recv_array(max_bytes=100))
            sending = asyncio.ensure_future(stream.send_array(np.zeros(10_000_000)))
            with pytest.raises(ValueError, match="max_bytes"):
                await receiving
            with pytest.raises(interpeer.StreamReset):
                await sending
            for bad in (b"GET / HTTP/1.1\r\n", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x01\x00\x10\x00" + b"{" * 16):
                stream, peer = await p.streams()
                await stream.write(bad)
                with pytest.raises(interpeer.ProtocolError):
                    await peer.recv_array()
            stream, peer = await p.streams()
            receiving = asyncio.ensure_future(peer.recv_array(out=np.zeros(3)))
            sending = asyncio.ensure_future(stream.send_array(np.zeros(4)))
            with pytest.raises(ValueError, match="does not fit"):
                await receiving
            await asyncio.gather(sending, return_exceptions=True)

    run(main())


def header(descr: str, shape: str, order: str = "False") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


HOSTILE = {
    "strings that numpy makes longer": header("'|S0'", "(1000000,)"),
    "text that numpy makes longer": header("'<U0'", "(1000000,)"),
    "more than an address space, of nothing": header("'<f8'", f"(0, {1 << 62})"),
    "more dimensions than numpy has": header("'|u1'", "(" + "1, " * 65 + ")"),
    "a length that is no number": header("'<f8'", "(True,)"),
    "a negative length": header("'<f8'", "(-1,)"),
    "a length that Python will not parse": header("'<f8'", "(" + "9" * 5000 + ",)"),
    "more memory than there is": header("'|u1'", f"({1 << 62},)"),
    "an old header, of which numpy warns": header("'<f8'", "(1L,)"),
    "an escape, of which Python warns": header(r"[('\d', '<f8')]", "(1,)"),
    "a name for a type, of which numpy warns": header("'|a5'", "(1,)"),
    "an array as a type": header("('<f8', (3,))", "(1,)"),
    "objects": header("'|O'", "(1,)"),
    "objects in a record": header("[('a', '|O8')]", "(1,)"),
    "no type": header("3", "(1,)"),
    "brackets": header("[" * 5000, "(1,)"),
    "an expression": header("'<f8'", "(9**9**9,)"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_numpy_would_not_write_is_refused_before_there_is_an_array(run, pair, name):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            await stream.write(HOSTILE[name] + bytes(2000))
            with pytest.raises(interpeer.ProtocolError):
                await peer.recv_array(max_bytes=1 << 63)

    run(main())


def test_what_no_peer_would_receive_is_not_sent(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            many = np.zeros(2, [(f"field{i}", "<f8") for i in range(700)])
            with pytest.raises(ValueError, match="10000"):
                await stream.send_array(many)
            with pytest.raises(TypeError, match="numpy"):
                await peer.recv_array(out=[0, 0])
            receiving = asyncio.ensure_future(peer.recv_array())
            await stream.send_array(np.zeros(2))
            assert (await receiving == 0).all()

    run(main())


def test_a_cancelled_send_resets_the_stream_and_gives_the_array_back(run, pair):
    array = np.zeros(20_000_000, dtype="u1")

    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            task = asyncio.ensure_future(stream.send_array(array))
            await peer.readexactly(1000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            array.resize(10, refcheck=False)  # which numpy refuses while its memory is lent
            with pytest.raises(interpeer.StreamReset):
                await peer.read()

    run(main())
