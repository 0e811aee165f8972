"""TLS 1.3 over TCP by the ssl module, on uvloop or on asyncio.

Tuned by public means: protocols instead of streams, BufferedProtocol into one buffer for the bulk receiver, large writes,
no session tickets. Before Python 3.15 the ssl module cannot choose the cipher suite of TLS 1.3: OpenSSL takes
AES-256-GCM. The client verifies the server's certificate; the server asks for none.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

from interpeer._bench import loads
from interpeer._bench.end import Control, Facts, Stopwatch, raise_descriptor_limit, run
from interpeer._certificate import HOST, certificate_file

ADDRESS = "127.0.0.1"
BACKLOG = 1024
CHUNK_BYTES = 1 << 19
SINGLE_MESSAGES = 256  # written between looks at flow control
LAST = b"\x01"  # the last byte of a bulk transfer; all others are zero


def version() -> str:
    return ssl.OPENSSL_VERSION


def serve(control: Control, *, part: str, loop: str, **_: Any) -> Facts | None:
    with certificate_file() as (path, certificate):
        return serve_with(control, path, certificate, part=part, loop=loop)


def serve_with(control: Control, path: Path, certificate: str, *, part: str, loop: str) -> Facts | None:
    """Serve with the certificate and key in a file, of which the client is told the certificate."""
    raise_descriptor_limit()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(path)
    return run(_serve(control, part, context, certificate), uvloop=loop == "uvloop")


def dial(control: Control, *, part: str, loop: str, port: int, certificate: str, seconds: float) -> Facts | None:
    raise_descriptor_limit()
    context = ssl.create_default_context(cadata=certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return run(CLIENTS[part](_Dialler(context, port), control, seconds), uvloop=loop == "uvloop")


def _tune(transport: asyncio.BaseTransport) -> None:
    """Keep the socket's buffers within the cache, and use the usual congestion control: some hosts' BBR paces loopback."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHUNK_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)
    if hasattr(socket, "TCP_CONGESTION"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


class _Load:
    """What the connections of a server measure together."""

    def __init__(self) -> None:
        self.figures: Facts = {"handshakes": 0}
        self.memory = loads.IdleServer()


class _Server(asyncio.BaseProtocol):
    """One accepted connection."""

    transport: asyncio.Transport

    def __init__(self, load: _Load) -> None:
        self.load = load

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.opened()

    def opened(self) -> None:
        """Called when this end's handshake is complete."""


class _Receiver(_Server):
    """Takes all that the client sends in the time, and confirms how much it was."""

    def opened(self) -> None:
        _tune(self.transport)
        self.watch = Stopwatch()

    def confirm(self, count: int, **figures: int) -> None:
        self.load.figures.update(**figures, **self.watch.read())
        self.transport.write(loads.COUNT.pack(count))


class _Bulk(_Receiver, asyncio.BufferedProtocol):
    """Counts bytes until the last one comes."""

    def opened(self) -> None:
        super().opened()
        self.buffer = memoryview(bytearray(CHUNK_BYTES))  # asyncio slices it to fill it
        self.count = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.count += nbytes
        if self.buffer[nbytes - 1]:
            self.confirm(self.count, bytes=self.count)


class _Messages(_Receiver, asyncio.Protocol):
    """Makes every message a bytes object."""

    def opened(self) -> None:
        super().opened()
        self.frames = loads.Frames()

    def data_received(self, data: bytes) -> None:
        self.frames.feed(data)
        if self.frames.ended:
            self.confirm(self.frames.count, received=self.frames.count)


class _Echo(_Server, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class _Greeter(_Server, asyncio.Protocol):
    """Says one byte as soon as its side of the handshake is complete."""

    def opened(self) -> None:
        self.transport.write(LAST)
        self.load.figures["handshakes"] += 1


class _Idler(_Greeter):
    """Greets, takes what an idle connection moves, and says one byte more when it is complete."""

    def opened(self) -> None:
        super().opened()
        self.missing = loads.IDLE_BYTES
        self.load.memory.opened()

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if not self.missing:
            self.transport.write(LAST)
            self.load.memory.moved()


async def _serve(control: Control, part: str, context: ssl.SSLContext, certificate: str) -> Facts:
    load = _Load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SERVERS[part](load), ADDRESS, 0, ssl=context, backlog=BACKLOG)
    control.tell(port=server.sockets[0].getsockname()[1], certificate=certificate)
    await control.stopped()
    server.close()
    return load.memory.figures() if part == "idle" else load.figures


class _Client(asyncio.Protocol):
    """A connection that can wait until it may write again, and for an answer of known size."""

    def __init__(self, answer_bytes: int) -> None:
        self.written = 0
        self.paused = False
        self._resumed = asyncio.Event()
        self.expect(answer_bytes)

    def expect(self, answer_bytes: int) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._received = b""
        self._answer_bytes = answer_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionError("the server closed before it answered"))

    def pause_writing(self) -> None:
        self.paused = True
        self._resumed.clear()

    def resume_writing(self) -> None:
        self.paused = False
        self._resumed.set()

    async def write_for(self, seconds: float, data: bytes, repeat: int) -> None:
        """Write `data` as fast as flow control permits, `repeat` times between looks at it."""
        write = self.transport.write
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            for _ in range(repeat):
                write(data)
            self.written += repeat * len(data)
            if self.paused:
                await self._resumed.wait()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) == self._answer_bytes:
            self.answer.set_result(self._received)


class _Pinger(asyncio.Protocol):
    """Sends the next ping from within the callback of the last answer: no task, no future between them."""

    def __init__(self, seconds: float) -> None:
        self.times_ns: list[int] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._seconds = seconds
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._deadline_ns = time.perf_counter_ns() + int(self._seconds * 1e9)
        self._ping()

    def _ping(self) -> None:
        self._missing = loads.MESSAGE_BYTES
        self._sent_ns = time.perf_counter_ns()
        self.transport.write(loads.MESSAGE)

    def data_received(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing:
            return
        now_ns = time.perf_counter_ns()
        self.times_ns.append(now_ns - self._sent_ns)
        if now_ns < self._deadline_ns:
            self._ping()
        else:
            self.done.set_result(None)


Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)


class _Dialler:
    """Makes connections to the server."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context = context
        self._port = port

    async def __call__(self, answer_bytes: int) -> _Client:
        return await self.to(lambda: _Client(answer_bytes))

    async def to(self, factory: Callable[[], Protocol]) -> Protocol:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(factory, ADDRESS, self._port, ssl=self._context, server_hostname=HOST)
        return protocol


async def _bulk(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    client = await dial(loads.COUNT.size)
    _tune(client.transport)
    watch = Stopwatch()
    await client.write_for(seconds, bytes(CHUNK_BYTES), 1)
    client.transport.write(LAST)
    await client.answer
    return {"bytes": client.written + len(LAST), **watch.read()}


async def _messages(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    return await _send_messages(await dial(loads.COUNT.size), seconds, loads.FRAMES, 1)


async def _single_messages(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    return await _send_messages(await dial(loads.COUNT.size), seconds, loads.FRAME, SINGLE_MESSAGES)


async def _send_messages(client: _Client, seconds: float, data: bytes, repeat: int) -> Facts:
    watch = Stopwatch()
    await client.write_for(seconds, data, repeat)
    client.transport.write(loads.END_FRAME)
    await client.answer
    return {"sent": client.written // len(loads.FRAME), **watch.read()}


async def _ping(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    pinger = await dial.to(lambda: _Pinger(seconds))
    await pinger.done
    return loads.round_trips(pinger.times_ns)


async def _handshakes(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    return await _shake_hands(dial, seconds, loads.HANDSHAKES_IN_FLIGHT)


async def _handshakes_in_a_row(dial: _Dialler, _control: Control, seconds: float) -> Facts:
    return await _shake_hands(dial, seconds, 1)


async def _shake_hands(dial: _Dialler, seconds: float, in_flight: int) -> Facts:
    async def attempt() -> None:
        client = await dial(len(LAST))
        await client.answer
        client.transport.abort()

    return await loads.handshakes(attempt, seconds, in_flight)


async def _idle(dial: _Dialler, control: Control, _seconds: float) -> None:
    async def open_one() -> _Client:
        client = await dial(len(LAST))
        await client.answer
        client.expect(len(LAST))
        return client

    async def move(client: _Client) -> None:
        for _ in range(loads.IDLE_BYTES // loads.IDLE_PIECE_BYTES):
            client.transport.write(bytes(loads.IDLE_PIECE_BYTES))
        await client.answer

    await loads.idle_client(control, open_one, move)


SERVERS: dict[str, Callable[[_Load], asyncio.BaseProtocol]] = {
    "bulk": _Bulk,
    "msgs": _Messages,
    "msgs-single": _Messages,
    "ping": _Echo,
    "handshakes": _Greeter,
    "handshakes-in-a-row": _Greeter,
    "idle": _Idler,
}
CLIENTS: dict[str, Callable[[_Dialler, Control, float], Coroutine[Any, Any, Facts | None]]] = {
    "bulk": _bulk,
    "msgs": _messages,
    "msgs-single": _single_messages,
    "ping": _ping,
    "handshakes": _handshakes,
    "handshakes-in-a-row": _handshakes_in_a_row,
    "idle": _idle,
}
