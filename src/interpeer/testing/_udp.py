"""Plain UDP of programs in a simulation: what `loop.create_datagram_endpoint` gives on a simulated host."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
from typing import TYPE_CHECKING, Any, final

from interpeer._address import IPV4_MAPPED, CoreEndpoint, Endpoint
from interpeer.testing._options import AF_INET, AF_INET6, SocketOptions
from interpeer.testing._packet import DEFAULT_TTL, Packet, is_ipv4, is_loopback, is_multicast, to_endpoint

if TYPE_CHECKING:
    from interpeer.testing._machine import Host

Address = tuple[str, int] | tuple[str, int, int, int]
_WILDCARDS = (bytes(16), IPV4_MAPPED + bytes(4))


@final
class DatagramTransport(asyncio.DatagramTransport):
    """Send and receive datagrams at a port of a host; nothing waits, as the network takes everything at once.

    Times to live, broadcast and multicast are set at `get_extra_info("socket")`, as with real sockets."""

    def __init__(
        self,
        host: Host,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.DatagramProtocol,
        local: CoreEndpoint,
        remote: CoreEndpoint | None,
        *,
        shares_port: bool,
        may_broadcast: bool,
        transports: dict[Any, None],
    ) -> None:
        self.options = SocketOptions(is_ipv4=is_ipv4(local), is_stream=False, name=self._name)
        if may_broadcast:
            self.options.allow_broadcast()
        super().__init__({"socket": self.options, "peername": None if remote is None else sockaddr(remote)})
        self._host = host
        self._loop = loop
        self._protocol = protocol
        self._remote = remote
        self._context = contextvars.copy_context()
        self._is_closing = False
        self._local = host.bind(local[0], local[1], self, is_shared=shares_port)
        self._transports = transports
        transports[self] = None

    def _name(self) -> tuple[str, int]:
        where = to_endpoint(self._local)
        return where.host, where.port

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.options.getsockname() if name == "sockname" else super().get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.DatagramProtocol)
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            del self._transports[self]
            self._host.unbind(self._local, self)
            self._call(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def _call(self, callback: Any, *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon(callback, *args, context=self._context)

    # --- sending ---

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        if self._is_closing:
            return
        target = self._remote if addr is None else packed(addr)
        if target is None or (self._remote is not None and target != self._remote):
            raise ValueError(f"an address is wanted, and only that of the remote where there is one, not {addr}")
        is_group = self._host.is_broadcast(target[0]) or is_multicast(target[0])
        source, error = self._source_for(target, is_group), 0
        if source is None:
            error = errno.ENETUNREACH
        elif is_group and not is_multicast(target[0]) and not self.options.may_broadcast:
            error = errno.EACCES
        if source is None or error:
            self._call(self._protocol.error_received, OSError(error, os.strerror(error)))
            return
        net = self._host.net
        ttl = self.options.ttl or DEFAULT_TTL
        packet = Packet(bytes(data), source, target, 0, 0.0, net.clock.now_ns, None, self._host, ttl=ttl)
        packet.is_to_group = is_group
        packet.is_looped_back = self.options.is_looped_back or not is_multicast(target[0])
        net.send(packet)

    def _source_for(self, target: CoreEndpoint, is_group: bool) -> CoreEndpoint | None:
        own: bytes | None = self._local[0]
        if is_ipv4(self._local) != is_ipv4(target):
            return None
        if own in _WILDCARDS or is_multicast(self._local[0]):
            own = target[0] if is_loopback(target[0]) else self._host.packed_like(target)
            if is_group and self.options.sends_from is not None:
                own = self.options.sends_from
        return None if own is None else (own, self._local[1], 0)

    # --- receiving: a listener of the host ---

    def receive(self, packet: Packet) -> None:
        if self._remote is None or packet.core_source[:2] == self._remote[:2]:
            self._call(self._take, packet.data, sockaddr(packet.core_source))

    def _take(self, data: bytes, address: Any) -> None:
        if not self._is_closing:
            self._protocol.datagram_received(data, address)

    def takes_for_all(self, target: CoreEndpoint) -> bool:
        """Tell whether it takes what is sent to a group or to everybody: groups are to be joined."""
        if target[1] != self._local[1] or is_ipv4(target) != is_ipv4(self._local):
            return False
        is_bound_to_it = self._local[0] in (target[0], *_WILDCARDS)
        return is_bound_to_it and (not is_multicast(target[0]) or target[0] in self.options.groups)

    def learn_addresses(self) -> None:
        """Do nothing: they are looked up when they are needed."""

    def resume(self) -> None:
        """Do nothing: it has no timers."""


async def open_endpoint(
    host: Host,
    loop: asyncio.AbstractEventLoop,
    factory: Any,
    local_addr: tuple[str | None, int] | None,
    remote_addr: tuple[str, int] | None,
    *,
    family: int,
    shares_port: bool,
    may_broadcast: bool,
    transports: dict[Any, None],
) -> tuple[DatagramTransport, Any]:
    """Return a transport and its protocol, which knows of it already. Raises OSError and ValueError."""
    remote = None if remote_addr is None else packed(remote_addr)
    if local_addr is not None:
        name, port = local_addr[0] or ("::" if family == AF_INET6 else "0.0.0.0"), local_addr[1]
    elif remote is not None or family in (AF_INET, AF_INET6):
        is_four = is_ipv4(remote) if remote is not None else family == AF_INET
        name, port = "0.0.0.0" if is_four else "::", 0
    else:
        raise ValueError("unexpected address family: give local_addr, remote_addr or family")
    local = packed((name, port))
    if local[0] not in _WILDCARDS and not is_loopback(local[0]) and not is_multicast(local[0]) and not host.has(local[0]):
        raise OSError(errno.EADDRNOTAVAIL, "not an address of this host")
    protocol = factory()
    transport = DatagramTransport(
        host, loop, protocol, local, remote, shares_port=shares_port, may_broadcast=may_broadcast, transports=transports
    )
    made = loop.create_future()
    loop.call_soon(protocol.connection_made, transport)
    loop.call_soon(made.set_result, None)
    await made
    return transport, protocol


def packed(address: tuple[Any, ...]) -> CoreEndpoint:
    """Return the core's form of an address as sockets have it. Raises ValueError."""
    host, port = address[0], address[1]
    return Endpoint(host.partition("%")[0], port or 1).to_core()[0], port, 0


def sockaddr(endpoint: CoreEndpoint) -> Address:
    """Return an address as sockets have it."""
    where = to_endpoint((endpoint[0], endpoint[1] or 1, 0))
    return (where.host, endpoint[1]) if is_ipv4(endpoint) else (where.host, endpoint[1], 0, 0)
