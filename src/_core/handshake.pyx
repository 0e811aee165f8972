"""The messages of the handshake: init, response, and the two replies that keep no state (docs/spec, chapter 4).

Bytes in, bytes out; who sends which when is the business of dial and answer. An init has exactly INIT_BYTES, so no
reply can be larger. Its last 32 bytes are mac1, keyed with the responder's public key and network (it costs one hash to
drop a stranger's noise), and mac2, keyed with a cookie that only the owner of the source address can have
(WireGuard, 5.4.4 and 5.4.7). Each encrypted payload starts with the sender's Ed25519 key, which must convert to the
X25519 key that Noise has authenticated: the ids A and -A share one.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.crypto cimport (
    KEY_BYTES, MAC_BYTES, NOISE_TAG_BYTES, XNONCE_BYTES, blake2b, equal_secret, identity_from_seed, x25519_of_identity,
    xopen, xseal)
from interpeer._core.noise cimport PATTERN_IK, Noise, noise_init, noise_read, noise_write
from interpeer._core.slab cimport Endpoint
from interpeer._core.wire cimport (
    CID_BYTES, INIT_BYTES, INIT_MACS_BYTES, INIT_PAYLOAD_BYTES, MAX_RESPONSE_BYTES, MAX_VERSIONS, MESSAGE_COOKIE,
    MESSAGE_HEADER_BYTES, MESSAGE_INIT, MESSAGE_RESPONSE, MESSAGE_VERSIONS, PARAM_PADDING, PARSE_OK, VERSION, Parameters,
    parse_parameters, read_u64, write_parameters, write_u64, write_varint)

cdef enum:
    LABEL_BYTES = 16
    MAC1_AT = 1168                  # INIT_BYTES - INIT_MACS_BYTES
    MAC2_AT = 1184
    RESPONSE_OVERHEAD = 48          # ephemeral key and tag

cdef const char *LABEL_MAC1 = b"interpeer mac1  "
cdef const char *LABEL_SEAL = b"interpeer cookie"
cdef const char *LABEL_RESET = b"interpeer reset "


cdef int node_keys_init(NodeKeys *k, const uint8_t *seed, const uint8_t *network, uint8_t network_bytes,
                        bint has_reset_key) noexcept nogil:
    """Derive everything from the 32-byte seed. Return 0 or -1."""
    memset(k, 0, sizeof(NodeKeys))
    if identity_from_seed(seed, k.identity, k.secret, k.public_key) != 0:
        return -1
    if network_bytes:               # otherwise it may be NULL
        memcpy(k.network, network, network_bytes)
    k.network_bytes = network_bytes
    mac1_key_of(k, k.public_key, k.mac1_key)
    sealing_key_of(k, k.public_key, k.sealing_key)
    k.has_reset_key = has_reset_key
    return blake2b(k.reset_key, KEY_BYTES, <const uint8_t *>LABEL_RESET, LABEL_BYTES, NULL, 0, seed, KEY_BYTES)


cdef void labelled(const NodeKeys *k, const char *label, const uint8_t *public_key, uint8_t *out) noexcept nogil:
    """Hash label, public key and network into a key."""
    cdef uint8_t data[48]
    memcpy(data, label, LABEL_BYTES)
    memcpy(data + LABEL_BYTES, public_key, KEY_BYTES)
    blake2b(out, KEY_BYTES, data, LABEL_BYTES + KEY_BYTES, k.network, k.network_bytes, NULL, 0)


cdef void mac1_key_of(const NodeKeys *k, const uint8_t *public_key, uint8_t *out) noexcept nogil:
    """Compute the key of mac1 in messages to the owner of a public key, in our network."""
    labelled(k, LABEL_MAC1, public_key, out)


cdef void sealing_key_of(const NodeKeys *k, const uint8_t *public_key, uint8_t *out) noexcept nogil:
    """Compute the key that the owner of a public key seals its cookie and versions replies with."""
    labelled(k, LABEL_SEAL, public_key, out)


cdef void reset_token_of(const NodeKeys *k, uint64_t cid, uint8_t *out) noexcept nogil:
    """Compute the token that proves that we have lost a connection; the same after a restart."""
    cdef uint8_t name[8]
    write_u64(name, cid)
    blake2b(out, MAC_BYTES, name, CID_BYTES, NULL, 0, k.reset_key, KEY_BYTES)


cdef size_t write_header(uint8_t *out, uint8_t type, uint64_t cid) noexcept nogil:
    out[0] = type
    out[1] = VERSION
    write_u64(out + 2, cid)
    return MESSAGE_HEADER_BYTES


cdef int start_noise(const NodeKeys *k, Noise *noise, bint is_initiator, const uint8_t *header,
                     const uint8_t *peer_key) noexcept nogil:
    """The prologue is the network's name behind its length, and the init's header: type, version, connection id."""
    cdef uint8_t prologue[80]
    prologue[0] = k.network_bytes
    memcpy(prologue + 1, k.network, k.network_bytes)
    memcpy(prologue + 1 + k.network_bytes, header, MESSAGE_HEADER_BYTES)
    return noise_init(noise, PATTERN_IK, is_initiator, prologue, 1 + k.network_bytes + MESSAGE_HEADER_BYTES,
                      k.secret, k.public_key, peer_key)


# --- init ---

cdef int write_init(const NodeKeys *k, Noise *noise, uint8_t *out, const uint8_t *peer_key, uint64_t cid,
                    const Parameters *parameters, const uint8_t *ephemeral) noexcept nogil:
    """Write a first message of INIT_BYTES, its macs not yet set. Return 0, or -1 when the peer's key is no good."""
    cdef uint8_t payload[1062]
    cdef uint8_t *at = payload + KEY_BYTES
    cdef Py_ssize_t n = write_parameters(at, INIT_PAYLOAD_BYTES - KEY_BYTES, parameters)
    if n < 0:
        return -1
    memcpy(payload, k.identity, KEY_BYTES)
    at += n
    pad(at, payload + INIT_PAYLOAD_BYTES)
    write_header(out, MESSAGE_INIT, cid)
    if start_noise(k, noise, True, out, peer_key) != 0:
        return -1
    n = noise_write(noise, out + MESSAGE_HEADER_BYTES, payload, INIT_PAYLOAD_BYTES, ephemeral)
    return 0 if n == INIT_BYTES - INIT_MACS_BYTES - MESSAGE_HEADER_BYTES else -1


cdef void pad(uint8_t *at, uint8_t *end) noexcept nogil:
    """Fill with one PADDING parameter; `end - at` is at least 66, so that its length takes two bytes."""
    cdef size_t n = end - at - 3
    at = write_varint(write_varint(at, PARAM_PADDING), n)
    memset(at, 0, n)


cdef void stamp_init(uint8_t *init, const uint8_t *mac1_key, const uint8_t *cookie) noexcept nogil:
    """Set mac1, and mac2 if there is a cookie."""
    blake2b(init + MAC1_AT, MAC_BYTES, init, MAC1_AT, NULL, 0, mac1_key, KEY_BYTES)
    if cookie != NULL:
        blake2b(init + MAC2_AT, MAC_BYTES, init, MAC2_AT, NULL, 0, cookie, MAC_BYTES)
    else:
        memset(init + MAC2_AT, 0, MAC_BYTES)


cdef bint init_has_mac1(const NodeKeys *k, const uint8_t *init, size_t bytes) noexcept nogil:
    """Check mac1, which stands at the same place from the end in every version."""
    cdef uint8_t mac[16]
    blake2b(mac, MAC_BYTES, init, bytes - INIT_MACS_BYTES, NULL, 0, k.mac1_key, KEY_BYTES)
    return equal_secret(mac, init + bytes - INIT_MACS_BYTES, MAC_BYTES)


cdef int read_init(const NodeKeys *k, const uint8_t *init, InitMessage *out) noexcept nogil:
    """Open a first message of INIT_BYTES whose mac1 is right. Return HANDSHAKE_*.

    After HANDSHAKE_PARAMETER `noise` can still write a refusal."""
    cdef uint8_t converted[32]
    cdef Py_ssize_t n
    memset(out, 0, sizeof(InitMessage))
    out.remote_cid = read_u64(init + 2)
    if start_noise(k, &out.noise, False, init, NULL) != 0:
        return HANDSHAKE_OPEN
    n = noise_read(&out.noise, out.payload, init + MESSAGE_HEADER_BYTES, MAC1_AT - MESSAGE_HEADER_BYTES)
    if n < KEY_BYTES:
        return HANDSHAKE_OPEN
    memcpy(out.identity, out.payload, KEY_BYTES)
    if x25519_of_identity(converted, out.identity) != 0 or memcmp(converted, out.noise.remote_static, KEY_BYTES) != 0 \
            or memcmp(out.noise.remote_static, k.public_key, KEY_BYTES) == 0:
        return HANDSHAKE_IDENTITY
    if parse_parameters(out.payload + KEY_BYTES, n - KEY_BYTES, &out.parameters) != PARSE_OK:
        return HANDSHAKE_PARAMETER
    return HANDSHAKE_OK


# --- response ---

cdef Py_ssize_t write_response(const NodeKeys *k, Noise *noise, uint8_t *out, uint64_t remote_cid,
                               const Parameters *parameters, const uint8_t *ephemeral) noexcept nogil:
    """Write the response (room for MAX_RESPONSE_BYTES). Return its bytes or -1."""
    cdef uint8_t payload[512]
    cdef Py_ssize_t n = write_parameters(payload + KEY_BYTES, sizeof(payload) - KEY_BYTES - RESPONSE_OVERHEAD
                                         - MESSAGE_HEADER_BYTES, parameters)
    if n < 0:
        return -1
    memcpy(payload, k.identity, KEY_BYTES)
    write_header(out, MESSAGE_RESPONSE, remote_cid)
    n = noise_write(noise, out + MESSAGE_HEADER_BYTES, payload, n + KEY_BYTES, ephemeral)
    return n + MESSAGE_HEADER_BYTES if n > 0 else -1


cdef int read_response(Noise *noise, const uint8_t *message, size_t bytes, const uint8_t *expected_identity,
                       ResponseMessage *out) noexcept nogil:
    """Open a response. Return HANDSHAKE_*; unless it is HANDSHAKE_OK, `noise` is as it was but for PARAMETER."""
    cdef Py_ssize_t n
    memset(&out.parameters, 0, sizeof(Parameters))
    if bytes < MESSAGE_HEADER_BYTES or bytes > MAX_RESPONSE_BYTES or message[1] != VERSION:
        return HANDSHAKE_OPEN
    n = noise_read(noise, out.payload, message + MESSAGE_HEADER_BYTES, bytes - MESSAGE_HEADER_BYTES)
    if n < KEY_BYTES:
        return HANDSHAKE_OPEN
    # Noise has proved that the peer holds the key that was dialled; A and -A differ here alone
    if memcmp(out.payload, expected_identity, KEY_BYTES) != 0:
        return HANDSHAKE_IDENTITY
    if parse_parameters(out.payload + KEY_BYTES, n - KEY_BYTES, &out.parameters) != PARSE_OK:
        return HANDSHAKE_PARAMETER
    return HANDSHAKE_OK


# --- replies without state ---

cdef bint rotate_cookie_secret(NodeKeys *k, const uint8_t *fresh, uint64_t now_ns) noexcept nogil:
    """Replace the secret when it is due, `fresh` being 32 random bytes. Return whether they were used."""
    if k.cookie_secret_ns and now_ns - k.cookie_secret_ns < COOKIE_SECRET_NS:
        return False
    if k.cookie_secret_ns and now_ns - k.cookie_secret_ns < 2 * <uint64_t>COOKIE_SECRET_NS:
        memcpy(k.last_cookie_secret, k.cookie_secret, KEY_BYTES)
    else:
        memcpy(k.last_cookie_secret, fresh, KEY_BYTES)
    memcpy(k.cookie_secret, fresh, KEY_BYTES)
    k.cookie_secret_ns = now_ns
    return True


cdef void cookie_for(const uint8_t *secret, const Endpoint *source, uint8_t *out) noexcept nogil:
    blake2b(out, MAC_BYTES, <const uint8_t *>source, sizeof(Endpoint), NULL, 0, secret, KEY_BYTES)


cdef bint init_has_mac2(const NodeKeys *k, const uint8_t *init, const Endpoint *source, uint64_t now_ns) noexcept nogil:
    """Tell whether the sender has a cookie of ours for this address, of the present secret or the one before."""
    cdef uint8_t cookie[16]
    cdef uint8_t mac[16]
    cdef bint is_right
    if k.cookie_secret_ns == 0 or now_ns - k.cookie_secret_ns >= 2 * <uint64_t>COOKIE_SECRET_NS:
        return False
    cookie_for(k.cookie_secret, source, cookie)
    blake2b(mac, MAC_BYTES, init, MAC2_AT, NULL, 0, cookie, MAC_BYTES)
    is_right = equal_secret(mac, init + MAC2_AT, MAC_BYTES)
    if not is_right and now_ns - k.cookie_secret_ns < COOKIE_SECRET_NS:
        cookie_for(k.last_cookie_secret, source, cookie)
        blake2b(mac, MAC_BYTES, init, MAC2_AT, NULL, 0, cookie, MAC_BYTES)
        is_right = equal_secret(mac, init + MAC2_AT, MAC_BYTES)
    return is_right


cdef inline void reply_ad(uint8_t *ad, const uint8_t *header, const uint8_t *mac1) noexcept nogil:
    memcpy(ad, header, MESSAGE_HEADER_BYTES)
    memcpy(ad + MESSAGE_HEADER_BYTES, mac1, MAC_BYTES)


cdef Py_ssize_t seal_reply(const NodeKeys *k, uint8_t *out, uint8_t type, const uint8_t *init, size_t init_bytes,
                           const uint8_t *nonce, const uint8_t *text, size_t n) noexcept nogil:
    """Answer an init so that only who saw it can have answered: sealed over its mac1, and over the reply's header."""
    cdef uint8_t ad[26]
    write_header(out, type, read_u64(init + 2))
    reply_ad(ad, out, init + init_bytes - INIT_MACS_BYTES)
    memcpy(out + MESSAGE_HEADER_BYTES, nonce, XNONCE_BYTES)
    if xseal(out + MESSAGE_HEADER_BYTES + XNONCE_BYTES, text, n, ad, sizeof(ad), nonce, k.sealing_key) != 0:
        return -1
    return MESSAGE_HEADER_BYTES + XNONCE_BYTES + <Py_ssize_t>n + NOISE_TAG_BYTES


cdef Py_ssize_t write_cookie_reply(const NodeKeys *k, uint8_t *out, const uint8_t *init, const Endpoint *source,
                                   const uint8_t *nonce) noexcept nogil:
    """Write a reply that makes the sender prove its address before anything is spent on it."""
    cdef uint8_t cookie[16]
    cookie_for(k.cookie_secret, source, cookie)
    return seal_reply(k, out, MESSAGE_COOKIE, init, INIT_BYTES, nonce, cookie, MAC_BYTES)


cdef Py_ssize_t write_versions_reply(const NodeKeys *k, uint8_t *out, const uint8_t *init, size_t init_bytes,
                                     const uint8_t *nonce) noexcept nogil:
    """Write the list of the versions that we speak."""
    cdef uint8_t versions[1]
    versions[0] = VERSION
    return seal_reply(k, out, MESSAGE_VERSIONS, init, init_bytes, nonce, versions, 1)


cdef Py_ssize_t open_reply(uint8_t *out, const uint8_t *message, size_t bytes, const uint8_t *sealing_key,
                           const uint8_t *mac1) noexcept nogil:
    """Open a cookie or versions reply to the init that had `mac1`. Return the bytes written (at most 16), or -1."""
    cdef uint8_t ad[26]
    cdef size_t sealed = bytes - MESSAGE_HEADER_BYTES - XNONCE_BYTES
    if bytes < MESSAGE_HEADER_BYTES + XNONCE_BYTES + NOISE_TAG_BYTES or sealed > MAX_VERSIONS + NOISE_TAG_BYTES:
        return -1
    reply_ad(ad, message, mac1)
    if xopen(out, message + MESSAGE_HEADER_BYTES + XNONCE_BYTES, sealed, ad, sizeof(ad), message + MESSAGE_HEADER_BYTES,
             sealing_key) != 0:
        return -1
    return <Py_ssize_t>sealed - NOISE_TAG_BYTES
