"""libsodium behind a dozen functions: the only file that touches cryptography, and it implements none of its own.

One library is opened at run time (interpeer._sodium says which) and its functions are kept as pointers, so that the
same build runs on libsodium 1.0.18 (no AEGIS) and on later ones. Every return code is checked; every function here
returns 0, a length, or -1, and -1 leaves nothing behind that could be taken for a result.
HKDF is Noise's (Noise revision 34, section 4.3; RFC 5869) over HMAC-BLAKE2b.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

ctypedef unsigned long long ulonglong
ctypedef int (*seal_t)(uint8_t *, ulonglong *, const uint8_t *, ulonglong, const uint8_t *, ulonglong,
                       const uint8_t *, const uint8_t *, const uint8_t *) noexcept nogil
ctypedef int (*open_t)(uint8_t *, ulonglong *, uint8_t *, const uint8_t *, ulonglong, const uint8_t *, ulonglong,
                       const uint8_t *, const uint8_t *) noexcept nogil
ctypedef int (*two_t)(uint8_t *, const uint8_t *) noexcept nogil
ctypedef int (*three_t)(uint8_t *, const uint8_t *, const uint8_t *) noexcept nogil
ctypedef int (*keypair_t)(uint8_t *, uint8_t *, const uint8_t *) noexcept nogil
ctypedef int (*shorthash_t)(uint8_t *, const uint8_t *, ulonglong, const uint8_t *) noexcept nogil
ctypedef int (*hash_init_t)(void *, const uint8_t *, size_t, size_t) noexcept nogil
ctypedef int (*hash_update_t)(void *, const uint8_t *, ulonglong) noexcept nogil
ctypedef int (*hash_final_t)(void *, uint8_t *, size_t) noexcept nogil
ctypedef int (*auth_init_t)(void *, const uint8_t *, size_t) noexcept nogil
ctypedef int (*auth_final_t)(void *, uint8_t *) noexcept nogil
ctypedef int (*compare_t)(const void *, const void *, size_t) noexcept nogil
ctypedef void (*wipe_t)(void *, size_t) noexcept nogil
ctypedef int (*available_t)() noexcept nogil
ctypedef size_t (*size_t_t)() noexcept nogil

cdef struct SuiteCode:
    seal_t seal
    open_t open
    uint8_t key_bytes
    uint8_t iv_bytes
    uint8_t tag_bytes
    bint available

cdef enum:
    HASH_STATE_BYTES = 512          # libsodium: 384 bytes, aligned to 64
    BLOCK_BYTES = 128               # BLAKE2b's block, for HMAC
    SCHEDULE_BYTES = 512            # AES-256-GCM's expanded key, aligned to 16

cdef SuiteCode suites[5]
cdef seal_t chacha_seal, xchacha_seal
cdef open_t chacha_open, xchacha_open
cdef three_t scalarmult
cdef keypair_t seed_keypair
cdef two_t scalarmult_base, gcm_schedule, public_to_x25519, secret_to_x25519
cdef shorthash_t siphash
cdef hash_init_t hash_init
cdef hash_update_t hash_update
cdef hash_final_t hash_final
cdef auth_init_t auth_init
cdef hash_update_t auth_update
cdef auth_final_t auth_final
cdef compare_t sodium_equal
cdef wipe_t sodium_wipe, sodium_random

memset(suites, 0, sizeof(suites))


cdef class _Binder:
    """Turn names into function pointers, and refuse a library that lacks one."""

    cdef object address_of

    def __cinit__(self, address_of):
        self.address_of = address_of

    cdef void *need(self, str name) except NULL:
        cdef uintptr_t address = self.address_of(name)
        if address == 0:
            raise ImportError(f"libsodium has no function {name}: 1.0.18 or later is needed")
        return <void *>address

    cdef int bind(self, int suite, str prefix, str infix, int key_bytes, int iv_bytes, int tag_bytes) except -1:
        """Offer a suite if the library has it with the sizes we know."""
        cdef size_t tag
        if not self.address_of(prefix + "_keybytes"):
            return 0
        tag = (<size_t_t>self.need(prefix + "_abytes"))()
        if tag != <size_t>tag_bytes or (<size_t_t>self.need(prefix + "_npubbytes"))() != <size_t>iv_bytes \
                or (<size_t_t>self.need(prefix + "_keybytes"))() != <size_t>key_bytes:
            return 0
        suites[suite].seal = <seal_t>self.need(prefix + "_encrypt" + infix)
        suites[suite].open = <open_t>self.need(prefix + "_decrypt" + infix)
        suites[suite].key_bytes = key_bytes
        suites[suite].iv_bytes = iv_bytes
        suites[suite].tag_bytes = tag_bytes
        suites[suite].available = True
        return 0


def install(address_of, *, hardware_aes=None):
    """Take the library's functions; `address_of(name)` returns an address, or 0 where there is no such function.

    AES-256-GCM and AEGIS are offered only where the processor has AES instructions, since without them they are
    slower than ChaCha20 and not constant in time. `hardware_aes` overrides what the library finds.
    Raises ImportError when the library is older than 1.0.18 or its structures have sizes we do not know."""
    global chacha_seal, chacha_open, xchacha_seal, xchacha_open, scalarmult, scalarmult_base, seed_keypair, gcm_schedule
    global public_to_x25519, secret_to_x25519, siphash, hash_init, hash_update, hash_final, sodium_equal, sodium_wipe
    global sodium_random, auth_init, auth_update, auth_final
    cdef _Binder lib = _Binder(address_of)
    if (<available_t>lib.need("sodium_init"))() < 0:
        raise ImportError("libsodium cannot be initialised: sodium_init failed")
    if (<size_t_t>lib.need("crypto_generichash_statebytes"))() > HASH_STATE_BYTES - 64:
        raise ImportError("libsodium's hash state is larger than this build knows")
    if (<size_t_t>lib.need("crypto_auth_hmacsha256_statebytes"))() > HASH_STATE_BYTES - 64:
        raise ImportError("libsodium's HMAC state is larger than this build knows")
    chacha_seal = <seal_t>lib.need("crypto_aead_chacha20poly1305_ietf_encrypt")
    chacha_open = <open_t>lib.need("crypto_aead_chacha20poly1305_ietf_decrypt")
    xchacha_seal = <seal_t>lib.need("crypto_aead_xchacha20poly1305_ietf_encrypt")
    xchacha_open = <open_t>lib.need("crypto_aead_xchacha20poly1305_ietf_decrypt")
    scalarmult = <three_t>lib.need("crypto_scalarmult_curve25519")
    scalarmult_base = <two_t>lib.need("crypto_scalarmult_curve25519_base")
    seed_keypair = <keypair_t>lib.need("crypto_sign_ed25519_seed_keypair")
    public_to_x25519 = <two_t>lib.need("crypto_sign_ed25519_pk_to_curve25519")
    secret_to_x25519 = <two_t>lib.need("crypto_sign_ed25519_sk_to_curve25519")
    siphash = <shorthash_t>lib.need("crypto_shorthash_siphash24")
    hash_init = <hash_init_t>lib.need("crypto_generichash_blake2b_init")
    hash_update = <hash_update_t>lib.need("crypto_generichash_blake2b_update")
    hash_final = <hash_final_t>lib.need("crypto_generichash_blake2b_final")
    auth_init = <auth_init_t>lib.need("crypto_auth_hmacsha256_init")
    auth_update = <hash_update_t>lib.need("crypto_auth_hmacsha256_update")
    auth_final = <auth_final_t>lib.need("crypto_auth_hmacsha256_final")
    sodium_equal = <compare_t>lib.need("sodium_memcmp")
    sodium_wipe = <wipe_t>lib.need("sodium_memzero")
    sodium_random = <wipe_t>lib.need("randombytes_buf")
    memset(suites, 0, sizeof(suites))
    lib.bind(SUITE_CHACHA20_POLY1305, "crypto_aead_chacha20poly1305_ietf", "", 32, 12, 16)
    if not suites[SUITE_CHACHA20_POLY1305].available:
        raise ImportError("libsodium's ChaCha20-Poly1305 has sizes this build does not know")
    if hardware_aes is None:
        hardware_aes = bool((<available_t>lib.need("crypto_aead_aes256gcm_is_available"))())
    if hardware_aes:
        if (<size_t_t>lib.need("crypto_aead_aes256gcm_statebytes"))() <= SCHEDULE_BYTES:
            gcm_schedule = <two_t>lib.need("crypto_aead_aes256gcm_beforenm")
            lib.bind(SUITE_AES256_GCM, "crypto_aead_aes256gcm", "_afternm", 32, 12, 16)
        lib.bind(SUITE_AEGIS128L, "crypto_aead_aegis128l", "", 16, 16, 32)
        lib.bind(SUITE_AEGIS256, "crypto_aead_aegis256", "", 32, 32, 32)


cdef bint suite_is_available(int suite) noexcept nogil:
    return 0 < suite < SUITES and suites[suite].available


# --- packets: one key for each direction and epoch ---

cdef inline const uint8_t *gcm_state(const Aead *a) noexcept nogil:
    return <const uint8_t *>((<uintptr_t>a.schedule + 15) & ~<uintptr_t>15)


cdef int aead_init(Aead *a, int suite, const uint8_t *key, const uint8_t *iv) noexcept nogil:
    """Set up one direction's key; `key` has 32 bytes (AEGIS-128L uses the first 16), `iv` 32. Return 0 or -1."""
    memset(a, 0, sizeof(Aead))
    if not suite_is_available(suite):
        return -1
    if suite == SUITE_AES256_GCM:
        a.schedule = malloc(SCHEDULE_BYTES + 15)
        if a.schedule == NULL:
            return -1
        if gcm_schedule(<uint8_t *>gcm_state(a), key) != 0:
            aead_free(a)
            return -1
    a.suite = suite
    a.tag_bytes = suites[suite].tag_bytes
    memcpy(a.key, key, 32)
    memcpy(a.iv, iv, 32)
    return 0


cdef void aead_free(Aead *a) noexcept nogil:
    """Wipe and release; harmless on a struct of zeros."""
    if a.schedule != NULL:
        sodium_wipe(a.schedule, SCHEDULE_BYTES + 15)
        free(a.schedule)
    if a.suite:
        sodium_wipe(a, sizeof(Aead))
    a.schedule = NULL


cdef inline void nonce_of(const Aead *a, uint32_t path, uint64_t counter, uint8_t *nonce) noexcept nogil:
    """Write path (32 bits) and counter (64), big-endian and zero-padded in front, XOR the IV (RFC 9001, 5.3)."""
    cdef int n = suites[a.suite].iv_bytes, i
    memcpy(nonce, a.iv, 32)
    for i in range(8):
        nonce[n - 1 - i] ^= <uint8_t>(counter >> (8 * i))
    for i in range(4):
        nonce[n - 9 - i] ^= <uint8_t>(path >> (8 * i))


cdef Py_ssize_t aead_seal(const Aead *a, uint8_t *out, const uint8_t *text, size_t n, const uint8_t *header,
                          size_t header_bytes, uint32_t path, uint64_t counter) noexcept nogil:
    """Encrypt `n` bytes to `out`, which may be where they are, and put the tag behind them. Return the bytes or -1."""
    cdef uint8_t nonce[32]
    cdef const uint8_t *key = &a.key[0]
    if a.suite == SUITE_NONE:       # a key update that found no memory leaves no key
        return -1
    if a.suite == SUITE_AES256_GCM:
        key = gcm_state(a)
    nonce_of(a, path, counter, nonce)
    if suites[a.suite].seal(out, NULL, text, n, header, header_bytes, NULL, nonce, key) != 0:
        return -1
    return <Py_ssize_t>n + a.tag_bytes


cdef Py_ssize_t aead_open(const Aead *a, uint8_t *text, size_t n, const uint8_t *header, size_t header_bytes,
                          uint32_t path, uint64_t counter) noexcept nogil:
    """Decrypt `n` bytes, tag included, where they are. Return the bytes of plaintext, or -1 and text undefined."""
    cdef uint8_t nonce[32]
    cdef const uint8_t *key = &a.key[0]
    if a.suite == SUITE_NONE:
        return -1
    if a.suite == SUITE_AES256_GCM:
        key = gcm_state(a)
    if n < a.tag_bytes:
        return -1
    nonce_of(a, path, counter, nonce)
    if suites[a.suite].open(text, NULL, NULL, text, n, header, header_bytes, nonce, key) != 0:
        return -1
    return <Py_ssize_t>n - a.tag_bytes


cdef uint64_t header_mask(const uint8_t *key, const uint8_t *sample) noexcept nogil:
    """Return the 8 bytes that hide flags and counter: a PRF (SipHash-2-4) of the ciphertext's first 16 bytes."""
    cdef uint64_t mask = 0
    siphash(<uint8_t *>&mask, sample, 16, key)
    return mask


# --- handshake and cookies ---

cdef int noise_seal(uint8_t *out, const uint8_t *text, size_t n, const uint8_t *ad, size_t ad_bytes,
                    uint64_t counter, const uint8_t *key) noexcept nogil:
    """Noise's ENCRYPT with ChaChaPoly (revision 34, 12.3): write n + 16 bytes."""
    cdef uint8_t nonce[12]
    little_endian_nonce(nonce, counter)
    return 0 if chacha_seal(out, NULL, text, n, ad, ad_bytes, NULL, nonce, key) == 0 else -1


cdef int noise_open(uint8_t *out, const uint8_t *sealed, size_t n, const uint8_t *ad, size_t ad_bytes,
                    uint64_t counter, const uint8_t *key) noexcept nogil:
    """Noise's DECRYPT: write n - 16 bytes, or return -1."""
    cdef uint8_t nonce[12]
    if n < NOISE_TAG_BYTES:
        return -1
    little_endian_nonce(nonce, counter)
    return 0 if chacha_open(out, NULL, NULL, sealed, n, ad, ad_bytes, nonce, key) == 0 else -1


cdef inline void little_endian_nonce(uint8_t *nonce, uint64_t counter) noexcept nogil:
    cdef int i
    memset(nonce, 0, 4)
    for i in range(8):
        nonce[4 + i] = <uint8_t>(counter >> (8 * i))


cdef int xseal(uint8_t *out, const uint8_t *text, size_t n, const uint8_t *ad, size_t ad_bytes,
               const uint8_t *nonce, const uint8_t *key) noexcept nogil:
    """XChaCha20-Poly1305 with a random nonce of 24 bytes: write n + 16 bytes."""
    return 0 if xchacha_seal(out, NULL, text, n, ad, ad_bytes, NULL, nonce, key) == 0 else -1


cdef int xopen(uint8_t *out, const uint8_t *sealed, size_t n, const uint8_t *ad, size_t ad_bytes,
               const uint8_t *nonce, const uint8_t *key) noexcept nogil:
    if n < NOISE_TAG_BYTES:
        return -1
    return 0 if xchacha_open(out, NULL, NULL, sealed, n, ad, ad_bytes, nonce, key) == 0 else -1


# --- hashes ---

cdef inline void *aligned(uint8_t *memory) noexcept nogil:
    return <void *>((<uintptr_t>memory + 63) & ~<uintptr_t>63)


cdef int blake2b(uint8_t *out, size_t out_bytes, const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes,
                 const uint8_t *key, size_t key_bytes) noexcept nogil:
    """Hash a ‖ b, keyed if there is a key, into `out_bytes` (16 to 64). Return 0 or -1."""
    cdef uint8_t memory[512]
    cdef void *state = aligned(memory)
    if hash_init(state, key, key_bytes, out_bytes) != 0:
        return -1
    hash_update(state, a, a_bytes)
    if b_bytes:
        hash_update(state, b, b_bytes)
    return 0 if hash_final(state, out, out_bytes) == 0 else -1


cdef int hmac(uint8_t *out, const uint8_t *key, const uint8_t *a, size_t a_bytes, const uint8_t *b,
              size_t b_bytes) noexcept nogil:
    """HMAC-BLAKE2b (RFC 2104) of a ‖ b with a key of HASH_BYTES."""
    cdef uint8_t memory[512]
    cdef uint8_t block[128]
    cdef void *state = aligned(memory)
    cdef int i, result
    for i in range(BLOCK_BYTES):
        block[i] = (key[i] if i < HASH_BYTES else 0) ^ 0x36
    result = hash_init(state, NULL, 0, HASH_BYTES)
    result |= hash_update(state, block, BLOCK_BYTES)
    result |= hash_update(state, a, a_bytes)
    if b_bytes:
        result |= hash_update(state, b, b_bytes)
    result |= hash_final(state, out, HASH_BYTES)
    for i in range(BLOCK_BYTES):
        block[i] ^= 0x36 ^ 0x5C
    result |= hash_init(state, NULL, 0, HASH_BYTES)
    result |= hash_update(state, block, BLOCK_BYTES)
    result |= hash_update(state, out, HASH_BYTES)
    result |= hash_final(state, out, HASH_BYTES)
    sodium_wipe(block, BLOCK_BYTES)
    sodium_wipe(memory, sizeof(memory))
    return 0 if result == 0 else -1


cdef int hkdf(const uint8_t *chaining_key, const uint8_t *material, size_t material_bytes,
              uint8_t *first, uint8_t *second) noexcept nogil:
    """Derive two outputs of HASH_BYTES from a chaining key of HASH_BYTES. `first` may be the chaining key itself."""
    cdef uint8_t temporary[64]
    cdef uint8_t one = 1, two = 2
    cdef int result = hmac(temporary, chaining_key, material, material_bytes, NULL, 0)
    result |= hmac(first, temporary, &one, 1, NULL, 0)
    result |= hmac(second, temporary, first, HASH_BYTES, &two, 1)
    sodium_wipe(temporary, HASH_BYTES)
    return 0 if result == 0 else -1


cdef int hmac_sha256(uint8_t *out, const uint8_t *key, size_t key_bytes, const uint8_t *text, size_t n) noexcept nogil:
    """HMAC-SHA-256 (RFC 2104), which STUN wants: write HMAC_SHA256_BYTES. Return 0 or -1."""
    cdef uint8_t memory[512]
    cdef void *state = aligned(memory)
    cdef int result = auth_init(state, key, key_bytes)
    result |= auth_update(state, text, n)
    result |= auth_final(state, out)
    sodium_wipe(memory, sizeof(memory))
    return 0 if result == 0 else -1


# --- keys ---

cdef int x25519(uint8_t *out, const uint8_t *secret, const uint8_t *public_key) noexcept nogil:
    """Agree on a secret. -1 for the points of small order, which would give the same secret to everybody."""
    return 0 if scalarmult(out, secret, public_key) == 0 else -1


cdef int x25519_public(uint8_t *out, const uint8_t *secret) noexcept nogil:
    return 0 if scalarmult_base(out, secret) == 0 else -1


cdef int identity_from_seed(const uint8_t *seed, uint8_t *ed25519_public, uint8_t *x25519_secret,
                            uint8_t *x25519_public_key) noexcept nogil:
    """Compute everything an identity has from its 32-byte seed."""
    cdef uint8_t secret[64]
    cdef int result = seed_keypair(ed25519_public, secret, seed)
    result |= secret_to_x25519(x25519_secret, secret)
    result |= scalarmult_base(x25519_public_key, x25519_secret)
    sodium_wipe(secret, 64)
    return 0 if result == 0 else -1


cdef int x25519_of_identity(uint8_t *out, const uint8_t *ed25519_public) noexcept nogil:
    """Convert a peer's Ed25519 key. -1 for small order, or a point outside the main subgroup."""
    return 0 if public_to_x25519(out, ed25519_public) == 0 else -1


cdef void random_bytes(void *out, size_t n) noexcept nogil:
    """Fill with the operating system's randomness. For the pump alone: the protocol gets its bytes handed."""
    sodium_random(out, n)


cdef bint equal_secret(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil:
    """Compare in constant time."""
    return sodium_equal(a, b, n) == 0


cdef void wipe(void *p, size_t n) noexcept nogil:
    sodium_wipe(p, n)
