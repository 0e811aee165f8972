"""PCP and NAT-PMP as their RFCs have them, both ways: a twin of the core's reader, and the gateway's side for the tests."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field

MAX_FILTERS = 8


def mapped(host: str) -> bytes:
    """Return an address as PCP has it: 16 bytes, IPv4 mapped."""
    address = ipaddress.ip_address(host)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def host_of(packed: bytes) -> str:
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


# --- the gateway's side ---


@dataclass(frozen=True)
class PcpRequest:
    opcode: int
    lifetime_s: int
    client: str
    nonce: bytes = b""
    protocol: int = 0
    internal_port: int = 0
    external_port: int = 0
    external_host: str = ""


def read_pcp_request(data: bytes) -> PcpRequest:
    version, opcode, reserved, lifetime_s, client = struct.unpack_from(">BBHI16s", data)
    assert version == 2 and reserved == 0 and opcode in (0, 1)
    if opcode == 0:
        assert len(data) == 24
        return PcpRequest(0, lifetime_s, host_of(client))
    nonce, protocol, zeros, internal, external, address = struct.unpack(">12sB3sHH16s", data[24:])
    assert zeros == bytes(3)
    return PcpRequest(1, lifetime_s, host_of(client), nonce, protocol, internal, external, host_of(address))


def pcp_option(code: int, data: bytes) -> bytes:
    return struct.pack(">BBH", code, 0, len(data)) + data + bytes(-len(data) % 4)


def pcp_header(opcode: int, result: int = 0, lifetime_s: int = 0, epoch_s: int = 0) -> bytes:
    return struct.pack(">BBBBII12x", 2, 0x80 | opcode, 0, result, lifetime_s, epoch_s)


def pcp_answer(
    request: PcpRequest,
    host: str,
    port: int,
    *,
    result: int = 0,
    lifetime_s: int | None = None,
    epoch_s: int = 0,
    options: bytes = b"",
) -> bytes:
    """Write what a gateway answers to a MAP."""
    life = request.lifetime_s if lifetime_s is None else lifetime_s
    fields = request.nonce, request.protocol, request.internal_port, port, mapped(host)
    return pcp_header(1, result, life, epoch_s) + struct.pack(">12sB3xHH16s", *fields) + options


@dataclass(frozen=True)
class NatpmpRequest:
    opcode: int
    internal_port: int = 0
    external_port: int = 0
    lifetime_s: int = 0


def read_natpmp_request(data: bytes) -> NatpmpRequest:
    assert data[0] == 0 and data[1] in (0, 1)
    if data[1] == 0:
        assert len(data) == 2
        return NatpmpRequest(0)
    return NatpmpRequest(1, *struct.unpack(">HHI", data[4:]))


def natpmp_address_answer(host: str, *, result: int = 0, epoch_s: int = 0) -> bytes:
    return struct.pack(">BBHI4s", 0, 128, result, epoch_s, ipaddress.IPv4Address(host).packed)


def natpmp_map_answer(internal_port: int, port: int, lifetime_s: int, *, result: int = 0, epoch_s: int = 0) -> bytes:
    return struct.pack(">BBHIHHI", 0, 129, result, epoch_s, internal_port, port, lifetime_s)


# --- the twin of the reader ---


@dataclass
class _Options:
    third_party: bytes | None = None
    prefer_failure: bool = False
    filters: list[tuple[int, int, bytes]] = field(default_factory=list)


def read_pcp(data: bytes) -> tuple | None:
    """Return what the core's reader has to return."""
    if not 24 <= len(data) <= 1100 or len(data) % 4 or data[0] != 2 or data[1] < 128:
        return None
    opcode = data[1] - 128
    size = {0: 24, 1: 60}.get(opcode)
    if size is None or len(data) < size:
        return None
    result, lifetime_s, epoch_s = struct.unpack_from(">3xBII", data)
    options = _read_options(data[size:])
    if options is None:
        return None
    fields = struct.unpack(">12sB3xHH16s", data[24:60] if opcode else bytes(36))
    return (
        opcode, result, lifetime_s, epoch_s, *fields, options.third_party, options.prefer_failure, tuple(options.filters),
    )  # fmt: skip


def _read_options(data: bytes) -> _Options | None:
    found = _Options()
    while data:
        if len(data) < 4:
            return None
        code, size = struct.unpack_from(">BxH", data)
        padded = size + -size % 4
        body, data, is_whole = data[4 : 4 + size], data[4 + padded :], 4 + padded <= len(data)
        if not is_whole:
            return None
        if code == 1:
            if size != 16 or found.third_party is not None:
                return None
            found.third_party = body
        elif code == 2:
            if size:
                return None
            found.prefer_failure = True
        elif code == 3:
            if size != 20 or body[1] > 128 or len(found.filters) == MAX_FILTERS:
                return None
            found.filters.append(struct.unpack(">xBH16s", body))
    return found


def read_natpmp(data: bytes) -> tuple | None:
    """Return what the core's reader has to return."""
    if not 8 <= len(data) <= 1100 or data[0] != 0 or data[1] < 128:
        return None
    opcode = data[1] - 128
    result, epoch_s = struct.unpack_from(">HI", data, 2)
    if result:
        return opcode, result, epoch_s, bytes(4), 0, 0, 0
    if opcode == 0 and len(data) >= 12:
        return opcode, result, epoch_s, data[8:12], 0, 0, 0
    if opcode == 1 and len(data) >= 16:
        return opcode, result, epoch_s, bytes(4), *struct.unpack_from(">HHI", data, 8)
    return None
