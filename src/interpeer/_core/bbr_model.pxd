from libc.stdint cimport uint64_t

from interpeer._core.controller cimport AckSample, Bbr, Congestion, LossSample

cdef enum:                          # Bbr.state (docs/spec, chapter 18)
    BBR_STARTUP = 0
    BBR_DRAIN = 1
    BBR_DOWN = 2                    # PROBE_BW: leave a little room
    BBR_CRUISE = 3                  # PROBE_BW: send at the rate that is delivered
    BBR_REFILL = 4                  # PROBE_BW: fill the pipe, before the probe
    BBR_UP = 5                      # PROBE_BW: probe for more
    BBR_PROBE_RTT = 6
    BBR_STATES = 7

cdef enum:                          # Bbr.ack_phase: what acknowledgements tell of the probe
    ACKS_INIT = 0
    ACKS_REFILLING = 1
    ACKS_PROBE_STARTING = 2         # they are still of packets sent before it
    ACKS_PROBE_FEEDBACK = 3
    ACKS_PROBE_STOPPING = 4         # it is over, and they are still of its packets

cdef enum:
    MIN_PIPE_PACKETS = 4            # enough to have acknowledgements come evenly
    STARTUP_LOSSES = 6              # gaps in a round that end startup

cdef uint64_t NO_BOUND

cdef void bbr_start_round(Congestion *c, uint64_t delivered) noexcept nogil
cdef void bbr_update_path(Congestion *c, const AckSample *s) noexcept nogil
cdef void bbr_update_min_rtt(Congestion *c, const AckSample *s) noexcept nogil
cdef void bbr_advance_latest(Congestion *c, const AckSample *s) noexcept nogil
cdef void bbr_end_down(Congestion *c) noexcept nogil
cdef void bbr_advance_max_bw(Bbr *b) noexcept nogil
cdef void bbr_reset_short_term(Bbr *b) noexcept nogil
cdef void bbr_reset_congestion(Bbr *b) noexcept nogil
cdef void bbr_reset_full_bw(Bbr *b, double rate) noexcept nogil
cdef void bbr_check_full_bw(Bbr *b, const AckSample *s) noexcept nogil
cdef void bbr_note_loss(Congestion *c, const LossSample *s) noexcept nogil
cdef void bbr_note_marks(Congestion *c, const AckSample *s) noexcept nogil
cdef bint bbr_is_loss_high(const Congestion *c, uint64_t lost, uint64_t in_flight) noexcept nogil
cdef uint64_t bbr_inflight_at_loss(const Congestion *c, const LossSample *s) noexcept nogil

cdef double bbr_max_bw(const Bbr *b) noexcept nogil
cdef uint64_t bbr_bdp(const Congestion *c, double bw, double gain) noexcept nogil
cdef uint64_t bbr_inflight(const Congestion *c, double bw, double gain) noexcept nogil
cdef uint64_t bbr_extra_acked(const Bbr *b) noexcept nogil
