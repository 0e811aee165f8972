"""What a node has seen, for whoever looks for a fault: packets, their frames, losses, windows, keys' epochs, states.

Off unless asked for: then `Context.trace` is NULL, and a packet pays one branch that is never taken. Switched on, each
fact becomes a record of equal size in a buffer that Python empties now and then; when it is full, facts are left out and
counted. A record has numbers alone: no payload, no secret. Secrets stand apart, are kept only for a key log, and are
wiped once they are taken.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from interpeer._core.crypto cimport KEY_BYTES, MASK_KEY_BYTES, wipe
from interpeer._core.wire cimport (
    FRAME_ACK, FRAME_ACK_ECN, FRAME_CHANNEL, FRAME_MESSAGES, FRAME_STREAM, PARSE_OK, STREAM_LEN, Capabilities, Frame, Reader,
    ack_next, parse_frame)

cdef enum:
    RANGES_A_RECORD = 6             # half of TRACE_VALUES


cdef Trace *trace_new(bint with_records, bint with_keys) noexcept nogil:
    """Return an empty trace, or NULL without memory."""
    cdef Trace *t = <Trace *>calloc(1, sizeof(Trace))
    if t == NULL:
        return NULL
    if with_records:
        t.records = <TraceRecord *>malloc(TRACE_RECORDS * sizeof(TraceRecord))
    if with_keys:
        t.keys = <TraceKey *>calloc(TRACE_KEYS, sizeof(TraceKey))
    if (with_records and t.records == NULL) or (with_keys and t.keys == NULL):
        trace_free(t)
        return NULL
    return t


cdef void trace_free(Trace *t) noexcept nogil:
    if t == NULL:
        return
    if t.keys != NULL:
        wipe(t.keys, TRACE_KEYS * sizeof(TraceKey))
    free(t.keys)
    free(t.records)
    free(t)


cdef bint trace_is_ripe(const Trace *t) noexcept nogil:
    """Tell whether Python should take what there is: a key at once, so that a capture can be read while it grows."""
    return t.count >= TRACE_RIPE or t.key_count


cdef TraceRecord *trace_add(Trace *t, uint32_t connection, uint32_t path, uint64_t kind) noexcept nogil:
    """Return a new record whose values are zero; NULL when there is no room, or nobody wants it."""
    cdef TraceRecord *r
    if t.records == NULL:
        return NULL
    if t.count == TRACE_RECORDS:
        t.overflowed += 1
        return NULL
    r = &t.records[t.count]
    t.count += 1
    memset(r, 0, sizeof(TraceRecord))
    r.time_ns = t.now_ns
    r.connection = connection
    r.path = path
    r.kind = kind
    return r


cdef void trace_event(Trace *t, uint32_t connection, uint32_t path, uint64_t kind, uint64_t a, uint64_t b, uint64_t c,
                      uint64_t d, uint64_t e, uint64_t f) noexcept nogil:
    """Note a fact of up to six numbers."""
    cdef TraceRecord *r = trace_add(t, connection, path, kind)
    if r != NULL:
        r.values[0] = a
        r.values[1] = b
        r.values[2] = c
        r.values[3] = d
        r.values[4] = e
        r.values[5] = f


cdef void trace_packet(Trace *t, uint32_t connection, uint32_t path, uint64_t kind, uint64_t number, uint64_t bytes,
                       uint64_t epoch, uint8_t mark, const uint8_t *payload, size_t n, size_t tail_bytes) noexcept nogil:
    """Note a packet and what the frames of its payload say; all of it or nothing.

    `tail_bytes` more of its last frame's data stand elsewhere: a STREAM or MESSAGES frame without a length has them, too."""
    cdef uint32_t start = t.count
    cdef uint64_t overflowed = t.overflowed
    cdef uint32_t frames = 0
    cdef Reader r
    cdef Frame f
    cdef TraceRecord *packet = trace_add(t, connection, path, kind)
    if packet == NULL:
        return
    packet.values[0] = number
    packet.values[1] = bytes
    packet.values[2] = epoch
    packet.values[5] = mark
    r.p = payload
    r.end = payload + n
    while True:
        memset(&f, 0, sizeof(Frame))
        if parse_frame(&r, &f) != PARSE_OK:
            break
        if frames == TRACE_FRAMES:
            packet.values[4] = 1
            break
        frames += 1
        if tail_bytes and r.p == r.end and has_data_to_the_end(f.type):
            f.bytes += tail_bytes
        add_frame(t, packet, &f)
    packet.values[3] = t.count - start - 1
    if t.overflowed > overflowed:       # a packet of which a part is missing would tell something that is not so
        t.count = start
        t.overflowed = overflowed + 1


cdef inline bint has_data_to_the_end(uint64_t type) noexcept nogil:
    return (type & ~<uint64_t>7 == FRAME_STREAM or type & ~<uint64_t>3 == FRAME_MESSAGES) and not type & STREAM_LEN


cdef void add_frame(Trace *t, const TraceRecord *packet, Frame *f) noexcept nogil:
    """Note every number that the parser found: what they are called depends on the type, and is the reader's business."""
    cdef TraceRecord *r = trace_add(t, packet.connection, packet.path, TRACE_FRAME)
    cdef uint64_t low, high
    cdef int i = RANGES_A_RECORD
    if r == NULL:
        return
    r.values[0] = f.type
    r.values[1] = f.id
    r.values[2] = f.value
    r.values[3] = f.offset
    r.values[4] = f.bytes
    r.values[5] = f.path
    r.values[6] = f.delay_us
    r.values[7] = f.ranges
    r.values[8] = f.fin
    r.values[9] = f.within
    r.values[10] = f.count
    if f.type == FRAME_CHANNEL:
        add_capabilities(r, &f.capabilities)
    if f.type != FRAME_ACK and f.type != FRAME_ACK_ECN:
        return
    while ack_next(f, &low, &high) == PARSE_OK:
        if i == RANGES_A_RECORD:
            r = trace_add(t, packet.connection, packet.path, TRACE_RANGES)
            if r == NULL:
                return
            for i in range(RANGES_A_RECORD):
                r.values[2 * i] = 1
            i = 0
        r.values[2 * i] = low
        r.values[2 * i + 1] = high
        i += 1
    if f.type == FRAME_ACK_ECN:
        trace_event(t, packet.connection, packet.path, TRACE_ECN, f.ecn[0], f.ecn[1], f.ecn[2], 0, 0, 0)


cdef inline void add_capabilities(TraceRecord *r, const Capabilities *capabilities) noexcept nogil:
    """Note what a channel can do, in place of numbers that a CHANNEL frame has not."""
    r.values[3] = capabilities.flags
    r.values[4] = capabilities.priority
    r.values[5] = capabilities.deadline_us
    r.values[6] = capabilities.fec_data
    r.values[7] = capabilities.fec_repair


cdef void trace_key(Trace *t, uint64_t cid, uint64_t other_cid, uint64_t suite, uint64_t epoch, const uint8_t *secret,
                    const uint8_t *mask_key) noexcept nogil:
    """Keep a secret for the key log, if there is one."""
    cdef TraceKey *k
    if t.keys == NULL:
        return
    if t.key_count == TRACE_KEYS:
        t.keys_overflowed += 1
        return
    k = &t.keys[t.key_count]
    t.key_count += 1
    k.cid = cid
    k.other_cid = other_cid
    k.suite = suite
    k.epoch = epoch
    memcpy(k.secret, secret, KEY_BYTES)
    memcpy(k.mask_key, mask_key, MASK_KEY_BYTES)
