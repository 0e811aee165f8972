"""Linux's own list of interfaces, by rtnetlink: two dumps, and one look-up of the way out for each family.

pyroute2 does the same and all the rest of rtnetlink, but takes longer to import than this whole library; what is needed here
are three kinds of message. Everything comes from the kernel (whoever else sends is not heard), and is still read with the
bounds checked first.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from interpeer._interfaces._model import Interface, InterfaceAddress, IPAddress

_PROTOCOL = 0  # NETLINK_ROUTE
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_READ_BYTES = 65_536  # the kernel fills at most half of it
_TRIES = 4  # of a dump that a change interrupts
_TIMEOUT_S = 1.0  # the kernel answers at once, or not at all

_NEWLINK, _GETLINK = 16, 18
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _DUMP_INTERRUPTED = 0x1, 0x300, 0x10

_HEADER = struct.Struct("=IHHII")  # bytes, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, kind of device, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, prefixes of destination and source, service, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")  # bytes with these, type
_WORD = struct.Struct("=I")
_NATIVE_CODE = struct.Struct("=i")

_LINK_NAME, _LINK_INFO, _INFO_KIND = 3, 18, 1
_ADDRESS_PEER, _ADDRESS_LOCAL, _ADDRESS_BROADCAST, _ADDRESS_FLAGS = 1, 2, 4, 8
_ROUTE_DESTINATION, _ROUTE_INTERFACE, _ROUTE_GATEWAY = 1, 4, 5
_TEMPORARY, _OPTIMISTIC, _FAILED, _DEPRECATED, _TENTATIVE = 0x01, 0x04, 0x08, 0x20, 0x40
_UP, _BROADCAST, _LOOPBACK, _RUNNING, _MULTICAST = 0x1, 0x2, 0x8, 0x40, 0x1000
_TYPE_UNICAST = 1

_VIRTUAL_KINDS = frozenset({"bridge", "tun", "dummy", "ifb", "macvtap", "openvswitch"})
_ANYWHERE = (
    ipaddress.ip_address("198.41.0.4"),
    ipaddress.ip_address("2001:503:ba3e::2:30"),
)  # a root name server; nothing is sent there


@final
@dataclass(slots=True)
class _Link:
    name: str
    index: int
    flags: int
    kind: str
    addresses: list[InterfaceAddress]


def netlink_interfaces() -> tuple[Interface, ...]:
    """Return the machine's interfaces in the kernel's order. Raises OSError where there is no netlink, or it is forbidden."""
    with _open(0) as kernel:
        links = {
            link.index: link for link in map(_parse_link, _ask(kernel, _GETLINK, _NEWLINK, _LINK.pack(0, 0, 0, 0, 0))) if link
        }
        for message in _ask(kernel, _GETADDR, _NEWADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
            parsed = _parse_address(message)
            if parsed is not None and parsed[0] in links:
                links[parsed[0]].addresses.append(parsed[1])
        ways = [_way_out(kernel, anywhere) for anywhere in _ANYWHERE]
    return tuple(_interface(link, ways) for link in links.values())


def open_watch() -> socket.socket:
    """Return a socket that becomes readable when something changes. Raises OSError."""
    watch = _open(_GROUPS)
    watch.setblocking(False)
    return watch


def drain(watch: socket.socket) -> None:
    """Read what has changed, and forget it: what matters is how things are afterwards. Raises OSError if the socket is dead."""
    while True:
        try:
            watch.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOBUFS, errno.EINTR):  # more than the socket holds has changed, which says enough
                raise


def _open(groups: int) -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _PROTOCOL)
    try:
        kernel.settimeout(_TIMEOUT_S)
        kernel.bind((0, groups))
    except OSError:
        kernel.close()
        raise
    return kernel


# --- asking ---


def _ask(kernel: socket.socket, request: int, answer: int, body: bytes) -> list[bytes]:
    """Return the bodies of a dump. One that a change has interrupted is asked for again, a few times."""
    bodies: list[bytes] = []
    for sequence in range(1, _TRIES + 1):
        kernel.send(_HEADER.pack(_HEADER.size + len(body), request, _REQUEST | _DUMP, sequence, 0) + body)
        bodies, is_interrupted = _collect(kernel, answer, sequence)
        if not is_interrupted:
            break
    return bodies


def _collect(kernel: socket.socket, answer: int, sequence: int) -> tuple[list[bytes], bool]:
    bodies: list[bytes] = []
    is_interrupted = False
    while True:
        for kind, flags, body in _receive(kernel, sequence):
            is_interrupted |= bool(flags & _DUMP_INTERRUPTED)
            if kind == _DONE:
                return bodies, is_interrupted
            if kind == _ERROR:
                _raise_error(body)
            if kind == answer:
                bodies.append(body)


def _receive(kernel: socket.socket, sequence: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, flags and body of each message in one reading that answers our request."""
    data, (port, _) = kernel.recvfrom(_READ_BYTES)
    if port == 0:  # from the kernel
        yield from ((kind, flags, body) for kind, flags, number, body in messages(data) if number == sequence)


def _raise_error(body: bytes) -> None:
    code = -_NATIVE_CODE.unpack_from(body)[0] if len(body) >= _NATIVE_CODE.size else errno.EPROTO
    raise OSError(code, os.strerror(code))


def _way_out(kernel: socket.socket, anywhere: IPAddress) -> tuple[int, IPAddress | None] | None:
    """Return the index of the interface, and the router if there is one, by which packets leave for the world.

    The kernel looks it up as it would for a packet, policies and all; a list of the routes could be a million long."""
    family = socket.AF_INET if anywhere.version == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, len(anywhere.packed) * 8, 0, 0, 0, 0, 0, 0, 0) + _attribute(_ROUTE_DESTINATION, anywhere.packed)
    sequence = _TRIES + anywhere.version
    kernel.send(_HEADER.pack(_HEADER.size + len(body), _GETROUTE, _REQUEST, sequence, 0) + body)
    while True:
        for kind, _, message in _receive(kernel, sequence):
            if kind == _NEWROUTE:
                return _parse_route(message)
            if kind == _ERROR:
                return None


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


# --- reading ---


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence and body of each message; one that is longer than what there is ends it."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= size <= len(data) - at:
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + size]
        at += size + 3 & ~3


def attributes(data: bytes, at: int) -> dict[int, bytes]:
    """Return the attributes that follow a fixed part; what is cut is left out."""
    found: dict[int, bytes] = {}
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= size <= len(data) - at:
            break
        found[kind & 0x3FFF] = data[at + _ATTRIBUTE.size : at + size]  # the upper two bits tell of its encoding
        at += size + 3 & ~3
    return found


def _parse_link(body: bytes) -> _Link | None:
    if len(body) < _LINK.size:
        return None
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    name = found.get(_LINK_NAME, b"").rstrip(b"\0").decode(errors="replace")
    kind = attributes(found.get(_LINK_INFO, b""), 0).get(_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace")
    return _Link(name, index, flags, kind, []) if name and index > 0 else None


def _parse_address(body: bytes) -> tuple[int, InterfaceAddress] | None:
    if len(body) < _ADDRESS.size:
        return None
    family, prefix_bits, flags, _, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    if len(found.get(_ADDRESS_FLAGS, b"")) == _WORD.size:
        (flags,) = _WORD.unpack(found[_ADDRESS_FLAGS])
    ip = _ip(family, found.get(_ADDRESS_LOCAL) or found.get(_ADDRESS_PEER))  # on a link of two, PEER is the other end
    if ip is None or prefix_bits > ip.max_prefixlen:
        return None
    broadcast = _ip(family, found.get(_ADDRESS_BROADCAST))
    return index, InterfaceAddress(
        ip,
        prefix_bits,
        broadcast if isinstance(broadcast, ipaddress.IPv4Address) else None,
        is_temporary=ip.version == 6 and bool(flags & _TEMPORARY),  # the same bit means another thing for IPv4
        is_deprecated=bool(flags & _DEPRECATED),
        is_tentative=bool(flags & _FAILED or (flags & _TENTATIVE and not flags & _OPTIMISTIC)),
    )


def _parse_route(body: bytes) -> tuple[int, IPAddress | None] | None:
    if len(body) < _ROUTE.size:
        return None
    family, kind = body[0], body[7]
    found = attributes(body, _ROUTE.size)
    interface = found.get(_ROUTE_INTERFACE, b"")
    if kind != _TYPE_UNICAST or len(interface) != _WORD.size:
        return None
    return _WORD.unpack(interface)[0], _ip(family, found.get(_ROUTE_GATEWAY))


def _ip(family: int, packed: bytes | None) -> IPAddress | None:
    sizes: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
    if packed is None or len(packed) != sizes.get(family):
        return None
    return ipaddress.ip_address(packed)


def _interface(link: _Link, ways: list[tuple[int, IPAddress | None] | None]) -> Interface:
    here = [way is not None and way[0] == link.index for way in ways]
    gateways = tuple(way[1] for way in ways if way is not None and way[0] == link.index and way[1] is not None)
    return Interface(
        link.name,
        link.index,
        tuple(address.with_broadcast() if link.flags & _BROADCAST else address for address in link.addresses),
        is_up=link.flags & (_UP | _RUNNING) == _UP | _RUNNING,
        is_loopback=bool(link.flags & _LOOPBACK),
        is_multicast=bool(link.flags & _MULTICAST),
        is_metered=_is_metered(link.name),
        is_virtual=link.kind in _VIRTUAL_KINDS,
        default_ipv4=here[0],
        default_ipv6=here[1],
        gateways=gateways,
    )


def _is_metered(name: str) -> bool | None:
    """Mobile data are; of all else the kernel does not know."""
    try:
        kind = Path("/sys/class/net", name, "uevent").read_text()
    except (OSError, ValueError):
        return None
    return True if "DEVTYPE=wwan\n" in kind else None
