"""The Noise handshakes IK and XX with 25519, ChaChaPoly and BLAKE2b (The Noise Protocol Framework, revision 34).

A pattern is a table of tokens and one loop walks it, so that what is here can be read against section 7.5 of the
framework. A message that fails leaves the state as it was: garbage neither advances a nonce nor ends a handshake
(CVE-2024-58265). What the payloads say and when messages are sent is the business of the handshake machine.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from interpeer._core.crypto cimport (
    HASH_BYTES, KEY_BYTES, NOISE_TAG_BYTES, blake2b, hkdf, noise_open, noise_seal, wipe, x25519, x25519_public)

cdef enum:                          # tokens
    END = 0
    E = 1
    S = 2
    EE = 3
    ES = 4
    SE = 5
    SS = 6

# [pattern][message][token]; the first message is the initiator's, and they take turns
cdef uint8_t[2][3][5] TOKENS = [
    [[E, ES, S, SS, END], [E, EE, SE, END, END], [END, END, END, END, END]],
    [[E, END, END, END, END], [E, EE, S, ES, END], [S, SE, END, END, END]],
]
cdef const char *NAMES[2]
NAMES[PATTERN_IK] = b"Noise_IK_25519_ChaChaPoly_BLAKE2b"
NAMES[PATTERN_XX] = b"Noise_XX_25519_ChaChaPoly_BLAKE2b"
cdef enum:
    NAME_BYTES = 33                 # of both; shorter than HASH_BYTES, so it is padded and not hashed


cdef int mix_hash(Symmetric *s, const uint8_t *data, size_t n) noexcept nogil:
    cdef uint8_t before[64]
    memcpy(before, s.hash, HASH_BYTES)
    return blake2b(s.hash, HASH_BYTES, before, HASH_BYTES, data, n, NULL, 0)


cdef int mix_key(Symmetric *s, const uint8_t *material, size_t n) noexcept nogil:
    cdef uint8_t key[64]
    if hkdf(s.chaining_key, material, n, s.chaining_key, key) != 0:
        return -1
    memcpy(s.key, key, KEY_BYTES)
    wipe(key, HASH_BYTES)
    s.counter = 0
    s.has_key = True
    return 0


cdef Py_ssize_t encrypt_and_hash(Symmetric *s, uint8_t *out, const uint8_t *text, size_t n) noexcept nogil:
    if s.has_key:
        if noise_seal(out, text, n, s.hash, HASH_BYTES, s.counter, s.key) != 0:
            return NOISE_FAILED
        s.counter += 1
        n += NOISE_TAG_BYTES
    else:
        memcpy(out, text, n)
    return <Py_ssize_t>n if mix_hash(s, out, n) == 0 else NOISE_FAILED


cdef Py_ssize_t decrypt_and_hash(Symmetric *s, uint8_t *out, const uint8_t *sealed, size_t n) noexcept nogil:
    cdef size_t text = n
    if s.has_key:
        if noise_open(out, sealed, n, s.hash, HASH_BYTES, s.counter, s.key) != 0:
            return NOISE_FAILED
        s.counter += 1
        text = n - NOISE_TAG_BYTES
    else:
        memcpy(out, sealed, n)
    return <Py_ssize_t>text if mix_hash(s, sealed, n) == 0 else NOISE_FAILED


cdef int agree(Noise *n, int token) noexcept nogil:
    """Do the Diffie-Hellman that a token names: its first letter is the initiator's key, its second the responder's."""
    cdef uint8_t shared[32]
    cdef const uint8_t *own = n.static_secret
    cdef const uint8_t *theirs = n.remote_static
    cdef int result
    if token == EE or token == (ES if n.is_initiator else SE):
        own = n.ephemeral_secret
    if token == EE or token == (SE if n.is_initiator else ES):
        theirs = n.remote_ephemeral
    result = x25519(shared, own, theirs)
    if result == 0:
        result = mix_key(&n.symmetric, shared, KEY_BYTES)
    wipe(shared, KEY_BYTES)
    return result


cdef int noise_init(Noise *n, int pattern, bint is_initiator, const uint8_t *prologue, size_t prologue_bytes,
                    const uint8_t *static_secret, const uint8_t *static_public,
                    const uint8_t *remote_static) noexcept nogil:
    """Start a handshake. IK's initiator gives `remote_static`; everybody else NULL. Return 0 or NOISE_FAILED."""
    cdef Symmetric *s = &n.symmetric
    memset(n, 0, sizeof(Noise))
    n.pattern = pattern
    n.is_initiator = is_initiator
    n.static_secret = static_secret
    n.static_public = static_public
    memcpy(s.hash, NAMES[pattern], NAME_BYTES)
    memcpy(s.chaining_key, s.hash, HASH_BYTES)
    if mix_hash(s, prologue, prologue_bytes) != 0:
        return NOISE_FAILED
    if pattern == PATTERN_IK:
        if is_initiator:
            memcpy(n.remote_static, remote_static, KEY_BYTES)
            return mix_hash(s, remote_static, KEY_BYTES)
        return mix_hash(s, static_public, KEY_BYTES)
    return 0


cdef bint noise_is_done(const Noise *n) noexcept nogil:
    return n.message == NOISE_MESSAGES or TOKENS[n.pattern][n.message][0] == END


cdef Py_ssize_t noise_write(Noise *n, uint8_t *out, const uint8_t *payload, size_t payload_bytes,
                            const uint8_t *ephemeral_secret) noexcept nogil:
    """Write the next message; it takes at most 96 bytes more than the payload. Return its bytes or NOISE_FAILED.

    `ephemeral_secret` is 32 fresh random bytes, used if the message carries an ephemeral key."""
    cdef Symmetric *s = &n.symmetric
    cdef uint8_t *p = out
    cdef Py_ssize_t written
    cdef const uint8_t *tokens = TOKENS[n.pattern][n.message]
    while tokens[0] != END:
        if tokens[0] == E:
            memcpy(n.ephemeral_secret, ephemeral_secret, KEY_BYTES)
            if x25519_public(n.ephemeral_public, n.ephemeral_secret) != 0:
                return NOISE_FAILED
            memcpy(p, n.ephemeral_public, KEY_BYTES)
            if mix_hash(s, p, KEY_BYTES) != 0:
                return NOISE_FAILED
            p += KEY_BYTES
        elif tokens[0] == S:
            written = encrypt_and_hash(s, p, n.static_public, KEY_BYTES)
            if written < 0:
                return NOISE_FAILED
            p += written
        elif agree(n, tokens[0]) != 0:
            return NOISE_FAILED
        tokens += 1
    written = encrypt_and_hash(s, p, payload, payload_bytes)
    if written < 0:
        return NOISE_FAILED
    n.message += 1
    return p + written - out


cdef Py_ssize_t noise_read(Noise *n, uint8_t *payload, const uint8_t *message, size_t bytes) noexcept nogil:
    """Read the next message into `payload` (room for `bytes`). Return the payload's bytes or NOISE_FAILED.

    On failure `n` is as it was before."""
    cdef Noise attempt = n[0]
    cdef Py_ssize_t result = read_tokens(&attempt, payload, message, bytes)
    if result >= 0:
        attempt.message += 1
        n[0] = attempt
    noise_wipe(&attempt)
    return result


cdef Py_ssize_t read_tokens(Noise *n, uint8_t *payload, const uint8_t *p, size_t left) noexcept nogil:
    cdef Symmetric *s = &n.symmetric
    cdef size_t sealed
    cdef const uint8_t *tokens = TOKENS[n.pattern][n.message]
    while tokens[0] != END:
        if tokens[0] == E:
            if left < KEY_BYTES:
                return NOISE_FAILED
            memcpy(n.remote_ephemeral, p, KEY_BYTES)
            if mix_hash(s, p, KEY_BYTES) != 0:
                return NOISE_FAILED
            p += KEY_BYTES
            left -= KEY_BYTES
        elif tokens[0] == S:
            sealed = KEY_BYTES + (NOISE_TAG_BYTES if s.has_key else 0)
            if left < sealed or decrypt_and_hash(s, n.remote_static, p, sealed) < 0:
                return NOISE_FAILED
            p += sealed
            left -= sealed
        elif agree(n, tokens[0]) != 0:
            return NOISE_FAILED
        tokens += 1
    return decrypt_and_hash(s, payload, p, left)


cdef int noise_split(Noise *n, uint8_t *send_secret, uint8_t *receive_secret) noexcept nogil:
    """Derive the two traffic secrets of 32 bytes once the handshake is done. Return 0 or NOISE_FAILED."""
    cdef uint8_t first[64]
    cdef uint8_t second[64]
    cdef int result = hkdf(n.symmetric.chaining_key, NULL, 0, first, second)
    if n.is_initiator:
        memcpy(send_secret, first, KEY_BYTES)
        memcpy(receive_secret, second, KEY_BYTES)
    else:
        memcpy(send_secret, second, KEY_BYTES)
        memcpy(receive_secret, first, KEY_BYTES)
    wipe(first, HASH_BYTES)
    wipe(second, HASH_BYTES)
    return result


cdef void noise_wipe(Noise *n) noexcept nogil:
    wipe(n, sizeof(Noise))
