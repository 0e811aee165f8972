"""Congestion control behind one interface, and pacing. The controller is CUBIC (RFC 9438) with HyStart++ (RFC 9406).

A controller is two functions over its own state; what is common to all (one reaction for each round trip, the
minimum window, pacing) is done here. Windows are in bytes, times in nanoseconds, rates in bytes a second.
"""

from libc.math cimport cbrt
from libc.stdint cimport uint64_t
from libc.string cimport memset

cdef double CUBIC_C = 0.4
cdef double CUBIC_BETA = 0.7
cdef double CUBIC_ALPHA = 3 * (1 - 0.7) / (1 + 0.7)         # Reno's growth with CUBIC's beta (RFC 9438, 4.3)
cdef double SECOND = 1e9

cdef enum:                          # HyStart++ (RFC 9406, 4.3)
    MIN_RTT_THRESHOLD_NS = 4000000
    LOCAL_RTT_THRESHOLD_NS = 1000000    # instead of it where the round trip is shorter: 4 ms overflow a socket there
    MAX_RTT_THRESHOLD_NS = 16000000
    RTT_SAMPLES = 8
    CSS_GROWTH_DIVISOR = 4
    CSS_ROUNDS = 5

cdef Controller CONTROLLERS[1]
CONTROLLERS[CONTROLLER_CUBIC].on_ack = cubic_on_ack
CONTROLLERS[CONTROLLER_CUBIC].on_congestion = cubic_on_congestion


cdef void cc_init(Congestion *c, int controller, uint32_t packet_bytes) noexcept nogil:
    memset(c, 0, sizeof(Congestion))
    c.controller = &CONTROLLERS[controller]
    c.packet_bytes = packet_bytes
    c.window = INITIAL_WINDOW_PACKETS * packet_bytes
    c.threshold = ~<uint64_t>0
    c.tokens = PACING_BURST_PACKETS * <double>packet_bytes


cdef void cc_set_packet_bytes(Congestion *c, uint32_t packet_bytes) noexcept nogil:
    """The path carries packets of another size. The window stays what it is in bytes, but for its minimum."""
    c.packet_bytes = packet_bytes
    if c.window < MINIMUM_WINDOW_PACKETS * <uint64_t>packet_bytes:
        c.window = MINIMUM_WINDOW_PACKETS * <uint64_t>packet_bytes


cdef void cc_handle_ack(Congestion *c, const AckSample *sample) noexcept nogil:
    """Let the window grow, unless it was not used, or what was acknowledged belongs to the last congestion event."""
    if sample.newest_sent_ns <= c.recovery_start_ns:
        return
    c.controller.on_ack(c, sample)


cdef void cc_handle_congestion(Congestion *c, uint64_t now_ns, uint64_t newest_sent_ns, bint is_persistent) noexcept nogil:
    """React to losses or CE marks: once for all packets that were on their way together (RFC 9002, 7.3.2)."""
    cdef uint64_t least = MINIMUM_WINDOW_PACKETS * <uint64_t>c.packet_bytes
    if newest_sent_ns > c.recovery_start_ns:
        c.recovery_start_ns = now_ns
        c.congestion_events += 1
        c.controller.on_congestion(c, now_ns, False)
    if is_persistent:
        c.recovery_start_ns = 0
        c.controller.on_congestion(c, now_ns, True)
    if c.window < least:
        c.window = least


cdef void cc_forgive(Congestion *c, uint64_t now_ns) noexcept nogil:
    """Let no loss of what was sent until now count: it was not the path that lost it."""
    c.recovery_start_ns = now_ns


# --- CUBIC ---

cdef void cubic_on_ack(Congestion *c, const AckSample *s) noexcept nogil:
    cdef Cubic *q = &c.cubic
    cdef double window = c.window, mss = c.packet_bytes, target, t
    if s.app_limited:
        # time in which the window was not used does not count for the curve (RFC 9438, 5.8)
        if q.epoch_ns and q.last_ack_ns:
            q.epoch_ns += s.now_ns - q.last_ack_ns
        q.last_ack_ns = s.now_ns
        return
    q.last_ack_ns = s.now_ns
    if c.window < c.threshold:
        slow_start(c, s)
        return
    if q.epoch_ns == 0:
        q.epoch_ns = s.now_ns
        q.w_est = window
        if window < q.w_max:
            q.k_s = cbrt((q.w_max - window) / mss / CUBIC_C)
        else:
            q.k_s = 0
            q.w_max = window
    t = (s.now_ns - q.epoch_ns) / SECOND
    q.w_est += (CUBIC_ALPHA if q.w_est < q.prior else 1) * s.acked_bytes / window * mss
    if cubic_window(q, t, mss) < q.w_est:
        if q.w_est > window:
            c.window = <uint64_t>q.w_est
        return
    target = cubic_window(q, t + s.smoothed_rtt_ns / SECOND, mss)
    if target > 1.5 * window:
        target = 1.5 * window
    if target > window:
        c.window += <uint64_t>((target - window) / window * s.acked_bytes)


cdef inline double cubic_window(const Cubic *q, double t, double mss) noexcept nogil:
    cdef double d = t - q.k_s
    return CUBIC_C * d * d * d * mss + q.w_max


cdef void cubic_on_congestion(Congestion *c, uint64_t now_ns, bint is_persistent) noexcept nogil:
    cdef Cubic *q = &c.cubic
    cdef double window = c.window
    q.epoch_ns = 0
    if is_persistent:
        q.w_max = 0                 # the curve starts flat, wherever slow start ends (RFC 9438, 4.8)
        memset(&c.hystart, 0, sizeof(Hystart))
        c.window = MINIMUM_WINDOW_PACKETS * <uint64_t>c.packet_bytes
        return
    q.prior = window
    q.w_max = window * (1 + CUBIC_BETA) / 2 if window < q.w_max else window      # fast convergence
    c.window = <uint64_t>(window * CUBIC_BETA)
    c.threshold = c.window


# --- slow start ---

cdef void slow_start(Congestion *c, const AckSample *s) noexcept nogil:
    """Double each round, and stop doubling when the round trip grows rather than when packets are lost."""
    cdef Hystart *h = &c.hystart
    cdef uint64_t threshold_ns
    c.window += s.acked_bytes // CSS_GROWTH_DIVISOR if h.css_baseline_ns else s.acked_bytes
    if s.newest_sent_ns >= h.round_start_ns:
        h.round_start_ns = s.now_ns
        h.last_round_min_ns = h.round_min_ns
        h.round_min_ns = 0
        h.samples = 0
        if h.css_baseline_ns:
            h.css_rounds += 1
            if h.css_rounds >= CSS_ROUNDS:
                c.threshold = c.window
                return
    if s.rtt_ns == 0:
        return
    if h.round_min_ns == 0 or s.rtt_ns < h.round_min_ns:
        h.round_min_ns = s.rtt_ns
    h.samples += 1
    if h.samples < RTT_SAMPLES or h.last_round_min_ns == 0:
        return
    if h.css_baseline_ns:
        if h.round_min_ns < h.css_baseline_ns:
            h.css_baseline_ns = 0
        return
    threshold_ns = h.last_round_min_ns // 8
    if h.last_round_min_ns < LOCAL_RTT_THRESHOLD_NS:
        threshold_ns = LOCAL_RTT_THRESHOLD_NS
    elif threshold_ns < MIN_RTT_THRESHOLD_NS:
        threshold_ns = MIN_RTT_THRESHOLD_NS
    if threshold_ns > MAX_RTT_THRESHOLD_NS:
        threshold_ns = MAX_RTT_THRESHOLD_NS
    if h.round_min_ns >= h.last_round_min_ns + threshold_ns:
        h.css_baseline_ns = h.round_min_ns
        h.css_rounds = 0


# --- pacing (RFC 9002, 7.7) ---

cdef double cc_pacing_rate(const Congestion *c, uint64_t smoothed_rtt_ns) noexcept nogil:
    """Return bytes a second, a little above window / round trip; 0 before there is a round trip."""
    if smoothed_rtt_ns == 0:
        return 0
    return (2.0 if c.window < c.threshold else 1.25) * c.window * SECOND / smoothed_rtt_ns


cdef uint64_t cc_release_ns(Congestion *c, uint64_t now_ns, uint64_t smoothed_rtt_ns) noexcept nogil:
    """Return 0 if a packet may be sent now, otherwise when a quantum may be."""
    cdef double rate, quantum, bucket
    if now_ns == c.tokens_ns and c.tokens >= c.packet_bytes:
        return 0                    # the rest of a burst; time that has passed is counted before it, or two would go at once
    rate = cc_pacing_rate(c, smoothed_rtt_ns)
    if rate == 0:
        return 0
    bucket = rate * PACING_BURST_NS / SECOND
    if bucket < PACING_BURST_PACKETS * <double>c.packet_bytes:
        bucket = PACING_BURST_PACKETS * <double>c.packet_bytes
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


cdef void cc_spend(Congestion *c, uint64_t bytes) noexcept nogil:
    c.tokens -= bytes
