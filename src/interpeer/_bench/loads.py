"""What the loads are, for every library alike, and the parts of an end that do not depend on the library.

A load consists of one or more parts; an end is started once for each part. What its two ends tell becomes figures in
`interpeer._bench.figures`.
"""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from statistics import quantiles
from typing import Any

from interpeer._bench.end import Control, Facts, resident_bytes

PARTS = {
    "bulk": ("bulk",),
    "msgs": ("msgs", "msgs-single"),
    "ping": ("ping",),
    "handshakes": ("handshakes", "handshakes-in-a-row"),
    "idle": ("idle",),
}
"""What every library is measured under; interpeer itself also under "many", "channels" and "soak"."""

MESSAGE_BYTES = 64
BATCH_MESSAGES = 1024
HANDSHAKES_IN_FLIGHT = 16  # more only lengthen queues: 8 to 128 were tried
IDLE_CONNECTIONS = 1000
IDLE_BYTES = 1 << 16  # moved on each connection before it idles
IDLE_PIECE_BYTES = 1 << 14  # ... in pieces of this size
BUSY_CONNECTIONS = 1000
BUSY_PIECE_BYTES = 1 << 16  # written and read at a time on each of them
BUSY_CHANNELS = 1000  # of one connection
CHANNEL_MESSAGE_BYTES = 1 << 16  # on each of them: written and read at a time, as on many connections
BUSY_PINGS = 8  # connections that are pinged at a time
IDLE_WARM_UP = 16
IDLE_IN_FLIGHT = 16

MESSAGE = bytes(MESSAGE_BYTES)
_HEADER = struct.Struct(">I")
FRAME = _HEADER.pack(MESSAGE_BYTES) + MESSAGE
FRAMES = FRAME * BATCH_MESSAGES
END_FRAME = _HEADER.pack(0)
COUNT = struct.Struct(">Q")  # how a server confirms bytes or messages


class Frames:
    """Messages out of a byte stream, each behind its length in four bytes; an empty one ends the load."""

    def __init__(self) -> None:
        self.count = 0
        self.ended = False
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that `data` completes."""
        if self._rest:
            data = self._rest + data
        messages: list[bytes] = []
        position, end, unpack = 0, len(data), _HEADER.unpack_from
        while position + 4 <= end:
            stop = position + 4 + unpack(data, position)[0]
            if stop > end:
                break
            messages.append(data[position + 4 : stop])
            position = stop
        self._rest = data[position:]
        if messages and not messages[-1]:
            messages.pop()
            self.ended = True
        self.count += len(messages)
        return messages


def round_trips(times_ns: list[int]) -> Facts:
    """Return the figures of a ping-pong: half of the round trips were quicker than p50, 99 % quicker than p99."""
    cuts = quantiles(times_ns, n=100)
    return {"p50_us": cuts[49] / 1e3, "p99_us": cuts[98] / 1e3, "round_trips": len(times_ns)}


async def handshakes(attempt: Callable[[], Awaitable[None]], seconds: float, in_flight: int) -> Facts:
    """Count how many times `attempt` (connect, hear from the server, close) succeeds in the time, so many at once.

    Those still under way when the time is over are awaited, so that no end sees a torn connection, but not counted."""
    completed = 0
    deadline = time.perf_counter() + seconds

    async def one_after_another() -> None:
        nonlocal completed
        while time.perf_counter() < deadline:
            await attempt()
            completed += time.perf_counter() < deadline

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(one_after_another())
    return {"handshakes": completed, "seconds": seconds}


class IdleServer:
    """The memory that a server's connections take, as soon as they are open and after they moved data.

    The first few connections move their data before the others come, to warm up whatever is made only once; they are
    not counted."""

    def __init__(self, connections: int = IDLE_CONNECTIONS) -> None:
        self._connections = connections
        self._opened = 0
        self._moved = 0
        self._before = 0
        self._fresh = 0

    def opened(self) -> None:
        """Note that one more client was greeted."""
        self._opened += 1
        if self._opened == IDLE_WARM_UP + self._connections:
            self._fresh = resident_bytes() - self._before

    def moved(self) -> None:
        """Note that one more client has sent all its data and was told so."""
        self._moved += 1
        if self._moved == IDLE_WARM_UP:
            self._before = resident_bytes()

    def figures(self) -> Facts:
        used = resident_bytes() - self._before
        return {"connections": self._moved - IDLE_WARM_UP, "fresh_bytes": self._fresh, "used_bytes": used}


async def idle_client(
    control: Control,
    connect: Callable[[], Awaitable[Any]],
    move: Callable[[Any], Awaitable[None]],
    count: int = IDLE_CONNECTIONS,
) -> None:
    """Open connections, move data on each, tell the memory they take, and keep them until told to stop.

    `connect` returns a connection when the server has greeted it, `move` when the server has confirmed the data."""
    connections: list[Any] = []

    async def open_one(_: int) -> None:
        connections.append(await connect())

    await _for_each(range(IDLE_WARM_UP), open_one)
    await _for_each(list(connections), move)
    before = resident_bytes()
    await _for_each(range(count), open_one)
    fresh = resident_bytes() - before
    await _for_each(connections[IDLE_WARM_UP:], move)
    control.tell(connections=count, fresh_bytes=fresh, used_bytes=resident_bytes() - before)
    await control.stopped()


async def _for_each(items: Iterable[Any], job: Callable[[Any], Awaitable[None]]) -> None:
    """Do the job on every item, a few at once."""
    shared = iter(items)

    async def worker() -> None:
        for item in shared:
            await job(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(IDLE_IN_FLIGHT):
            group.create_task(worker())
