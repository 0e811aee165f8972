"""Raw datagrams: what a node sends and hears beside its connections, to learn of NATs and to open them (docs/spec, 22-24).

Python hands over whole datagrams, each perhaps with a time to live of its own, and says beforehand which answers it
waits for: by a STUN transaction, or by the token in a probe. Whatever else comes is dropped without its ever reaching
Python, so that strangers cost no more than a comparison. Nothing here grows: a full ring tells the sender, a full
queue drops what comes, as a socket would.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from interpeer._core.slab cimport SEND_BATCH_BYTES, SEND_ENTRIES, Datagrams, Endpoint, SendBatch
from interpeer._core.wire cimport read_u64


cdef Raw *raw_new() noexcept nogil:
    """Return what has neither sent nor expects anything; NULL without memory."""
    return <Raw *>calloc(1, sizeof(Raw))


cdef void raw_free(Raw *raw) noexcept nogil:
    if raw == NULL:
        return
    free(raw.ring)
    free(raw.events)
    free(raw.spare)
    free(raw)


# --- out ---

cdef int raw_push(Raw *raw, const Endpoint *remote, const uint8_t *local, const uint8_t *data, uint32_t bytes,
                  uint8_t ttl) noexcept nogil:
    """Queue a datagram of at most MAX_RAW_BYTES. Return RAW_OK, RAW_FULL or RAW_NO_MEMORY."""
    cdef RawDatagram *entry
    if raw.count == MAX_RAW:
        return RAW_FULL
    if raw.ring == NULL:
        raw.ring = <RawDatagram *>malloc(MAX_RAW * sizeof(RawDatagram))
        if raw.ring == NULL:
            return RAW_NO_MEMORY
    entry = &raw.ring[(raw.first + raw.count) % MAX_RAW]
    entry.remote = remote[0]
    memcpy(entry.local, local, sizeof(entry.local))
    entry.bytes = <unsigned short>bytes
    entry.ttl = ttl
    memcpy(entry.data, data, bytes)
    raw.count += 1
    return RAW_OK


cdef bint raw_transmit(Raw *raw, SendBatch *batch) noexcept nogil:
    """Move what waits into the batch, each a message of its own. Return whether there is more than fits."""
    cdef RawDatagram *entry
    cdef Datagrams *d
    while raw.count:
        entry = &raw.ring[raw.first]
        if batch.count == SEND_ENTRIES or batch.used + entry.bytes > SEND_BATCH_BYTES:
            return True
        d = &batch.entries[batch.count]
        memset(d, 0, sizeof(Datagrams))
        d.data = batch.buffer + batch.used
        d.bytes = entry.bytes
        d.segment = entry.bytes
        d.remote = entry.remote
        memcpy(d.local, entry.local, sizeof(d.local))
        d.ttl = entry.ttl
        memcpy(d.data, entry.data, entry.bytes)
        batch.used += entry.bytes
        batch.count += 1
        batch.run = 0
        raw.first = (raw.first + 1) % MAX_RAW
        raw.count -= 1
    return False


# --- in ---

cdef inline Expected *kind_of(Raw *raw, uint32_t bytes) noexcept nogil:
    return &raw.transactions if bytes == TXID_BYTES else &raw.tokens


cdef inline uint32_t tail_of(const uint8_t *token, uint32_t bytes) noexcept nogil:
    cdef uint32_t tail = 0
    if bytes == TXID_BYTES:
        memcpy(&tail, token + 8, sizeof(tail))
    return tail


cdef uint32_t place_of(const Expected *e, uint64_t head, uint32_t tail) noexcept nogil:
    """Return where a token stands; `count`: it does not."""
    cdef uint32_t i
    for i in range(e.count):
        if e.heads[i] == head and e.tails[i] == tail:
            return i
    return e.count


cdef int raw_expect(Raw *raw, const uint8_t *token, uint32_t bytes) noexcept nogil:
    """Wait for answers with a token, of TXID_BYTES or TOKEN_BYTES, until `raw_unexpect`. Return RAW_OK or RAW_FULL."""
    cdef Expected *e = kind_of(raw, bytes)
    cdef uint32_t tail = tail_of(token, bytes)
    if place_of(e, read_u64(token), tail) < e.count:
        return RAW_OK
    if e.count == MAX_EXPECTED:
        return RAW_FULL
    e.heads[e.count] = read_u64(token)
    e.tails[e.count] = tail
    e.count += 1
    return RAW_OK


cdef void raw_unexpect(Raw *raw, const uint8_t *token, uint32_t bytes) noexcept nogil:
    """Wait no more; harmless where nobody waits."""
    cdef Expected *e = kind_of(raw, bytes)
    cdef uint32_t at = place_of(e, read_u64(token), tail_of(token, bytes))
    if at < e.count:
        e.count -= 1
        e.heads[at] = e.heads[e.count]
        e.tails[at] = e.tails[e.count]


cdef int raw_offer(Raw *raw, const uint8_t *token, uint32_t token_bytes, const uint8_t *p, uint32_t n,
                   const Datagrams *from_) noexcept nogil:
    """Take a datagram with this token, if somebody waits for it. Return RAW_OK, or why it is dropped. NULL: nobody ever did."""
    cdef RawDatagram *entry
    cdef Expected *e
    if raw == NULL or n > MAX_RAW_BYTES:
        return RAW_UNEXPECTED
    e = kind_of(raw, token_bytes)
    if place_of(e, read_u64(token), tail_of(token, token_bytes)) == e.count:
        return RAW_UNEXPECTED
    if raw.events == NULL:
        raw.events = raw.spare if raw.spare != NULL else <RawEvents *>malloc(sizeof(RawEvents))
        raw.spare = NULL
        if raw.events == NULL:
            return RAW_NO_MEMORY
        raw.events.count = 0
    if raw.events.count == MAX_RAW_EVENTS:
        return RAW_FULL
    entry = &raw.events.entries[raw.events.count]
    raw.events.count += 1
    entry.remote = from_.remote
    memcpy(entry.local, from_.local, sizeof(entry.local))
    entry.bytes = <unsigned short>n
    entry.ttl = 0
    memcpy(entry.data, p, n)
    return RAW_OK


cdef RawEvents *raw_take_events(Raw *raw) noexcept nogil:
    """Return what has come, which the caller reads without the lock and then gives back; NULL: nothing has."""
    cdef RawEvents *events = raw.events if raw != NULL else NULL
    if events != NULL:
        raw.events = NULL
    return events


cdef void raw_give_back(Raw *raw, RawEvents *events) noexcept nogil:
    """Keep one for the next time."""
    free(raw.spare)
    raw.spare = events
