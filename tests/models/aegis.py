"""AEGIS-128L and AEGIS-256 with tags of 32 bytes, one byte after the other (draft-irtf-cfrg-aegis-aead)."""

from __future__ import annotations

C0 = bytes.fromhex("000101020305080d1522375990e97962")
C1 = bytes.fromhex("db3d18556dc22ff12011314273b528dd")


def _times_two(byte: int) -> int:
    return (byte << 1) ^ (0x11B if byte & 0x80 else 0)


def _sbox() -> bytes:
    """AES's substitution: the inverse in GF(2^8), then an affine map (FIPS 197, 5.1.1)."""
    inverse = [0] * 256
    power, logs = 1, {}
    for i in range(255):
        logs[power] = i
        power ^= _times_two(power)  # three generates the field
    powers = {i: value for value, i in logs.items()}
    for value, i in logs.items():
        inverse[value] = powers[(255 - i) % 255]
    box = bytearray()
    for b in inverse:
        rotated = [(b << n | b >> (8 - n)) & 0xFF for n in range(5)]
        box.append(rotated[0] ^ rotated[1] ^ rotated[2] ^ rotated[3] ^ rotated[4] ^ 0x63)
    return bytes(box)


SBOX = _sbox()
DOUBLE = bytes(_times_two(b) & 0xFF for b in range(256))


def xor(*blocks: bytes) -> bytes:
    result = 0
    for block in blocks:
        result ^= int.from_bytes(block, "big")
    return result.to_bytes(len(blocks[0]), "big")


def both(a: bytes, b: bytes) -> bytes:
    return bytes(x & y for x, y in zip(a, b, strict=True))


def aes_round(block: bytes, key: bytes) -> bytes:
    """SubBytes, ShiftRows, MixColumns, AddRoundKey."""
    mixed = bytearray()
    for column in range(4):
        a = [SBOX[block[(4 * column + 5 * row) % 16]] for row in range(4)]
        mixed += bytes(DOUBLE[a[i]] ^ DOUBLE[a[(i + 1) % 4]] ^ a[(i + 1) % 4] ^ a[(i + 2) % 4] ^ a[(i + 3) % 4] for i in range(4))
    return xor(bytes(mixed), key)


class Aegis128L:
    KEY_BYTES = NONCE_BYTES = 16
    BLOCK = 32

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self.s = [xor(key, nonce), C1, C0, C1, xor(key, nonce), xor(key, C0), xor(key, C1), xor(key, C0)]
        for _ in range(10):
            self.update(nonce + key)

    def update(self, block: bytes) -> None:
        added = {0: block[:16], 4: block[16:]}
        self.s = [xor(aes_round(self.s[i - 1], self.s[i]), added.get(i, bytes(16))) for i in range(8)]

    def stream(self) -> bytes:
        s = self.s
        return xor(s[6], s[1], both(s[2], s[3])) + xor(s[2], s[5], both(s[6], s[7]))

    def finish(self, lengths: bytes) -> bytes:
        for block in [xor(self.s[2], lengths) * 2] * 7:
            self.update(block)
        return xor(*self.s[:4]) + xor(*self.s[4:])


class Aegis256:
    KEY_BYTES = NONCE_BYTES = 32
    BLOCK = 16

    def __init__(self, key: bytes, nonce: bytes) -> None:
        k0, k1, n0, n1 = key[:16], key[16:], nonce[:16], nonce[16:]
        self.s = [xor(k0, n0), xor(k1, n1), C1, C0, xor(k0, C0), xor(k1, C1)]
        for block in [k0, k1, xor(k0, n0), xor(k1, n1)] * 4:
            self.update(block)

    def update(self, block: bytes) -> None:
        self.s = [xor(aes_round(self.s[i - 1], self.s[i]), block if i == 0 else bytes(16)) for i in range(6)]

    def stream(self) -> bytes:
        s = self.s
        return xor(s[1], s[4], s[5], both(s[2], s[3]))

    def finish(self, lengths: bytes) -> bytes:
        for block in [xor(self.s[3], lengths)] * 7:
            self.update(block)
        return xor(*self.s[:3]) + xor(*self.s[3:])


def seal(cipher: type[Aegis128L | Aegis256], key: bytes, nonce: bytes, text: bytes, ad: bytes) -> bytes:
    """Return the ciphertext and the tag of 32 bytes."""
    state, n = cipher(key, nonce), cipher.BLOCK
    for at in range(0, len(ad), n):
        state.update(ad[at : at + n].ljust(n, b"\0"))
    sealed = b""
    for at in range(0, len(text), n):
        block = text[at : at + n].ljust(n, b"\0")
        sealed += xor(block, state.stream())
        state.update(block)
    lengths = (8 * len(ad)).to_bytes(8, "little") + (8 * len(text)).to_bytes(8, "little")
    return sealed[: len(text)] + state.finish(lengths)
