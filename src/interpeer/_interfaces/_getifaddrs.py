"""The interfaces of a system that has getifaddrs (macOS, the BSDs, and Linux where netlink is forbidden), by ctypes.

It does not tell which addresses are temporary or deprecated, nor the way out; of that only the address is found.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import sys
from typing import Any

from interpeer._interfaces._model import Interface, InterfaceAddress, IPAddress

IS_BSD = sys.platform not in ("linux", "android")  # whose socket addresses begin with their length
_UP, _BROADCAST, _LOOPBACK, _RUNNING = 0x1, 0x2, 0x8, 0x40
_MULTICAST = 0x8000 if IS_BSD else 0x1000
_MOST = 65_536  # entries of the list: one that goes on for longer is damaged
_VIRTUAL_NAMES = (
    "docker",
    "br-",
    "virbr",
    "veth",
    "vmnet",
    "vboxnet",
    "lxc",
    "lxdbr",
    "cni",
    "podman",
    "bridge",
    "tap",
    "utun",
    "awdl",
)
_ANYWHERE = (
    (socket.AF_INET, "198.41.0.4"),
    (socket.AF_INET6, "2001:503:ba3e::2:30"),
)  # a root name server; nothing is sent there


class _Entry(ctypes.Structure):
    pass


_Entry._fields_ = [
    ("next", ctypes.POINTER(_Entry)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("mask", ctypes.c_void_p),
    ("broadcast", ctypes.c_void_p),  # or the other end, on a link of two
    ("data", ctypes.c_void_p),
]


def getifaddrs_interfaces() -> tuple[Interface, ...]:
    """Return the machine's interfaces, in the system's order. Raises OSError or AttributeError where there is no getifaddrs."""
    library = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Entry)()
    if library.getifaddrs(ctypes.byref(first)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    try:
        return walk(first)
    finally:
        library.freeifaddrs(first)


def walk(first: Any) -> tuple[Interface, ...]:
    """Return the interfaces in a list of the C library."""
    flags: dict[str, int] = {}
    addresses: dict[str, list[InterfaceAddress]] = {}
    entry, count = first, 0
    while entry and count < _MOST:
        seen = entry.contents
        count += 1
        entry = seen.next
        name = seen.name.decode(errors="replace")
        flags[name] = seen.flags
        found = _address(seen)
        addresses.setdefault(name, [])
        if found is not None:
            addresses[name].append(found)
    ways = ways_out()
    return tuple(interface(name, flags[name], tuple(addresses[name]), ways) for name in flags)


def interface(name: str, flags: int, addresses: tuple[InterfaceAddress, ...], ways: tuple[IPAddress, ...]) -> Interface:
    """Describe one; the way out is where one of these addresses is."""
    ours = {address.ip for address in addresses}
    try:
        index = socket.if_nametoindex(name)
    except OSError:  # it has gone meanwhile
        index, flags = 0, 0
    return Interface(
        name,
        index,
        tuple(address.with_broadcast() if flags & _BROADCAST else address for address in addresses),
        is_up=flags & (_UP | _RUNNING) == _UP | _RUNNING,
        is_loopback=bool(flags & _LOOPBACK),
        is_multicast=bool(flags & _MULTICAST),
        is_virtual=name.startswith(_VIRTUAL_NAMES),
        default_ipv4=any(way.version == 4 and way in ours for way in ways),
        default_ipv6=any(way.version == 6 and way in ours for way in ways),
    )


def ways_out() -> tuple[IPAddress, ...]:
    """Return from which addresses packets leave for the world, one of each family that has a way there."""
    found: list[IPAddress] = []
    for family, anywhere in _ANYWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((anywhere, 9))  # sends nothing
                found.append(ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]))
        except OSError:
            continue  # no such family here, or no way
    return tuple(found)


def _address(entry: _Entry) -> InterfaceAddress | None:
    ip = _ip(_read(entry.address))
    if ip is None:
        return None
    mask = _read(entry.mask)
    at = 4 if ip.version == 4 else 8
    prefix_bits = sum(byte.bit_count() for byte in mask[at : at + len(ip.packed)])
    broadcast = _ip(_read(entry.broadcast)) if entry.flags & _BROADCAST else None
    return InterfaceAddress(ip, prefix_bits, broadcast if isinstance(broadcast, ipaddress.IPv4Address) else None)


def _read(at: int | None) -> bytes:
    """Return a socket address, of which no more may be read than it has; the BSDs cut zeros off the end of masks."""
    if not at:
        return b""
    head = ctypes.string_at(at, 2)
    if IS_BSD:
        return ctypes.string_at(at, head[0])
    family = int.from_bytes(head, sys.byteorder)
    sizes: dict[int, int] = {socket.AF_INET: 16, socket.AF_INET6: 28}
    return ctypes.string_at(at, sizes.get(family, 2))


def _ip(raw: bytes) -> IPAddress | None:
    if len(raw) < 2:
        return None
    family = raw[1] if IS_BSD else int.from_bytes(raw[:2], sys.byteorder)
    if family == socket.AF_INET and len(raw) >= 8:
        return ipaddress.IPv4Address(raw[4:8])
    if family == socket.AF_INET6 and len(raw) >= 24:
        ip = ipaddress.IPv6Address(raw[8:24])
        if IS_BSD and ip.is_link_local:  # these systems keep the scope in the address
            ip = ipaddress.IPv6Address(raw[8:10] + bytes(2) + raw[12:24])
        return ip
    return None
