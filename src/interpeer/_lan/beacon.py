"""What nodes of one network say to each other on a link: "this id is here, at these ports" (docs/spec, chapter 27).

Every beacon has the same size, so no answer is larger than its cause, and is sealed under a key that follows from the network's
name: who does not know the name learns neither the name nor an id, and cannot tell two beacons of one node from those of two.
An id in a beacon is a hint and no more; the handshake proves it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import final

from interpeer import _sodium
from interpeer._identity import PeerId

BEACON_BYTES = 106
HELLO, ANSWER, RECORD = 1, 2, 3
"""Kinds: to everybody on the link; to one who has said hello; in a record of mDNS."""
RUN_BYTES = 8
ECHO_BYTES = 8

_MAGIC = b"L\x01"  # the second byte is the version
_NONCE_BYTES = 24
_TAG_BYTES = 16
_BODY = struct.Struct("!B32sHH8s8s11x")  # kind, id, ports for IPv4 and IPv6, run, echo, room for later
_SEALED_AT = len(_MAGIC) + _NONCE_BYTES
assert _SEALED_AT + _BODY.size + _TAG_BYTES == BEACON_BYTES


@final
@dataclass(frozen=True, slots=True)
class Beacon:
    """One of them, opened."""

    kind: int
    peer_id: PeerId
    port_ipv4: int
    """Where the node listens by that family, 0 if it does not."""
    port_ipv6: int
    run: bytes
    """Drawn anew in each run: who hears his own knows it by this."""
    echo: bytes = bytes(ECHO_BYTES)
    """In an answer: the beginning of the nonce of what is answered."""


def network_key(network: str) -> bytes:
    """Return the key of a network's beacons."""
    return hashlib.blake2b(network.encode(), digest_size=32, person=b"interpeer lan").digest()


def echo_of(data: bytes) -> bytes:
    """Return what an answer to this beacon carries."""
    return data[len(_MAGIC) : len(_MAGIC) + ECHO_BYTES]


def write_beacon(beacon: Beacon, key: bytes, nonce: bytes) -> bytes:
    """Seal a beacon; `nonce` is 24 random bytes, of this one alone."""
    body = _BODY.pack(
        beacon.kind, bytes(beacon.peer_id), beacon.port_ipv4, beacon.port_ipv6, beacon.run, beacon.echo
    )  # fmt: skip
    sealed: bytes = _sodium.pysodium().crypto_aead_xchacha20poly1305_ietf_encrypt(body, _MAGIC, nonce, key)
    return _MAGIC + nonce + sealed


def parse_beacon(data: bytes, key: bytes) -> Beacon | None:
    """Return what a beacon of the network says; None for anything else."""
    if len(data) != BEACON_BYTES or not data.startswith(_MAGIC):
        return None
    nonce, sealed = data[len(_MAGIC) : _SEALED_AT], data[_SEALED_AT:]
    try:
        body: bytes = _sodium.pysodium().crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, _MAGIC, nonce, key)
    except ValueError:
        return None  # of another network
    kind, peer_id, port_ipv4, port_ipv6, run, echo = _BODY.unpack(body)
    if kind not in (HELLO, ANSWER, RECORD) or not (port_ipv4 or port_ipv6):
        return None
    try:
        return Beacon(kind, PeerId(peer_id), port_ipv4, port_ipv6, run, echo)
    except ValueError:
        return None  # no key that anybody can have
