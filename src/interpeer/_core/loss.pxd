from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.wire cimport Frame

cdef enum:                          # RFC 9002; times in nanoseconds
    PACKET_THRESHOLD = 3            # 6.1.1
    INITIAL_RTT_NS = 333000000      # 6.2.2
    GRANULARITY_NS = 1000000        # 6.1.2, the least variance that is allowed for
    MAX_PTO_NS = 2000000000         # a black hole that ends is noticed after this at the latest

cdef enum:                          # SentPacket.flags
    SENT_OUTSTANDING = 0x0001       # neither acknowledged nor lost
    SENT_ELICITING = 0x0002         # asks for an acknowledgement, and counts as in flight
    SENT_SKIPPED = 0x0004           # a number never sent: whoever acknowledges it lies
    SENT_FIN = 0x0008               # its STREAM frame ends the stream
    SENT_STREAM = 0x0010            # has a STREAM frame in `stream`, `offset`, `stream_bytes`
    SENT_MAX_DATA = 0x0020          # has such a frame; when lost, the present value is sent
    SENT_MAX_STREAMS = 0x0040
    SENT_REKEY = 0x0800             # has the message of an agreement on fresh keys
    SENT_MTU_PROBE = 0x0080         # its loss tells nothing but that it was too large, and nobody waits for it
    SENT_COPIED = 0x0100            # its frames have gone on other paths as well, at the same time
    SENT_APP_LIMITED = 0x8000       # when it was sent, there was less to send than could be sent

cdef enum:                          # FrameRecord.kind: further frames that matter when a packet is lost
    RECORD_STREAM = 1
    RECORD_MAX_STREAM_DATA = 2
    RECORD_RESET_STREAM = 3
    RECORD_STOP_SENDING = 4
    RECORD_NEW_CID = 5              # of path `stream`, number `offset`
    RECORD_RETIRE_CID = 6           # likewise
    RECORD_PATH_STATUS = 7          # of path `stream`; when lost, the present status is sent
    RECORD_PATH_ABANDON = 8         # of path `stream`
    RECORD_CHANNEL = 9              # `offset`: its sequence
    RECORD_DROPPED = 10             # number `offset`; `bytes`: how many, or, with `fin`, from where in one that was begun
    RECORD_MAX_CHANNELS = 11
    RECORD_SIGNAL = 12              # `offset`: its number
    RECORD_OBSERVED = 13            # of path `stream`; when lost, the present address is told

cdef enum:
    LOSS_OK = 0
    LOSS_PROTOCOL = -1              # an acknowledgement of something never sent
    LOSS_NO_MEMORY = -2

cdef struct FrameRecord:
    FrameRecord *next
    uint64_t stream                 # its id, or whatever RECORD_* says
    uint64_t offset
    uint32_t bytes
    uint32_t extent                 # of RECORD_DROPPED with `fin`: how many bytes of the message it tells of
    uint8_t kind
    bint fin

cdef enum:
    SPAN_SHIFT = 6                  # SentPacket's spans of time are in 64 ns: four and a half minutes fit

cdef struct SentPacket:             # 64 bytes: one line of the cache
    uint64_t sent_ns
    uint64_t stream
    uint64_t offset
    uint64_t ack_largest            # one past the largest number acknowledged in it; 0: it has no ACK frame
    FrameRecord *more               # further frames; owned
    # when it was sent: Recovery's counts, from which the rate is told at which data are delivered meanwhile
    uint32_t delivered              # bytes, the low half
    uint32_t since_delivered        # span since the last acknowledgement then
    uint32_t since_first_sent       # span since the packet was sent that was acknowledged last
    uint32_t in_flight              # bytes, it included
    uint16_t lost                   # packets, the low part
    uint16_t bytes                  # of the whole packet
    uint16_t stream_bytes
    uint16_t flags

cdef struct Rtt:
    uint64_t latest_ns
    uint64_t smoothed_ns
    uint64_t variance_ns
    uint64_t min_ns                 # 0: no sample yet
    uint64_t first_ns               # when the first sample was taken; 0: in the handshake, or none yet

ctypedef void (*packet_fate)(void *owner, uint64_t number, const SentPacket *packet) noexcept nogil

cdef struct Recovery:               # what was sent on one path and is not settled yet
    SentPacket *ring                # by packet number; owned
    uint32_t capacity               # a power of two, or 0
    uint64_t base                   # the oldest number kept
    uint64_t next                   # the next number to be sent
    uint64_t largest_acked          # one past it; 0: none
    uint64_t bytes_in_flight
    uint64_t eliciting_in_flight    # packets, but for probes of the path MTU
    uint64_t last_eliciting_ns
    uint64_t loss_time_ns           # when the next packet counts as lost by time; 0: none
    uint32_t pto_count
    Rtt rtt
    uint64_t rtt_since_ns           # what was sent before gives no sample: it went another way
    # rate of delivery (draft-ietf-ccwg-bbr, 4.1)
    uint64_t delivered              # bytes acknowledged in all
    uint64_t delivered_ns           # when the last were
    uint64_t first_sent_ns          # when the packet was sent that was acknowledged last
    uint64_t lost                   # packets in all
    uint64_t app_limited            # until so much is delivered, samples tell of the application, not of the path; 0: no
    void *owner                     # handed to the two functions below
    packet_fate on_acked
    packet_fate on_lost

cdef struct AckOutcome:             # of one ACK frame, or of a timer
    uint64_t acked_bytes            # in flight before
    uint64_t acked_packets
    bint largest_moved              # the frame acknowledges a greater number than any before
    uint64_t newest_acked_sent_ns
    bint has_rtt
    double rate                     # bytes a second delivered since the newest was sent; 0: cannot be told
    bint is_rate_app_limited
    uint64_t prior_delivered        # in all, when the newest was sent
    uint64_t prior_in_flight        # then, it included
    uint64_t lost_since             # bytes, about
    uint64_t lost_bytes
    uint64_t lost_packets
    uint64_t newest_lost_sent_ns
    uint64_t lost_mtu_probes        # not among the packets above
    uint64_t lost_prior_in_flight   # when the newest of them was sent, it included
    uint64_t lost_lost_since        # bytes since then, about
    bint is_lost_app_limited
    bint is_persistent              # persistent congestion (RFC 9002, 7.6)

cdef void recovery_init(Recovery *r, void *owner, packet_fate on_acked, packet_fate on_lost) noexcept nogil
cdef void recovery_free(Recovery *r) noexcept nogil
cdef void recovery_seed_rtt(Recovery *r, uint64_t sample_ns) noexcept nogil
cdef void recovery_restart_rtt(Recovery *r, uint64_t now_ns) noexcept nogil
cdef void recovery_give_up_all(Recovery *r) noexcept nogil
cdef SentPacket *recovery_add(Recovery *r, uint64_t now_ns) noexcept nogil
cdef int recovery_skip(Recovery *r) noexcept nogil
cdef void recovery_sent(Recovery *r, SentPacket *p) noexcept nogil
cdef void recovery_give_up(Recovery *r, uint64_t number) noexcept nogil
cdef void recovery_mark_app_limited(Recovery *r) noexcept nogil
cdef int recovery_handle_ack(Recovery *r, Frame *ack, uint64_t now_ns, uint64_t max_ack_delay_ns,
                             AckOutcome *out) noexcept nogil
cdef void recovery_handle_timeout(Recovery *r, uint64_t now_ns, uint64_t max_ack_delay_ns, AckOutcome *out) noexcept nogil
cdef uint64_t recovery_deadline(const Recovery *r, uint64_t max_ack_delay_ns) noexcept nogil
cdef uint64_t recovery_pto_ns(const Recovery *r, uint64_t max_ack_delay_ns) noexcept nogil
cdef bint recovery_has_copy(const Recovery *r, const SentPacket *of) noexcept nogil
cdef const SentPacket *recovery_oldest(const Recovery *r, uint64_t *number) noexcept nogil
