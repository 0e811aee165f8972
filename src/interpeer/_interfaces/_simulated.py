"""The interfaces of a simulated host, which has a way out by each that is up, and says so of addresses alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from interpeer._interfaces._model import Interface, InterfaceAddress


def simulated_interfaces(told: Iterable[tuple[str, str, int, bool, bool]]) -> tuple[Interface, ...]:
    """Return the interfaces, of (name, address, length of the prefix, is up, has multicast)."""
    found: dict[str, tuple[list[InterfaceAddress], bool, bool]] = {}
    for name, host, prefix_bits, is_up, is_multicast in told:
        address = InterfaceAddress(ipaddress.ip_address(host), prefix_bits).with_broadcast()
        found.setdefault(name, ([], is_up, is_multicast))[0].append(address)
    return tuple(
        Interface(
            name,
            index,
            tuple(addresses),
            is_up=is_up,
            is_multicast=is_multicast,
            default_ipv4=is_up and any(address.ip.version == 4 for address in addresses),
            default_ipv6=is_up and any(address.ip.version == 6 for address in addresses),
        )
        for index, (name, (addresses, is_up, is_multicast)) in enumerate(found.items(), 1)
    )
