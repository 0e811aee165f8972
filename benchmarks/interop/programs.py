"""What the two peers of a case do: the caller fetches files, the called one serves them; in the simulator as in processes.

A request is the number of a file and its size; what a file contains follows from these, so that both ends know it."""

from __future__ import annotations

import asyncio
import random
import struct
from functools import cache

import interpeer
from benchmarks.interop.cases import Case, Facts

REQUEST = struct.Struct("!QQ")
MOST_FILE_BYTES = 64 << 20


@cache
def content(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def prepare(case: Case) -> None:
    """Make the files, so that no time is measured that this takes."""
    for number, size in enumerate(case.files):
        content(number, size)


# --- the called end ---


async def serve(node: interpeer.Node) -> None:
    """Answer every request of every connection, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        async for connection in node.incoming():
            tasks.create_task(_serve_connection(connection))


async def _serve_connection(connection: interpeer.Connection) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            async for stream in connection.streams():
                tasks.create_task(_serve_stream(stream))
    except* interpeer.NetworkError:
        pass  # the caller has gone, and says itself what it has missed


async def _serve_stream(stream: interpeer.Stream) -> None:
    number, size = REQUEST.unpack(await stream.readexactly(REQUEST.size))
    if size > MOST_FILE_BYTES:
        raise ValueError(f"a file is at most {MOST_FILE_BYTES} bytes, not {size}")
    await stream.write(content(number, size))
    await stream.finish()


def called_facts(node: interpeer.Node) -> Facts:
    """Tell what the called end has seen; its connections are still open."""
    stats = [connection.stats() for connection in node.connections]
    return {
        "cookies": node.counters()["cookies_sent"],
        "ecn_called": stats[0].ecn if stats else None,
        "epoch_called": max((one.key_epoch for one in stats), default=0),
        "retransmitted": sum(one.packets_lost for one in stats),
        "congestion_events": sum(one.congestion_events for one in stats),
    }


# --- the calling end ---


class Fetched:
    """What came, and when."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.bytes = 0
        self.files: list[tuple[int, list[bytes]]] = []

    def note(self, now_s: float, size: int) -> None:
        self.times_s.append(now_s)
        self.bytes += size

    def verify(self, case: Case) -> None:
        """Raise ValueError unless every file came as it was sent."""
        if len(self.files) != len(case.files) * case.calls:
            raise ValueError(f"{len(self.files)} files came of {len(case.files) * case.calls}")
        for number, pieces in self.files:
            if b"".join(pieces) != content(number, case.files[number]):
                came = sum(map(len, pieces))
                raise ValueError(f"file {number} came as {came} bytes that are not the {case.files[number]} that were sent")


async def call(node: interpeer.Node, address: interpeer.Address, case: Case) -> Facts:
    """Do the caller's part of a case; its connections stay open. Raises what goes wrong."""
    loop, fetched = asyncio.get_running_loop(), Fetched()
    start_s = loop.time()
    if case.calls_at_once:
        connections = list(await asyncio.gather(*(_one_call(node, address, case, fetched) for _ in range(case.calls))))
    else:
        connections = [await _one_call(node, address, case, fetched) for _ in range(case.calls)]
    seconds = loop.time() - start_s
    fetched.verify(case)
    stats = connections[0].stats()
    return {
        "connections": len(connections),
        "seconds": seconds,
        "bytes": fetched.bytes,
        "mbit_per_s": fetched.bytes * 8e-6 / seconds,
        "longest_pause_s": max((b - a for a, b in zip(fetched.times_s, fetched.times_s[1:], strict=False)), default=0.0),
        "cipher": connections[0].cipher,
        "ecn": stats.ecn,
        "key_epoch": stats.key_epoch,
        "peer_key_epoch": stats.peer_key_epoch,
    }


async def _one_call(node: interpeer.Node, address: interpeer.Address, case: Case, fetched: Fetched) -> interpeer.Connection:
    connection = await node.connect(address)
    await asyncio.gather(*(_fetch(connection, number, size, fetched) for number, size in enumerate(case.files)))
    return connection


async def _fetch(connection: interpeer.Connection, number: int, size: int, fetched: Fetched) -> None:
    loop = asyncio.get_running_loop()
    pieces: list[bytes] = []
    async with connection.open_stream() as stream:
        await stream.write(REQUEST.pack(number, size))
        await stream.finish()
        async for piece in stream:
            fetched.note(loop.time(), len(piece))
            pieces.append(piece)
    fetched.files.append((number, pieces))
