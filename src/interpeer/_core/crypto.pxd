from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    KEY_BYTES = 32                  # X25519 and Ed25519 public keys, seeds, traffic secrets
    HASH_BYTES = 64                 # BLAKE2b as Noise uses it (HASHLEN)
    MAC_BYTES = 16                  # mac1, mac2, cookies, reset tokens
    MASK_KEY_BYTES = 16
    NOISE_TAG_BYTES = 16            # ChaCha20-Poly1305
    XNONCE_BYTES = 24               # XChaCha20-Poly1305
    MAX_IV_BYTES = 32
    HMAC_SHA256_BYTES = 32

cdef enum:                          # suites; the numbers are on the wire (docs/spec, handshake)
    SUITE_NONE = 0
    SUITE_CHACHA20_POLY1305 = 1
    SUITE_AES256_GCM = 2
    SUITE_AEGIS128L = 3
    SUITE_AEGIS256 = 4
    SUITES = 5

cdef struct Aead:
    uint8_t suite
    uint8_t tag_bytes
    uint8_t key[32]
    uint8_t iv[32]
    void *schedule                  # AES-256-GCM's expanded key; owned, NULL for the other suites

cdef bint suite_is_available(int suite) noexcept nogil

cdef int aead_init(Aead *a, int suite, const uint8_t *key, const uint8_t *iv) noexcept nogil
cdef void aead_free(Aead *a) noexcept nogil
cdef Py_ssize_t aead_seal(const Aead *a, uint8_t *out, const uint8_t *text, size_t n, const uint8_t *header,
                          size_t header_bytes, uint32_t path, uint64_t counter) noexcept nogil
cdef Py_ssize_t aead_open(const Aead *a, uint8_t *text, size_t n, const uint8_t *header, size_t header_bytes,
                          uint32_t path, uint64_t counter) noexcept nogil
cdef uint64_t header_mask(const uint8_t *key, const uint8_t *sample) noexcept nogil

cdef int noise_seal(uint8_t *out, const uint8_t *text, size_t n, const uint8_t *ad, size_t ad_bytes,
                    uint64_t counter, const uint8_t *key) noexcept nogil
cdef int noise_open(uint8_t *out, const uint8_t *sealed, size_t n, const uint8_t *ad, size_t ad_bytes,
                    uint64_t counter, const uint8_t *key) noexcept nogil
cdef int xseal(uint8_t *out, const uint8_t *text, size_t n, const uint8_t *ad, size_t ad_bytes,
               const uint8_t *nonce, const uint8_t *key) noexcept nogil
cdef int xopen(uint8_t *out, const uint8_t *sealed, size_t n, const uint8_t *ad, size_t ad_bytes,
               const uint8_t *nonce, const uint8_t *key) noexcept nogil

cdef int blake2b(uint8_t *out, size_t out_bytes, const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes,
                 const uint8_t *key, size_t key_bytes) noexcept nogil
cdef int hmac_sha256(uint8_t *out, const uint8_t *key, size_t key_bytes, const uint8_t *text, size_t n) noexcept nogil
cdef int hkdf(const uint8_t *chaining_key, const uint8_t *material, size_t material_bytes,
              uint8_t *first, uint8_t *second) noexcept nogil

cdef int x25519(uint8_t *out, const uint8_t *secret, const uint8_t *public_key) noexcept nogil
cdef int x25519_public(uint8_t *out, const uint8_t *secret) noexcept nogil
cdef int identity_from_seed(const uint8_t *seed, uint8_t *ed25519_public, uint8_t *x25519_secret,
                            uint8_t *x25519_public_key) noexcept nogil
cdef int x25519_of_identity(uint8_t *out, const uint8_t *ed25519_public) noexcept nogil

cdef void random_bytes(void *out, size_t n) noexcept nogil
cdef bint equal_secret(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil
cdef void wipe(void *p, size_t n) noexcept nogil
