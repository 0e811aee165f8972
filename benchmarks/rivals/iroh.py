"""QUIC by iroh's Python package: a Rust library with threads of its own behind generated bindings.

The package copies every byte it is given in a Python loop. The rival `iroh-as-shipped` is what pip installs; `iroh`
replaces that loop by one memmove, so that the library is measured and not the loop. Relays and look-ups are off, the
client knows the server's addresses, and each end is authenticated by its key.
"""

import asyncio
import ctypes
import time
from importlib import metadata
from typing import Any

import iroh
from iroh import iroh_ffi

from interpeer._bench import loads
from interpeer._bench.end import Control, Facts, Stopwatch, raise_descriptor_limit, run

ALPN = b"load"
ADDRESS = "127.0.0.1:0"
CHUNK_BYTES = 1 << 18
WINDOW_BYTES = 1 << 21
HELLO = b"\x01"
LAST_MESSAGE = HELLO * loads.MESSAGE_BYTES


def version() -> str:
    return f"iroh {metadata.version('iroh')}"


def serve(control: Control, *, part: str, as_shipped: bool, **_: Any) -> Facts | None:
    _prepare(as_shipped)
    return run(_serve(control, part), uvloop=True)


def dial(control: Control, *, part: str, key: str, addresses: list[str], seconds: float, as_shipped: bool) -> Facts | None:
    _prepare(as_shipped)
    server = iroh.EndpointAddr(iroh.EndpointId.from_string(key), None, addresses)
    return run(_dial(control, part, server, seconds), uvloop=True)


def _prepare(as_shipped: bool) -> None:
    raise_descriptor_limit()
    if not as_shipped:
        setattr(iroh_ffi._UniffiRustBufferBuilder, "write", _write_at_once)  # noqa: B010 - to a type checker no method is assigned


def _write_at_once(builder: Any, value: bytes) -> None:
    """Append bytes to a buffer of the binding without touching each of them."""
    with builder._reserve(len(value)):
        buffer = builder.rbuf
        ctypes.memmove(ctypes.addressof(buffer.data.contents) + buffer.len, bytes(value), len(value))


async def _bind() -> iroh.Endpoint:
    return await iroh.Endpoint.bind(
        iroh.EndpointOptions(preset=iroh.preset_minimal(), bind_addr=ADDRESS, alpns=[ALPN], relay_mode=iroh.RelayMode.disabled())
    )


class _Server:
    """The figures of all connections of an endpoint, and what each load does with a connection."""

    def __init__(self) -> None:
        self.figures: Facts = {"handshakes": 0}
        self.memory = loads.IdleServer()

    async def bulk(self, connection: iroh.Connection) -> None:
        stream = await connection.accept_bi()
        receiver = stream.recv()
        await receiver.read_exact(len(HELLO))
        count = 0
        watch = Stopwatch()
        while data := await receiver.read(CHUNK_BYTES):
            count += len(data)
        self.figures.update(bytes=count, **watch.read())
        await stream.send().write_all(loads.COUNT.pack(count))

    async def messages(self, connection: iroh.Connection) -> None:
        stream = await connection.accept_bi()
        receiver = stream.recv()
        await receiver.read_exact(len(HELLO))
        frames = loads.Frames()
        watch = Stopwatch()
        while not frames.ended:
            frames.feed(await receiver.read(CHUNK_BYTES))
        self.figures.update(received=frames.count, **watch.read())
        await stream.send().write_all(loads.COUNT.pack(frames.count))

    async def echo(self, connection: iroh.Connection) -> None:
        stream = await connection.accept_bi()
        receiver, sender = stream.recv(), stream.send()
        await receiver.read_exact(len(HELLO))
        message = loads.MESSAGE
        while message != LAST_MESSAGE:
            message = await receiver.read_exact(loads.MESSAGE_BYTES)
            await sender.write_all(message)

    async def greeting(self, connection: iroh.Connection) -> None:
        stream = await connection.open_uni()
        await stream.write_all(HELLO)
        self.figures["handshakes"] += 1

    async def idle(self, connection: iroh.Connection) -> None:
        await self.greeting(connection)
        self.memory.opened()
        stream = await connection.accept_bi()
        await stream.recv().read_exact(loads.IDLE_BYTES)
        await stream.send().write_all(HELLO)
        self.memory.moved()


SERVERS = {
    "bulk": _Server.bulk,
    "msgs": _Server.messages,
    "msgs-single": _Server.messages,
    "ping": _Server.echo,
    "handshakes": _Server.greeting,
    "handshakes-in-a-row": _Server.greeting,
    "idle": _Server.idle,
}


async def _serve(control: Control, part: str) -> Facts:
    endpoint = await _bind()
    server = _Server()

    async def handle(incoming: iroh.Incoming) -> None:
        connection = await (await incoming.accept()).connect()
        connection.set_receive_window(WINDOW_BYTES)
        await SERVERS[part](server, connection)
        await connection.closed()  # the object must live until then

    async def accept() -> None:
        async with asyncio.TaskGroup() as group:
            while incoming := await endpoint.accept_next():
                group.create_task(handle(incoming))

    control.tell(key=str(endpoint.id()), addresses=endpoint.bound_sockets())
    accepting = asyncio.create_task(accept())
    await control.stopped()
    accepting.cancel()
    return server.memory.figures() if part == "idle" else server.figures


async def _dial(control: Control, part: str, server: iroh.EndpointAddr, seconds: float) -> Facts | None:
    endpoint = await _bind()

    async def greeted() -> iroh.Connection:
        connection = await endpoint.connect(server, ALPN)
        stream = await connection.accept_uni()
        await stream.read_exact(len(HELLO))
        return connection

    async def attempt() -> None:
        connection = await greeted()
        connection.close(0, b"")

    if part == "handshakes":
        return await loads.handshakes(attempt, seconds, loads.HANDSHAKES_IN_FLIGHT)
    if part == "handshakes-in-a-row":
        return await loads.handshakes(attempt, seconds, 1)
    if part == "idle":
        await loads.idle_client(control, greeted, _move)
        return None
    connection = await endpoint.connect(server, ALPN)
    stream = await connection.open_bi()
    await stream.send().write_all(HELLO)
    match part:
        case "bulk":
            return await _send_for(stream, seconds, bytes(CHUNK_BYTES), b"")
        case "msgs":
            return await _send_for(stream, seconds, loads.FRAMES, loads.END_FRAME)
        case "msgs-single":
            return await _send_for(stream, seconds, loads.FRAME, loads.END_FRAME)
        case "ping":
            return await _ping(stream, seconds)
    raise ValueError(f"no load has a part {part!r}")


async def _move(connection: iroh.Connection) -> None:
    stream = await connection.open_bi()
    for _ in range(loads.IDLE_BYTES // loads.IDLE_PIECE_BYTES):
        await stream.send().write_all(bytes(loads.IDLE_PIECE_BYTES))
    await stream.recv().read_exact(len(HELLO))


async def _send_for(stream: iroh.BiStream, seconds: float, data: bytes, end: bytes) -> Facts:
    """Write `data` again and again, and `end` when the time is over; return when the server has counted it all."""
    sender = stream.send()
    sent = 0
    watch = Stopwatch()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        await sender.write_all(data)
        sent += len(data)
    if end:
        await sender.write_all(end)
    await sender.finish()
    await stream.recv().read_exact(loads.COUNT.size)
    return {"bytes": sent, "sent": sent // len(loads.FRAME), **watch.read()}


async def _ping(stream: iroh.BiStream, seconds: float) -> Facts:
    sender, receiver = stream.send(), stream.recv()
    times_ns = []
    clock = time.perf_counter_ns
    deadline_ns = clock() + int(seconds * 1e9)
    sent_ns = 0
    while sent_ns < deadline_ns:
        sent_ns = clock()
        await sender.write_all(loads.MESSAGE)
        await receiver.read_exact(loads.MESSAGE_BYTES)
        times_ns.append(clock() - sent_ns)
    await sender.write_all(LAST_MESSAGE)
    await receiver.read_exact(loads.MESSAGE_BYTES)
    return loads.round_trips(times_ns)
