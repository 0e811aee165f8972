"""Python doors into layers L0 to L2 for tests, fuzzing and micro-benchmarks; nothing in production imports this.

Each door is as thin as it can be: it converts arguments, calls the function of the core and converts the result.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from interpeer._core.crypto cimport (
    Aead, aead_free, aead_init, aead_open, aead_seal, blake2b, header_mask, identity_from_seed, suite_is_available,
    x25519_of_identity)
from interpeer._core.crypto cimport noise_seal as core_noise_seal
from interpeer._core.crypto cimport x25519 as core_x25519
from interpeer._core.crypto cimport x25519_public as core_x25519_public
from interpeer._core.noise cimport (
    NOISE_FAILED, PATTERN_IK, PATTERN_XX, Noise, noise_init, noise_is_done, noise_read, noise_split, noise_wipe,
    noise_write)

cdef inline uint8_t *data(bytes b) noexcept:
    return <uint8_t *>PyBytes_AS_STRING(b)


cdef inline bytes room(Py_ssize_t n):
    return PyBytes_FromStringAndSize(NULL, n)


SUITES = {"chacha20-poly1305": 1, "aes-256-gcm": 2, "aegis-128l": 3, "aegis-256": 4}


def available_suites():
    return [name for name, number in SUITES.items() if suite_is_available(number)]


cdef class Key:
    """One direction's packet key."""

    cdef Aead aead

    def __cinit__(self, str suite, bytes key, bytes iv):
        assert len(key) == 32 and len(iv) == 32
        if aead_init(&self.aead, SUITES[suite], data(key), data(iv)) != 0:
            raise ValueError(f"{suite} is not available")

    def __dealloc__(self):
        aead_free(&self.aead)

    def seal(self, bytes text, bytes header, path, counter):
        out = text + bytes(self.aead.tag_bytes)
        n = aead_seal(&self.aead, data(out), data(out), len(text), data(header), len(header), path, counter)
        return None if n < 0 else out[:n]

    def open(self, bytes sealed, bytes header, path, counter):
        out = bytes(bytearray(sealed))
        n = aead_open(&self.aead, data(out), len(sealed), data(header), len(header), path, counter)
        return None if n < 0 else out[:n]


def mask(bytes key, bytes sample):
    assert len(key) == 16 and len(sample) == 16
    return header_mask(data(key), data(sample)).to_bytes(8, "little")


def hash(bytes a, bytes b=b"", bytes key=b"", int size=64):
    out = room(size)
    assert blake2b(data(out), size, data(a), len(a), data(b), len(b), data(key) if key else NULL, len(key)) == 0
    return out


def identity(bytes seed):
    """Return Ed25519 public key, X25519 secret, X25519 public key."""
    assert len(seed) == 32
    ed, secret, public = room(32), room(32), room(32)
    assert identity_from_seed(data(seed), data(ed), data(secret), data(public)) == 0
    return ed, secret, public


def x25519_of(bytes ed25519):
    assert len(ed25519) == 32
    out = room(32)
    return out if x25519_of_identity(data(out), data(ed25519)) == 0 else None


def x25519_public(bytes secret):
    assert len(secret) == 32
    out = room(32)
    assert core_x25519_public(data(out), data(secret)) == 0
    return out


def x25519(bytes secret, bytes public):
    """Return the shared secret, or None where libsodium refuses the point."""
    assert len(secret) == 32 and len(public) == 32
    out = room(32)
    return out if core_x25519(data(out), data(secret), data(public)) == 0 else None


def noise_seal(bytes text, bytes ad, counter, bytes key):
    assert len(key) == 32
    out = room(len(text) + 16)
    assert core_noise_seal(data(out), data(text), len(text), data(ad), len(ad), counter, data(key)) == 0
    return out


cdef class Handshake:
    """A Noise handshake; the messages and nothing around them."""

    cdef Noise noise
    cdef bytes secret, public

    def __cinit__(self, str pattern, bint is_initiator, bytes prologue, bytes secret, bytes public, bytes remote=None):
        self.secret, self.public = secret, public
        assert noise_init(&self.noise, {"IK": PATTERN_IK, "XX": PATTERN_XX}[pattern], is_initiator, data(prologue),
                          len(prologue), data(secret), data(public), data(remote) if remote else NULL) == 0

    def write(self, bytes payload, bytes ephemeral):
        out = room(len(payload) + 96)
        n = noise_write(&self.noise, data(out), data(payload), len(payload), data(ephemeral))
        return None if n == NOISE_FAILED else out[:n]

    def read(self, bytes message):
        out = room(len(message))
        n = noise_read(&self.noise, data(out), data(message), len(message))
        return None if n == NOISE_FAILED else out[:n]

    @property
    def is_done(self):
        return bool(noise_is_done(&self.noise))

    @property
    def hash(self):
        return <bytes>self.noise.symmetric.hash[:64]

    def split(self):
        """Return the secrets to send with and to receive with."""
        send, receive = room(32), room(32)
        assert noise_split(&self.noise, data(send), data(receive)) == 0
        return send, receive

    def __dealloc__(self):
        noise_wipe(&self.noise)
