"""Which of this machine's addresses to tell others: those that may work there, the best first."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from interpeer._address import MAX_ENDPOINTS, Endpoint
from interpeer._interfaces._model import Interface, InterfaceAddress

WILDCARDS = ("::", "0.0.0.0")


def host_candidates(
    bound: Iterable[tuple[str, int]], interfaces: Iterable[Interface], *, with_link_local: bool = False
) -> list[Endpoint]:
    """Return where sockets that are bound to (host, port) can be called, the likeliest first, and no more than an `Address` has.

    For a wildcard these are the machine's addresses of that family: of the interface that leads to the world first, of its own
    bridges last; temporary ones before lasting ones, and no deprecated ones. The loopback's only where there are no others.
    Link-local IPv6 addresses mean something on their own link alone, `with_link_local`."""
    interfaces = tuple(interfaces)
    named: list[Endpoint] = []
    ranked: list[tuple[tuple[int, ...], Endpoint]] = []
    wild: list[tuple[int, int]] = []
    for host, port in bound:
        if host in WILDCARDS:
            wild.append((6 if host == "::" else 4, port))
        else:
            named.append(Endpoint(host, port))
    for version, port in wild:
        for interface in interfaces:
            ranked += [
                (_rank(interface, address), Endpoint(interface.host(address), port))
                for address in _usable(interface, version, with_link_local)
            ]
    found = named + [endpoint for _, endpoint in sorted(ranked, key=lambda pair: pair[0])]
    if not found:
        found = [Endpoint("::1" if version == 6 else "127.0.0.1", port) for version, port in wild]
    return list(dict.fromkeys(found))[:MAX_ENDPOINTS]


def _usable(interface: Interface, version: int, with_link_local: bool) -> list[InterfaceAddress]:
    if not interface.is_up or interface.is_loopback:
        return []
    return [
        address
        for address in interface.addresses
        if address.ip.version == version
        and address.is_usable
        and not address.is_deprecated
        and not address.ip.is_loopback
        and (with_link_local or version == 4 or not address.ip.is_link_local)
    ]


def _rank(interface: Interface, address: InterfaceAddress) -> tuple[int, ...]:
    leads_out = interface.default_ipv6 if address.ip.version == 6 else interface.default_ipv4
    return (
        int(address.ip.is_link_local),
        0 if leads_out else 2 if interface.is_virtual else 1,
        0 if address.is_temporary else 1,
        int(isinstance(address.ip, ipaddress.IPv6Address) and address.ip in _LOCAL_IPV6),
    )


_LOCAL_IPV6 = ipaddress.IPv6Network("fc00::/7")  # of a site: a global one reaches further
