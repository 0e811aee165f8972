"""Who the gateway is: the next hop of the default route, and the address that it sees this host under.

Linux tells in /proc, macOS and the BSDs by route(8), Windows by GetBestRoute2. The environment's INTERPEER_GATEWAY names
others, separated by commas ("192.168.1.1,fe80::1%eth0"); "none" says that there is none.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from interpeer._portmap.answers import is_usable

VARIABLE = "INTERPEER_GATEWAY"
PCP_PORT, SSDP_PORT = 5351, 1900
_IS_UP, _IS_GATEWAY, _IS_REJECT = 0x1, 0x2, 0x200  # RTF_*
_ANYWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}  # nothing is sent there: the routing table is asked about it
_MAX_ROUTES_BYTES = 1 << 20


@final
@dataclass(frozen=True, slots=True)
class Gateway:
    """Where requests go, and from which address."""

    host: str
    own_host: str
    port: int = PCP_PORT
    ssdp_port: int = SSDP_PORT

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.host).version

    def is_at(self, address: tuple[Any, ...]) -> bool:
        """Tell whether a socket address is the gateway's; loops write the scope of one in several ways."""
        return str(address[0]).partition("%")[0] == self.host.partition("%")[0]


def find(version: int) -> Gateway | None:
    """Return the gateway of IPv4 or IPv6; None when there is no default route, or no address that it could serve."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        hosts = [name.strip() for name in given.split(",")]
        host = next((name for name in hosts if _version(name) == version), None)
    else:
        host = _next_hop(version)
    own_host = _own_host(version, host) if host else None
    return Gateway(host, own_host) if host and own_host else None


def _version(host: str) -> int | None:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def _own_host(version: int, host: str) -> str | None:
    """Return the address of this host that the gateway sees. For IPv6 that is one that is known outside, not the link's."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    target = host if version == 4 else _ANYWHERE[6]
    try:  # a system may have no IPv6 at all
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))  # sends nothing
            own: str = probe.getsockname()[0]
    except OSError:
        return None
    return own if is_usable(own) or version == 4 else None


def _next_hop(version: int) -> str | None:
    try:
        if sys.platform == "linux":
            path = Path("/proc/thread-self/net", "route" if version == 4 else "ipv6_route")
            with path.open() as routes:
                text = routes.read(_MAX_ROUTES_BYTES)
            return parse_routes(text) if version == 4 else parse_routes_ipv6(text)
        if sys.platform == "win32":
            return _best_route(version)
        words = ["route", "-n", "get"] + (["-inet6"] if version == 6 else []) + ["default"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=2, check=False)
        return parse_route_command(done.stdout, version)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def parse_routes(text: str) -> str | None:
    """Read /proc/net/route: numbers of 32 bits as the machine stores them, in hexadecimal."""
    found: list[tuple[int, str]] = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        destination, gateway, flags, metric, mask = (fields[i] for i in (1, 2, 3, 6, 7))
        if int(destination, 16) == int(mask, 16) == 0 and _leads_out(int(flags, 16)):
            packed = int(gateway, 16).to_bytes(4, sys.byteorder)
            found.append((int(metric), str(ipaddress.IPv4Address(packed))))
    return min(found)[1] if found else None


def parse_routes_ipv6(text: str) -> str | None:
    """Read /proc/net/ipv6_route. A next hop of the link only is given with its interface."""
    found: list[tuple[int, str]] = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10:
            continue
        destination, prefix, next_hop, metric, flags, interface = (fields[i] for i in (0, 1, 4, 5, 8, 9))
        if int(prefix, 16) == int(destination, 16) == 0 and _leads_out(int(flags, 16)):
            address = ipaddress.IPv6Address(bytes.fromhex(next_hop))
            found.append((int(metric, 16), f"{address}%{interface}" if address.is_link_local else str(address)))
    return min(found)[1] if found else None


def _leads_out(flags: int) -> bool:
    return flags & (_IS_UP | _IS_GATEWAY | _IS_REJECT) == _IS_UP | _IS_GATEWAY


def parse_route_command(text: str, version: int) -> str | None:
    """Read what `route -n get default` says."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "gateway" and _version(value.strip()) == version:
            return value.strip()
    return None


def _best_route(version: int) -> str | None:
    """Ask Windows. The row is a MIB_IPFORWARD_ROW2, addresses are SOCKADDR_INETs (netioapi.h)."""
    import ctypes

    family = socket.AF_INET if version == 4 else socket.AF_INET6
    packed = ipaddress.ip_address(_ANYWHERE[version]).packed
    gap = 2 if version == 4 else 6  # the port; for IPv6 also the flow
    target = ctypes.create_string_buffer(family.to_bytes(2, "little") + bytes(gap) + packed, 28)
    row, source = ctypes.create_string_buffer(104), ctypes.create_string_buffer(28)
    library: Any = getattr(ctypes, "WinDLL")("iphlpapi")  # noqa: B009 - type checkers know it on Windows alone
    if library.GetBestRoute2(None, 0, None, target, 0, row, source) != 0:
        return None
    return parse_best_route(row.raw)


def parse_best_route(row: bytes) -> str | None:
    """Read the next hop of a MIB_IPFORWARD_ROW2: behind 8 bytes of LUID, 4 of index and 32 of prefix."""
    hop = row[44:72]
    if int.from_bytes(hop[:2], "little") == socket.AF_INET:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv4Address(hop[4:8])
    else:
        address = ipaddress.IPv6Address(hop[8:24])
    if address.is_unspecified:  # the destination is on the link
        return None
    return f"{address}%{int.from_bytes(row[8:12], 'little')}" if address.is_link_local else str(address)
