"""A NAT in front of a host that forgets, as real ones do: from then on the host's packets come from another place."""

from __future__ import annotations

import ipaddress
from typing import final

from interpeer._address import IPV4_MAPPED, CoreEndpoint
from interpeer.testing._packet import Packet, is_ipv4, to_endpoint

_FIRST_PORT = 20_000
_PORTS = 20_000
_ADDRESSES_4 = int(ipaddress.ip_address("12.0.0.0"))
_ADDRESSES_6 = int(ipaddress.ip_address("2000:1::"))


@final
class Nat:
    """Map each of a host's ports to a port outside, at the first packet from it; anybody may send to what is mapped."""

    def __init__(self) -> None:
        self._out: dict[CoreEndpoint, CoreEndpoint] = {}
        self._in: dict[CoreEndpoint, CoreEndpoint] = {}
        self._addresses: list[bytes] = []  # of its own, if it has been given any; else it uses the host's
        self._port = 0

    def rebind(self, addresses: list[bytes]) -> None:
        """Forget every mapping; use these addresses from now on, one of each family, or with none of them the host's."""
        self._addresses = addresses
        self._out.clear()
        self._in.clear()

    @property
    def addresses(self) -> list[bytes]:
        return self._addresses

    def outward(self, packet: Packet) -> None:
        """Let a packet of the host come from outside."""
        inner = packet.core_source
        outer = self._out.get(inner)
        if outer is None:
            like = (packed for packed in self._addresses if is_ipv4((packed, 0, 0)) == is_ipv4(inner))
            outer = self._out[inner] = next(like, inner[0]), self._next_port(), 0
            self._in[outer] = inner
        packet.translate(source=to_endpoint(outer))

    def _next_port(self) -> int:
        self._port = (self._port + 1) % _PORTS
        return _FIRST_PORT + self._port

    def inward(self, packet: Packet) -> bool:
        """Let a packet from outside go to the host; return False if nothing is mapped to where it goes."""
        inner = self._in.get(packet.core_target)
        if inner is None:
            return False
        packet.translate(target=to_endpoint(inner))
        return True


def addresses_like(packed: list[bytes], number: int) -> list[bytes]:
    """Return an address of the same family for each, that no host has by default; others for each number."""
    return [
        IPV4_MAPPED + (_ADDRESSES_4 + number).to_bytes(4, "big")
        if is_ipv4((address, 0, 0))
        else (_ADDRESSES_6 + (number << 64) + 1).to_bytes(16, "big")
        for address in packed
    ]
