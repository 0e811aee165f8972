"""BBR, version 3 (draft-ietf-ccwg-bbr): send at the rate that the path delivers, with little more in flight than it holds.

The machine probes now and then: for more bandwidth, by sending faster for a while, and for the least round trip, by
keeping less in flight. What it learns is in bbr_model. The lossy variant is the same machine; it differs in which losses
it takes for congestion, and says so there.
"""

from libc.stdint cimport uint8_t, uint64_t

from interpeer._core.bbr_model cimport (
    ACKS_INIT, ACKS_PROBE_FEEDBACK, ACKS_PROBE_STARTING, ACKS_PROBE_STOPPING, ACKS_REFILLING, BBR_CRUISE, BBR_DOWN,
    BBR_DRAIN, BBR_PROBE_RTT, BBR_REFILL, BBR_STARTUP, BBR_UP, MIN_PIPE_PACKETS, NO_BOUND, STARTUP_LOSSES,
    bbr_advance_latest, bbr_advance_max_bw, bbr_bdp, bbr_check_full_bw, bbr_end_down, bbr_extra_acked, bbr_inflight,
    bbr_inflight_at_loss, bbr_is_loss_high, bbr_max_bw, bbr_note_loss, bbr_note_marks, bbr_reset_congestion,
    bbr_reset_full_bw, bbr_reset_short_term, bbr_start_round, bbr_update_min_rtt, bbr_update_path)
from interpeer._core.controller cimport (
    CONGESTION_PERSISTENT, INITIAL_WINDOW_PACKETS, MINIMUM_WINDOW_PACKETS, AckSample, Bbr, Congestion, LossSample)

cdef double SECOND = 1e9
cdef double PACING_MARGIN = 0.99    # a queue that grew by rounding would never drain
cdef double BETA = 0.7
cdef double DISPROVED = 0.9         # lossy: a probe that loses much and delivers less than this of a rate disproves it
cdef double HEADROOM = 0.15         # of inflight_hi, left to others while cruising
cdef double PROBE_RTT_GAIN = 0.5

cdef enum:
    PROBE_RTT_NS = 200000000
    PROBE_WAIT_NS = 2000000000      # between probes for bandwidth, and up to a second more
    PROBE_WAIT_SPREAD_NS = 1000000000
    RENO_ROUNDS = 63                # probe at least as often as Reno would need to grow by as much
    FIRST_RTT_NS = 1000000          # for the first rate, before there is a round trip

cdef enum:
    STAY = 0xFF                     # nothing happens

# [state][input] -> next state (docs/spec, CC-20)
cdef uint8_t[7][8] TABLE = [
    # FULL       DRAINED     PROBE_DUE   REFILLED  PROBED    RTT_STALE       RTT_SEEN    RTT_SEEN_EARLY
    [BBR_DRAIN,  STAY,       STAY,       STAY,     STAY,     BBR_PROBE_RTT,  STAY,       STAY],         # STARTUP
    [STAY,       BBR_DOWN,   STAY,       STAY,     STAY,     BBR_PROBE_RTT,  STAY,       STAY],         # DRAIN
    [STAY,       BBR_CRUISE, BBR_REFILL, STAY,     STAY,     BBR_PROBE_RTT,  STAY,       STAY],         # DOWN
    [STAY,       STAY,       BBR_REFILL, STAY,     STAY,     BBR_PROBE_RTT,  STAY,       STAY],         # CRUISE
    [STAY,       STAY,       STAY,       BBR_UP,   STAY,     BBR_PROBE_RTT,  STAY,       STAY],         # REFILL
    [STAY,       STAY,       STAY,       STAY,     BBR_DOWN, BBR_PROBE_RTT,  STAY,       STAY],         # UP
    [STAY,       STAY,       STAY,       STAY,     STAY,     STAY,           BBR_CRUISE, BBR_STARTUP],  # PROBE_RTT
]

cdef double[7] PACING_GAIN = [2.77, 0.5, 0.9, 1.0, 1.0, 1.25, 1.0]
cdef double[7] WINDOW_GAIN = [2.0, 2.0, 2.0, 2.0, 2.0, 2.25, 0.5]


cdef void bbr_on_start(Congestion *c) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    b.inflight_hi = NO_BOUND
    b.inflight_lo = NO_BOUND
    b.probe_up_packets = NO_BOUND
    b.ack_phase = ACKS_INIT


cdef void bbr_on_start_lossy(Congestion *c) noexcept nogil:
    bbr_on_start(c)
    c.state.bbr.is_lossy = True


cdef int bbr_input(Congestion *c, int event, uint64_t now_ns, uint64_t delivered, double rate) noexcept nogil:
    """Move the machine, and do what the state that it enters begins with. Return 0, or -1 if it stays."""
    cdef Bbr *b = &c.state.bbr
    cdef uint8_t before = b.state, state = TABLE[before][event]
    if state == STAY:
        return -1
    if state == BBR_CRUISE and before == BBR_DOWN:
        bbr_end_down(c)
    b.state = state
    if state == BBR_DOWN or event == BBR_IN_RTT_SEEN:
        bbr_reset_congestion(b)
        b.probe_up_packets = NO_BOUND
        b.rounds_since_probe = chance(now_ns, delivered) & 1
        b.probe_wait_ns = PROBE_WAIT_NS + chance(now_ns, delivered) % PROBE_WAIT_SPREAD_NS
        b.phase_ns = now_ns
        b.ack_phase = ACKS_PROBE_STOPPING
        bbr_start_round(c, delivered)
    elif state == BBR_REFILL:
        bbr_reset_short_term(b)
        b.probe_up_rounds = 0
        b.probe_up_acked = 0
        b.ack_phase = ACKS_REFILLING
        bbr_start_round(c, delivered)
    elif state == BBR_UP:
        b.may_probe_samples_tell = True
        b.ack_phase = ACKS_PROBE_STARTING
        b.phase_ns = now_ns
        bbr_reset_full_bw(b, rate)
        bbr_start_round(c, delivered)
        raise_slope(c)
    elif state == BBR_PROBE_RTT:
        save_window(c, before)
        b.probe_rtt_done_ns = 0
        b.ack_phase = ACKS_PROBE_STOPPING
        bbr_start_round(c, delivered)
    return 0


cdef inline uint64_t chance(uint64_t now_ns, uint64_t delivered) noexcept nogil:
    """Return a number that differs from flow to flow, so that they do not probe in step. Nothing depends on it for safety."""
    cdef uint64_t x = (now_ns ^ delivered << 20) * <uint64_t>0x9E3779B97F4A7C15
    x = (x ^ x >> 29) * <uint64_t>0xBF58476D1CE4E5B9
    return x >> 20


cdef void bbr_on_ack(Congestion *c, const AckSample *s) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    if s.marked_packets:
        handle_marks(c, s)
    bbr_update_path(c, s)
    bbr_check_full_bw(b, s)
    check_startup(c, s)
    if b.state == BBR_DRAIN and s.in_flight <= bbr_inflight(c, bbr_max_bw(b), 1.0):
        bbr_input(c, BBR_IN_DRAINED, s.now_ns, s.delivered, s.rate)
    if b.is_full_bw_reached:
        learn_from_probe(c, s)
        probe_bandwidth(c, s)
    bbr_update_min_rtt(c, s)
    probe_round_trip(c, s)
    bbr_advance_latest(c, s)
    b.bw = bbr_max_bw(b)
    if b.bw_lo and b.bw_lo < b.bw:
        b.bw = b.bw_lo
    c.wants_app_limited = b.state == BBR_PROBE_RTT
    set_rate(c, s.smoothed_rtt_ns)
    set_window(c, s)


cdef void check_startup(Congestion *c, const AckSample *s) noexcept nogil:
    """Startup ends when the rate has stopped to grow, or when a round has lost too much in too many places."""
    cdef Bbr *b = &c.state.bbr
    if b.state == BBR_STARTUP and not b.is_full_bw_reached and b.is_loss_round_start and b.is_loss_in_round \
            and b.losses_in_round >= STARTUP_LOSSES and bbr_is_loss_high(c, b.lost_in_round, s.prior_in_flight):
        b.is_full_bw_reached = True
        b.inflight_hi = bbr_bdp(c, bbr_max_bw(b), 1.0)
        if b.inflight_latest > b.inflight_hi:
            b.inflight_hi = b.inflight_latest
    if b.is_full_bw_reached:
        bbr_input(c, BBR_IN_FULL, s.now_ns, s.delivered, s.rate)


# --- probing for bandwidth ---

cdef void probe_bandwidth(Congestion *c, const AckSample *s) noexcept nogil:
    """Go through DOWN, CRUISE, REFILL and UP."""
    cdef Bbr *b = &c.state.bbr
    if b.state == BBR_DOWN or b.state == BBR_CRUISE:
        if is_probe_due(c, s.now_ns):
            bbr_input(c, BBR_IN_PROBE_DUE, s.now_ns, s.delivered, s.rate)
        elif s.in_flight <= inflight_with_headroom(c) and s.in_flight <= bbr_inflight(c, bbr_max_bw(b), 1.0):
            bbr_input(c, BBR_IN_DRAINED, s.now_ns, s.delivered, s.rate)
    elif b.state == BBR_REFILL:
        if b.is_round_start:
            bbr_input(c, BBR_IN_REFILLED, s.now_ns, s.delivered, s.rate)
    elif b.state == BBR_UP:
        if s.is_window_full and c.window >= b.inflight_hi:
            bbr_reset_full_bw(b, s.rate)        # it is our own bound that holds the rate down
        elif b.is_full_bw_now:
            bbr_input(c, BBR_IN_PROBED, s.now_ns, s.delivered, s.rate)


cdef bint is_probe_due(const Congestion *c, uint64_t now_ns) noexcept nogil:
    cdef const Bbr *b = &c.state.bbr
    cdef uint64_t rounds = target_inflight(c) // c.packet_bytes
    if rounds > RENO_ROUNDS:
        rounds = RENO_ROUNDS
    return now_ns > b.phase_ns + b.probe_wait_ns or b.rounds_since_probe >= rounds


cdef uint64_t target_inflight(const Congestion *c) noexcept nogil:
    cdef uint64_t bdp = bbr_bdp(c, c.state.bbr.bw, 1.0)
    return bdp if bdp < c.window else c.window


cdef uint64_t inflight_with_headroom(const Congestion *c) noexcept nogil:
    """Return inflight_hi, less what is left to others."""
    cdef uint64_t hi = c.state.bbr.inflight_hi, room = <uint64_t>(HEADROOM * hi)
    cdef uint64_t least = MIN_PIPE_PACKETS * <uint64_t>c.packet_bytes
    if hi == NO_BOUND:
        return NO_BOUND
    if room < c.packet_bytes:
        room = c.packet_bytes
    return hi - room if hi > room + least else least


cdef void learn_from_probe(Congestion *c, const AckSample *s) noexcept nogil:
    """Raise what may be in flight where that much was, without many losses."""
    cdef Bbr *b = &c.state.bbr
    if b.is_round_start and b.ack_phase == ACKS_PROBE_STARTING:
        b.ack_phase = ACKS_PROBE_FEEDBACK
    elif b.is_round_start and b.ack_phase == ACKS_PROBE_STOPPING:
        b.may_probe_samples_tell = False
        b.ack_phase = ACKS_INIT
        if b.state >= BBR_DOWN and b.state <= BBR_UP and not s.is_rate_app_limited:
            bbr_advance_max_bw(b)
    if b.inflight_hi == NO_BOUND or bbr_is_loss_high(c, s.lost_since, s.prior_in_flight):
        return
    if s.prior_in_flight > b.inflight_hi:
        b.inflight_hi = s.prior_in_flight
    if b.state == BBR_UP:
        probe_upward(c, s)


cdef void probe_upward(Congestion *c, const AckSample *s) noexcept nogil:
    """Let inflight_hi grow by 1, 2, 4, ... packets a round, while it is what holds the sender back."""
    cdef Bbr *b = &c.state.bbr
    cdef uint64_t packets
    if not s.is_window_full or c.window < b.inflight_hi:
        return
    b.probe_up_acked += s.acked_bytes
    packets = b.probe_up_acked // (b.probe_up_packets * c.packet_bytes)
    b.probe_up_acked -= packets * b.probe_up_packets * c.packet_bytes
    b.inflight_hi += packets * c.packet_bytes
    if b.is_round_start:
        raise_slope(c)


cdef void raise_slope(Congestion *c) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    cdef uint64_t packets = c.window // c.packet_bytes >> b.probe_up_rounds
    b.probe_up_packets = packets if packets else 1
    if b.probe_up_rounds < 30:
        b.probe_up_rounds += 1


cdef void too_much_in_flight(Congestion *c, uint64_t in_flight, uint64_t now_ns, uint64_t delivered,
                             bint app_limited) noexcept nogil:
    """The probe has lost too much: that is how much may be in flight. Once for each probe."""
    cdef Bbr *b = &c.state.bbr
    cdef uint64_t least = <uint64_t>(BETA * target_inflight(c))
    b.may_probe_samples_tell = False
    if not app_limited:
        b.inflight_hi = in_flight if in_flight > least else least
    if b.is_lossy and 0 < b.bw_latest < DISPROVED * bbr_max_bw(b):
        b.max_bw[0] = b.bw_latest   # what was delivered beyond it while others paused, or before they came
        b.max_bw[1] = 0
    bbr_input(c, BBR_IN_PROBED, now_ns, delivered, 0)


# --- probing for the round trip ---

cdef void probe_round_trip(Congestion *c, const AckSample *s) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    if b.state != BBR_PROBE_RTT and b.is_probe_rtt_expired and not b.is_idle_restart:
        bbr_input(c, BBR_IN_RTT_STALE, s.now_ns, s.delivered, s.rate)
    if b.state == BBR_PROBE_RTT:
        if b.probe_rtt_done_ns == 0:
            if s.in_flight <= probe_rtt_window(c):
                b.probe_rtt_done_ns = s.now_ns + PROBE_RTT_NS
                b.is_probe_rtt_round_done = False
                bbr_start_round(c, s.delivered)
        else:
            if b.is_round_start:
                b.is_probe_rtt_round_done = True
            if b.is_probe_rtt_round_done:
                maybe_end_probe_rtt(c, s.now_ns, s.delivered)
    b.is_idle_restart = False


cdef void maybe_end_probe_rtt(Congestion *c, uint64_t now_ns, uint64_t delivered) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    if b.probe_rtt_done_ns == 0 or now_ns <= b.probe_rtt_done_ns:
        return
    b.probe_rtt_min_at_ns = now_ns
    restore_window(c)
    bbr_reset_short_term(b)
    bbr_input(c, BBR_IN_RTT_SEEN if b.is_full_bw_reached else BBR_IN_RTT_SEEN_EARLY, now_ns, delivered, 0)


cdef uint64_t probe_rtt_window(const Congestion *c) noexcept nogil:
    cdef uint64_t least = MIN_PIPE_PACKETS * <uint64_t>c.packet_bytes, half = bbr_bdp(c, c.state.bbr.bw, PROBE_RTT_GAIN)
    return half if half > least else least


cdef void save_window(Congestion *c, uint8_t state) noexcept nogil:
    """Remember the window that holds outside of recovery and PROBE_RTT."""
    cdef Bbr *b = &c.state.bbr
    if (b.conserve_until == 0 and state != BBR_PROBE_RTT) or c.window > b.prior_window:
        b.prior_window = c.window


cdef void restore_window(Congestion *c) noexcept nogil:
    if c.window < c.state.bbr.prior_window:
        c.window = c.state.bbr.prior_window


# --- losses, marks, silence ---

cdef void bbr_on_loss(Congestion *c, const LossSample *s) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    cdef uint64_t least = MINIMUM_WINDOW_PACKETS * <uint64_t>c.packet_bytes
    bbr_note_loss(c, s)
    if b.may_probe_samples_tell and bbr_is_loss_high(c, s.lost_since, s.prior_in_flight):
        too_much_in_flight(c, bbr_inflight_at_loss(c, s), s.now_ns, s.delivered, s.is_rate_app_limited)
    if not b.is_lossy and s.newest_sent_ns > c.recovery_start_ns:
        # recovery begins: for a round a packet is sent for each that has left the network
        save_window(c, b.state)
        b.conserve_until = s.delivered + s.in_flight
        c.window = s.in_flight + (s.acked_bytes if s.acked_bytes > c.packet_bytes else c.packet_bytes)
    else:
        c.window = c.window - s.lost_bytes if c.window > s.lost_bytes + least else least


cdef void handle_marks(Congestion *c, const AckSample *s) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    bbr_note_marks(c, s)
    if b.may_probe_samples_tell and bbr_is_loss_high(c, b.lost_in_round, s.prior_in_flight):
        too_much_in_flight(c, s.prior_in_flight, s.now_ns, s.delivered, s.is_rate_app_limited)


cdef void bbr_on_congestion(Congestion *c, uint64_t now_ns, int what) noexcept nogil:
    """Losses and marks are weighed where they are counted; an outage lets the window start afresh, and not the model."""
    if what == CONGESTION_PERSISTENT:
        c.state.bbr.conserve_until = 0
        c.window = MINIMUM_WINDOW_PACKETS * <uint64_t>c.packet_bytes


cdef void bbr_on_restart(Congestion *c, uint64_t now_ns, bint app_limited) noexcept nogil:
    """Begin again at the rate that was, without a gain: the pipe is empty, and there is nothing to probe for."""
    cdef Bbr *b = &c.state.bbr
    if not app_limited:
        return
    b.is_idle_restart = True
    b.extra_start_ns = now_ns
    b.extra_delivered = 0
    if b.state >= BBR_DOWN and b.state <= BBR_UP:
        c.pacing_rate = b.bw * PACING_MARGIN
    elif b.state == BBR_PROBE_RTT:
        maybe_end_probe_rtt(c, now_ns, b.round_delivered)


# --- what follows from the model ---

cdef void set_rate(Congestion *c, uint64_t smoothed_rtt_ns) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    cdef double rate = PACING_GAIN[b.state] * PACING_MARGIN * b.bw
    if b.bw == 0:
        rate = PACING_GAIN[BBR_STARTUP] * INITIAL_WINDOW_PACKETS * <double>c.packet_bytes * SECOND
        rate /= smoothed_rtt_ns if smoothed_rtt_ns else FIRST_RTT_NS
    if b.is_full_bw_reached or rate > c.pacing_rate:
        c.pacing_rate = rate


cdef void set_window(Congestion *c, const AckSample *s) noexcept nogil:
    cdef Bbr *b = &c.state.bbr
    cdef uint64_t least = MIN_PIPE_PACKETS * <uint64_t>c.packet_bytes
    cdef uint64_t most = bbr_inflight(c, b.bw, WINDOW_GAIN[b.state]) + bbr_extra_acked(b), conserved
    if b.conserve_until and s.delivered >= b.conserve_until:
        b.conserve_until = 0
        restore_window(c)
    if b.conserve_until:
        conserved = s.in_flight + s.acked_bytes
        if conserved > c.window:
            c.window = conserved
    elif b.is_full_bw_reached:
        c.window = c.window + s.acked_bytes if c.window + s.acked_bytes < most else most
    elif c.window < most or s.delivered < INITIAL_WINDOW_PACKETS * <uint64_t>c.packet_bytes:
        c.window += s.acked_bytes
    if c.window < least:
        c.window = least
    if b.state == BBR_PROBE_RTT and c.window > probe_rtt_window(c):
        c.window = probe_rtt_window(c)
    bound_window(c, least)


cdef void bound_window(Congestion *c, uint64_t least) noexcept nogil:
    """Keep to what losses have taught."""
    cdef Bbr *b = &c.state.bbr
    cdef uint64_t most = NO_BOUND
    if b.state == BBR_CRUISE or b.state == BBR_PROBE_RTT:
        most = inflight_with_headroom(c)
    elif b.state == BBR_DOWN or b.state == BBR_REFILL or b.state == BBR_UP:
        most = b.inflight_hi
    if b.inflight_lo < most:
        most = b.inflight_lo
    if most < least:
        most = least
    if c.window > most:
        c.window = most
