from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.handshake cimport InitMessage, NodeKeys
from interpeer._core.noise cimport Noise
from interpeer._core.slab cimport Datagrams, Endpoint
from interpeer._core.table cimport Table
from interpeer._core.wire cimport Parameters

cdef enum:
    HALF_OPEN_BYTES = 512           # one entry is no larger
    HALF_OPEN_NS = 10000000000      # an init that is not confirmed is forgotten so long after the last response to it,
    SWEEP_NS = 1000000000           # give or take this
    CONFIRM_NS = 300000000          # ... and not pushed out before: most confirmations take no longer
    LOAD_HALF_OPEN = 256            # from here on an init needs a cookie
    GATE_BUCKETS = 1024             # token buckets, by hash of the source's prefix
    GATE_RATE = 20                  # inits a second from one /24 or /64 under load
    GATE_BURST = 40
    SEEN_INITS = 65536              # remembered in a flood, with 4 bytes each
    STORED_RESPONSE_BYTES = 208     # it has 193 with every parameter at its largest

cdef enum:                          # states (docs/spec, chapter 4)
    HALF_FREE = 0
    HALF_ASKING = 1                 # the application is being asked whether it wants the peer
    HALF_ANSWERED = 2               # the response is sent; the initiator's first packet will confirm
    HALF_STATES = 3

cdef enum:                          # inputs
    HALF_IN_INIT = 0
    HALF_IN_ASK = 1
    HALF_IN_ANSWER = 2
    HALF_IN_END = 3                 # refused, confirmed, expired or pushed out

cdef struct HalfOpen:
    uint64_t mac1                   # first bytes of the init's mac1: the same init is answered once
    uint64_t local_cid              # 0 while asking
    uint64_t remote_cid
    Endpoint remote                 # where the response goes, or went; zeros: to several addresses
    uint8_t local[16]
    uint32_t id                     # for the application's answer; never 0
    uint64_t created_ns
    uint64_t answered_ns            # the last time; 0: not yet
    void *glare                     # our own connection that dials the same peer, and takes this session over
    uint8_t was_unasked             # nobody was asked whether the peer may come in, since we were calling it
    uint8_t state
    uint8_t suite
    uint8_t was_repeated            # answered more than once
    uint8_t is_answered_elsewhere   # not all of them to `remote`
    uint16_t protocol
    uint16_t response_bytes
    uint8_t has_reset_token
    uint8_t identity[32]
    uint8_t peer_key[32]
    uint64_t max_data               # the peer's parameters
    uint64_t max_stream_data
    uint32_t max_streams
    uint32_t max_datagram
    uint32_t idle_timeout_ms
    uint32_t max_ack_delay_us
    uint16_t max_udp_payload
    uint8_t max_paths               # more than 255 count as that
    uint32_t receive_buffer
    uint32_t max_channels
    uint32_t max_message
    uint8_t reset_token[16]
    uint8_t material[208]           # ASKING: Noise's chaining key, hash, peer's ephemeral; ANSWERED: the response
    uint8_t send_secret[32]         # ANSWERED
    uint8_t recv_secret[32]

cdef struct Bucket:
    uint64_t prefix                 # hash of the source's prefix
    uint64_t updated_ns
    double tokens

cdef struct Answering:              # the responder's side of an engine
    HalfOpen *entries               # `capacity` of them, allocated at the first init; owned
    uint32_t capacity
    uint32_t shares                 # shards of the node: what it admits under load is shared out
    uint32_t following              # entries are used in turn
    uint32_t count
    uint32_t next_id
    uint64_t sweep_ns               # when the table is next looked through for expired entries
    Table by_mac1
    Table by_cid
    Bucket *buckets                 # owned; allocated under the first load
    uint32_t *seen                  # by hash: a tag of the init that was last left unanswered; owned; allocated in a flood

cdef int half_input(HalfOpen *h, int event) noexcept nogil
cdef void answering_init(Answering *a, uint32_t capacity, uint64_t secret) noexcept nogil
cdef void answering_free(Answering *a) noexcept nogil
cdef bint answering_is_loaded(const Answering *a) noexcept nogil
cdef bint answering_admits(Answering *a, const NodeKeys *k, const Endpoint *source, uint64_t now_ns) noexcept nogil
cdef bint answering_has_seen(Answering *a, const NodeKeys *k, const Endpoint *source, uint64_t mac1) noexcept nogil
cdef HalfOpen *half_open_find_init(const Answering *a, uint64_t mac1) noexcept nogil
cdef HalfOpen *half_open_find_cid(const Answering *a, uint64_t cid) noexcept nogil
cdef HalfOpen *half_open_find_id(Answering *a, uint32_t id) noexcept nogil
cdef HalfOpen *half_open_find_peer(Answering *a, const uint8_t *peer_key, uint16_t protocol) noexcept nogil
cdef HalfOpen *half_open_add(Answering *a, const InitMessage *init, const Datagrams *from_, uint64_t mac1,
                             uint64_t now_ns) noexcept nogil
cdef void half_open_ask(HalfOpen *h, const InitMessage *init) noexcept nogil
cdef void half_open_resume(const HalfOpen *h, const NodeKeys *k, Noise *noise) noexcept nogil
cdef int half_open_answer(Answering *a, HalfOpen *h, const NodeKeys *k, Noise *noise, const Parameters *ours,
                          const uint8_t *ephemeral, uint64_t now_ns) noexcept nogil
cdef void half_open_parameters(const HalfOpen *h, Parameters *out) noexcept nogil
cdef void half_open_remove(Answering *a, HalfOpen *h) noexcept nogil
cdef void answering_expire(Answering *a, uint64_t now_ns) noexcept nogil
cdef uint64_t answering_deadline_ns(const Answering *a) noexcept nogil
cdef bint answering_has_glare(const Answering *a, const void *conn) noexcept nogil
cdef void answering_forget_glare(Answering *a, void *conn) noexcept nogil
