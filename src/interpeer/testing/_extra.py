"""The extra sockets of a node on a simulated host: ports of their own, for the moments in which one is not enough."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from interpeer import errors
from interpeer._address import IPV4_MAPPED, CoreEndpoint, is_virtual, virtual_address
from interpeer._sockets import MAX_EXTRA_SOCKETS, SOCKET, ExtraSocket, OnDatagram
from interpeer.testing._packet import Packet
from interpeer.testing._port import Port

if TYPE_CHECKING:
    from interpeer.testing._machine import Host

MAX_ADOPTED: Final = 12
"""As many as a pump takes over."""


@final
class SimSocket(ExtraSocket):
    """Send and receive at a port of a host; the driver hears of both, for its audit."""

    def __init__(self, sockets: SimSockets, host: Host, is_ipv6: bool, on_datagram: OnDatagram) -> None:
        wildcard = bytes(16) if is_ipv6 else IPV4_MAPPED + bytes(4)
        self._sockets = sockets
        self._on_datagram = on_datagram
        self._context = contextvars.copy_context()
        self._clock = host.net.clock
        self.endpoint = Port(host, self._receive, family_of=(wildcard, 0, 0))
        self.port = self.endpoint.bound_port
        self.is_open = True
        """Whether it is the application's: neither closed nor adopted."""
        self.local: bytes | None = None
        """The virtual address, once it is adopted."""

    def send(self, data: bytes, remote: CoreEndpoint, ttl: int = 0) -> None:
        if not self.is_open:
            raise errors.ClosedError("this extra socket is closed, or adopted")
        self._sockets.send(self.endpoint, data, remote, 0, ttl)

    def _receive(self, packet: Packet) -> None:
        if is_virtual(packet.core_source[0]):
            return  # nobody is there: it is forged
        if self.local is not None:
            self._sockets.take(packet, self.local)
            return
        self._sockets.hear(packet)
        self._clock.at(self._clock.now_ns, self._tell, packet.data, packet.core_source)

    def _tell(self, data: bytes, source: CoreEndpoint) -> None:
        if self.is_open:
            self._context.run(self._on_datagram, self, data, source)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._sockets.forget(self)

    def adopt(self) -> bytes:
        if not self.is_open:
            raise errors.ClosedError("this extra socket is closed, or adopted")
        self.local = self._sockets.adopt(self)
        self.is_open = False
        return self.local


@final
class SimSockets:
    """The extra sockets of one driver.

    take: gets what comes to an adopted one, with its virtual address; hear: is shown what comes to the others; send: sends."""

    def __init__(
        self,
        host: Host,
        *,
        take: Callable[[Packet, bytes], None],
        hear: Callable[[Packet], None],
        send: Callable[[Port, bytes, CoreEndpoint, int, int], None],
    ) -> None:
        self.take = take
        self.hear = hear
        self.send = send
        self._host = host
        self._open: dict[SimSocket, None] = {}
        self._adopted: dict[bytes, SimSocket] = {}
        self._next_number = 1

    def open(self, count: int, is_ipv6: bool, on_datagram: OnDatagram) -> list[ExtraSocket]:
        """Open so many. Raises LocalError."""
        if count < 0 or len(self._open) + count > MAX_EXTRA_SOCKETS:
            raise errors.LocalError(f"at most {MAX_EXTRA_SOCKETS} extra sockets, not {len(self._open)} and {count} more")
        opened = [SimSocket(self, self._host, is_ipv6, on_datagram) for _ in range(count)]
        self._open.update(dict.fromkeys(opened))
        return list(opened)

    @property
    def has_room(self) -> bool:
        """Whether one more may be adopted."""
        return len(self._adopted) < MAX_ADOPTED

    def adopt(self, extra: SimSocket) -> bytes:
        """Take one over; return its virtual address. Raises LocalError."""
        if not self.has_room:
            raise errors.LocalError(f"{MAX_ADOPTED} sockets are adopted already")
        local = virtual_address(SOCKET, self._next_number)
        self._next_number += 1
        del self._open[extra]
        self._adopted[local] = extra
        return local

    def adopted(self, local: bytes) -> Port | None:
        """Return what sends for a virtual address; None: it was released."""
        extra = self._adopted.get(local)
        return None if extra is None else extra.endpoint

    def forget(self, extra: SimSocket) -> None:
        """Close one that nobody has adopted."""
        del self._open[extra]
        extra.endpoint.close()

    def release(self, local: bytes) -> None:
        """Close one that was adopted. Harmless when it is closed."""
        extra = self._adopted.pop(local, None)
        if extra is not None:
            extra.endpoint.close()

    def close(self) -> None:
        """Close all."""
        for extra in tuple(self._open):
            extra.close()
        for local in tuple(self._adopted):
            self.release(local)
