"""A plain twin of the STUN codec: any message, right or wrong, written and read from the text of RFC 8489 and RFC 5780."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
import zlib

MAGIC = 0x2112A442
REQUEST, INDICATION, SUCCESS, ERROR = 0x001, 0x011, 0x101, 0x111  # of the method Binding
MAPPED_ADDRESS, CHANGE_REQUEST, USERNAME, INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES = 1, 3, 6, 8, 9, 10
REALM, NONCE, INTEGRITY_SHA256, XOR_MAPPED_ADDRESS, PADDING, RESPONSE_PORT = 0x14, 0x15, 0x1C, 0x20, 0x26, 0x27
SOFTWARE, ALTERNATE_SERVER, FINGERPRINT, RESPONSE_ORIGIN, OTHER_ADDRESS = 0x8022, 0x8023, 0x8028, 0x802B, 0x802C

CoreEndpoint = tuple[bytes, int, int]
Attribute = tuple[int, bytes]


def message(kind: int, transaction: bytes, *attributes: Attribute, length: int | None = None) -> bytes:
    """Write a message; `length` is what its header says instead of the truth."""
    body = b"".join(struct.pack(">HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in attributes)
    return struct.pack(">HHI", kind, len(body) if length is None else length, MAGIC) + transaction + body


def add(data: bytes, code: int, value: bytes) -> bytes:
    return message(int.from_bytes(data[:2]), data[8:20], *read(data)[1], (code, value))


def with_fingerprint(data: bytes) -> bytes:
    full = add(data, FINGERPRINT, bytes(4))
    return full[:-4] + (zlib.crc32(full[:-8]) ^ 0x5354554E).to_bytes(4)


def with_integrity(data: bytes, key: bytes, code: int = INTEGRITY_SHA256, size: int | None = None) -> bytes:
    digest = hashlib.sha256 if code == INTEGRITY_SHA256 else hashlib.sha1
    size = digest().digest_size if size is None else size
    full = add(data, code, bytes(size))
    return full[:-size] + hmac.digest(key, full[: -size - 4], digest)[:size]


def read(data: bytes) -> tuple[int, list[Attribute]]:
    """Return the type, and every attribute, of a message that is right."""
    attributes: list[Attribute] = []
    at = 20
    while at < len(data):
        code, size = struct.unpack_from(">HH", data, at)
        attributes.append((code, data[at + 4 : at + 4 + size]))
        at += 4 + (size + 3) // 4 * 4
    assert at == len(data) == 20 + int.from_bytes(data[2:4])
    return int.from_bytes(data[:2]), attributes


def address(endpoint: CoreEndpoint) -> bytes:
    packed, port, _ = endpoint
    is_ipv4 = packed[:12] == bytes(10) + b"\xff\xff"
    return struct.pack(">BBH", 0, 1 if is_ipv4 else 2, port) + (packed[12:] if is_ipv4 else packed)


def xored(value: bytes, transaction: bytes) -> bytes:
    """XOR an address with magic and transaction; twice gives it back."""
    mask = MAGIC.to_bytes(4) + transaction
    rest = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    return value[:2] + bytes(a ^ b for a, b in zip(value[2:4], mask, strict=False)) + rest


def xor_mapped(endpoint: CoreEndpoint, transaction: bytes) -> Attribute:
    return XOR_MAPPED_ADDRESS, xored(address(endpoint), transaction)


def error_code(code: int, reason: bytes = b"") -> Attribute:
    return ERROR_CODE, bytes([0, 0, code // 100, code % 100]) + reason


def endpoint(host: str, port: int) -> CoreEndpoint:
    ip = ipaddress.ip_address(host)
    return (bytes(10) + b"\xff\xff" if ip.version == 4 else b"") + ip.packed, port, 0


def mapped_in(data: bytes) -> CoreEndpoint | None:
    """Return the XOR-MAPPED-ADDRESS of an answer."""
    for code, value in read(data)[1]:
        if code == XOR_MAPPED_ADDRESS:
            plain = xored(value, data[8:20])
            packed = plain[4:]
            return (bytes(10) + b"\xff\xff" + packed if len(packed) == 4 else packed), int.from_bytes(plain[2:4]), 0
    return None
