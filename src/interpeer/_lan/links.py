"""The sockets of own discovery: one for each family at the shared port, where hellos come, and one of our own, which says hello
and gets the answers. (Of several sockets at a shared port only one would get an answer.)

Multicast is often blocked on Wi-Fi and broadcast sometimes, so hellos go out as both, on every interface.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, final

from interpeer import _host
from interpeer._interfaces import Interface, is_disabled

PORT = 28_457
GROUP_IPV4 = "239.255.73.80"
"""Of the range that a site may use as it likes (RFC 2365)."""
GROUP_IPV6 = "ff12::4950"
"""Link-local scope, not assigned for ever (RFC 4291, 2.7)."""
HOPS = 255
"""What is sent with so many and arrives with as many has passed no router (RFC 5082)."""
MAX_DATAGRAM = 256
"""What is read of one; a beacon is shorter, and anything longer is none."""
MAX_AT_ONCE = 64
"""Datagrams of one socket before others have their turn."""

_IP_RECVTTL = {"linux": 12, "darwin": 24}.get(sys.platform, 0)
_IP_TTL_TYPES = (socket.IP_TTL, _IP_RECVTTL)  # under which the number comes: the one on Linux, the other on BSDs
_CONTROL_BYTES = socket.CMSG_SPACE(4) * 2 if hasattr(socket, "CMSG_SPACE") else 0


@final
@dataclass(frozen=True, slots=True)
class Source:
    """Where a datagram came from, and how far."""

    host: str
    """With its scope, if it is link-local IPv6."""
    port: int
    hops: int | None
    """How many hops it had left; None where the system does not tell."""


OnDatagram = Callable[[bytes, Source], None]


@final
@dataclass(frozen=True, slots=True)
class _Port:
    """A socket, whoever reads from it."""

    setsockopt: Callable[[int, int, Any], None]
    sendto: Callable[[bytes, tuple[Any, ...]], object]
    close: Callable[[], object]


@final
class Links:
    """Send to, and hear, everybody on the links of some interfaces."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_datagram: OnDatagram) -> None:
        self._loop = loop
        self._on_datagram = on_datagram
        self._tell_hops = bool(_CONTROL_BYTES and _IP_RECVTTL) and not is_disabled("recvttl")
        self._interfaces: tuple[Interface, ...] = ()
        self._own: dict[int, _Port] = {}
        self._shared: dict[int, _Port] = {}
        self._joined: set[tuple[str, int]] = set()
        self.failed = 0
        """Datagrams that the system did not take."""

    async def open(self, interfaces: Iterable[Interface]) -> None:
        """Open the sockets, those that can be; raises OSError when none can."""
        error: OSError | None = None
        for version in (4, 6):
            try:
                self._shared[version] = await self._open(version, PORT, is_shared=True)
                self._own[version] = await self._open(version, 0, is_shared=False)
            except OSError as refused:
                error = refused
        if not self._own and error is not None:
            raise error
        self.use(interfaces)

    async def _open(self, version: int, port: int, *, is_shared: bool) -> _Port:
        if _host.current.get() is not None:
            return await self._open_simulated(version, port, is_shared=is_shared)
        sock = _make_socket(version, port, is_shared=is_shared)
        try:
            _set_options(sock.setsockopt, version)
            if self._tell_hops:
                _ask_for_hops(sock, version)
                try:
                    self._loop.add_reader(sock.fileno(), self._read, sock)
                    return _Port(sock.setsockopt, sock.sendto, functools.partial(self._close_socket, sock))
                except NotImplementedError:
                    self._tell_hops = False
            transport, _ = await self._loop.create_datagram_endpoint(lambda: _Protocol(self._on_datagram), sock=sock)
        except BaseException:
            sock.close()
            raise
        return _Port(sock.setsockopt, transport.sendto, transport.close)

    async def _open_simulated(self, version: int, port: int, *, is_shared: bool) -> _Port:
        transport, _ = await self._loop.create_datagram_endpoint(
            lambda: _Protocol(self._on_datagram),
            ("0.0.0.0" if version == 4 else "::", port),
            reuse_port=is_shared,
            allow_broadcast=True,
        )
        options = transport.get_extra_info("socket")
        _set_options(options.setsockopt, version)
        return _Port(options.setsockopt, transport.sendto, transport.close)

    def _close_socket(self, sock: socket.socket) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(sock.fileno())
        sock.close()

    def use(self, interfaces: Iterable[Interface]) -> None:
        """Say hello on these from now on, and hear what is said there."""
        self._interfaces = tuple(interfaces)
        wanted = {
            (str(address.ip), interface.index)
            for interface in self._interfaces
            for address in interface.addresses
            if address.is_usable and interface.is_multicast
        }
        self._joined &= wanted  # the kernel has left the groups of what is gone
        for host, index in sorted(wanted - self._joined):
            if self._join(host, index):
                self._joined.add((host, index))

    def _join(self, host: str, index: int) -> bool:
        version = 6 if ":" in host else 4
        if version not in self._shared:
            return False
        if version == 4:
            level, option = socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP
            request = socket.inet_aton(GROUP_IPV4) + socket.inet_aton(host)
        else:
            level, option = socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP
            request = socket.inet_pton(socket.AF_INET6, GROUP_IPV6) + struct.pack("@I", index)
        try:
            self._shared[version].setsockopt(level, option, request)
        except OSError as error:
            return error.errno == errno.EADDRINUSE  # another address of that interface has joined
        return True

    # --- sending ---

    def say(self, data: bytes) -> None:
        """Send to everybody on every link, in every way that there is."""
        own_ipv4, own_ipv6 = self._own.get(4), self._own.get(6)
        for interface in self._interfaces:
            if own_ipv6 is not None and interface.is_multicast and any(a.ip.version == 6 for a in interface.addresses):
                self._send(own_ipv6, data, (GROUP_IPV6, PORT, 0, interface.index))
            for address in interface.addresses:
                if own_ipv4 is None or address.ip.version == 6 or not address.is_usable:
                    continue
                if interface.is_multicast:
                    self._send(own_ipv4, data, (GROUP_IPV4, PORT), leaving_from=address.ip.packed)
                if address.broadcast is not None:
                    self._send(own_ipv4, data, (str(address.broadcast), PORT))

    def answer(self, data: bytes, to: Source) -> None:
        """Send to one."""
        if ":" in to.host:
            host, _, scope = to.host.partition("%")
            if 6 in self._own:
                self._send(self._own[6], data, (host, to.port, 0, int(scope or 0)))
        elif 4 in self._own:
            self._send(self._own[4], data, (to.host, to.port))

    def _send(self, port: _Port, data: bytes, to: tuple[Any, ...], leaving_from: bytes | None = None) -> None:
        try:
            if leaving_from is not None:
                port.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, leaving_from)
            port.sendto(data, to)
        except OSError:
            self.failed += 1  # the interface or address is going, or a filter is there; others may work

    # --- receiving ---

    def _read(self, sock: socket.socket) -> None:
        for _ in range(MAX_AT_ONCE):
            try:
                data, control, _, source = sock.recvmsg(MAX_DATAGRAM, _CONTROL_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # what ICMP says of an earlier answer
            self._on_datagram(data, _source(source, _hops(control)))

    def close(self) -> None:
        """Close the sockets. Harmless when closed."""
        for port in (*self._own.values(), *self._shared.values()):
            port.close()
        self._own.clear()
        self._shared.clear()
        self._joined.clear()


@final
class _Protocol(asyncio.DatagramProtocol):
    """Pass on what a loop receives that cannot watch sockets."""

    def __init__(self, on_datagram: OnDatagram) -> None:
        self._on_datagram = on_datagram

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._on_datagram(data, _source(addr, None))


def try_port(version: int) -> None:
    """Raise OSError where the shared port cannot be had for a family; nothing is sent."""
    _make_socket(version, PORT, is_shared=True).close()


def links_of(interfaces: Iterable[Interface]) -> tuple[Interface, ...]:
    """Return the interfaces that have neighbours whom it costs nothing to talk to."""
    return tuple(
        interface
        for interface in interfaces
        if interface.is_up and not interface.is_loopback and not interface.is_metered and interface.hosts
    )


def _make_socket(version: int, port: int, *, is_shared: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if not sys.platform.startswith("linux"):  # there all sockets hear what is sent to a group, whatever this says
                with contextlib.suppress(OSError, AttributeError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("0.0.0.0" if version == 4 else "::", port))
    except OSError:
        sock.close()
        raise
    return sock


def _set_options(setsockopt: Callable[[int, int, Any], None], version: int) -> None:
    if version == 4:
        setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        setsockopt(socket.IPPROTO_IP, socket.IP_TTL, HOPS)
        setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
    else:
        setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, HOPS)
        setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)


def _ask_for_hops(sock: socket.socket, version: int) -> None:
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)


def _hops(control: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, value in control:
        is_ipv4 = level == socket.IPPROTO_IP and kind in _IP_TTL_TYPES
        is_ipv6 = level == socket.IPPROTO_IPV6 and kind == socket.IPV6_HOPLIMIT
        if (is_ipv4 or is_ipv6) and value:
            return int.from_bytes(value, sys.byteorder)
    return None


def _source(address: tuple[Any, ...], hops: int | None) -> Source:
    host = str(address[0]).partition("%")[0]
    scope = address[3] if len(address) == 4 else 0
    return Source(f"{host}%{scope}" if scope else host, int(address[1]), hops)
