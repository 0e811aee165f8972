from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.slab cimport Datagrams, Endpoint, SendBatch

cdef enum:
    MAX_RAW = 512                   # raw datagrams waiting to be sent: what a birthday spray sends in half a second
    MAX_RAW_BYTES = 1232            # of one: what every IPv6 path carries
    MAX_RAW_EVENTS = 128            # answers waiting for Python; more are dropped, as a full socket would
    MAX_EXPECTED = 256              # transactions, and probe tokens, that answers are expected for
    TXID_BYTES = 12                 # of a STUN transaction (RFC 8489, 5)
    TOKEN_BYTES = 8                 # of a probe (docs/spec, chapter 24)
    PROBE_BYTES = 64                # of a probe, and of its answer: exactly, so that neither pays for more than it costs
    PROBE_TOKEN_AT = 2

cdef enum:                          # results
    RAW_OK = 0
    RAW_FULL = 1                    # the ring, the table or the queue is
    RAW_UNEXPECTED = 2              # nobody waits for it
    RAW_NO_MEMORY = -1

cdef struct RawDatagram:            # one that no connection is behind
    Endpoint remote
    uint8_t local[16]               # as in Datagrams
    uint16_t bytes
    uint8_t ttl                     # 0: the system's
    uint8_t data[1232]

cdef struct Expected:               # answers that somebody waits for; few enough to be looked through
    uint64_t heads[256]             # first 8 bytes of each token
    uint32_t tails[256]             # ... and the last 4 of a transaction's
    uint32_t count

cdef struct RawEvents:
    uint32_t count
    RawDatagram entries[128]

cdef struct Raw:                    # made when it is first used: most nodes never need it
    RawDatagram *ring               # MAX_RAW, on their way out; made with the first; owned
    uint32_t first
    uint32_t count
    Expected transactions
    Expected tokens
    RawEvents *events               # that Python has not taken; owned. NULL: there are none
    RawEvents *spare                # used before, to be used again; owned

cdef Raw *raw_new() noexcept nogil
cdef void raw_free(Raw *raw) noexcept nogil
cdef int raw_push(Raw *raw, const Endpoint *remote, const uint8_t *local, const uint8_t *data, uint32_t bytes,
                  uint8_t ttl) noexcept nogil
cdef bint raw_transmit(Raw *raw, SendBatch *batch) noexcept nogil
cdef int raw_expect(Raw *raw, const uint8_t *token, uint32_t bytes) noexcept nogil
cdef void raw_unexpect(Raw *raw, const uint8_t *token, uint32_t bytes) noexcept nogil
cdef int raw_offer(Raw *raw, const uint8_t *token, uint32_t token_bytes, const uint8_t *p, uint32_t n,
                   const Datagrams *from_) noexcept nogil
cdef RawEvents *raw_take_events(Raw *raw) noexcept nogil
cdef void raw_give_back(Raw *raw, RawEvents *events) noexcept nogil
