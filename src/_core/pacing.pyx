"""Pacing (RFC 9002, 7.7): a bucket of bytes that fills at the rate of the controller, and is emptied by what is sent.

Packets are released by quanta: as many as the rate gives in half a millisecond, which makes them worth one message for the
kernel and one timer. What a sender that was kept from its work may send at once is bounded, too.
"""

from libc.stdint cimport uint64_t

from interpeer._core.controller cimport Congestion

cdef double SECOND = 1e9


cdef double pacing_rate(const Congestion *c, uint64_t smoothed_rtt_ns) noexcept nogil:
    """Return bytes a second: the controller's own rate, or a little above window / round trip; 0: not known yet."""
    if c.pacing_rate:
        return c.pacing_rate
    if smoothed_rtt_ns == 0:
        return 0
    return (2.0 if c.window < c.threshold else 1.25) * c.window * SECOND / smoothed_rtt_ns


cdef uint64_t pacing_release_ns(Congestion *c, uint64_t now_ns, uint64_t smoothed_rtt_ns) noexcept nogil:
    """Return 0 if a packet may be sent now, otherwise when a quantum may be."""
    cdef double rate, quantum, bucket, least
    if now_ns == c.tokens_ns and c.tokens >= c.packet_bytes:
        return 0                    # the rest of a burst; time that has passed is counted before it, or two would go at once
    rate = pacing_rate(c, smoothed_rtt_ns)
    if rate == 0:
        return 0
    # without a queue to spread them, packets that go together come back together, and would go together for ever
    least = (PACING_BURST_PACKETS if now_ns - c.tokens_ns > smoothed_rtt_ns else PACING_RUN_PACKETS) * <double>c.packet_bytes
    bucket = rate * PACING_BURST_NS / SECOND
    if bucket < least or now_ns - c.tokens_ns > PACING_PAUSE_NS:
        bucket = least
    c.tokens += (now_ns - c.tokens_ns) / SECOND * rate
    c.tokens_ns = now_ns
    if c.tokens > bucket:
        c.tokens = bucket
    if c.tokens >= c.packet_bytes:
        return 0
    quantum = rate * PACING_QUANTUM_NS / SECOND
    if quantum < 2 * <double>c.packet_bytes:
        quantum = 2 * <double>c.packet_bytes
    return now_ns + <uint64_t>((quantum - c.tokens) / rate * SECOND) + 1


cdef void pacing_spend(Congestion *c, uint64_t bytes) noexcept nogil:
    c.tokens -= bytes
