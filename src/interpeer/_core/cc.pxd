from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    INITIAL_WINDOW_PACKETS = 10     # RFC 6928
    MINIMUM_WINDOW_PACKETS = 2
    PACING_QUANTUM_NS = 500000      # packets are released together that the rate gives in this time: worth GSO and a timer
    PACING_BURST_NS = 1000000       # after a pause, what it gives in this time may go at once
    PACING_BURST_PACKETS = 10       # ... and in any case so many packets (RFC 9002, 7.7)

cdef enum:
    CONTROLLER_CUBIC = 0

cdef struct AckSample:              # what a controller learns from one ACK frame
    uint64_t now_ns
    uint64_t acked_bytes
    uint64_t newest_sent_ns         # when the newest packet acknowledged was sent
    uint64_t rtt_ns                 # the sample of this frame; 0: none
    uint64_t min_rtt_ns
    uint64_t smoothed_rtt_ns
    bint app_limited                # the window was not what held the sender back

cdef struct Hystart:                # RFC 9406
    uint64_t round_start_ns         # the round ends when a packet sent after this is acknowledged
    uint64_t last_round_min_ns
    uint64_t round_min_ns
    uint64_t css_baseline_ns        # 0: not in conservative slow start
    uint32_t samples
    uint32_t css_rounds

cdef struct Cubic:                  # RFC 9438; windows in bytes
    double w_max
    double prior                    # the window of the last congestion event
    double k_s
    double w_est
    uint64_t epoch_ns               # start of this congestion avoidance; 0: not yet
    uint64_t last_ack_ns

cdef struct Congestion
ctypedef void (*cc_on_ack)(Congestion *c, const AckSample *sample) noexcept nogil
ctypedef void (*cc_on_congestion)(Congestion *c, uint64_t now_ns, bint is_persistent) noexcept nogil

cdef struct Controller:             # the interface of every congestion controller
    cc_on_ack on_ack
    cc_on_congestion on_congestion  # packets lost or marked CE, at most once for each round trip

cdef struct Congestion:
    const Controller *controller
    uint64_t window                 # bytes that may be in flight
    uint64_t threshold              # slow start ends here
    uint64_t recovery_start_ns      # what was sent before belongs to the last congestion event
    uint32_t packet_bytes
    uint64_t congestion_events
    Hystart hystart
    Cubic cubic
    double tokens                   # bytes that may be sent now (pacing)
    uint64_t tokens_ns              # when they were last counted

cdef void cc_init(Congestion *c, int controller, uint32_t packet_bytes) noexcept nogil
cdef void cc_set_packet_bytes(Congestion *c, uint32_t packet_bytes) noexcept nogil
cdef void cc_handle_ack(Congestion *c, const AckSample *sample) noexcept nogil
cdef void cc_handle_congestion(Congestion *c, uint64_t now_ns, uint64_t newest_sent_ns, bint is_persistent) noexcept nogil
cdef void cc_forgive(Congestion *c, uint64_t now_ns) noexcept nogil
cdef double cc_pacing_rate(const Congestion *c, uint64_t smoothed_rtt_ns) noexcept nogil
cdef uint64_t cc_release_ns(Congestion *c, uint64_t now_ns, uint64_t smoothed_rtt_ns) noexcept nogil
cdef void cc_spend(Congestion *c, uint64_t bytes) noexcept nogil
