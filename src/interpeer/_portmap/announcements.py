"""What gateways say to everybody when they have restarted, or have another address (RFC 6887, section 14.1; RFC 6886, 3.2.1)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, final

from interpeer._portmap.gateway import Gateway

PORT = 5350


@final
class Announcements(asyncio.DatagramProtocol):
    """Listen for those of one gateway; datagrams from elsewhere are dropped and counted."""

    def __init__(self, gateway: Gateway, on_datagram: Callable[[bytes], None]) -> None:
        self.ignored = 0
        self._gateway = gateway
        self._on_datagram = on_datagram
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> str:
        """Begin; return why it cannot be, or nothing. Other programs listen on the same port."""
        try:
            listening = _listen(self._gateway)
        except OSError as error:
            return f"restarts of the gateway are noticed late: port {PORT} cannot be listened on ({error.strerror or error})"
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=listening)
        return ""

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if not self._gateway.is_at(addr) or addr[1] != self._gateway.port:
            self.ignored += 1
        else:
            self._on_datagram(data)


def _listen(gateway: Gateway) -> socket.socket:
    """Return a socket that hears the group of all hosts, which every host is in. Raises OSError."""
    is_ipv4 = gateway.version == 4
    listening = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if not is_ipv4:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(("0.0.0.0" if is_ipv4 else "::", PORT))
        if is_ipv4:  # so that switches that watch memberships pass them on
            membership = socket.inet_aton("224.0.0.1") + socket.inet_aton(gateway.own_host)
            listening.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except BaseException:
        listening.close()
        raise
    return listening
