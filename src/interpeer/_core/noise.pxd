from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    NOISE_FAILED = -1
    NOISE_MESSAGES = 3              # of the longest pattern

cdef enum:
    PATTERN_IK = 0                  # the initiator knows the responder's static key
    PATTERN_XX = 1                  # nobody knows anybody

cdef struct Symmetric:              # Noise's SymmetricState and its CipherState
    uint8_t chaining_key[64]
    uint8_t hash[64]
    uint8_t key[32]
    uint64_t counter
    bint has_key

cdef struct Noise:                  # Noise's HandshakeState
    Symmetric symmetric
    const uint8_t *static_secret    # of the node; not owned
    const uint8_t *static_public
    uint8_t ephemeral_secret[32]
    uint8_t ephemeral_public[32]
    uint8_t remote_static[32]       # the peer's X25519 key, once known
    uint8_t remote_ephemeral[32]
    uint8_t pattern
    uint8_t message                 # index of the next message
    bint is_initiator

cdef int noise_init(Noise *n, int pattern, bint is_initiator, const uint8_t *prologue, size_t prologue_bytes,
                    const uint8_t *static_secret, const uint8_t *static_public,
                    const uint8_t *remote_static) noexcept nogil
cdef Py_ssize_t noise_write(Noise *n, uint8_t *out, const uint8_t *payload, size_t payload_bytes,
                            const uint8_t *ephemeral_secret) noexcept nogil
cdef Py_ssize_t noise_read(Noise *n, uint8_t *payload, const uint8_t *message, size_t bytes) noexcept nogil
cdef bint noise_is_done(const Noise *n) noexcept nogil
cdef int noise_split(Noise *n, uint8_t *send_secret, uint8_t *receive_secret) noexcept nogil
cdef void noise_wipe(Noise *n) noexcept nogil
