"""The loads over interpeer itself, by its public API alone.

`serve` and `dial` are the ends of every part of `loads.PARTS`, of "many", "channels" and "soak"; `run_once` runs one part
between two processes. Bulk goes through one stream, messages and pings are datagrams.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, final

from interpeer import Address, Channel, Config, Connection, Node, Stream
from interpeer._bench import loads
from interpeer._bench.end import Control, Facts, Stopwatch, resident_bytes, run
from interpeer._bench.figures import figures, jain
from interpeer._bench.process import run_pair
from interpeer.errors import NetworkError

LISTEN = "127.0.0.1:0"
CHUNK_BYTES = 1 << 20
SINGLE_MESSAGES = 256  # sent between looks at the clock
BATCH_RECEIVED = 8192
QUIET_S = 0.25  # after so long without a datagram those that are missing are lost
HELLO = b"\x01"


BUSY_THREADS = 2  # in all, whichever end they are at


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """Say how much of a part is done."""

    seconds: float = 0.0
    """How long; "idle" and "soak" take as long as they take."""
    busy: str = ""
    """Where busy Python threads compute beside it: "client", "server", or "both", half of them at each."""
    connections: int = loads.IDLE_CONNECTIONS
    busy_connections: int = loads.BUSY_CONNECTIONS
    """How many "many" keeps busy."""
    busy_channels: int = loads.BUSY_CHANNELS
    """How many of one connection "channels" keeps busy."""
    message_bytes: int = loads.CHANNEL_MESSAGE_BYTES
    """How large the messages on them are."""
    idle_channels: int = 0
    """How many are open, and carry nothing, beside the stream of "bulk"."""
    moved_bytes: int = loads.IDLE_BYTES
    """What "idle" moves on each of its connections."""
    early_bytes: int = 10**9
    """After so much "soak" looks at the memory for the first time,"""
    late_bytes: int = 20 * 10**9
    """and after so much again."""


def run_once(part: str, seconds: float, **options: Any) -> Facts:
    """Run one part between two processes and return its figures, and the cipher. Raises EndFailed or LoadBroken.

    options: `loop` ("uvloop" or "asyncio"), `plan` (what Plan takes), and what `Config` takes."""
    options["plan"] = {**options.get("plan", {}), "seconds": seconds}
    client, server = run_pair(f"{__name__}:serve", f"{__name__}:dial", part=part, **options)
    return {**figures(part, client, server), "cipher": server.get("cipher")}


def serve(control: Control, *, part: str, plan: Facts, loop: str = "uvloop", **config: Any) -> Facts | None:
    return run(_serve(control, part, Plan(**plan), config), uvloop=loop == "uvloop")


def dial(control: Control, *, part: str, plan: Facts, address: str, loop: str = "uvloop", **config: Any) -> Facts | None:
    return run(_dial(control, part, Plan(**plan), Address(address), config), uvloop=loop == "uvloop")


async def _serve(control: Control, part: str, plan: Plan, config: Facts) -> Facts:
    if plan.busy in ("server", "both"):
        _keep_busy(plan)
    async with Node(listen=LISTEN, config=_config(config)) as node:
        control.tell(address=str(node.address))
        server = _Server(node, plan)
        serving = asyncio.create_task(server.serve(SERVERS[part]))
        await control.stopped()
        serving.cancel()
        if part == "idle":
            server.figures |= server.memory.figures()
        return server.figures


async def _dial(control: Control, part: str, plan: Plan, address: Address, config: Facts) -> Facts | None:
    if plan.busy in ("client", "both"):
        _keep_busy(plan)
    async with Node(listen=LISTEN, config=_config(config)) as node:
        return await CLIENTS[part](node, address, control, plan)


def _keep_busy(plan: Plan) -> None:
    """Start threads that compute in Python for as long as the process lives, as an application's might."""

    def compute() -> None:
        while True:
            sum(range(1000))

    for _ in range(BUSY_THREADS // 2 if plan.busy == "both" else BUSY_THREADS):
        threading.Thread(target=compute, daemon=True).start()


def _config(given: Facts) -> Config:
    """Return the settings under which is measured: the defaults but for what is given, which came as JSON.

    Packets keep their first size unless something else is given: the numbers are to be compared with those of others."""
    if "max_packet_bytes" not in given:
        given = {**given, "max_packet_bytes": given.get("packet_bytes", Config().packet_bytes)}
    if "ciphers" in given:
        given = {**given, "ciphers": tuple(given["ciphers"])}
    return Config(**given)


# --- the serving end ---


class _Server:
    """What the connections of a server measure together."""

    def __init__(self, node: Node, plan: Plan) -> None:
        self.figures: Facts = {"handshakes": 0}
        self.memory = loads.IdleServer(plan.connections)
        self.counts: list[int] = []  # bytes of each connection of "many"
        self.watch = Stopwatch()
        self.plan = plan
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, work: Callable[[_Server, Connection], Coroutine[Any, Any, None]]) -> None:
        async for connection in self._node.incoming():
            self.figures["cipher"] = connection.cipher
            task = asyncio.create_task(work(self, connection))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and not isinstance(task.exception(), NetworkError | None):
            task.result()


async def _take_bulk(server: _Server, connection: Connection) -> None:
    stream = await connection.accept_stream()
    buffer, count, watch = bytearray(CHUNK_BYTES), 0, Stopwatch()
    while size := await stream.readinto(buffer):
        count += size
    server.figures |= {"bytes": count, **watch.read()}
    await _confirm(stream, count)


async def _take_messages(server: _Server, connection: Connection) -> None:
    received = 0

    async def take() -> None:
        nonlocal received
        while True:
            received += len(await connection.recv_datagrams(BATCH_RECEIVED))

    watch = Stopwatch()
    taking = asyncio.create_task(take())
    stream = await connection.accept_stream()
    (sent,) = loads.COUNT.unpack(await stream.readexactly(loads.COUNT.size))
    quiet_since_s, before = time.perf_counter(), received
    while received < sent and time.perf_counter() - quiet_since_s < QUIET_S:  # what was sent before may come after
        await asyncio.sleep(0)
        if received > before:
            quiet_since_s, before = time.perf_counter(), received
    taking.cancel()
    server.figures |= {"received": received, **watch.read()}
    await _confirm(stream, received)


async def _echo(_server: _Server, connection: Connection) -> None:
    while True:
        connection.send_datagram(await connection.recv_datagram())


async def _greet(server: _Server, connection: Connection) -> None:
    connection.send_datagram(HELLO)
    server.figures["handshakes"] += 1
    await connection.wait_closed()


async def _idle(server: _Server, connection: Connection) -> None:
    connection.send_datagram(HELLO)
    server.memory.opened()
    stream = await connection.accept_stream()
    while await stream.read(loads.IDLE_PIECE_BYTES):
        pass
    server.memory.moved()
    await _confirm(stream, server.plan.moved_bytes)


async def _take_one_of_many(server: _Server, connection: Connection) -> None:
    """Read, answer pings, and note what each connection had when the first one ended."""
    echoing = asyncio.create_task(_echo(server, connection))
    stream = await connection.accept_stream()
    buffer, counts = bytearray(loads.BUSY_PIECE_BYTES), server.counts
    number = len(counts)
    counts.append(0)
    if number == 0:
        server.watch = Stopwatch()
    while size := await stream.readinto(buffer):
        counts[number] += size
    if "jain" not in server.figures:
        server.figures |= {"jain": jain(counts), "resident_bytes": resident_bytes()}
    server.figures |= {"bytes": sum(counts), **server.watch.read()}
    await _confirm(stream, counts[number])
    await connection.wait_closed()
    echoing.cancel()


async def _take_channels(server: _Server, connection: Connection) -> None:
    counts = [0] * server.plan.busy_channels

    async def take(number: int, channel: Channel) -> None:
        async for message in channel:
            counts[number] += len(message)

    watch = Stopwatch()
    async with asyncio.TaskGroup() as group:
        for number in range(len(counts)):
            group.create_task(take(number, await connection.accept_channel()))
    server.figures |= {"bytes": sum(counts), "jain": jain(counts), **watch.read()}
    await _confirm(await connection.accept_stream(), sum(counts))


async def _take_soak(server: _Server, connection: Connection) -> None:
    stream = await connection.accept_stream()
    buffer, count, early = bytearray(CHUNK_BYTES), 0, 0
    while size := await stream.readinto(buffer):
        count += size
        if not early and count >= server.plan.early_bytes:
            early = resident_bytes()
    server.figures |= {"bytes": count, "early_bytes": early, "late_bytes": resident_bytes()}
    await _confirm(stream, count)


async def _confirm(stream: Stream, count: int) -> None:
    await stream.write(loads.COUNT.pack(count))
    await stream.finish()


async def _confirmed(stream: Stream) -> None:
    await stream.readexactly(loads.COUNT.size)


# --- the calling end ---


async def _send_bulk(node: Node, address: Address, _control: Control, plan: Plan) -> Facts:
    connection = await node.connect(address)
    channels = [await connection.open_channel() for _ in range(plan.idle_channels)]
    stream = await connection.open_stream()
    data = bytes(CHUNK_BYTES)
    watch, deadline = Stopwatch(), time.perf_counter() + plan.seconds
    while time.perf_counter() < deadline:
        await stream.write(data)
    await stream.finish()
    await _confirmed(stream)
    return {"bytes": stream.bytes_accepted, "channels": len(channels), **watch.read()}


async def _send_batches(node: Node, address: Address, _control: Control, plan: Plan) -> Facts:
    connection = await node.connect(address)
    batch = [loads.MESSAGE] * loads.BATCH_MESSAGES
    sent, watch, deadline = 0, Stopwatch(), time.perf_counter() + plan.seconds
    while time.perf_counter() < deadline:
        count = connection.send_datagrams(batch)
        sent += count
        if count < len(batch):
            await connection.datagrams_writable()
        else:
            await asyncio.sleep(0)
    return await _end_messages(connection, sent, watch)


async def _send_singly(node: Node, address: Address, _control: Control, plan: Plan) -> Facts:
    connection = await node.connect(address)
    send, message = connection.send_datagram, loads.MESSAGE
    sent, watch, deadline = 0, Stopwatch(), time.perf_counter() + plan.seconds
    while time.perf_counter() < deadline:
        count = 0
        while count < SINGLE_MESSAGES and send(message):
            count += 1
        sent += count
        if count < SINGLE_MESSAGES:
            await connection.datagrams_writable()
        else:
            await asyncio.sleep(0)
    return await _end_messages(connection, sent, watch)


async def _end_messages(connection: Connection, sent: int, watch: Stopwatch) -> Facts:
    stream = await connection.open_stream()
    await _confirm(stream, sent)
    await _confirmed(stream)
    return {"sent": sent, **watch.read()}


async def _ping(node: Node, address: Address, _control: Control, plan: Plan) -> Facts:
    connection = await node.connect(address)
    times_ns: list[int] = []
    deadline_ns = time.perf_counter_ns() + int(plan.seconds * 1e9)
    while (start_ns := time.perf_counter_ns()) < deadline_ns:
        connection.send_datagram(loads.MESSAGE)
        await connection.recv_datagram()
        times_ns.append(time.perf_counter_ns() - start_ns)
    return loads.round_trips(times_ns)


async def _handshakes(node: Node, address: Address, _control: Control, plan: Plan) -> Facts:
    return await loads.handshakes(lambda: _shake_hands(node, address), plan.seconds, loads.HANDSHAKES_IN_FLIGHT)


async def _handshakes_in_a_row(node: Node, address: Address, _control: Control, plan: Plan) -> Facts:
    return await loads.handshakes(lambda: _shake_hands(node, address), plan.seconds, 1)


async def _shake_hands(node: Node, address: Address) -> None:
    connection = await node.connect(address)
    await connection.recv_datagram()
    await connection.close()


async def _idle_client(node: Node, address: Address, control: Control, plan: Plan) -> None:
    async def open_one() -> Connection:
        connection = await node.connect(address)
        await connection.recv_datagram()
        return connection

    async def move(connection: Connection) -> None:
        stream = await connection.open_stream()
        for _ in range(plan.moved_bytes // loads.IDLE_PIECE_BYTES):
            await stream.write(bytes(loads.IDLE_PIECE_BYTES))
        await stream.finish()
        await _confirmed(stream)

    await loads.idle_client(control, open_one, move, plan.connections)


async def _send_many(node: Node, address: Address, _control: Control, plan: Plan) -> Facts:
    connections: list[Connection] = []
    gate = asyncio.Semaphore(loads.IDLE_IN_FLIGHT)

    async def open_one() -> None:
        async with gate:
            connections.append(await node.connect(address))

    await asyncio.gather(*(open_one() for _ in range(plan.busy_connections)))
    streams = [await connection.open_stream() for connection in connections]
    data = bytes(loads.BUSY_PIECE_BYTES)
    times_ns: list[int] = []
    watch, deadline = Stopwatch(), time.perf_counter() + plan.seconds

    async def send(stream: Stream) -> None:
        while time.perf_counter() < deadline:
            await stream.write(data)
        await stream.finish()
        await _confirmed(stream)

    async def ping(some: list[Connection]) -> None:
        while True:
            for connection in some:
                start_ns = time.perf_counter_ns()
                connection.send_datagram(HELLO)
                await connection.recv_datagram()
                times_ns.append(time.perf_counter_ns() - start_ns)

    parts = [connections[i :: loads.BUSY_PINGS] for i in range(min(loads.BUSY_PINGS, len(connections)))]
    pinging = [asyncio.create_task(ping(part)) for part in parts]
    await asyncio.gather(*(send(stream) for stream in streams))
    used = watch.read()
    for task in pinging:
        task.cancel()
    return {
        "connections": len(connections),
        "bytes": sum(stream.bytes_accepted for stream in streams),
        "resident_bytes": resident_bytes(),
        **loads.round_trips(times_ns),
        **used,
    }


async def _send_channels(node: Node, address: Address, _control: Control, plan: Plan) -> Facts:
    connection = await node.connect(address)
    channels = [await connection.open_channel() for _ in range(plan.busy_channels)]
    data, sent = bytes(plan.message_bytes), 0
    watch, deadline = Stopwatch(), time.perf_counter() + plan.seconds

    async def send(channel: Channel) -> None:
        nonlocal sent
        while time.perf_counter() < deadline:
            await channel.send(data)
            sent += len(data)
        await channel.finish()

    await asyncio.gather(*map(send, channels))
    stream = await connection.open_stream()
    await stream.finish()
    await _confirmed(stream)
    return {"bytes": sent, "channels": len(channels), **watch.read()}


async def _send_soak(node: Node, address: Address, _control: Control, plan: Plan) -> Facts:
    connection = await node.connect(address)
    stream = await connection.open_stream()
    data, early = bytes(CHUNK_BYTES), 0
    while stream.bytes_accepted < plan.late_bytes:
        await stream.write(data)
        if not early and stream.bytes_accepted >= plan.early_bytes:
            early = resident_bytes()
    late = resident_bytes()
    await stream.finish()
    await _confirmed(stream)
    return {"bytes": stream.bytes_accepted, "early_bytes": early, "late_bytes": late}


SERVERS: dict[str, Callable[[_Server, Connection], Coroutine[Any, Any, None]]] = {
    "bulk": _take_bulk,
    "msgs": _take_messages,
    "msgs-single": _take_messages,
    "ping": _echo,
    "handshakes": _greet,
    "handshakes-in-a-row": _greet,
    "idle": _idle,
    "many": _take_one_of_many,
    "channels": _take_channels,
    "soak": _take_soak,
}
CLIENTS: dict[str, Callable[[Node, Address, Control, Plan], Coroutine[Any, Any, Facts | None]]] = {
    "bulk": _send_bulk,
    "msgs": _send_batches,
    "msgs-single": _send_singly,
    "ping": _ping,
    "handshakes": _handshakes,
    "handshakes-in-a-row": _handshakes_in_a_row,
    "idle": _idle_client,
    "many": _send_many,
    "channels": _send_channels,
    "soak": _send_soak,
}
