"""The bytes of the protocol once more, written from docs/spec alone and over other libraries than the core's.

Noise is the package noiseprotocol, ChaCha20-Poly1305, AES-GCM and the keys are cryptography's, BLAKE2b is hashlib's, and
SipHash stands here; AEGIS and XChaCha20 come from libsodium by way of pysodium. Nothing of interpeer is imported but the
choice of that library, so what agrees with this file agrees with the specification.

Writers take whatever they are given, however wrong, since tests need wrong messages; readers raise ValueError.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from noise.connection import Keypair, NoiseConnection

from interpeer import _sodium

sodium = _sodium.pysodium()

VERSION = 1
INIT, RESPONSE, COOKIE, VERSIONS = 0x41, 0x42, 0x43, 0x44
INIT_BYTES = 1200
CHACHA20_POLY1305, AES_256_GCM, AEGIS_128L, AEGIS_256 = 1, 2, 3, 4
SUITES = {CHACHA20_POLY1305: (32, 12, 16), AES_256_GCM: (32, 12, 16), AEGIS_128L: (16, 16, 32), AEGIS_256: (32, 32, 32)}
"""Of each suite: bytes of key, nonce and tag."""


def blake(size: int, data: bytes, key: bytes = b"") -> bytes:
    return hashlib.blake2b(data, digest_size=size, key=key).digest()


# --- chapter 2: identities ---


@dataclass(frozen=True)
class Identity:
    """A seed and all that follows from it."""

    seed: bytes
    id: bytes = field(init=False)
    secret: bytes = field(init=False, repr=False)
    public: bytes = field(init=False)

    def __post_init__(self) -> None:
        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        object.__setattr__(self, "id", key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        secret = bytearray(hashlib.sha512(self.seed).digest()[:32])
        secret[0] &= 248
        secret[31] = secret[31] & 127 | 64
        object.__setattr__(self, "secret", bytes(secret))
        object.__setattr__(self, "public", x25519_of(self.id))


def x25519_of(ed25519: bytes) -> bytes:
    """Convert by the birational map u = (1 + y) / (1 - y) (RFC 7748, 4.1); the sign of x is lost."""
    p = 2**255 - 19
    y = int.from_bytes(ed25519, "little") & (1 << 255) - 1
    return ((1 + y) * pow(1 - y, -1, p) % p).to_bytes(32, "little")


def negated(ed25519: bytes) -> bytes:
    """Return the id of the point -A."""
    return ed25519[:31] + bytes([ed25519[31] ^ 0x80])


# --- chapter 3: packets ---


def siphash(key: bytes, data: bytes) -> bytes:
    """SipHash-2-4 with an output of 8 bytes."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v0, v1, v2, v3 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    mask = (1 << 64) - 1

    def rounds(n: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(n):
            v0, v2 = v0 + v1 & mask, v2 + v3 & mask
            v1, v3 = (v1 << 13 | v1 >> 51) & mask ^ v0, (v3 << 16 | v3 >> 48) & mask ^ v2
            v0 = (v0 << 32 | v0 >> 32) & mask
            v0, v2 = v0 + v3 & mask, v2 + v1 & mask
            v3, v1 = (v3 << 21 | v3 >> 43) & mask ^ v0, (v1 << 17 | v1 >> 47) & mask ^ v2
            v2 = (v2 << 32 | v2 >> 32) & mask

    padded = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v3 ^= word
        rounds(2)
        v0 ^= word
    v2 ^= 0xFF
    rounds(4)
    return (v0 ^ v1 ^ v2 ^ v3).to_bytes(8, "little")


def seal(suite: int, key: bytes, nonce: bytes, text: bytes, ad: bytes) -> bytes:
    if suite == CHACHA20_POLY1305:
        return ChaCha20Poly1305(key).encrypt(nonce, text, ad)
    if suite == AES_256_GCM:
        return AESGCM(key).encrypt(nonce, text, ad)
    function = sodium.crypto_aead_aegis128l_encrypt if suite == AEGIS_128L else sodium.crypto_aead_aegis256_encrypt
    return function(text, ad, nonce, key)


def unseal(suite: int, key: bytes, nonce: bytes, sealed: bytes, ad: bytes) -> bytes:
    try:
        if suite == CHACHA20_POLY1305:
            return ChaCha20Poly1305(key).decrypt(nonce, sealed, ad)
        if suite == AES_256_GCM:
            return AESGCM(key).decrypt(nonce, sealed, ad)
    except InvalidTag:
        raise ValueError("forged") from None
    function = sodium.crypto_aead_aegis128l_decrypt if suite == AEGIS_128L else sodium.crypto_aead_aegis256_decrypt
    return function(sealed, ad, nonce, key)


@dataclass(frozen=True)
class Opened:
    """A packet that was opened."""

    counter: int
    flags: int
    epoch: int
    payload: bytes
    path: int = 0


class PacketKeys:
    """The keys of one direction, of every epoch."""

    def __init__(self, suite: int, secret: bytes) -> None:
        self.suite, self.secrets, self.epoch = suite, [secret], 0
        self.mask_key = self.derive(secret, b"interpeer mask", 16)

    def derive(self, secret: bytes, label: bytes, size: int = 32) -> bytes:
        return blake(size, label + bytes([self.suite]), secret)

    def secret(self, epoch: int) -> bytes:
        while len(self.secrets) <= epoch:
            self.secrets.append(self.derive(self.secrets[-1], b"interpeer next"))
        return self.secrets[epoch]

    def mix(self, epoch: int, fresh: bytes) -> None:
        """Mix a secret into an epoch, and so into all that follow (chapter 19)."""
        mixed = blake(32, b"interpeer mix " + bytes([self.suite]) + fresh, self.secret(epoch))
        self.secrets[epoch:] = [mixed]

    def of_epoch(self, epoch: int, counter: int, path: int = 0) -> tuple[bytes, bytes]:
        """Return key and nonce of a packet."""
        self.secret(epoch)
        key_bytes, nonce_bytes, _ = SUITES[self.suite]
        key = self.derive(self.secrets[epoch], b"interpeer key ")[:key_bytes]
        iv = self.derive(self.secrets[epoch], b"interpeer iv  ")[:nonce_bytes]
        place = (path << 64 | counter).to_bytes(nonce_bytes, "big")
        return key, bytes(a ^ b for a, b in zip(iv, place, strict=True))

    def seal(self, payload: bytes, cid: bytes, counter: int, *, epoch: int = 0, flags: int = 0, path: int = 0) -> bytes:
        header = cid + (flags | epoch & 3).to_bytes(1, "big") + counter.to_bytes(7, "big")
        sealed = seal(self.suite, *self.of_epoch(epoch, counter, path), payload, header)
        return cid + self.masked(header[8:], sealed) + sealed

    def masked(self, word: bytes, sealed: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(word, siphash(self.mask_key, sealed[:16]), strict=True))

    def open(self, packet: bytes, path: int = 0) -> Opened:
        """Open a packet of this epoch, the next, or the one before."""
        sealed = packet[16:]
        header = packet[:8] + self.masked(packet[8:16], sealed)
        counter = int.from_bytes(header[9:], "big")
        for epoch in (self.epoch, self.epoch + 1, self.epoch - 1):
            if epoch >= 0 and epoch & 3 == header[8] & 3:
                payload = unseal(self.suite, *self.of_epoch(epoch, counter, path), sealed, header)
                self.epoch = max(self.epoch, epoch)
                return Opened(counter, header[8], epoch, payload, path)
        raise ValueError(f"an epoch that ends with {header[8] & 3} cannot be now")


# --- chapter 4: handshake ---

PADDING, SUITE_LIST, PROTOCOL, MAX_DATA, MAX_STREAM_DATA, MAX_STREAMS, MAX_DATAGRAM, IDLE_TIMEOUT = range(8)
MAX_ACK_DELAY, MAX_UDP_PAYLOAD, RESET_TOKEN, REFUSAL, CONNECTION_ID, RECEIVE_BUFFER, MAX_PATHS = range(8, 15)
MAX_CHANNELS, MAX_MESSAGE = 0x10, 0x11


def varint(value: int, size: int | None = None) -> bytes:
    """Encode in the shortest form, or in `size` bytes."""
    size = size or next(n for n in (1, 2, 4, 8) if value < 1 << 8 * n - 2)
    return (value | {1: 0, 2: 1, 4: 2, 8: 3}[size] << 8 * size - 2).to_bytes(size, "big")


class Reader:
    """Take values from the front of bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, n: int) -> bytes:
        if n > len(self.data):
            raise ValueError("cut")
        taken, self.data = self.data[:n], self.data[n:]
        return taken

    def varint(self) -> int:
        first = self.take(1)
        encoded = first + self.take((1 << (first[0] >> 6)) - 1)
        value = int.from_bytes(encoded, "big") & (1 << 8 * len(encoded) - 2) - 1
        if varint(value) != encoded:
            raise ValueError("longer than needed")
        return value


def parameter(kind: int, value: int | bytes) -> bytes:
    data = varint(value) if isinstance(value, int) else value
    return varint(kind) + varint(len(data)) + data


def read_parameters(data: bytes) -> dict[int, bytes]:
    reader, found = Reader(data), {}
    while reader.data:
        kind = reader.varint()
        found[kind] = reader.take(reader.varint())
    return found


def number(encoded: bytes) -> int:
    return Reader(encoded).varint()


def mac1_key(public: bytes, network: bytes) -> bytes:
    return blake(32, b"interpeer mac1  " + public + network)


def sealing_key(public: bytes, network: bytes) -> bytes:
    return blake(32, b"interpeer cookie" + public + network)


def header(kind: int, cid: bytes, version: int = VERSION) -> bytes:
    return bytes([kind, version]) + cid


def with_macs(body: bytes, responder: bytes, network: bytes, cookie: bytes | None = None) -> bytes:
    """Put mac1 and mac2 behind the body of an init."""
    message = body + blake(16, body, mac1_key(responder, network))
    return message + (blake(16, message, cookie) if cookie is not None else bytes(16))


def open_reply(message: bytes, mac1: bytes, responder: bytes, network: bytes) -> bytes:
    """Open a cookie or versions reply."""
    return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
        message[34:], message[:10] + mac1, message[10:34], sealing_key(responder, network)
    )


def seal_reply(head: bytes, text: bytes, nonce: bytes, mac1: bytes, responder: bytes, network: bytes) -> bytes:
    sealed = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(text, head + mac1, nonce, sealing_key(responder, network))
    return head + nonce + sealed


class Handshake:
    """One side of Noise IK as the protocol uses it: init and response, the macs apart."""

    def __init__(
        self, identity: Identity, ephemeral: bytes, init_header: bytes, network: bytes, responder: bytes | None = None
    ) -> None:
        """Start; `responder` is the X25519 key that an initiator calls."""
        self.noise = noise = NoiseConnection.from_name(b"Noise_IK_25519_ChaChaPoly_BLAKE2b")
        noise.set_prologue(bytes([len(network)]) + network + init_header)
        noise.set_keypair_from_private_bytes(Keypair.STATIC, identity.secret)
        noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        if responder is None:
            noise.set_as_responder()
        else:
            noise.set_as_initiator()
            noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, responder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns of ephemeral keys that are not its own
            noise.start_handshake()

    def write(self, payload: bytes) -> bytes:
        return bytes(self.noise.write_message(payload))

    def read(self, message: bytes) -> bytes:
        return bytes(self.noise.read_message(message))

    @property
    def remote_static(self) -> bytes:
        """The initiator's X25519 key, which a responder knows between init and response."""
        return self.noise.noise_protocol.handshake_state.rs.public_bytes

    def secrets(self) -> tuple[bytes, bytes]:
        """Return the traffic secrets to send and to receive with."""
        protocol = self.noise.noise_protocol
        return bytes(protocol.cipher_state_encrypt.k), bytes(protocol.cipher_state_decrypt.k)


# --- chapter 19: fresh keys ---


class Agreements:
    """One side's view of the agreements on fresh keys in a session."""

    def __init__(self, identity: Identity, peer: bytes, send: PacketKeys, receive: PacketKeys, *, is_initiator: bool) -> None:
        """Start with the keys of the handshake; `peer` is the X25519 key of the other end."""
        self.identity, self.peer, self.send, self.receive, self.is_initiator = identity, peer, send, receive, is_initiator
        first, second = (send, receive) if is_initiator else (receive, send)
        self.chain = blake(32, b"interpeer root" + second.secrets[0], first.secrets[0])
        self.noise: NoiseConnection | None = None

    def begin(self, ephemeral: bytes, secret: bytes | None = None) -> NoiseConnection:
        """Start a handshake; `secret` is another static key than ours."""
        self.noise = noise = NoiseConnection.from_name(b"Noise_IK_25519_ChaChaPoly_BLAKE2b")
        noise.set_prologue(blake(32, b"interpeer bind", self.chain))
        noise.set_keypair_from_private_bytes(Keypair.STATIC, secret or self.identity.secret)
        noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        if self.is_initiator:
            noise.set_as_initiator()
            noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, self.peer)
        else:
            noise.set_as_responder()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            noise.start_handshake()
        return noise

    def message(self, ephemeral: bytes, secret: bytes | None = None) -> bytes:
        """Write an initiator's message."""
        return bytes(self.begin(ephemeral, secret).write_message(b""))

    def answer(self, message: bytes, ephemeral: bytes) -> bytes:
        """Write a responder's answer."""
        noise = self.begin(ephemeral)
        assert bytes(noise.read_message(message)) == b""
        assert noise.noise_protocol.handshake_state.rs.public_bytes == self.peer
        return bytes(noise.write_message(b""))

    def finish(self, send_epoch: int, receive_epoch: int) -> None:
        """After the answer: mix what was agreed into both directions from these epochs on, and into the chain."""
        assert self.noise is not None
        protocol = self.noise.noise_protocol
        ours, theirs = bytes(protocol.cipher_state_encrypt.k), bytes(protocol.cipher_state_decrypt.k)
        self.send.mix(send_epoch, ours)
        self.receive.mix(receive_epoch, theirs)
        self.chain = blake(32, b"interpeer link" + (ours + theirs if self.is_initiator else theirs + ours), self.chain)


# --- chapters 5 and 6: resets and frames ---

PING, ACK, ACK_ECN, RESET_STREAM, STOP_SENDING, CLOSE, CLOSE_APP, STREAM = range(1, 9)
F_MAX_DATA, F_MAX_STREAM_DATA, F_MAX_STREAMS = 0x10, 0x11, 0x12
DATAGRAM, DATAGRAM_LEN = 0x16, 0x17
NEW_CONNECTION_ID, RETIRE_CONNECTION_ID, PATH_CHALLENGE, PATH_RESPONSE, PATH_ABANDON, PATH_STATUS = range(0x18, 0x1E)
REKEY, REKEY_ANSWER = 0x1E, 0x1F
FIN, LEN, OFF = 1, 2, 4
CHANNEL, F_MAX_CHANNELS, CHANNEL_MAX_DATA, CHANNEL_RESET, CHANNEL_STOP, DROPPED, REPAIR = range(0x20, 0x27)
MESSAGES = 0x2C
RESEND, ORDERED, CLOSE_ON_LOSS = 1, 2, 4
MESSAGE_LOST = 2**62 - 1


def reset_token(seed: bytes, cid: bytes) -> bytes:
    """Derive the token that this library gives out (docs/spec leaves the choice to each implementation)."""
    return blake(16, cid, blake(32, b"interpeer reset ", seed))


@dataclass(frozen=True)
class Frame:
    """A frame that was read; what its type does not have is 0 or empty. `id` is a sequence number in frames about paths."""

    type: int
    id: int = 0
    offset: int = 0
    value: int = 0
    data: bytes = b""
    fin: bool = False
    path: int = 0
    delay_us: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    ecn: tuple[int, int, int] | None = None
    within: int = 0
    size: int = 0
    count: int = 0
    capabilities: tuple[int, ...] = ()

    @property
    def kind(self) -> int:
        """The type without the bits of a STREAM or MESSAGES frame."""
        return STREAM if self.type & ~7 == STREAM else MESSAGES if self.type & ~3 == MESSAGES else self.type


def numbers(*values: int) -> bytes:
    return b"".join(map(varint, values))


def ping() -> bytes:
    return numbers(PING)


def ack(largest: int, first: int = 0, *gaps: tuple[int, int], delay_us: int = 0, path: int = 0,
        ecn: Iterable[int] | None = None) -> bytes:  # fmt: skip
    """Acknowledge `first` + 1 numbers up to `largest`, and after each gap (its field) a range (its field)."""
    kind = ACK if ecn is None else ACK_ECN
    frame = numbers(kind, path, largest, delay_us, len(gaps), first)
    return frame + b"".join(numbers(*gap) for gap in gaps) + numbers(*(ecn or ()))


def stream(stream_id: int, data: bytes = b"", offset: int = 0, *, fin: bool = False, length: bool = True) -> bytes:
    frame = numbers(STREAM | FIN * fin | LEN * length | OFF * bool(offset), stream_id)
    return frame + numbers(*[offset] * bool(offset), *[len(data)] * length) + data


def reset_stream(stream_id: int, code: int, size: int) -> bytes:
    return numbers(RESET_STREAM, stream_id, code, size)


def stop_sending(stream_id: int, code: int) -> bytes:
    return numbers(STOP_SENDING, stream_id, code)


def max_data(value: int) -> bytes:
    return numbers(F_MAX_DATA, value)


def max_stream_data(stream_id: int, value: int) -> bytes:
    return numbers(F_MAX_STREAM_DATA, stream_id, value)


def max_streams(value: int) -> bytes:
    return numbers(F_MAX_STREAMS, value)


def datagram(data: bytes, *, length: bool = True) -> bytes:
    return numbers(DATAGRAM_LEN, len(data)) + data if length else numbers(DATAGRAM) + data


def message(number: int, data: bytes, *, ordered: bool = True) -> bytes:
    """Write a message with its header."""
    return (len(data) | (not ordered) << 31).to_bytes(4, "big") + (number & 0xFFFFFFFF).to_bytes(4, "big") + data


def messages(channel: int, data: bytes, offset: int = 0, within: int = 0, *, fin: bool = False, length: bool = True) -> bytes:
    frame = numbers(MESSAGES | FIN * fin | LEN * length, channel, offset, within)
    return frame + numbers(*[len(data)] * length) + data


def channel_frame(channel: int, sequence: int = 0, flags: int = RESEND | ORDERED, priority: int = 3, deadline_us: int = 0,
                  fec: tuple[int, int] = (0, 0)) -> bytes:  # fmt: skip
    return numbers(CHANNEL, channel, sequence, flags, priority, deadline_us, *fec)


def dropped(channel: int, offset: int, within: int, size: int, number: int, count: int = 1) -> bytes:
    return numbers(DROPPED, channel, offset, within, size, number, count)


def close(code: int, reason: bytes = b"", *, app: bool = False) -> bytes:
    return numbers(CLOSE_APP if app else CLOSE, code, len(reason)) + reason


def new_connection_id(path: int, sequence: int, cid: bytes, token: bytes = bytes(16)) -> bytes:
    return numbers(NEW_CONNECTION_ID, path, sequence) + cid + token


def retire_connection_id(path: int, sequence: int) -> bytes:
    return numbers(RETIRE_CONNECTION_ID, path, sequence)


def path_challenge(data: bytes) -> bytes:
    return numbers(PATH_CHALLENGE) + data


def path_response(data: bytes) -> bytes:
    return numbers(PATH_RESPONSE) + data


def path_abandon(path: int, code: int = 0) -> bytes:
    return numbers(PATH_ABANDON, path, code)


def path_status(path: int, sequence: int, status: int) -> bytes:
    return numbers(PATH_STATUS, path, sequence, status)


def rekey(epoch: int, message: bytes) -> bytes:
    return numbers(REKEY, epoch) + message


def rekey_answer(epoch: int, message: bytes) -> bytes:
    return numbers(REKEY_ANSWER, epoch) + message


def ignorable(kind: int, data: bytes = b"") -> bytes:
    return numbers(kind, len(data)) + data


def read_frames(payload: bytes) -> list[Frame]:
    reader, frames = Reader(payload), []
    while reader.data:
        if reader.data[0] == 0:
            reader.take(1)
        else:
            frames.append(read_frame(reader))
    return frames


def read_frame(r: Reader) -> Frame:
    kind = r.varint()
    if kind & ~7 == STREAM:
        stream_id, offset = r.varint(), r.varint() if kind & OFF else 0
        return Frame(kind, stream_id, offset, data=r.take(r.varint() if kind & LEN else len(r.data)), fin=bool(kind & FIN))
    if kind in (ACK, ACK_ECN):
        return read_ack(kind, r)
    if kind == PING:
        return Frame(kind)
    if kind in (F_MAX_DATA, F_MAX_STREAMS):
        return Frame(kind, value=r.varint())
    if kind in (F_MAX_STREAM_DATA, STOP_SENDING):
        return Frame(kind, r.varint(), value=r.varint())
    if kind == RESET_STREAM:
        return Frame(kind, r.varint(), value=r.varint(), offset=r.varint())
    if kind & ~3 == MESSAGES:
        channel, offset, within = r.varint(), r.varint(), r.varint()
        data = r.take(r.varint() if kind & LEN else len(r.data))
        return Frame(kind, channel, offset, data=data, fin=bool(kind & FIN), within=within)
    if kind == CHANNEL:
        return Frame(kind, r.varint(), value=r.varint(), capabilities=tuple(r.varint() for _ in range(5)))
    if kind == F_MAX_CHANNELS:
        return Frame(kind, value=r.varint())
    if kind in (CHANNEL_MAX_DATA, CHANNEL_STOP):
        return Frame(kind, r.varint(), value=r.varint())
    if kind == CHANNEL_RESET:
        return Frame(kind, r.varint(), value=r.varint(), offset=r.varint())
    if kind == DROPPED:
        return Frame(kind, r.varint(), r.varint(), within=r.varint(), size=r.varint(), value=r.varint(), count=r.varint())
    if kind == REPAIR:
        return Frame(kind, r.varint(), data=r.take(r.varint()))
    if kind in (CLOSE, CLOSE_APP):
        return Frame(kind, value=r.varint(), data=r.take(r.varint()))
    if kind in (REKEY, REKEY_ANSWER):
        return Frame(kind, value=r.varint(), data=r.take(96 if kind == REKEY else 48))
    if kind == DATAGRAM:
        return Frame(kind, data=r.take(len(r.data)))
    if kind == NEW_CONNECTION_ID:
        return Frame(kind, path=r.varint(), id=r.varint(), data=r.take(24))
    if kind in (PATH_CHALLENGE, PATH_RESPONSE):
        return Frame(kind, data=r.take(8))
    if kind == RETIRE_CONNECTION_ID:
        return Frame(kind, path=r.varint(), id=r.varint())
    if kind == PATH_ABANDON:
        return Frame(kind, path=r.varint(), value=r.varint())
    if kind == PATH_STATUS:
        return Frame(kind, path=r.varint(), id=r.varint(), value=r.varint())
    if kind == DATAGRAM_LEN or kind >= 0x40:
        return Frame(kind, data=r.take(r.varint()))
    raise ValueError(f"unknown frame {kind:#x}")


def read_ack(kind: int, r: Reader) -> Frame:
    path, largest, delay_us, more, first = (r.varint() for _ in range(5))
    ranges = [(largest - first, largest)]
    for _ in range(more):
        high = ranges[-1][0] - r.varint() - 2
        ranges.append((high - r.varint(), high))
    ecn = (r.varint(), r.varint(), r.varint()) if kind == ACK_ECN else None
    return Frame(kind, value=largest, path=path, delay_us=delay_us, ranges=tuple(ranges), ecn=ecn)


# --- chapter 10: errors ---

FRAME_ENCODING, FLOW_CONTROL, STREAM_LIMIT, STREAM_STATE, FINAL_SIZE, PROTOCOL_ERROR, PARAMETER, AEAD_LIMIT, GAPS = range(2, 11)
CONNECTION_ID_ERROR = 0x0B
REFUSED, UNKNOWN_PROTOCOL, BUSY, NO_SUITE, BAD_IDENTITY = range(0x10, 0x15)
MESSAGE_SIZE = 0x0C
