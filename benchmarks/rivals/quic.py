"""QUIC by aioquic, through its asyncio API.

Tuned by public means: its protocol class instead of its streams, packets of 1420 bytes, flow control out of the way.
aioquic paces by the loop's clock, and uvloop's counts milliseconds: uvloop is quicker for the ping alone. aioquic buffers
without limit and cannot be asked how much; so the receiver reports what has come, and the sender keeps to a window.
"""

import asyncio
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import aioquic
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, QuicEvent, StreamDataReceived

from benchmarks.rivals.certificate import HOST, certificate_file
from interpeer._bench import loads
from interpeer._bench.end import Control, Facts, Stopwatch, raise_descriptor_limit, run

ADDRESS = "127.0.0.1"
DATAGRAM_BYTES = 1420
CHUNK_BYTES = 1 << 15
WINDOW_BYTES = 1 << 20
REPORT_BYTES = 1 << 17  # the receiver reports whenever as much has come
SOCKET_BYTES = 1 << 18  # larger buffers only lengthen the queue
FLOW_CONTROL_BYTES = 1 << 24
IDLE_TIMEOUT_S = 600.0
HELLO = b"\x01"
ON_UVLOOP = ("ping",)


def version() -> str:
    return f"aioquic {aioquic.__version__}"


def serve(control: Control, *, part: str, **_: Any) -> Facts | None:
    raise_descriptor_limit()
    configuration = _configuration(is_client=False)
    with certificate_file() as (path, certificate):
        configuration.load_cert_chain(path)
    return run(_serve(control, part, configuration, certificate), uvloop=part in ON_UVLOOP)


def dial(control: Control, *, part: str, port: int, certificate: str, seconds: float) -> Facts | None:
    raise_descriptor_limit()
    configuration = _configuration(is_client=True, server_name=HOST)
    configuration.load_verify_locations(cadata=certificate.encode())
    return run(CLIENTS[part](_Dialler(configuration, port), control, seconds), uvloop=part in ON_UVLOOP)


def _configuration(**options: Any) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=["load"],
        idle_timeout=IDLE_TIMEOUT_S,
        max_data=FLOW_CONTROL_BYTES,
        max_stream_data=FLOW_CONTROL_BYTES,
        max_datagram_size=DATAGRAM_BYTES,
        **options,
    )


class _Protocol(QuicConnectionProtocol, ABC):
    """One connection, by either end; subclasses say what is done with data that come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)

    def send(self, stream: int, data: bytes) -> None:
        """Add data to a stream; they leave at the next `transmit`, which aioquic calls after every event."""
        self._quic.send_stream_data(stream, data)

    def open_stream(self) -> int:
        return self._quic.get_next_available_stream_id()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self.data_received(event.stream_id, event.data)
        elif isinstance(event, HandshakeCompleted):
            self.opened()

    def opened(self) -> None:
        """Called when this end's handshake is complete."""

    @abstractmethod
    def data_received(self, stream: int, data: bytes) -> None:
        """Called with what came on a stream, in order."""


class _Server(_Protocol):
    def __init__(self, *args: Any, figures: Facts, memory: loads.IdleServer, **options: Any) -> None:
        super().__init__(*args, **options)
        self.figures = figures
        self.memory = memory
        self.count = 0


class _Receiver(_Server):
    """Counts bytes, and messages in them if there are frames, and reports how many bytes have come."""

    def opened(self) -> None:
        self.watch = Stopwatch()
        self.frames = loads.Frames()
        self.reported = 0

    def data_received(self, stream: int, data: bytes) -> None:
        self.count += len(data)
        ended = self.take(data)
        if ended or self.count - self.reported >= REPORT_BYTES:
            self.reported = self.count
            self.send(stream, loads.COUNT.pack(self.count))
        if ended:
            self.figures.update(bytes=self.count, received=self.frames.count, **self.watch.read())

    def take(self, data: bytes) -> bool:
        """Use the data; return whether they are the last."""
        return bool(data[-1])


class _MessageReceiver(_Receiver):
    def take(self, data: bytes) -> bool:
        self.frames.feed(data)
        return self.frames.ended


class _Echo(_Server):
    def data_received(self, stream: int, data: bytes) -> None:
        self.send(stream, data)


class _Greeter(_Server):
    """Says one byte as soon as its side of the handshake is complete, and one more when an idler's data are complete."""

    def opened(self) -> None:
        self.send(self.open_stream(), HELLO)
        self.figures["handshakes"] = self.figures.get("handshakes", 0) + 1
        self.memory.opened()

    def data_received(self, stream: int, data: bytes) -> None:
        self.count += len(data)
        if self.count == loads.IDLE_BYTES:
            self.send(stream, HELLO)
            self.memory.moved()


async def _serve(control: Control, part: str, configuration: QuicConfiguration, certificate: str) -> Facts:
    figures: Facts = {}
    memory = loads.IdleServer()

    def accept(*args: Any, **options: Any) -> _Server:
        return SERVERS[part](*args, figures=figures, memory=memory, **options)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: QuicServer(configuration=configuration, create_protocol=accept), local_addr=(ADDRESS, 0)
    )
    control.tell(port=transport.get_extra_info("sockname")[1], certificate=certificate)
    await control.stopped()
    if part == "idle":
        return memory.figures()
    return figures


class _Client(_Protocol):
    """Waits for what the server says: a hello of one byte, or its newest report."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic)
        self._received = bytearray()
        self._heard = asyncio.Event()

    def data_received(self, _stream: int, data: bytes) -> None:
        self._received += data
        self._heard.set()

    async def hear(self) -> None:
        """Wait until there are data since the last call."""
        await self._heard.wait()
        self._heard.clear()

    async def hear_report(self) -> int:
        """Return the newest number of bytes that the server reports, once there is one."""
        size = loads.COUNT.size
        while True:
            await self.hear()
            if whole := len(self._received) // size * size:
                count: int
                (count,) = loads.COUNT.unpack_from(self._received, whole - size)
                del self._received[:whole]
                return count


class _Pinger(_Client):
    """Sends the next ping from within the event of the last answer."""

    def begin(self, seconds: float) -> None:
        self.times_ns: list[int] = []
        self.stream = self.open_stream()
        self.deadline_ns = time.perf_counter_ns() + int(seconds * 1e9)
        self._ping()
        self.transmit()

    def _ping(self) -> None:
        self.missing = loads.MESSAGE_BYTES
        self.sent_ns = time.perf_counter_ns()
        self.send(self.stream, loads.MESSAGE)

    def data_received(self, stream: int, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing:
            return
        now_ns = time.perf_counter_ns()
        self.times_ns.append(now_ns - self.sent_ns)
        if now_ns < self.deadline_ns:
            self._ping()
        else:
            super().data_received(stream, data)


Client = TypeVar("Client", bound=_Client)


class _Dialler:
    """Makes connections to the server; each has a socket of its own."""

    def __init__(self, configuration: QuicConfiguration, port: int) -> None:
        self._configuration = configuration
        self._port = port

    async def __call__(self) -> _Client:
        return await self.to(_Client)

    async def to(self, factory: Callable[[QuicConnection], Client]) -> Client:
        _, client = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: factory(QuicConnection(configuration=self._configuration)), local_addr=(ADDRESS, 0)
        )
        client.connect((ADDRESS, self._port))
        await client.wait_connected()
        return client


async def _send_for(client: _Client, seconds: float, data: bytes, repeat: int, end: bytes) -> Facts:
    """Send `data` again and again, and `end` when the time is over; return when the server has reported it all."""
    stream = client.open_stream()
    sent = reported = 0
    watch = Stopwatch()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        while sent - reported < WINDOW_BYTES:
            for _ in range(repeat):
                client.send(stream, data)
            sent += repeat * len(data)
        client.transmit()
        reported = await client.hear_report()
    client.send(stream, end)
    client.transmit()
    while reported < sent + len(end):
        reported = await client.hear_report()
    return {"bytes": reported, "sent": sent // len(loads.FRAME), **watch.read()}


async def _bulk(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    return await _send_for(await dial(), seconds, bytes(CHUNK_BYTES), 1, HELLO)


async def _messages(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    return await _send_for(await dial(), seconds, loads.FRAMES, 1, loads.END_FRAME)


async def _single_messages(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    return await _send_for(await dial(), seconds, loads.FRAME, loads.BATCH_MESSAGES, loads.END_FRAME)


async def _ping(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    client = await dial.to(_Pinger)
    client.begin(seconds)
    await client.hear()
    return loads.round_trips(client.times_ns)


async def _handshakes(dial: _Dialler, _control: Control, seconds: float, in_flight: int = loads.HANDSHAKES_IN_FLIGHT) -> Facts:
    async def attempt() -> None:
        client = await dial()
        await client.hear()
        client.close()

    return await loads.handshakes(attempt, seconds, in_flight)


async def _handshakes_in_a_row(dial: _Dialler, control: Control, seconds: float) -> Facts:
    return await _handshakes(dial, control, seconds, 1)


async def _idle(dial: _Dialler, control: Control, _seconds: float) -> None:
    async def open_one() -> _Client:
        client = await dial()
        await client.hear()
        return client

    async def move(client: _Client) -> None:
        stream = client.open_stream()
        for _ in range(loads.IDLE_BYTES // loads.IDLE_PIECE_BYTES):
            client.send(stream, bytes(loads.IDLE_PIECE_BYTES))
        client.transmit()
        await client.hear()

    await loads.idle_client(control, open_one, move)


SERVERS = {
    "bulk": _Receiver,
    "msgs": _MessageReceiver,
    "msgs-single": _MessageReceiver,
    "ping": _Echo,
    "handshakes": _Greeter,
    "handshakes-in-a-row": _Greeter,
    "idle": _Greeter,
}
CLIENTS = {
    "bulk": _bulk,
    "msgs": _messages,
    "msgs-single": _single_messages,
    "ping": _ping,
    "handshakes": _handshakes,
    "handshakes-in-a-row": _handshakes_in_a_row,
    "idle": _idle,
}
