"""TCP of programs in a simulation: what `loop.create_connection` and `loop.create_server` give on a simulated host."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Self, final

from interpeer._address import IPV4_MAPPED, CoreEndpoint
from interpeer.testing._options import SocketOptions
from interpeer.testing._packet import Packet, is_ipv4, is_loopback, to_endpoint
from interpeer.testing._tcpstate import RESET, State, TcpEnd, is_call, is_reset
from interpeer.testing._udp import packed, sockaddr

if TYPE_CHECKING:
    from interpeer.testing._machine import Host

KERNEL_BYTES: Final = 212_992
"""What the system takes off a transport's hands before it tells it to wait."""
HIGH_WATER_BYTES: Final = 65_536
LINGER_NS: Final = 60_000_000_000
"""How long a connection that is over still answers repetitions."""
_WILDCARDS = (bytes(16), IPV4_MAPPED + bytes(4))


@final
class StreamTransport(asyncio.Transport):
    """Be one end of a connection for a protocol: an asyncio transport over `TcpEnd`."""

    def __init__(
        self,
        stack: TcpStack,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Any],
        local: CoreEndpoint,
        remote: CoreEndpoint,
        *,
        is_caller: bool,
        context: contextvars.Context,
        transports: dict[Any, None],
    ) -> None:
        super().__init__({"socket": _named(local), "sockname": sockaddr(local), "peername": sockaddr(remote)})
        self.local = local
        self.remote = remote
        self.end = TcpEnd(is_caller=is_caller)
        self.connected: asyncio.Future[Any] | None = loop.create_future() if is_caller else None
        """Done with the protocol when the call is answered; only a caller's."""
        self.lost_ns: int | None = None
        """When it was over; None: it is not."""
        self._stack = stack
        self._loop = loop
        self._factory = factory
        self._protocol: Any = None
        self._context = context
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        self._is_writing_paused = self._is_reading_paused = False
        self._is_closing = self._has_told_eof = self._has_told_lost = False
        self._will_deliver = False
        self._alarm_ns: int | None = None
        self._transports = transports
        transports[self] = None

    # --- turns ---

    def receive(self, packet: Packet) -> None:
        """Take a segment."""
        self.end.handle_segment(packet.data, self._stack.now_ns)
        self.turn()

    def turn(self) -> None:
        """Send what can be sent, tell the protocol what has happened, and see that there is a turn when one is due."""
        for segment in self.end.poll_transmit(self._stack.now_ns):
            self._stack.send(segment, self.local, self.remote)
        state = self.end.state
        if state is State.CLOSED and self.lost_ns is None:
            self.lost_ns = self._stack.now_ns
            if self._protocol is None:
                del self._transports[self]
        if self._protocol is None and state is State.ESTABLISHED:
            self._begin()
        if self.connected is not None and state is State.CLOSED and not self.connected.done():
            self.connected.set_exception(self.end.error or ConnectionAbortedError(errno.ECONNABORTED, "aborted"))
        if self._protocol is not None:
            self._tell()
        self._set_alarm()

    def _begin(self) -> None:
        self._protocol = self._context.run(self._factory)
        self._call(self._protocol.connection_made, self)
        if self.connected is not None:
            self._call(self._settle)

    def _settle(self) -> None:
        if self.connected is not None and not self.connected.done():
            self.connected.set_result(self._protocol)

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon(callback, *args, context=self._context)

    def _tell(self) -> None:
        is_over = self.end.state is State.CLOSED
        if not self._will_deliver and self._has_news():
            self._will_deliver = True
            self._call(self._deliver)
        waiting = self.get_write_buffer_size()
        if self._is_writing_paused and (waiting <= self._low or is_over):
            self._is_writing_paused = False
            self._call(self._protocol.resume_writing)
        if self._is_closing and not waiting and not self._has_told_lost:
            self._lose(None)

    def _has_news(self) -> bool:
        """Tell whether there is something to deliver, and the protocol wants it."""
        if self._is_closing:
            return self.end.has_data  # to be thrown away
        if self.end.error is not None:
            return not self._has_told_lost
        is_at_end = self.end.has_peer_finished and not self._has_told_eof
        return not self._is_reading_paused and (self.end.has_data or is_at_end)

    def _deliver(self) -> None:
        self._will_deliver = False
        data = self.end.read()
        if data and not self._is_closing:
            self._hand_over(data)
        if self.end.error is not None and not self._has_told_lost:
            self._lose(self.end.error)
        elif self.end.has_peer_finished and not self._has_told_eof and not self._is_closing:
            self._has_told_eof = True
            if not self._protocol.eof_received():
                self.close()
        self.turn_soon()

    def _hand_over(self, data: bytes) -> None:
        if not isinstance(self._protocol, asyncio.BufferedProtocol):
            self._protocol.data_received(data)
            return
        while data and not self._is_closing:
            buffer = memoryview(self._protocol.get_buffer(len(data)))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self._protocol.buffer_updated(size)
            data = data[size:]

    def turn_soon(self) -> None:
        """Take a turn when all that happens at this moment has happened."""
        self._stack.clock_at(self._stack.now_ns, self.turn)

    def _lose(self, error: OSError | None) -> None:
        self._has_told_lost = True
        self._is_closing = True
        del self._transports[self]
        self._call(self._protocol.connection_lost, error)

    def _set_alarm(self) -> None:
        when_ns = self.end.poll_timeout()
        if when_ns is not None and (self._alarm_ns is None or when_ns < self._alarm_ns):
            self._alarm_ns = max(when_ns, self._stack.now_ns)
            self._stack.clock_at(self._alarm_ns, self._ring, self._alarm_ns)

    def _ring(self, alarm_ns: int) -> None:
        if alarm_ns == self._alarm_ns:
            self._alarm_ns = None
            if not self._stack.is_suspended:
                self.end.handle_timeout(self._stack.now_ns)
                self.turn()

    def resume(self) -> None:
        """Do what was due while the host was suspended."""
        self.end.handle_timeout(self._stack.now_ns)
        self.turn()

    # --- asyncio's transport ---

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """Send what was written, then the end; what still comes is thrown away."""
        if not self._is_closing:
            self._is_closing = True
            self.end.finish()
            self.turn_soon()

    def abort(self) -> None:
        """Reset the connection."""
        if self.end.state is not State.CLOSED:
            if self.end.state is not State.SYN_SENT:
                self._stack.send(RESET, self.local, self.remote)
            self.end.abort()
        if not self._has_told_lost and self._protocol is not None:
            self._lose(None)
        self.turn_soon()

    def pause_reading(self) -> None:
        self._is_reading_paused = True

    def resume_reading(self) -> None:
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._tell()

    def is_reading(self) -> bool:
        return not self._is_reading_paused and not self._is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is bytes-like, not {type(data).__name__}")
        if self.end.state is State.CLOSED or self._is_closing:
            return
        self.end.write(bytes(data))
        self._pause_writing()
        self.turn_soon()

    def _pause_writing(self) -> None:
        if not self._is_writing_paused and self.get_write_buffer_size() > self._high:
            self._is_writing_paused = True
            self._protocol.pause_writing()  # at once: whoever writes on without a look would never let time go on

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.end.finish()
        self.turn_soon()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the system has not taken yet."""
        if self.end.state is State.CLOSED:
            return 0
        return max(0, self.end.unacknowledged_bytes - KERNEL_BYTES)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        low = high // 4 if low is None else low
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) >= low ({low}) >= 0 is wanted")
        self._high, self._low = high, low
        if self._protocol is not None:
            self._pause_writing()
            self._tell()


def _named(local: CoreEndpoint) -> SocketOptions:
    return SocketOptions(is_ipv4=is_ipv4(local), is_stream=True, name=lambda: (to_endpoint(local).host, local[1]))


@final
class StreamServer(asyncio.AbstractServer):
    """Listen at some addresses until it is closed."""

    def __init__(
        self, stack: TcpStack, loop: asyncio.AbstractEventLoop, factory: Callable[[], Any], transports: dict[Any, None]
    ) -> None:
        self.transports = transports
        self.loop = loop
        self.factory = factory
        self.context = contextvars.copy_context()
        self.bound: list[CoreEndpoint] = []
        self.is_accepting = False
        self._stack = stack
        self._ended: asyncio.Future[None] = loop.create_future()

    @property
    def sockets(self) -> tuple[SocketOptions, ...]:
        """What tells its addresses, by `getsockname`."""
        return tuple(map(_named, self.bound))

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.loop

    def is_serving(self) -> bool:
        return self.is_accepting

    async def start_serving(self) -> None:
        self.is_accepting = True

    async def serve_forever(self) -> None:
        self.is_accepting = True
        try:
            await asyncio.shield(self._ended)
        finally:
            self.close()

    def close(self) -> None:
        """Listen no more; connections stay."""
        self.is_accepting = False
        for one in self.bound:
            self._stack.servers.pop(one, None)
        self.bound = []
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._ended)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


@final
class TcpStack:
    """The TCP of a host: who listens where, and which connections there are."""

    def __init__(self, host: Host) -> None:
        self.servers: dict[CoreEndpoint, StreamServer] = {}
        self._host = host
        self._connections: dict[tuple[CoreEndpoint, CoreEndpoint], StreamTransport] = {}
        self._next_port = 32_768  # the first of Linux' ephemeral ports

    @property
    def now_ns(self) -> int:
        return self._host.net.clock.now_ns

    @property
    def is_suspended(self) -> bool:
        return self._host.is_suspended

    def clock_at(self, when_ns: int, callback: Callable[..., object], *args: Any) -> None:
        self._host.net.clock.at(when_ns, callback, *args)

    def send(self, segment: bytes, local: CoreEndpoint, remote: CoreEndpoint) -> None:
        self._host.net.send(Packet(segment, local, remote, 0, 0.0, self.now_ns, None, self._host, is_tcp=True))

    def resume(self) -> None:
        """Do what was due while the host was suspended."""
        for connection in list(self._connections.values()):
            connection.resume()

    def receive(self, packet: Packet) -> None:
        """Take a segment that has arrived; one that is damaged is lost, since TCP has a checksum."""
        if "corrupted" in packet.notes:
            return
        connection = self._connections.get((packet.core_target, packet.core_source))
        if connection is not None and (connection.end.state is not State.CLOSED or not is_call(packet.data)):
            connection.receive(packet)
            return
        address, port, _ = packet.core_target
        wildcard = IPV4_MAPPED + bytes(4) if is_ipv4(packet.core_target) else bytes(16)
        server = self.servers.get((address, port, 0)) or self.servers.get((wildcard, port, 0))
        if is_call(packet.data) and server is not None and server.is_accepting:
            accepted = StreamTransport(
                self, server.loop, server.factory, packet.core_target, packet.core_source,
                is_caller=False, context=server.context, transports=server.transports,
            )  # fmt: skip
            self._add(accepted)
            accepted.turn()
        elif not is_reset(packet.data):
            self.send(RESET, packet.core_target, packet.core_source)

    def _add(self, connection: StreamTransport) -> None:
        over = [
            key
            for key, other in self._connections.items()
            if other.lost_ns is not None and (other.end.error is not None or self.now_ns - other.lost_ns > LINGER_NS)
        ]
        for key in over:
            del self._connections[key]
        self._connections[connection.local, connection.remote] = connection

    def _free_port(self) -> int:
        while True:
            self._next_port = 32_768 + (self._next_port - 32_767) % 28_232
            if not any(one[1] == self._next_port for one in (*self.servers, *(local for local, _ in self._connections))):
                return self._next_port

    def bind(self, address: bytes, port: int) -> CoreEndpoint:
        """Return where somebody may listen. Raises OSError."""
        if address not in _WILDCARDS and not is_loopback(address) and not self._host.has(address):
            raise OSError(errno.EADDRNOTAVAIL, "not an address of this host")
        bound = address, port or self._free_port(), 0
        if bound in self.servers:
            raise OSError(errno.EADDRINUSE, f"another server listens at {to_endpoint(bound)}")
        return bound

    async def connect(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Any],
        remote: CoreEndpoint,
        local_addr: tuple[str, int] | None,
        transports: dict[Any, None],
    ) -> tuple[StreamTransport, Any]:
        """Return a transport and its protocol. Raises OSError."""
        own = remote[0] if is_loopback(remote[0]) else self._host.packed_like(remote)
        port = 0
        if local_addr is not None:
            own, port, _ = packed(local_addr)
        if own is None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        local = own, port or self._free_port(), 0
        calling = StreamTransport(
            self, loop, factory, local, remote, is_caller=True, context=contextvars.copy_context(), transports=transports
        )
        self._add(calling)
        calling.turn()
        assert calling.connected is not None
        try:
            return calling, await calling.connected
        except BaseException:
            calling.abort()
            raise

    async def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Any],
        addresses: Iterable[str],
        port: int,
        starts: bool,
        transports: dict[Any, None],
    ) -> StreamServer:
        """Return a server. Raises OSError."""
        server = StreamServer(self, loop, factory, transports)
        try:
            for address in addresses:
                bound = self.bind(packed((address, port))[0], port)
                self.servers[bound] = server
                server.bound.append(bound)
                port = bound[1]
        except OSError:
            server.close()
            raise
        server.is_accepting = starts
        return server
