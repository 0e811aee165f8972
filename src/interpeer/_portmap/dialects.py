"""PCP and NAT-PMP: what is written for a wish, and what an answer to it means.

The core reads the bytes; here it is decided whether an answer belongs to what was asked. What does not is None, and the caller
counts it: a wrong nonce, port, protocol or opcode, options that nobody has asked for. An answer that does belong, but grants
what is of no use, is a refusal with the reason.
"""

from __future__ import annotations

import ipaddress
from typing import Protocol, final

from interpeer._address import IPV4_MAPPED
from interpeer._core import portmap
from interpeer._portmap.answers import Answer, Kind, Wish, is_usable, refused
from interpeer._portmap.epoch import Epoch

_UDP = 17
_ANNOUNCE, _MAP = 0, 1  # opcodes of PCP; NAT-PMP's for the address and for UDP are the same numbers
_UNSUPPORTED_VERSION = 1
_PCP_UNSUPPORTED_OPCODE, _PCP_ADDRESS_MISMATCH = 4, 12
_PCP_ERRORS = {
    2: "not authorised",
    3: "malformed request",
    4: "it does not map ports",
    5: "unsupported option",
    6: "malformed option",
    7: "it has no uplink",
    8: "its table is full",
    9: "it does not map UDP",
    10: "this host has used up its quota",
    11: "it cannot give that external port",
    12: "it sees another address of this host: there is a NAT between",
    13: "excessive remote peers",
}
_NATPMP_ERRORS = {2: "not authorised", 3: "it has no uplink", 4: "its table is full", 5: "it does not map ports"}


class Dialect(Protocol):
    """A protocol of datagrams with the gateway."""

    name: str
    epoch: Epoch

    def probe(self) -> bytes:
        """Return a request that changes nothing, to see who answers."""
        ...

    def requests(self, wish: Wish) -> list[bytes]:
        """Return the datagrams that ask for a wish; only answers to the last wish count."""
        ...

    def parse(self, data: bytes) -> Answer | None:
        """Return what a datagram of the gateway's says; None for what belongs to no request of ours."""
        ...


@final
class Pcp:
    """RFC 6887. With IPv6 a mapping is a hole in the firewall: inside and outside are the same address."""

    name = "pcp"

    def __init__(self, own_host: str) -> None:
        self._own = ipaddress.ip_address(own_host)
        self._wish: Wish | None = None
        self.epoch = Epoch(is_exact=True)

    def probe(self) -> bytes:
        return portmap.pcp_announce(_packed(self._own))

    def requests(self, wish: Wish) -> list[bytes]:
        self._wish = wish
        if wish.external_host is None:
            suggested = bytes(16) if self._own.version == 6 else _packed(ipaddress.IPv4Address(0))
        else:
            suggested = _packed(ipaddress.ip_address(wish.external_host))
        external_port = wish.external_port if wish.lifetime_s else 0
        own = _packed(self._own)
        return [portmap.pcp_map(wish.nonce, own, _UDP, wish.internal_port, external_port, suggested, wish.lifetime_s)]

    def parse(self, data: bytes) -> Answer | None:
        if data[:1] == b"\0":
            old = portmap.parse_natpmp(data)
            return refused("it speaks only NAT-PMP") if old and old[1] == _UNSUPPORTED_VERSION else None
        found = portmap.parse_pcp(data)
        if found is None:
            return None
        opcode, result, lifetime_s, epoch_s, nonce, protocol, internal_port, port, address, third_party, _, filters = found
        if opcode == _ANNOUNCE:
            if result in (0, _PCP_UNSUPPORTED_OPCODE):
                return Answer(Kind.HEARD, epoch_s=epoch_s)
            return refused(_PCP_ERRORS.get(result, f"error {result}"), epoch_s=epoch_s, lifetime_s=lifetime_s)
        wish = self._wish
        if wish is None or nonce != wish.nonce or protocol != _UDP or internal_port != wish.internal_port:
            return None
        if third_party is not None or filters:
            return None
        if result != 0:
            return refused(_PCP_ERRORS.get(result, f"error {result}"), epoch_s=epoch_s, lifetime_s=lifetime_s)
        if lifetime_s == 0:
            return Answer(Kind.GONE, epoch_s=epoch_s)
        return _granted(_unpacked(address), self._own.version, port, lifetime_s, epoch_s)


@final
class NatPmp:
    """RFC 6886: IPv4 alone, and the external address is asked for apart."""

    name = "nat-pmp"

    def __init__(self) -> None:
        self._wish: Wish | None = None
        self._host: str | None = None
        self.epoch = Epoch(is_exact=False)

    def probe(self) -> bytes:
        return portmap.natpmp_address()

    def requests(self, wish: Wish) -> list[bytes]:
        self._wish = wish
        if wish.lifetime_s == 0:
            return [portmap.natpmp_map(wish.internal_port, 0, 0)]
        return [portmap.natpmp_address(), portmap.natpmp_map(wish.internal_port, wish.external_port, wish.lifetime_s)]

    def parse(self, data: bytes) -> Answer | None:
        found = portmap.parse_natpmp(data)
        if found is None:
            new = portmap.parse_pcp(data)
            return refused("it speaks only PCP") if new and new[1] == _UNSUPPORTED_VERSION else None
        opcode, result, epoch_s, address, internal_port, port, lifetime_s = found
        if opcode not in (_ANNOUNCE, _MAP):
            return None
        if result != 0:
            return refused(_NATPMP_ERRORS.get(result, f"error {result}"), epoch_s=epoch_s)
        if opcode == _ANNOUNCE:
            host = str(ipaddress.IPv4Address(address))
            self._host = host if is_usable(host) else None
            return Answer(Kind.HEARD, epoch_s=epoch_s, host=self._host)
        if self._wish is None or internal_port != self._wish.internal_port:
            return None
        if lifetime_s == 0:
            return Answer(Kind.GONE, epoch_s=epoch_s)
        return _granted(ipaddress.ip_address(self._host or "0.0.0.0"), 4, port, lifetime_s, epoch_s)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _granted(address: _Address, version: int, port: int, lifetime_s: int, epoch_s: int) -> Answer:
    """Return what a grant is worth: a refusal, if it names no port or no address where anybody could be."""
    if port == 0:
        return refused("it grants port 0", epoch_s=epoch_s)
    if address.version != version or not is_usable(str(address)):
        return refused(f"it has no external address (it says {address})", epoch_s=epoch_s)
    return Answer(Kind.GRANTED, epoch_s=epoch_s, lifetime_s=lifetime_s, host=str(address), port=port)


def _packed(address: _Address) -> bytes:
    return address.packed if address.version == 6 else IPV4_MAPPED + address.packed


def _unpacked(packed: bytes) -> _Address:
    address = ipaddress.IPv6Address(packed)
    return address.ipv4_mapped or address
