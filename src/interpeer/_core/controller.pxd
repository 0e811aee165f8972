from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

# What congestion controllers have in common: what they are told, what they decide, and the state that each keeps.
# Windows and amounts are in bytes, times in nanoseconds, rates in bytes a second.

cdef enum:
    INITIAL_WINDOW_PACKETS = 10     # RFC 6928
    MINIMUM_WINDOW_PACKETS = 2

cdef enum:                          # Congestion.kind; the names are in interpeer.Config
    CONTROLLER_CUBIC = 0
    CONTROLLER_BBR = 1
    CONTROLLER_BBR_LOSSY = 2
    CONTROLLER_LEDBAT = 3
    CONTROLLERS = 4

cdef enum:                          # what a controller is told of, once for each round trip
    CONGESTION_LOSS = 0
    CONGESTION_MARK = 1             # packets came with CE
    CONGESTION_PERSISTENT = 2       # everything was lost for long (RFC 9002, 7.6)

cdef struct AckSample:              # what a controller learns from one ACK frame
    uint64_t now_ns
    uint64_t acked_bytes
    uint64_t lost_bytes             # that the frame proved lost
    uint64_t marked_packets         # that the frame tells came with CE
    uint64_t newest_sent_ns         # when the newest packet acknowledged was sent
    uint64_t rtt_ns                 # the sample of this frame; 0: none
    uint64_t min_rtt_ns
    uint64_t smoothed_rtt_ns
    uint64_t in_flight              # after the frame
    bint app_limited                # the window was not what held the sender back
    bint is_window_full             # it was
    # the newest packet acknowledged, when it was sent (docs/spec, chapter 18)
    double rate                     # at which data were delivered since; 0: cannot be told
    bint is_rate_app_limited        # the sender had less to send than could be sent
    uint64_t delivered              # in all
    uint64_t prior_delivered        # in all, then
    uint64_t prior_in_flight        # it included
    uint64_t lost_since

cdef struct LossSample:             # what a controller learns from packets found lost together
    uint64_t now_ns
    uint64_t lost_bytes
    uint64_t newest_sent_ns
    uint64_t rtt_ns                 # the last sample
    uint64_t min_rtt_ns
    uint64_t in_flight              # after the losses
    uint64_t acked_bytes            # by the same frame
    uint64_t delivered              # in all
    # the newest packet lost, when it was sent
    bint is_rate_app_limited
    uint64_t prior_in_flight        # it included
    uint64_t lost_since             # it included
    bint is_persistent

cdef struct Hystart:                # RFC 9406
    uint64_t round_start_ns         # the round ends when a packet sent after this is acknowledged
    uint64_t last_round_min_ns
    uint64_t round_min_ns
    uint64_t css_baseline_ns        # 0: not in conservative slow start
    uint32_t samples
    uint32_t css_rounds

cdef struct Cubic:                  # RFC 9438; windows in bytes
    Hystart hystart
    double w_max
    double prior                    # the window of the last congestion event
    double k_s
    double w_est
    uint64_t epoch_ns               # start of this congestion avoidance; 0: not yet
    uint64_t last_ack_ns

cdef struct Ledbat:                 # draft-irtf-iccrg-ledbat-plus-plus
    uint32_t base_us[10]            # least round trip of each of the last minutes; 0: none
    uint32_t recent_us[4]           # the last samples
    uint8_t base_at
    uint8_t recent_at
    uint8_t phase
    uint64_t minute_ns              # when the present minute of base_us began
    uint64_t phase_ns               # when the phase began
    uint64_t slowdown_ns            # when the next slowdown begins; 0: not known yet
    uint64_t slowdown_start_ns      # when the last one began
    double growth                   # bytes of the window's growth that are not whole yet

cdef struct Bbr:                    # draft-ietf-ccwg-bbr; see bbr_model for what the parts mean
    uint8_t state
    uint8_t ack_phase
    bint is_lossy                   # the variant that does not take every loss for congestion
    # the path: rates
    double max_bw[2]                # greatest rate delivered in this cycle of probing, and in the one before
    double bw_lo                    # what losses have left of it for now; 0: no bound
    double bw_latest                # greatest rate delivered in this round of losses
    double bw                       # that is used: the lesser of the two
    # the path: amounts
    uint64_t inflight_hi            # in flight without much loss, as probing has found; NO_BOUND
    uint64_t inflight_lo            # what losses have left of it for now; NO_BOUND
    uint64_t inflight_latest        # greatest amount delivered in this round of losses
    uint64_t extra_acked[2]         # acknowledged beyond the rate, of this span of rounds and of the one before
    uint64_t extra_start_ns
    uint64_t extra_delivered
    uint32_t extra_rounds
    # the path: round trip
    uint64_t min_rtt_ns             # of 10 seconds
    uint64_t min_rtt_at_ns
    uint64_t probe_rtt_min_ns       # of 5 seconds: older, the queue is emptied to see it again
    uint64_t probe_rtt_min_at_ns
    uint64_t probe_rtt_done_ns      # 0: too much is in flight yet
    bint is_probe_rtt_expired
    bint is_probe_rtt_round_done
    # rounds: a packet sent after the last one ended is acknowledged
    uint64_t round_delivered        # ends this round
    uint32_t rounds_since_probe
    bint is_round_start
    # rounds of losses, which begin with the first
    uint64_t loss_round_delivered
    bint is_loss_round_start
    bint is_loss_in_round
    uint16_t losses_in_round        # gaps, not packets
    uint64_t lost_in_round
    uint64_t round_lost             # in the last whole round
    # full bandwidth
    double full_bw
    uint8_t full_bw_rounds          # without growth
    bint is_full_bw_now
    bint is_full_bw_reached         # startup is over
    # probing for bandwidth
    bint may_probe_samples_tell     # losses are due to the probe
    uint64_t phase_ns               # when the phase began
    uint64_t probe_wait_ns
    uint32_t probe_up_rounds
    uint64_t probe_up_packets       # acknowledged for each packet that inflight_hi grows by
    uint64_t probe_up_acked
    # the window
    uint64_t prior_window           # before recovery or PROBE_RTT
    uint64_t conserve_until         # delivered: until then a packet is sent for each that has left
    bint is_idle_restart
    # the lossy variant
    double loss_floor               # share of packets that is lost without a queue
    bint is_queued                  # the round trip has grown
    uint64_t floor_acked
    uint64_t floor_lost
    uint64_t round_max_rtt_ns

cdef union ControllerState:
    Cubic cubic
    Bbr bbr
    Ledbat ledbat

cdef struct Congestion
ctypedef void (*cc_on_start)(Congestion *c) noexcept nogil
ctypedef void (*cc_on_ack)(Congestion *c, const AckSample *sample) noexcept nogil
ctypedef void (*cc_on_loss)(Congestion *c, const LossSample *sample) noexcept nogil
ctypedef void (*cc_on_congestion)(Congestion *c, uint64_t now_ns, int what) noexcept nogil
ctypedef void (*cc_on_restart)(Congestion *c, uint64_t now_ns, bint app_limited) noexcept nogil

cdef struct Controller:             # the interface of every congestion controller; NULL: it does not care
    cc_on_start on_start
    cc_on_ack on_ack
    cc_on_loss on_loss              # for each group of packets found lost
    cc_on_congestion on_congestion  # packets lost or marked CE, at most once for each round trip
    cc_on_restart on_restart        # a packet is sent, and nothing else is in flight

cdef struct Congestion:
    const Controller *controller
    uint64_t window                 # bytes that may be in flight
    uint64_t threshold              # slow start ends here
    uint64_t recovery_start_ns      # what was sent before belongs to the last congestion event
    uint64_t forgiven_ns            # losses of what was sent before do not count at all
    uint64_t congestion_events
    double pacing_rate              # that the controller has set; 0: it follows from the window
    double tokens                   # bytes that may be sent now (pacing)
    uint64_t tokens_ns              # when they were last counted
    uint32_t packet_bytes
    uint8_t kind
    bint wants_app_limited          # the controller holds back more than the path does: samples of the rate tell nothing
    ControllerState state


cdef inline bint is_in_recovery(const Congestion *c, const AckSample *s) noexcept nogil:
    """Tell whether what was acknowledged belongs to the last congestion event."""
    return s.newest_sent_ns <= c.recovery_start_ns
