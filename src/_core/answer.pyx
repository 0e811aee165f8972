"""The responder's side of the handshake: what is kept between an init and the packet that confirms it.

IK's first message can be replayed, and can be forged by whoever has stolen the responder's key, so it opens nothing: an
entry of HALF_OPEN_BYTES waits for the initiator's first packet, in a table that never grows. Under load an init needs
a cookie, then a token from its prefix's bucket, before any Diffie-Hellman (docs/spec, chapter 4).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.crypto cimport HASH_BYTES, KEY_BYTES, header_mask, wipe
from interpeer._core.handshake cimport InitMessage, NodeKeys, write_response
from interpeer._core.noise cimport PATTERN_IK, Noise, noise_split
from interpeer._core.slab cimport Datagrams, Endpoint, endpoint_is_ipv4
from interpeer._core.table cimport table_find, table_free, table_init, table_put, table_remove
from interpeer._core.wire cimport Parameters

cdef enum:
    NOT_ALLOWED = 0xFF
    UINT32_LARGEST = 0xFFFFFFFF

# [state][input] -> next state
cdef uint8_t[3][4] TABLE = [
    # INIT            ASK           ANSWER         END
    [HALF_FREE,      HALF_ASKING,  HALF_ANSWERED, NOT_ALLOWED],        # FREE
    [HALF_ASKING,    NOT_ALLOWED,  HALF_ANSWERED, HALF_FREE],          # ASKING: a repeated init is ignored
    [HALF_ANSWERED,  NOT_ALLOWED,  NOT_ALLOWED,   HALF_FREE],          # ANSWERED: a repeated init is answered again
]

assert sizeof(HalfOpen) <= HALF_OPEN_BYTES


cdef int half_input(HalfOpen *h, int event) noexcept nogil:
    cdef uint8_t to = TABLE[h.state][event]
    if to == NOT_ALLOWED:
        return -1
    h.state = to
    return 0


cdef void answering_init(Answering *a, uint32_t capacity, uint64_t secret) noexcept nogil:
    memset(a, 0, sizeof(Answering))
    a.capacity = capacity
    a.shares = 1
    table_init(&a.by_mac1, secret)
    table_init(&a.by_cid, 0)


cdef void answering_free(Answering *a) noexcept nogil:
    if a.entries != NULL:
        wipe(a.entries, a.capacity * sizeof(HalfOpen))
    free(a.entries)
    free(a.buckets)
    free(a.seen)
    table_free(&a.by_mac1)
    table_free(&a.by_cid)
    answering_init(a, a.capacity, 0)


# --- load ---

cdef bint answering_is_loaded(const Answering *a) noexcept nogil:
    """Tell whether so many inits wait for confirmation that strangers must show a cookie first."""
    return a.count >= LOAD_HALF_OPEN // a.shares or a.count >= (a.capacity + 1) // 2


cdef bint answering_admits(Answering *a, const NodeKeys *k, const Endpoint *source, uint64_t now_ns) noexcept nogil:
    """Take a token from the bucket of the source's prefix: /24, or /64 for IPv6."""
    cdef uint8_t prefix[16]
    cdef uint64_t hash
    cdef Bucket *b
    cdef double most = <double>GATE_BURST / a.shares
    memset(prefix, 0, sizeof(prefix))
    memcpy(prefix, source.address, 15 if endpoint_is_ipv4(source) else 8)
    hash = header_mask(k.cookie_secret, prefix) | 1
    if a.buckets == NULL:
        a.buckets = <Bucket *>calloc(GATE_BUCKETS, sizeof(Bucket))
        if a.buckets == NULL:
            return False
    b = &a.buckets[(hash >> 1) % GATE_BUCKETS]
    if b.prefix != hash:
        # another prefix had it, which is then forgotten: as likely to help an attacker as to hurt it
        b.prefix = hash
        b.tokens = most
    else:
        b.tokens += <double>(now_ns - b.updated_ns) * GATE_RATE / a.shares / 1e9
        if b.tokens > most:
            b.tokens = most
    b.updated_ns = now_ns
    if b.tokens < 1:
        return False
    b.tokens -= 1
    return True


cdef bint answering_has_seen(Answering *a, const NodeKeys *k, const Endpoint *source, uint64_t mac1) noexcept nogil:
    """Tell whether this init has come from this address before, and remember it; later ones push it out in the end."""
    cdef uint64_t sample[2]
    cdef uint64_t hash
    cdef uint32_t tag
    cdef bint has_seen
    if a.seen == NULL:
        a.seen = <uint32_t *>calloc(SEEN_INITS, sizeof(uint32_t))
        if a.seen == NULL:
            return False
    memcpy(sample, source.address, sizeof(sample))
    sample[0] ^= mac1
    sample[1] ^= source.port        # where an IPv4 address has zeros
    hash = header_mask(k.cookie_secret, <const uint8_t *>sample)
    tag = <uint32_t>(hash >> 32) | 1
    has_seen = a.seen[hash % SEEN_INITS] == tag
    a.seen[hash % SEEN_INITS] = tag
    return has_seen


# --- the table ---

cdef HalfOpen *half_open_find_init(const Answering *a, uint64_t mac1) noexcept nogil:
    return <HalfOpen *>table_find(&a.by_mac1, mac1 | 1)


cdef HalfOpen *half_open_find_cid(const Answering *a, uint64_t cid) noexcept nogil:
    return <HalfOpen *>table_find(&a.by_cid, cid)


cdef HalfOpen *half_open_find_id(Answering *a, uint32_t id) noexcept nogil:
    cdef uint32_t i
    for i in range(a.capacity if a.count else 0):
        if a.entries[i].state != HALF_FREE and a.entries[i].id == id:
            return &a.entries[i]
    return NULL


cdef HalfOpen *half_open_find_peer(Answering *a, const uint8_t *peer_key, uint16_t protocol) noexcept nogil:
    """Find an answered init of a peer for a protocol that no connection of ours has a claim on."""
    cdef uint32_t i
    cdef HalfOpen *h
    for i in range(a.capacity if a.count else 0):
        h = &a.entries[i]
        if h.state == HALF_ANSWERED and h.glare == NULL and h.protocol == protocol \
                and memcmp(h.peer_key, peer_key, KEY_BYTES) == 0:
            return h
    return NULL


cdef HalfOpen *find_place(Answering *a, uint64_t now_ns) noexcept nogil:
    """Find an entry for another init; NULL: all are used, and each by somebody who may be about to confirm."""
    cdef HalfOpen *h
    cdef HalfOpen *oldest = NULL
    cdef uint32_t _
    for _ in range(a.capacity):
        h = &a.entries[a.following]
        a.following = (a.following + 1) % a.capacity
        if h.id == 0:
            return h
        if oldest == NULL or h.id < oldest.id:
            oldest = h
    return oldest if now_ns - oldest.created_ns >= CONFIRM_NS else NULL


cdef HalfOpen *half_open_add(Answering *a, const InitMessage *init, const Datagrams *from_, uint64_t mac1,
                             uint64_t now_ns) noexcept nogil:
    """Take a free entry, or the oldest, which is pushed out, if it has had its time; NULL without either, or without memory."""
    cdef HalfOpen *h
    cdef const Parameters *p = &init.parameters
    if a.entries == NULL:
        a.entries = <HalfOpen *>calloc(a.capacity, sizeof(HalfOpen))
        if a.entries == NULL:
            return NULL
    h = find_place(a, now_ns)
    if h == NULL:
        return NULL
    half_open_remove(a, h)
    if table_put(&a.by_mac1, mac1 | 1, h) != 0:
        return NULL
    if a.count == 0:
        a.sweep_ns = now_ns + SWEEP_NS
    a.count += 1
    a.next_id += 1
    if a.next_id == 0:
        a.next_id = 1
    h.id = a.next_id
    h.mac1 = mac1
    h.remote_cid = init.remote_cid
    h.remote = from_.remote
    memcpy(h.local, from_.local, sizeof(h.local))
    h.created_ns = now_ns
    memcpy(h.identity, init.identity, KEY_BYTES)
    memcpy(h.peer_key, init.noise.remote_static, KEY_BYTES)
    h.max_data = p.max_data
    h.max_stream_data = p.max_stream_data
    h.max_streams = fit(p.max_streams)
    h.max_datagram = fit(p.max_datagram)
    h.idle_timeout_ms = fit(p.idle_timeout_ms)
    h.max_ack_delay_us = fit(p.max_ack_delay_us)
    h.max_udp_payload = <uint16_t>(p.max_udp_payload if p.max_udp_payload <= 0xFFFF else 0xFFFF)
    h.receive_buffer = fit(p.receive_buffer)
    h.max_paths = <uint8_t>(p.max_paths if p.max_paths < 255 else 255)
    h.max_channels = fit(p.max_channels)
    h.max_message = fit(p.max_message)
    h.has_reset_token = p.has_reset_token
    memcpy(h.reset_token, p.reset_token, sizeof(h.reset_token))
    return h


cdef inline uint32_t fit(uint64_t value) noexcept nogil:
    return <uint32_t>value if value < UINT32_LARGEST else <uint32_t>UINT32_LARGEST


cdef void half_open_parameters(const HalfOpen *h, Parameters *out) noexcept nogil:
    """Give the peer's parameters back."""
    memset(out, 0, sizeof(Parameters))
    out.max_data = h.max_data
    out.max_stream_data = h.max_stream_data
    out.max_streams = h.max_streams
    out.max_datagram = h.max_datagram
    out.idle_timeout_ms = h.idle_timeout_ms
    out.max_ack_delay_us = h.max_ack_delay_us
    out.max_udp_payload = h.max_udp_payload
    out.receive_buffer = h.receive_buffer
    out.max_paths = h.max_paths
    out.max_channels = h.max_channels
    out.max_message = h.max_message
    out.has_reset_token = h.has_reset_token
    memcpy(out.reset_token, h.reset_token, sizeof(out.reset_token))


cdef void half_open_ask(HalfOpen *h, const InitMessage *init) noexcept nogil:
    """Keep what is needed to answer later: the application decides whether there is an answer."""
    memcpy(h.material, init.noise.symmetric.chaining_key, HASH_BYTES)
    memcpy(h.material + HASH_BYTES, init.noise.symmetric.hash, HASH_BYTES)
    memcpy(h.material + 2 * HASH_BYTES, init.noise.remote_ephemeral, KEY_BYTES)
    half_input(h, HALF_IN_ASK)


cdef void half_open_resume(const HalfOpen *h, const NodeKeys *k, Noise *noise) noexcept nogil:
    """Make Noise's state again as it was after the init."""
    memset(noise, 0, sizeof(Noise))
    noise.pattern = PATTERN_IK
    noise.message = 1
    noise.static_secret = &k.secret[0]
    noise.static_public = &k.public_key[0]
    memcpy(noise.symmetric.chaining_key, h.material, HASH_BYTES)
    memcpy(noise.symmetric.hash, h.material + HASH_BYTES, HASH_BYTES)
    memcpy(noise.remote_ephemeral, h.material + 2 * HASH_BYTES, KEY_BYTES)
    memcpy(noise.remote_static, h.peer_key, KEY_BYTES)


cdef int half_open_answer(Answering *a, HalfOpen *h, const NodeKeys *k, Noise *noise, const Parameters *ours,
                          const uint8_t *ephemeral, uint64_t now_ns) noexcept nogil:
    """Write the response into `material` and derive the secrets. Return 0, or -1 and the entry is to be removed."""
    cdef uint8_t response[512]
    cdef Py_ssize_t n = write_response(k, noise, response, h.remote_cid, ours, ephemeral)
    if n < 0 or n > STORED_RESPONSE_BYTES or noise_split(noise, h.send_secret, h.recv_secret) != 0:
        return -1
    if table_put(&a.by_cid, ours.connection_id, h) != 0:
        return -1
    h.local_cid = ours.connection_id
    h.suite = ours.suites[0]
    memcpy(h.material, response, n)
    h.response_bytes = <uint16_t>n
    h.answered_ns = now_ns
    return half_input(h, HALF_IN_ANSWER)


cdef void half_open_remove(Answering *a, HalfOpen *h) noexcept nogil:
    """Wipe and free an entry; harmless on a free one."""
    if h.state == HALF_FREE and h.id == 0:
        return
    half_input(h, HALF_IN_END)
    table_remove(&a.by_mac1, h.mac1 | 1)
    if h.local_cid:
        table_remove(&a.by_cid, h.local_cid)
    wipe(h, sizeof(HalfOpen))
    a.count -= 1


cdef void answering_expire(Answering *a, uint64_t now_ns) noexcept nogil:
    """Forget what was not confirmed in time: an initiator that has had the last response by now would have said so."""
    cdef uint32_t i
    cdef uint64_t since_ns
    if now_ns < a.sweep_ns:
        return
    a.sweep_ns = now_ns + SWEEP_NS
    for i in range(a.capacity if a.count else 0):
        since_ns = a.entries[i].answered_ns if a.entries[i].answered_ns else a.entries[i].created_ns
        if a.entries[i].id and now_ns - since_ns >= HALF_OPEN_NS:
            half_open_remove(a, &a.entries[i])


cdef uint64_t answering_deadline_ns(const Answering *a) noexcept nogil:
    """Return when answering_expire is due; 0 when the table is empty."""
    return a.sweep_ns if a.count else 0


cdef bint answering_has_glare(const Answering *a, const void *conn) noexcept nogil:
    """Tell whether a session waits for confirmation that our own connection would take over."""
    cdef uint32_t i
    for i in range(a.capacity if a.count else 0):
        if a.entries[i].glare == conn:
            return True
    return False


cdef void answering_forget_glare(Answering *a, void *conn) noexcept nogil:
    """Our own connection is no more: sessions that it would have taken over are the peer's alone."""
    cdef uint32_t i
    for i in range(a.capacity if a.count else 0):
        if a.entries[i].glare == conn:
            a.entries[i].glare = NULL
