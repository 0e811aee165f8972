"""What a network interface is, and what may change about it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import final

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@final
@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of an interface."""

    ip: IPAddress
    prefix_bits: int
    """How many leading bits all neighbours share."""
    broadcast: ipaddress.IPv4Address | None = None
    """Where a datagram reaches all neighbours; None where there is no such address."""
    is_temporary: bool = False
    """Made up for a day or so, to be hard to follow (RFC 8981): preferred to leave from."""
    is_deprecated: bool = False
    """Still ours, but not to be told to anybody (RFC 4862, 5.5.4)."""
    is_tentative: bool = False
    """Not known yet to be ours alone, or known to be somebody else's: nothing can be sent from it."""

    def with_broadcast(self) -> InterfaceAddress:
        """Return it with the broadcast address that its prefix has, where the system names none but the link can do it."""
        if self.broadcast is not None or isinstance(self.ip, ipaddress.IPv6Address) or self.prefix_bits > 30:
            return self
        network = ipaddress.IPv4Network((self.ip, self.prefix_bits), strict=False)
        return replace(self, broadcast=network.broadcast_address)

    @property
    def is_usable(self) -> bool:
        """Whether packets can leave from it and come to it."""
        return not (self.is_tentative or self.ip.is_unspecified or self.ip.is_multicast)


@final
@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface of this machine."""

    name: str
    index: int
    addresses: tuple[InterfaceAddress, ...] = ()
    is_up: bool = True
    """Switched on, with a carrier."""
    is_loopback: bool = False
    is_multicast: bool = True
    """Whether it can carry multicast."""
    is_metered: bool | None = None
    """Whether what goes through it may cost money; None: the system does not tell."""
    is_virtual: bool = False
    """A bridge or a tap of this machine's own, for containers and virtual machines. A machine's real way out can be one, too."""
    default_ipv4: bool = False
    """Whether what goes to the world by IPv4 leaves here."""
    default_ipv6: bool = False
    gateways: tuple[IPAddress, ...] = ()
    """The routers that it goes to, if any."""

    def host(self, address: InterfaceAddress) -> str:
        """Write one of its addresses as an endpoint's host; one that means something on this link alone has the scope."""
        is_scoped = address.ip.version == 6 and address.ip.is_link_local
        return f"{address.ip}%{self.index}" if is_scoped else str(address.ip)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Its usable addresses, written as endpoints' hosts; none while it is down."""
        return tuple(self.host(address) for address in self.addresses if self.is_up and address.is_usable)

    def is_on_link(self, ip: IPAddress) -> bool:
        """Tell whether an address is a neighbour's by its prefix, so that no router need be passed to it."""
        return any(
            ip.version == own.ip.version and ip in ipaddress.ip_network((own.ip, own.prefix_bits), strict=False)
            for own in self.addresses
        )


@final
@dataclass(frozen=True, slots=True)
class Change:
    """What has changed about this machine's place in the network, since it was told last."""

    interfaces: tuple[Interface, ...]
    """As they are now."""
    come: tuple[str, ...] = ()
    """Addresses that can be used now, written as endpoints' hosts."""
    gone: tuple[str, ...] = ()
    """Addresses that cannot any more."""
    is_rerouted: bool = False
    """What goes to the world takes another interface or router."""
    is_resumed: bool = False
    """The machine has slept: connections and mappings may have been forgotten meanwhile, although the addresses are the same."""

    def __bool__(self) -> bool:
        """Whether anything has changed at all."""
        return bool(self.come or self.gone or self.is_rerouted or self.is_resumed)


def change(before: Iterable[Interface], after: tuple[Interface, ...], *, is_resumed: bool = False) -> Change:
    """Return what is different now."""
    before = tuple(before)
    old = dict.fromkeys(host for interface in before for host in interface.hosts)
    new = dict.fromkeys(host for interface in after for host in interface.hosts)
    return Change(
        interfaces=after,
        come=tuple(host for host in new if host not in old),
        gone=tuple(host for host in old if host not in new),
        is_rerouted=_ways_out(before) != _ways_out(after),
        is_resumed=is_resumed,
    )


def _ways_out(interfaces: tuple[Interface, ...]) -> set[tuple[int, bool, bool, tuple[IPAddress, ...]]]:
    return {
        (interface.index, interface.default_ipv4, interface.default_ipv6, interface.gateways)
        for interface in interfaces
        if interface.default_ipv4 or interface.default_ipv6
    }
