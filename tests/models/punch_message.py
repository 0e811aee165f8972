"""The two datagrams of punching, written from chapter 24 of the specification over the standard library."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

PROBE, ANSWER, VERSION = 0x45, 0x46, 1
NOMINATED = 1
Remote = tuple[bytes, int, int]


@dataclass(frozen=True)
class Message:
    """A datagram that was read; `observed` is (16 bytes, port) in an answer."""

    is_answer: bool
    nonce: bytes
    is_nominated: bool
    observed: tuple[bytes, int]


def seal(body: bytes, key: bytes) -> bytes:
    return body + hashlib.blake2b(body, digest_size=16, key=key).digest()


def probe(token: bytes, key: bytes, nonce: bytes = bytes(8), *, flags: int = 0, kind: int = PROBE, version: int = 1) -> bytes:
    return seal(struct.pack(">BB8s8sBx28x", kind, version, token, nonce, flags), key)


def answer(token: bytes, key: bytes, nonce: bytes, observed: Remote, *, flags: int = 0) -> bytes:
    address, port, _ = observed
    return seal(struct.pack(">BB8s8sBxH16s10x", ANSWER, VERSION, token, nonce, flags, port, address), key)


def read(data: bytes, token: bytes, key: bytes) -> Message:
    """Read what a machine has sent to the owner of this token and key."""
    assert len(data) == 64 and seal(data[:48], key) == data
    kind, version, to, nonce, flags, reserved, port, address, rest = struct.unpack(">BB8s8sBBH16s10s", data[:48])
    assert (version, to, reserved, rest) == (VERSION, token, 0, bytes(10)) and kind in (PROBE, ANSWER)
    assert kind == ANSWER or (address, port) == (bytes(16), 0)
    return Message(kind == ANSWER, nonce, bool(flags & NOMINATED), (address, port))
