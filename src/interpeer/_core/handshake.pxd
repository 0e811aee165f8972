from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.noise cimport Noise
from interpeer._core.slab cimport Endpoint
from interpeer._core.wire cimport Parameters

cdef enum:
    MAX_NETWORK_BYTES = 64
    COOKIE_SECRET_NS = 120000000000     # a secret makes cookies for two minutes, and is accepted for two more
    HANDSHAKE_OK = 0
    HANDSHAKE_OPEN = -2             # it cannot be opened: forged, damaged, of another network
    HANDSHAKE_PARAMETER = -3        # opened, but the parameters cannot be read
    HANDSHAKE_IDENTITY = -4         # the Ed25519 key inside is not the one that was used, or is our own

cdef struct NodeKeys:               # who we are, and the secrets that live as long as the node
    uint8_t identity[32]            # Ed25519 public key: the peer id
    uint8_t secret[32]              # X25519
    uint8_t public_key[32]          # X25519
    uint8_t network[64]             # name
    uint8_t network_bytes
    uint8_t mac1_key[32]            # of messages to us
    uint8_t sealing_key[32]         # of cookie and versions replies by us
    uint8_t cookie_secret[32]
    uint8_t last_cookie_secret[32]
    uint64_t cookie_secret_ns       # when it was made; 0: not yet
    uint8_t reset_key[32]
    bint has_reset_key              # only a node whose key is stored can be asked after a restart

cdef struct InitMessage:            # what a first message says
    Noise noise                     # ready to write the response
    uint64_t remote_cid
    uint8_t identity[32]
    Parameters parameters           # points into `payload`
    uint8_t payload[1062]

cdef struct ResponseMessage:
    Parameters parameters           # points into `payload`
    uint8_t payload[512]

cdef int node_keys_init(NodeKeys *k, const uint8_t *seed, const uint8_t *network, uint8_t network_bytes,
                        bint has_reset_key) noexcept nogil
cdef void mac1_key_of(const NodeKeys *k, const uint8_t *public_key, uint8_t *out) noexcept nogil
cdef void sealing_key_of(const NodeKeys *k, const uint8_t *public_key, uint8_t *out) noexcept nogil
cdef void reset_token_of(const NodeKeys *k, uint64_t cid, uint8_t *out) noexcept nogil

cdef int write_init(const NodeKeys *k, Noise *noise, uint8_t *out, const uint8_t *peer_key, uint64_t cid,
                    const Parameters *parameters, const uint8_t *ephemeral) noexcept nogil
cdef void stamp_init(uint8_t *init, const uint8_t *mac1_key, const uint8_t *cookie) noexcept nogil
cdef bint init_has_mac1(const NodeKeys *k, const uint8_t *init, size_t bytes) noexcept nogil
cdef int read_init(const NodeKeys *k, const uint8_t *init, InitMessage *out) noexcept nogil
cdef Py_ssize_t write_response(const NodeKeys *k, Noise *noise, uint8_t *out, uint64_t remote_cid,
                               const Parameters *parameters, const uint8_t *ephemeral) noexcept nogil
cdef int read_response(Noise *noise, const uint8_t *message, size_t bytes, const uint8_t *expected_identity,
                       ResponseMessage *out) noexcept nogil

cdef bint rotate_cookie_secret(NodeKeys *k, const uint8_t *fresh, uint64_t now_ns) noexcept nogil
cdef bint init_has_mac2(const NodeKeys *k, const uint8_t *init, const Endpoint *source, uint64_t now_ns) noexcept nogil
cdef Py_ssize_t write_cookie_reply(const NodeKeys *k, uint8_t *out, const uint8_t *init, const Endpoint *source,
                                   const uint8_t *nonce) noexcept nogil
cdef Py_ssize_t write_versions_reply(const NodeKeys *k, uint8_t *out, const uint8_t *init, size_t init_bytes,
                                     const uint8_t *nonce) noexcept nogil
cdef Py_ssize_t open_reply(uint8_t *out, const uint8_t *message, size_t bytes, const uint8_t *sealing_key,
                           const uint8_t *mac1) noexcept nogil
