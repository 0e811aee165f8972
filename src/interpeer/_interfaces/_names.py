"""What the standard library alone tells of interfaces, for systems that offer nothing better: this machine's addresses.

Which address is whose, and how long its prefix is, is not known; so all are put on one interface, and nobody is their neighbour.
"""

from __future__ import annotations

import ipaddress
import socket

from interpeer._interfaces._getifaddrs import ways_out
from interpeer._interfaces._model import Interface, InterfaceAddress


def named_interfaces() -> tuple[Interface, ...]:
    """Return one interface with every address of the machine that can be found, and the loopback."""
    ways = ways_out()
    found = dict.fromkeys(ways)
    try:
        for _, _, _, _, place in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_DGRAM):
            found[ipaddress.ip_address(str(place[0]).partition("%")[0])] = None
    except OSError:
        pass  # the machine does not know its own name
    ours = [ip for ip in found if not ip.is_loopback and not (ip.version == 6 and ip.is_link_local)]
    loopback = [ipaddress.ip_address(ip) for ip in ("127.0.0.1", "::1")]
    world = Interface(
        "any",
        0,
        tuple(InterfaceAddress(ip, ip.max_prefixlen) for ip in ours),
        is_multicast=False,
        default_ipv4=any(way.version == 4 for way in ways),
        default_ipv6=any(way.version == 6 for way in ways),
    )
    here = Interface(
        "loopback", 0, tuple(InterfaceAddress(ip, ip.max_prefixlen) for ip in loopback), is_loopback=True, is_multicast=False
    )
    return (here, world) if ours else (here,)
