"""CUBIC (RFC 9438), with a slow start that ends when the round trip grows (HyStart++, RFC 9406).

The window follows a cubic curve of the time since the last congestion event, and at least Reno's line. It grows only by
what was acknowledged while it was in use.
"""

from libc.math cimport cbrt
from libc.stdint cimport uint64_t
from libc.string cimport memset

from interpeer._core.controller cimport (
    CONGESTION_PERSISTENT, MINIMUM_WINDOW_PACKETS, AckSample, Congestion, Cubic, Hystart, is_in_recovery)

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


cdef void cubic_on_ack(Congestion *c, const AckSample *s) noexcept nogil:
    cdef Cubic *q = &c.state.cubic
    cdef double window = c.window, mss = c.packet_bytes, target, t
    if is_in_recovery(c, s):
        return
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


cdef void cubic_on_congestion(Congestion *c, uint64_t now_ns, int what) noexcept nogil:
    cdef Cubic *q = &c.state.cubic
    cdef double window = c.window
    q.epoch_ns = 0
    if what == CONGESTION_PERSISTENT:
        q.w_max = 0                 # the curve starts flat, wherever slow start ends (RFC 9438, 4.8)
        memset(&c.state.cubic.hystart, 0, sizeof(Hystart))
        c.window = MINIMUM_WINDOW_PACKETS * <uint64_t>c.packet_bytes
        return
    q.prior = window
    q.w_max = window * (1 + CUBIC_BETA) / 2 if window < q.w_max else window      # fast convergence
    c.window = <uint64_t>(window * CUBIC_BETA)
    c.threshold = c.window


# --- slow start ---

cdef void slow_start(Congestion *c, const AckSample *s) noexcept nogil:
    """Double each round, and stop doubling when the round trip grows rather than when packets are lost."""
    cdef Hystart *h = &c.state.cubic.hystart
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
