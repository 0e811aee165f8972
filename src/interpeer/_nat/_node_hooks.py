"""What discovery needs, lent by an open node: its own socket by raw datagrams, and extra sockets beside it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from interpeer import errors
from interpeer._address import CoreEndpoint
from interpeer._core import control
from interpeer._host import random_bytes
from interpeer._nat._hooks import OnDatagram, Socket

if TYPE_CHECKING:
    from interpeer._node import Node


@final
class NodeHooks:
    """Lend a node's sockets to one discovery."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._main: _MainSocket | None = None
        self._on_datagram: OnDatagram | None = None

    def now_ns(self) -> int:
        return round(self._loop.time() * 1e9)

    def random_bytes(self, n: int) -> bytes:
        return random_bytes(n)

    def open_main(self, on_datagram: OnDatagram, is_ipv6: bool) -> Socket:
        self._on_datagram = on_datagram
        self._main = _MainSocket(self._node, is_ipv6)
        return self._main

    def open_socket(self, on_datagram: OnDatagram, is_ipv6: bool) -> Socket:
        try:
            (socket,) = self._node._driver.open_sockets(1, is_ipv6, on_datagram)
        except (errors.LocalError, ValueError) as error:
            raise OSError(str(error)) from None
        return socket

    def expect(self, token: bytes) -> None:
        self._node._expected.add(token, self._answered)

    def unexpect(self, token: bytes) -> None:
        self._node._expected.remove(token)

    def _answered(self, data: bytes, source: CoreEndpoint, _local: bytes) -> None:
        if self._main is not None and self._on_datagram is not None:
            self._on_datagram(self._main, data, source)


@final
class _MainSocket:
    """The socket of the node's own protocol, which stays open."""

    def __init__(self, node: Node, is_ipv6: bool) -> None:
        self._core = node._engines[0]
        ports = (one.port for one in node._driver.endpoints if (":" in one.host) == is_ipv6)
        self.port = next(ports, 0)

    def send(self, data: bytes, remote: CoreEndpoint, ttl: int = 0) -> None:
        control.send_raw(self._core, data, remote, None, ttl)

    def close(self) -> None:
        """Leave it to the node."""
