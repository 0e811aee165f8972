"""Python doors into the core for tests, fuzzing and micro-benchmarks: crypto and noise. Nothing in production imports this.

Each door is as thin as it can be: it converts arguments, calls the function of the core and converts the result. The
other layers have doors of their own: probe_wire, probe_memory, probe_transport, probe_handshake, probe_conn.

What the core reads and writes lies in blocks of exactly its size. Objects of Python would hide a step too far: a bytes
object ends with a zero that belongs to it, and those of one byte are shared by the whole process.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from interpeer._core.crypto cimport (
    HASH_BYTES, Aead, aead_free, aead_init, aead_open, aead_seal, blake2b, equal_secret, header_mask, identity_from_seed,
    suite_is_available, x25519_of_identity)
from interpeer._core.crypto cimport hkdf as core_hkdf
from interpeer._core.crypto cimport noise_open as core_noise_open
from interpeer._core.crypto cimport noise_seal as core_noise_seal
from interpeer._core.crypto cimport x25519 as core_x25519
from interpeer._core.crypto cimport x25519_public as core_x25519_public
from interpeer._core.crypto cimport xopen as core_xopen
from interpeer._core.crypto cimport xseal as core_xseal
from interpeer._core.noise cimport (
    NOISE_FAILED, PATTERN_IK, PATTERN_XX, Noise, noise_init, noise_is_done, noise_read, noise_split, noise_wipe,
    noise_write)

cdef enum:
    FENCE_BYTES = 16                # before the bytes, so that even none of them have an address that is known to end
    GARBAGE = 0xA5                  # in memory that the core is to fill


cdef class Exact:
    def __cinit__(self, Py_ssize_t n):
        self.memory = <uint8_t *>malloc(FENCE_BYTES + n)
        if self.memory == NULL:
            raise MemoryError
        self.p = self.memory + FENCE_BYTES
        self.n = n

    def __dealloc__(self):
        free(self.memory)

    cdef bytes first(self, Py_ssize_t n):
        """Return the first `n` bytes; None where the core has answered with an error instead of a length."""
        assert n <= self.n, "more was written than there is room for"
        return None if n < 0 else <bytes>self.p[:n]


cdef Exact exact(bytes content):
    block = Exact(len(content))
    memcpy(block.p, <const uint8_t *>content, len(content))
    return block


cdef Exact room(Py_ssize_t n):
    block = Exact(n)
    memset(block.p, GARBAGE, n)
    return block


# --- ciphers ---

SUITES = {"chacha20-poly1305": 1, "aes-256-gcm": 2, "aegis-128l": 3, "aegis-256": 4}


def available_suites():
    return [name for name, number in SUITES.items() if suite_is_available(number)]


cdef class Key:
    """One direction's packet key."""

    cdef Aead aead

    def __cinit__(self, str suite, bytes key, bytes iv):
        assert len(key) == 32 and len(iv) == 32
        if aead_init(&self.aead, SUITES[suite], exact(key).p, exact(iv).p) != 0:
            raise ValueError(f"{suite} is not available")

    def __dealloc__(self):
        aead_free(&self.aead)

    def seal(self, bytes text, bytes header, path, counter, *, bint in_place=True):
        ad = exact(header)
        out = room(len(text) + self.aead.tag_bytes)
        source = out if in_place else exact(text)
        memcpy(source.p, <const uint8_t *>text, len(text))
        return out.first(aead_seal(&self.aead, out.p, source.p, len(text), ad.p, ad.n, path, counter))

    def open(self, bytes sealed, bytes header, path, counter):
        text, ad = exact(sealed), exact(header)
        return text.first(aead_open(&self.aead, text.p, text.n, ad.p, ad.n, path, counter))


def mask(bytes key, bytes sample):
    assert len(key) == 16 and len(sample) == 16
    return header_mask(exact(key).p, exact(sample).p).to_bytes(8, "little")


def noise_seal(bytes text, bytes ad, counter, bytes key):
    assert len(key) == 32
    out, source, bound = room(len(text) + 16), exact(text), exact(ad)
    assert core_noise_seal(out.p, source.p, source.n, bound.p, bound.n, counter, exact(key).p) == 0
    return out.first(out.n)


def noise_open(bytes sealed, bytes ad, counter, bytes key):
    """Return the text, or None."""
    assert len(key) == 32
    out, source, bound = room(max(len(sealed) - 16, 0)), exact(sealed), exact(ad)
    return out.first(out.n if core_noise_open(out.p, source.p, source.n, bound.p, bound.n, counter, exact(key).p) == 0 else -1)


def xseal(bytes text, bytes ad, bytes nonce, bytes key):
    assert len(key) == 32 and len(nonce) == 24
    out, source, bound = room(len(text) + 16), exact(text), exact(ad)
    assert core_xseal(out.p, source.p, source.n, bound.p, bound.n, exact(nonce).p, exact(key).p) == 0
    return out.first(out.n)


def xopen(bytes sealed, bytes ad, bytes nonce, bytes key):
    """Return the text, or None."""
    assert len(key) == 32 and len(nonce) == 24
    out, source, bound = room(max(len(sealed) - 16, 0)), exact(sealed), exact(ad)
    return out.first(out.n if core_xopen(out.p, source.p, source.n, bound.p, bound.n, exact(nonce).p, exact(key).p) == 0 else -1)


# --- hashes and keys ---

def hash(bytes a, bytes b=b"", bytes key=b"", int size=64):
    out, one, two, secret = room(size), exact(a), exact(b), exact(key)
    assert blake2b(out.p, size, one.p, one.n, two.p, two.n, secret.p if key else NULL, secret.n) == 0
    return out.first(size)


def hkdf(bytes chaining_key, bytes material, *, bint in_place=True):
    """Return both outputs; `in_place` writes the first one over the chaining key, as Noise does."""
    assert len(chaining_key) == HASH_BYTES
    chain, source, second = exact(chaining_key), exact(material), room(HASH_BYTES)
    first = chain if in_place else room(HASH_BYTES)
    assert core_hkdf(chain.p, source.p, source.n, first.p, second.p) == 0
    return first.first(HASH_BYTES), second.first(HASH_BYTES)


def identity(bytes seed):
    """Return Ed25519 public key, X25519 secret, X25519 public key."""
    assert len(seed) == 32
    ed, secret, public = room(32), room(32), room(32)
    assert identity_from_seed(exact(seed).p, ed.p, secret.p, public.p) == 0
    return ed.first(32), secret.first(32), public.first(32)


def x25519_of(bytes ed25519):
    """Return the X25519 key of an Ed25519 key, or None for one that is no good."""
    assert len(ed25519) == 32
    out = room(32)
    return out.first(32 if x25519_of_identity(out.p, exact(ed25519).p) == 0 else -1)


def x25519_public(bytes secret):
    assert len(secret) == 32
    out = room(32)
    assert core_x25519_public(out.p, exact(secret).p) == 0
    return out.first(32)


def x25519(bytes secret, bytes public):
    """Return the shared secret, or None where libsodium refuses the point."""
    assert len(secret) == 32 and len(public) == 32
    out = room(32)
    return out.first(32 if core_x25519(out.p, exact(secret).p, exact(public).p) == 0 else -1)


def equal(bytes a, bytes b):
    assert len(a) == len(b)
    return bool(equal_secret(exact(a).p, exact(b).p, len(a)))


# --- Noise ---

cdef class Handshake:
    """A Noise handshake; the messages and nothing around them."""

    cdef Noise noise
    cdef Exact secret, public       # which the core points to

    def __cinit__(self, str pattern, bint is_initiator, bytes prologue, bytes secret, bytes public, bytes remote=None):
        self.secret, self.public = exact(secret), exact(public)
        before, peer = exact(prologue), exact(remote or b"")
        assert noise_init(&self.noise, {"IK": PATTERN_IK, "XX": PATTERN_XX}[pattern], is_initiator, before.p, before.n,
                          self.secret.p, self.public.p, peer.p if remote else NULL) == 0

    def write(self, bytes payload, bytes ephemeral):
        assert len(ephemeral) == 32
        source, out = exact(payload), room(len(payload) + 96)
        n = noise_write(&self.noise, out.p, source.p, source.n, exact(ephemeral).p)
        return None if n == NOISE_FAILED else out.first(n)

    def read(self, bytes message):
        source, out = exact(message), room(len(message))
        n = noise_read(&self.noise, out.p, source.p, source.n)
        return None if n == NOISE_FAILED else out.first(n)

    @property
    def is_done(self):
        return bool(noise_is_done(&self.noise))

    @property
    def hash(self):
        return <bytes>self.noise.symmetric.hash[:64]

    @property
    def remote_static(self):
        """Return the peer's X25519 key; zeros as long as it is not known."""
        return <bytes>self.noise.remote_static[:32]

    def split(self):
        """Return the secrets to send with and to receive with."""
        send, receive = room(32), room(32)
        assert noise_split(&self.noise, send.p, receive.p) == 0
        return send.first(32), receive.first(32)

    def __dealloc__(self):
        noise_wipe(&self.noise)
