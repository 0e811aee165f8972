"""Extra sockets: for the moments in which one port is not enough to get through a NAT (docs/spec, chapter 24).

They are plain sockets on the event loop, whose datagrams go to whoever asked for them. One through which the peer was
reached is adopted: the pump takes it over, and a connection gets a path by it, named by a virtual local address.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import final

from interpeer import errors
from interpeer._address import IPV4_MAPPED, CoreEndpoint, is_virtual, virtual_address

MAX_EXTRA_SOCKETS = 512
"""Open at once for a node: two sprays of 256, with room below the 1,024 descriptors that a process may often have."""
SOCKET = 3
"""The kind of a virtual address that stands for an adopted socket (the core's ENDPOINT_SOCKET)."""
_MAX_DATAGRAM = 65_535
_DATAGRAMS_AT_A_TIME = 64

OnDatagram = Callable[["ExtraSocket", bytes, CoreEndpoint], None]
Address = tuple[str, int] | tuple[str, int, int, int]


class ExtraSocket(ABC):
    """Send and receive at a port of its own."""

    port: int

    @abstractmethod
    def send(self, data: bytes, remote: CoreEndpoint, ttl: int = 0) -> None:
        """Send a datagram now, perhaps with its own time to live. What the system does not take is lost."""

    @abstractmethod
    def close(self) -> None:
        """Close the socket. Harmless when closed, or adopted."""

    @abstractmethod
    def adopt(self) -> bytes:
        """Hand the socket to the engine; return the local address (16 bytes) of paths by it. Raises LocalError."""


@final
class LoopSocket(ExtraSocket):
    """One on the event loop, by add_reader or, where there is none, by a task."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_datagram: OnDatagram,
        adopt: Callable[[LoopSocket], bytes],
        on_closed: Callable[[LoopSocket], object],
        is_watched: bool,
    ) -> None:
        self._socket: socket.socket | None = sock
        self._loop = loop
        self._on_datagram = on_datagram
        self._adopt = adopt
        self._on_closed = on_closed
        self._task: asyncio.Task[None] | None = None
        self.port: int = sock.getsockname()[1]
        if is_watched:
            loop.add_reader(sock.fileno(), self._readable)
        else:
            self._task = loop.create_task(self._receive())

    def send(self, data: bytes, remote: CoreEndpoint, ttl: int = 0) -> None:
        if self._socket is None:
            raise errors.ClosedError("this extra socket is closed, or adopted")
        with suppress(OSError), time_to_live(self._socket, ttl):
            self._socket.sendto(data, plain(remote))

    def _readable(self) -> None:
        for _ in range(_DATAGRAMS_AT_A_TIME):
            if self._socket is None:
                return
            try:
                data, source = self._socket.recvfrom(_MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue  # what ICMP says about an earlier datagram
            self._take(data, source)

    async def _receive(self) -> None:
        while self._socket is not None:
            try:
                data, source = await self._loop.sock_recvfrom(self._socket, _MAX_DATAGRAM)
            except OSError:
                await asyncio.sleep(0)
                continue
            self._take(data, source)

    def _take(self, data: bytes, source: Address) -> None:
        remote = packed(source)
        if not is_virtual(remote[0]):  # nobody is there: it is forged
            self._on_datagram(self, data, remote)

    def close(self) -> None:
        if self._socket is not None:
            self.detach().close()

    def detach(self) -> socket.socket:
        """Stop receiving, and return the plain socket, which is the caller's from now on."""
        sock = self._socket
        assert sock is not None
        self._socket = None
        if self._task is not None:
            self._task.cancel()
        elif not self._loop.is_closed():
            self._loop.remove_reader(sock.fileno())
        self._on_closed(self)
        return sock

    def adopt(self) -> bytes:
        if self._socket is None:
            raise errors.ClosedError("this extra socket is closed, or adopted")
        return self._adopt(self)


@final
class ExtraSockets:
    """The extra sockets of a driver: how many there are, what numbers the adopted ones have."""

    def __init__(self, loop: asyncio.AbstractEventLoop, is_watched: bool) -> None:
        self._loop = loop
        self._is_watched = is_watched
        self._open: set[LoopSocket] = set()
        self._next_number = 1

    def open(
        self, count: int, hosts: list[str], is_ipv6: bool, on_datagram: OnDatagram, adopt: Callable[[LoopSocket], bytes]
    ) -> list[ExtraSocket]:
        """Bind sockets to port 0 of the one of these hosts that is of the family. Raises OSError, ValueError and LocalError."""
        host = next((host for host in hosts if (":" in host) == is_ipv6), None)
        if host is None:
            raise ValueError(f"the node has no IPv{6 if is_ipv6 else 4} socket that others could stand beside")
        if count < 0 or len(self._open) + count > MAX_EXTRA_SOCKETS:
            raise errors.LocalError(f"at most {MAX_EXTRA_SOCKETS} extra sockets, not {len(self._open)} and {count} more")
        opened: list[ExtraSocket] = []
        try:
            while len(opened) < count:
                opened.append(self._open_one(bound_socket(host), on_datagram, adopt))
        except OSError:
            for extra in opened:
                extra.close()
            raise
        return opened

    def _open_one(self, sock: socket.socket, on_datagram: OnDatagram, adopt: Callable[[LoopSocket], bytes]) -> LoopSocket:
        extra = LoopSocket(sock, self._loop, on_datagram, adopt, self._open.discard, self._is_watched)
        self._open.add(extra)
        return extra

    def next_local(self) -> bytes:
        """Return the virtual address of the socket that is adopted next."""
        number, self._next_number = self._next_number, self._next_number + 1
        return virtual_address(SOCKET, number)

    def close(self) -> None:
        """Close those that nobody has closed."""
        for extra in list(self._open):
            extra.close()


def number_of(local: bytes) -> int:
    """Return the number of the adopted socket that a virtual address stands for."""
    return int.from_bytes(local[8:], "big")


def bound_socket(host: str) -> socket.socket:
    """Return a socket at a free port of a host, which does not block. Raises OSError."""
    is_ipv6 = ":" in host
    sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4])
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def time_to_live(sock: socket.socket, ttl: int) -> Generator[None]:
    """Set a socket's time to live around one datagram; 0: leave it as it is."""
    if not ttl:
        yield
        return
    is_ipv4 = sock.family == socket.AF_INET
    option = (socket.IPPROTO_IP, socket.IP_TTL) if is_ipv4 else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
    before = sock.getsockopt(*option)
    sock.setsockopt(*option, ttl)
    try:
        yield
    finally:
        sock.setsockopt(*option, before)


def packed(address: Address) -> CoreEndpoint:
    """Return the core's form of an address that a socket gives."""
    if len(address) == 2:
        return IPV4_MAPPED + socket.inet_pton(socket.AF_INET, address[0]), address[1], 0
    return socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0]), address[1], address[3]


def plain(endpoint: CoreEndpoint) -> Address:
    """Return what a socket takes for an address of the core."""
    address, port, scope = endpoint
    if address.startswith(IPV4_MAPPED):
        return socket.inet_ntop(socket.AF_INET, address[12:]), port
    return socket.inet_ntop(socket.AF_INET6, address), port, 0, scope
