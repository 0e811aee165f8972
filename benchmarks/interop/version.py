"""A first message of a version that there is not, and what answers it; written after the specification, not with the core."""

from __future__ import annotations

import secrets

import interpeer
from tests.spec import reference

OTHER_VERSION = 0x7F
INIT, VERSIONS = 0x41, 0x44
INIT_BODY_BYTES = 1200 - 32
NO_NETWORK = b""


def first_message(peer: interpeer.PeerId) -> bytes:
    head = reference.header(INIT, bytes([0x80]) + secrets.token_bytes(7), OTHER_VERSION)
    body = head + secrets.token_bytes(INIT_BODY_BYTES - len(head))
    return reference.with_macs(body, reference.x25519_of(bytes(peer)), NO_NETWORK)


def is_versions_reply(data: bytes, message: bytes, peer: interpeer.PeerId) -> bool:
    """Tell whether this is a list, sealed to that message, that does not name its version."""
    if data[:1] != bytes([VERSIONS]):
        return False
    text = reference.open_reply(data, message[-32:-16], reference.x25519_of(bytes(peer)), NO_NETWORK)
    return bool(text) and OTHER_VERSION not in text
