"""What of a connection goes into its node's trace. The hooks elsewhere are one line each; what they mean is here.

A connection gets its number in the trace with its first packet that is authentic, either way: nobody makes us open a
file with packets that are not.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.loss cimport PACKET_THRESHOLD, SENT_MTU_PROBE, SentPacket, recovery_oldest
from interpeer._core.pacing cimport pacing_rate
from interpeer._core.trace cimport (
    PHASE_AVOIDANCE, PHASE_RECOVERY, PHASE_SLOW_START, TRACE_DROPPED, TRACE_KEY, TRACE_LOST, TRACE_METRICS,
    TRACE_RECEIVED, TRACE_SENT, TRACE_STARTED, Trace, TraceRecord, trace_add, trace_event, trace_key, trace_packet)
from interpeer._core.wire cimport COUNTER_BITS, EPOCH_MASK, HEADER_BYTES, read_u64

cdef void begin(Conn *c, const Path *p) noexcept nogil:
    """Number a connection, and note between whom it is."""
    cdef Trace *t = c.context.trace
    cdef TraceRecord *r
    if c.trace_id or t.records == NULL:
        return
    t.connections += 1
    c.trace_id = t.connections
    r = trace_add(t, c.trace_id, p.id, TRACE_STARTED)
    if r != NULL:
        r.values[0] = c.first_cid.cid
        r.values[1] = p.remote_cid
        r.values[2] = c.suite
        r.values[3] = c.is_initiator
        r.values[4] = read_u64(p.remote.address)
        r.values[5] = read_u64(p.remote.address + 8)
        r.values[6] = p.remote.port
        r.values[7] = read_u64(p.local)
        r.values[8] = read_u64(p.local + 8)


cdef void tracing_sent(Conn *c, const Path *p, uint64_t number, uint16_t flags, const uint8_t *payload, size_t n,
                       size_t tail_bytes) noexcept nogil:
    """Note a packet that is about to be sealed; `tail_bytes` of its last frame are elsewhere."""
    begin(c, p)
    trace_packet(c.context.trace, c.trace_id, p.id, TRACE_SENT, number, HEADER_BYTES + n + tail_bytes + c.send.aead.tag_bytes,
                 c.send.epoch, flags & SENT_MTU_PROBE != 0, payload, n, tail_bytes)


cdef void tracing_received(Conn *c, const Path *p, uint64_t number, const uint8_t *packet, size_t bytes, size_t n,
                           uint8_t ecn) noexcept nogil:
    """Note a packet that has been opened where it is: `bytes` of it in all, `n` of them payload."""
    cdef uint64_t phase = (read_u64(packet + 8) >> COUNTER_BITS) - c.recv.epoch & EPOCH_MASK
    cdef uint64_t epoch = c.recv.epoch + phase if phase <= 1 else c.recv.epoch - 1
    begin(c, p)
    trace_packet(c.context.trace, c.trace_id, p.id, TRACE_RECEIVED, number, bytes, epoch, ecn, packet + HEADER_BYTES, n, 0)


cdef void tracing_dropped(Conn *c, uint32_t path, Py_ssize_t why, size_t bytes) noexcept nogil:
    if c.trace_id:
        trace_event(c.context.trace, c.trace_id, path, TRACE_DROPPED, <uint64_t>(-why), bytes, 0, 0, 0, 0)


cdef void tracing_lost(Conn *c, const Path *p, uint64_t number, const SentPacket *packet) noexcept nogil:
    """Note a loss, while packets count as lost because of what the peer says and not because the connection ends."""
    cdef bint is_by_time = number + PACKET_THRESHOLD >= p.recovery.largest_acked
    trace_event(c.context.trace, c.trace_id, p.id, TRACE_LOST, number, packet.bytes, is_by_time,
                packet.flags & SENT_MTU_PROBE != 0, 0, 0)


cdef void tracing_metrics(Conn *c, const Path *p) noexcept nogil:
    """Note how the path does."""
    cdef TraceRecord *r = trace_add(c.context.trace, c.trace_id, p.id, TRACE_METRICS)
    cdef uint64_t number = 0
    cdef const SentPacket *oldest = recovery_oldest(&p.recovery, &number)
    cdef uint64_t phase = PHASE_SLOW_START if p.cc.window < p.cc.threshold else PHASE_AVOIDANCE
    if r == NULL:
        return
    if oldest != NULL and oldest.sent_ns <= p.cc.recovery_start_ns:
        phase = PHASE_RECOVERY          # what was on its way at the last congestion event is not settled yet
    r.values[0] = p.cc.window
    r.values[1] = p.recovery.bytes_in_flight
    r.values[2] = p.recovery.rtt.smoothed_ns
    r.values[3] = p.recovery.rtt.min_ns
    r.values[4] = p.recovery.rtt.latest_ns
    r.values[5] = p.recovery.rtt.variance_ns
    r.values[6] = <uint64_t>pacing_rate(&p.cc, p.recovery.rtt.smoothed_ns)
    r.values[7] = p.recovery.pto_count
    r.values[8] = p.packet_bytes
    r.values[9] = p.ecn_state | phase << 8


cdef void tracing_key_update(Conn *c, bint is_ours, uint64_t epoch) noexcept nogil:
    trace_event(c.context.trace, c.trace_id, 0, TRACE_KEY, is_ours, epoch, 0, 0, 0, 0)


cdef void tracing_secrets(Conn *c, const uint8_t *send_secret, const uint8_t *recv_secret) noexcept nogil:
    """Keep the handshake's secrets for the key log."""
    trace_key(c.context.trace, c.path.remote_cid, c.first_cid.cid, c.suite, 0, send_secret, c.send.mask_key)
    trace_key(c.context.trace, c.first_cid.cid, c.path.remote_cid, c.suite, 0, recv_secret, c.recv.mask_key)


cdef void tracing_send_secret(Conn *c) noexcept nogil:
    """Keep the secret in use: it has more in it than the one before."""
    trace_key(c.context.trace, c.path.remote_cid, c.first_cid.cid, c.suite, c.send.epoch, c.send.secret, c.send.mask_key)


cdef void tracing_recv_secret(Conn *c) noexcept nogil:
    """Keep the secret of the peer's epoch to come: it may have more in it than the one before."""
    trace_key(c.context.trace, c.first_cid.cid, c.path.remote_cid, c.suite, c.recv.epoch + 1, c.recv.secret, c.recv.mask_key)
