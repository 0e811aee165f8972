"""What BBR knows of the path (draft-ietf-ccwg-bbr): the rate that it delivers, its least round trip, and how much may be
in flight before it loses packets. The machine that probes for them is in bbr.

Each has two bounds: one that probing has found and that lasts, and one that losses have set since and that the next
probe forgets. Rounds are counted by what was delivered, never by a clock.

The lossy variant asks of losses whether they are due to a queue. They are when the round trip has grown with them, when
they are more than the share that is lost without any queue, or when they are so many that no path in use has them. Marks
always are.
"""

from libc.stdint cimport uint64_t

from interpeer._core.controller cimport AckSample, Bbr, Congestion, LossSample

cdef double SECOND = 1e9
cdef double LOSS_THRESHOLD = 0.02
cdef double BETA = 0.7              # what is left of a bound after a round with losses
cdef double FULL_BW_GROWTH = 1.25
cdef double DOUBTLESS_LOSS = 0.2    # lossy: more than this is no accident
cdef double FLOOR_SLACK = 1.5       # lossy: what is lost without a queue varies from round to round
cdef double FLOOR_GAIN = 0.125

cdef enum:
    FULL_BW_ROUNDS = 3
    EXTRA_ACKED_ROUNDS = 5          # of each of two spans
    MIN_RTT_NS_KEPT = 10000000000
    PROBE_RTT_EVERY_NS = 5000000000
    EMPTY_QUEUE_SHARE = 64          # lossy: a round trip so near to the least one has met no queue
    FLOOR_PACKETS = 64              # lossy: so many make a sample of the floor
    SLACK_PACKETS = 3

NO_BOUND = ~<uint64_t>0


cdef inline double max_double(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline uint64_t max_u64(uint64_t a, uint64_t b) noexcept nogil:
    return a if a > b else b


cdef double bbr_max_bw(const Bbr *b) noexcept nogil:
    return max_double(b.max_bw[0], b.max_bw[1])


cdef uint64_t bbr_extra_acked(const Bbr *b) noexcept nogil:
    return max_u64(b.extra_acked[0], b.extra_acked[1])


cdef uint64_t bbr_bdp(const Congestion *c, double bw, double gain) noexcept nogil:
    """Return what is in flight at this rate when there is no queue, times a gain; the first window without a round trip."""
    cdef const Bbr *b = &c.state.bbr
    if b.min_rtt_ns == 0 or bw == 0:
        return <uint64_t>(gain * 10 * c.packet_bytes)
    return <uint64_t>(gain * bw * b.min_rtt_ns / SECOND)


cdef uint64_t bbr_inflight(const Congestion *c, double bw, double gain) noexcept nogil:
    """Return the same, and room for what is sent and acknowledged in groups."""
    cdef uint64_t inflight = bbr_bdp(c, bw, gain)
    cdef uint64_t groups = <uint64_t>(3 * 0.0005 * bw)      # of pacing's quantum
    inflight = max_u64(inflight, groups)
    inflight = max_u64(inflight, MIN_PIPE_PACKETS * <uint64_t>c.packet_bytes)
    return inflight + 2 * c.packet_bytes if c.state.bbr.state == BBR_UP else inflight


# --- rounds ---

cdef void bbr_start_round(Congestion *c, uint64_t delivered) noexcept nogil:
    c.state.bbr.round_delivered = delivered


cdef void update_round(Congestion *c, const AckSample *s) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    b.is_round_start = s.prior_delivered >= b.round_delivered
    if b.is_round_start:
        b.round_delivered = s.delivered
        b.rounds_since_probe += 1


cdef void bbr_update_path(Congestion *c, const AckSample *s) noexcept nogil:
    """Learn from an acknowledgement what was delivered, how fast, and what was lost meanwhile."""
    cdef Bbr *b = &c.state.bbr
    b.is_loss_round_start = s.prior_delivered >= b.loss_round_delivered
    if b.is_loss_round_start:
        b.loss_round_delivered = s.delivered
    b.bw_latest = max_double(b.bw_latest, s.rate)
    b.inflight_latest = max_u64(b.inflight_latest, s.delivered - s.prior_delivered)
    update_round(c, s)
    if s.rate and (s.rate >= bbr_max_bw(b) or not s.is_rate_app_limited):
        b.max_bw[0] = max_double(b.max_bw[0], s.rate)
    if b.is_lossy:
        update_floor(c, s)
    update_extra_acked(c, s)


cdef void bbr_advance_latest(Congestion *c, const AckSample *s) noexcept nogil:
    """After everything else has looked at the round of losses: let the next one begin."""
    cdef Bbr *b = &c.state.bbr
    if not b.is_loss_round_start:
        return
    if b.is_loss_in_round and b.state != BBR_STARTUP and b.state != BBR_REFILL and b.state != BBR_UP and is_more_than_floor(c):
        lower_bounds(c)
    b.is_loss_in_round = False
    b.losses_in_round = 0
    b.lost_in_round = 0
    b.bw_latest = s.rate
    b.inflight_latest = s.delivered - s.prior_delivered


cdef void bbr_end_down(Congestion *c) noexcept nogil:
    """The probe's queue has drained: what was lost while it did is weighed now, not by the rule of the state that follows."""
    if c.state.bbr.is_loss_in_round and not is_more_than_floor(c):
        c.state.bbr.is_loss_in_round = False


cdef void lower_bounds(Congestion *c) noexcept nogil:
    """Losses without a probe: the path has less to give for now, but at least what it has just delivered."""
    cdef Bbr *b = &c.state.bbr
    if b.bw_lo == 0:
        b.bw_lo = bbr_max_bw(b)
    if b.inflight_lo == NO_BOUND:
        b.inflight_lo = c.window
    b.bw_lo = max_double(b.bw_latest, BETA * b.bw_lo)
    b.inflight_lo = max_u64(b.inflight_latest, <uint64_t>(BETA * b.inflight_lo))


cdef void bbr_advance_max_bw(Bbr *b) noexcept nogil:
    """A cycle of probing is over: forget the one before it."""
    b.max_bw[1] = b.max_bw[0]
    b.max_bw[0] = 0


cdef void bbr_reset_short_term(Bbr *b) noexcept nogil:
    b.bw_lo = 0
    b.inflight_lo = NO_BOUND


cdef void bbr_reset_congestion(Bbr *b) noexcept nogil:
    b.is_loss_in_round = False
    b.losses_in_round = 0
    b.lost_in_round = 0
    b.bw_latest = 0
    b.inflight_latest = 0


cdef void update_extra_acked(Congestion *c, const AckSample *s) noexcept nogil:
    """How much more is acknowledged at times than the rate would have: Wi-Fi and others deliver in groups."""
    cdef Bbr *b = &c.state.bbr
    cdef double expected = b.bw * (s.now_ns - b.extra_start_ns) / SECOND
    cdef uint64_t extra
    if b.is_round_start:
        b.extra_rounds += 1
        if b.extra_rounds >= (EXTRA_ACKED_ROUNDS if b.is_full_bw_reached else 1):
            b.extra_rounds = 0
            b.extra_acked[1] = b.extra_acked[0]
            b.extra_acked[0] = 0
    if b.extra_delivered <= expected:
        b.extra_delivered = 0
        b.extra_start_ns = s.now_ns
        expected = 0
    b.extra_delivered += s.acked_bytes
    extra = <uint64_t>(b.extra_delivered - expected)
    if extra > c.window:
        extra = c.window
    b.extra_acked[0] = max_u64(b.extra_acked[0], extra)


# --- full bandwidth ---

cdef void bbr_reset_full_bw(Bbr *b, double rate) noexcept nogil:
    b.full_bw = rate
    b.full_bw_rounds = 0
    b.is_full_bw_now = False


cdef void bbr_check_full_bw(Bbr *b, const AckSample *s) noexcept nogil:
    """Find out when a higher rate of sending is not answered by a higher rate of delivery for three rounds."""
    if b.is_full_bw_now or not b.is_round_start or s.is_rate_app_limited or s.rate == 0:
        return
    if s.rate >= b.full_bw * FULL_BW_GROWTH:
        bbr_reset_full_bw(b, s.rate)
        return
    b.full_bw_rounds += 1
    if b.full_bw_rounds >= FULL_BW_ROUNDS:
        b.is_full_bw_now = True
        b.is_full_bw_reached = True


# --- round trip ---

cdef void bbr_update_min_rtt(Congestion *c, const AckSample *s) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    if b.is_lossy and s.rtt_ns and s.rtt_ns <= b.probe_rtt_min_ns + b.probe_rtt_min_ns // EMPTY_QUEUE_SHARE:
        b.probe_rtt_min_at_ns = s.now_ns    # the queue is empty without our doing
    b.is_probe_rtt_expired = b.probe_rtt_min_ns != 0 and s.now_ns > b.probe_rtt_min_at_ns + PROBE_RTT_EVERY_NS
    if s.rtt_ns and (b.probe_rtt_min_ns == 0 or s.rtt_ns < b.probe_rtt_min_ns or b.is_probe_rtt_expired):
        b.probe_rtt_min_ns = s.rtt_ns
        b.probe_rtt_min_at_ns = s.now_ns
    if b.probe_rtt_min_ns and (b.min_rtt_ns == 0 or b.probe_rtt_min_ns < b.min_rtt_ns
                               or s.now_ns > b.min_rtt_at_ns + MIN_RTT_NS_KEPT):
        b.min_rtt_ns = b.probe_rtt_min_ns
        b.min_rtt_at_ns = b.probe_rtt_min_at_ns


# --- losses and marks ---

cdef bint has_queue(const Congestion *c, uint64_t rtt_ns) noexcept nogil:
    """Tell whether packets have waited for longer than chance would have it."""
    cdef uint64_t least = c.state.bbr.min_rtt_ns
    return rtt_ns > least + least // 8


cdef void bbr_note_loss(Congestion *c, const LossSample *s) noexcept nogil:
    """Note packets that were lost together. The lossy variant counts them, but sees congestion only in some."""
    cdef Bbr *b = &c.state.bbr
    note_signal(b, s.lost_bytes, s.delivered)
    b.floor_lost += s.lost_bytes
    b.is_queued = has_queue(c, s.rtt_ns)
    if not b.is_lossy or b.is_queued:
        b.is_loss_in_round = True
    elif b.losses_in_round >= STARTUP_LOSSES and s.lost_since > DOUBTLESS_LOSS * s.prior_in_flight:
        b.is_loss_in_round = True


cdef void bbr_note_marks(Congestion *c, const AckSample *s) noexcept nogil:
    """Take packets that were marked for lost ones: whoever marks would have dropped them (RFC 3168, 5)."""
    note_signal(&c.state.bbr, s.marked_packets * c.packet_bytes, s.delivered)
    c.state.bbr.is_loss_in_round = True


cdef void note_signal(Bbr *b, uint64_t bytes, uint64_t delivered) noexcept nogil:
    if b.losses_in_round == 0:
        b.loss_round_delivered = delivered
    if b.losses_in_round < 0xFFFF:
        b.losses_in_round += 1
    b.lost_in_round += bytes


cdef bint bbr_is_loss_high(const Congestion *c, uint64_t lost, uint64_t in_flight) noexcept nogil:
    """Tell whether more than 2 % of what was in flight was lost; lossy: beyond what is lost without a queue."""
    cdef const Bbr *b = &c.state.bbr
    if not b.is_lossy:
        return lost > LOSS_THRESHOLD * in_flight
    if b.is_queued:
        return lost > (LOSS_THRESHOLD + b.loss_floor) * in_flight
    return lost > (LOSS_THRESHOLD + FLOOR_SLACK * b.loss_floor) * in_flight + SLACK_PACKETS * c.packet_bytes


cdef bint is_more_than_floor(const Congestion *c) noexcept nogil:
    """Tell whether the losses of a round are due to the queue that was seen. After a probe it is our own that drains, and
    meets losses as any packet does."""
    cdef const Bbr *b = &c.state.bbr
    if not b.is_lossy:
        return True
    if b.state == BBR_DOWN:
        return bbr_is_loss_high(c, b.lost_in_round, b.inflight_latest)
    return b.lost_in_round > FLOOR_SLACK * b.loss_floor * b.inflight_latest


cdef uint64_t bbr_inflight_at_loss(const Congestion *c, const LossSample *s) noexcept nogil:
    """Return how much was in flight when the share of losses passed the threshold, somewhere within these."""
    cdef double before = <double>s.prior_in_flight - s.lost_bytes, lost_before = <double>s.lost_since - s.lost_bytes
    cdef double prefix
    if before <= 0 or lost_before < 0:
        return s.prior_in_flight
    prefix = (LOSS_THRESHOLD * before - lost_before) / (1 - LOSS_THRESHOLD)
    return <uint64_t>(before + max_double(prefix, 0))


cdef void update_floor(Congestion *c, const AckSample *s) noexcept nogil:
    """Learn which share of the packets is lost while nothing waits anywhere."""
    cdef Bbr *b = &c.state.bbr
    cdef double share
    b.floor_acked += s.acked_bytes
    b.round_max_rtt_ns = max_u64(b.round_max_rtt_ns, s.rtt_ns)
    if not b.is_round_start or b.floor_acked < FLOOR_PACKETS * c.packet_bytes:
        return
    share = <double>b.floor_lost / (b.floor_acked + b.floor_lost)
    if share < DOUBTLESS_LOSS and not has_queue(c, b.round_max_rtt_ns):
        b.loss_floor += FLOOR_GAIN * (share - b.loss_floor)
    b.floor_acked = 0
    b.floor_lost = 0
    b.round_max_rtt_ns = 0
