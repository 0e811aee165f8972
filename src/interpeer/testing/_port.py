"""What can have a port of a simulated host: the driver of a node, or something plain, for traffic that is not interpeer's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, final

from interpeer._address import IPV4_MAPPED, CoreEndpoint
from interpeer.testing._errors import SimulationError
from interpeer.testing._packet import DEFAULT_TTL, Packet, is_ipv4

if TYPE_CHECKING:
    from interpeer.testing._machine import Host


class Listener(Protocol):
    """Who has a port."""

    def receive(self, packet: Packet) -> None:
        """Take a packet that has arrived."""

    def learn_addresses(self) -> None:
        """Hear that the host has other addresses now."""

    def resume(self) -> None:
        """Hear that the host has woken up."""


@final
class Port:
    """Send and receive datagrams on a port of a host, at every address that it has."""

    def __init__(self, host: Host, received: Callable[[Packet], object], *, family_of: CoreEndpoint, port: int = 0) -> None:
        self._host = host
        self._received = received
        wildcard = IPV4_MAPPED + bytes(4) if is_ipv4(family_of) else bytes(16)
        self._bound = host.bind(wildcard, port, self)
        self._is_open = True

    @property
    def endpoint(self) -> CoreEndpoint:
        """Where it can be reached."""
        return self.source_for(self._bound)

    @property
    def bound_port(self) -> int:
        """Its number."""
        return self._bound[1]

    def source_for(self, target: CoreEndpoint) -> CoreEndpoint:
        return self._host.packed_like(target) or self._bound[0], self._bound[1], 0

    def send(self, data: bytes, target: CoreEndpoint, ecn: int = 0, ttl: int = DEFAULT_TTL) -> None:
        net = self._host.net
        net.send(Packet(data, self.source_for(target), target, ecn, 0.0, net.clock.now_ns, None, self._host, ttl=ttl))

    def receive(self, packet: Packet) -> None:
        self._received(packet)

    def learn_addresses(self) -> None:
        """Do nothing: they are looked up when they are needed."""

    def resume(self) -> None:
        """Do nothing: a port has no timers."""

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._host.unbind(self._bound)


def common_family(source: Host, target: Host) -> CoreEndpoint:
    """Return an endpoint of the target's, without a port, that the source can reach. Raises SimulationError."""
    for packed in target.packed_addresses:
        endpoint = packed, 0, 0
        if source.packed_like(endpoint) is not None:
            return endpoint
    raise SimulationError(f"{source.name} and {target.name} have no family of addresses in common")
