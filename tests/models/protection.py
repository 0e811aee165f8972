"""Packet protection with other people's ciphers: keys from secrets, headers, masks (docs/spec, chapter 3)."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tests.models import aegis

HEADER_BYTES = 16
IV_BYTES = {1: 12, 2: 12, 3: 16, 4: 32}
TAG_BYTES = {1: 16, 2: 16, 3: 32, 4: 32}


def derive(secret: bytes, label: bytes, suite: int, n: int) -> bytes:
    return hashlib.blake2b(label + bytes([suite]), digest_size=n, key=secret).digest()


def secret_of(secret: bytes, suite: int, epoch: int) -> bytes:
    """Return the traffic secret of an epoch, from that of the first."""
    for _ in range(epoch):
        secret = derive(secret, b"interpeer next", suite, 32)
    return secret


def nonce(suite: int, iv: bytes, path: int, counter: int) -> bytes:
    n = IV_BYTES[suite]
    return (int.from_bytes(iv[:n], "big") ^ path << 64 ^ counter).to_bytes(n, "big")


def seal(suite: int, key: bytes, number: bytes, text: bytes, ad: bytes) -> bytes:
    if suite == 1:
        return ChaCha20Poly1305(key).encrypt(number, text, ad)
    if suite == 2:
        return AESGCM(key).encrypt(number, text, ad)
    cipher = aegis.Aegis128L if suite == 3 else aegis.Aegis256
    return aegis.seal(cipher, key[: cipher.KEY_BYTES], number, text, ad)


def siphash(key: bytes, message: bytes) -> bytes:
    """SipHash-2-4, as its authors give it."""
    mask = 2**64 - 1
    k0, k1 = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x: int, n: int) -> int:
        return (x << n | x >> (64 - n)) & mask

    def turn(times: int) -> None:
        for _ in range(times):
            v[0] = v[0] + v[1] & mask
            v[2] = v[2] + v[3] & mask
            v[1], v[3] = rotate(v[1], 13) ^ v[0], rotate(v[3], 16) ^ v[2]
            v[0] = rotate(v[0], 32)
            v[2] = v[2] + v[1] & mask
            v[0] = v[0] + v[3] & mask
            v[1], v[3] = rotate(v[1], 17) ^ v[2], rotate(v[3], 21) ^ v[0]
            v[2] = rotate(v[2], 32)

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        turn(2)
        v[0] ^= word
    v[2] ^= 0xFF
    turn(4)
    return (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")


def protect(
    suite: int, secret: bytes, payload: bytes, cid: int, path: int, counter: int, *, epoch: int = 0, flags: int | None = None
) -> bytes:
    """Return the packet. `secret` is the first epoch's; `flags` overrides the byte that carries the epoch."""
    now = secret_of(secret, suite, epoch)
    key, iv = derive(now, b"interpeer key ", suite, 32), derive(now, b"interpeer iv  ", suite, 32)
    flags = epoch & 3 if flags is None else flags
    header = cid.to_bytes(8, "big") + bytes([flags]) + counter.to_bytes(7, "big")
    sealed = seal(suite, key, nonce(suite, iv, path, counter), payload, header)
    mask = siphash(derive(secret, b"interpeer mask", suite, 16), sealed[:16])
    return header[:8] + bytes(a ^ b for a, b in zip(header[8:], mask, strict=True)) + sealed
