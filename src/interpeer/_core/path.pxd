from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from interpeer._core.cc cimport Congestion
from interpeer._core.loss cimport Recovery, packet_fate
from interpeer._core.pmtud cimport Pmtud
from interpeer._core.rangeset cimport RangeSet
from interpeer._core.replay cimport ReplayWindow
from interpeer._core.slab cimport Endpoint
from interpeer._core.wire cimport Frame

cdef enum:
    ACK_EVERY = 2                   # packets that ask for one (RFC 9000, 13.2.2); a batch is one occasion
    PING_EVERY = 32                 # bare acknowledgements, so that ours are acknowledged and ranges can be forgotten

cdef enum:                          # ECN on a path (RFC 9000, 13.4.2)
    ECN_TESTING = 0                 # packets are marked; no acknowledgement has told yet what became of the marks
    ECN_CAPABLE = 1
    ECN_FAILED = 2                  # marks are cleared or invented on the way: no more are set

cdef struct Path:                   # one pair of addresses, and everything that belongs to it alone
    uint32_t id
    Endpoint remote
    uint8_t local[16]               # our address on it; zeros: not known
    bint is_proven                  # the peer gets what we send there
    uint64_t credit_bytes           # until then: what has come from there, less what has gone there
    uint64_t local_cid              # on packets we receive
    uint64_t remote_cid             # on packets we send
    uint32_t packet_bytes           # of the largest packet to be sent on it; follows `mtu`
    Pmtud mtu
    Recovery recovery
    Congestion cc
    # receiving
    ReplayWindow window
    RangeSet received               # packet numbers to be acknowledged
    uint64_t received_ns            # when the largest came
    uint32_t unacked                # packets that ask for an acknowledgement and have none
    bint ack_now
    uint64_t ack_deadline_ns        # 0: nothing to acknowledge
    uint64_t ecn_received[3]        # ECT(0), ECT(1), CE
    uint32_t bare_acks              # sent since the last packet that asked for one
    # ECN, sending
    uint8_t ecn_state
    uint64_t ecn_sent               # packets marked ECT(0)
    uint64_t ecn_acked              # of the counts in the last ACK: ECT(0) and CE together
    uint64_t ecn_ce                 # the peer's count of CE
    # statistics
    uint64_t packets_sent
    uint64_t packets_received
    uint64_t bytes_sent
    uint64_t bytes_received
    uint64_t packets_lost

cdef int path_init(Path *p, uint32_t id, const Endpoint *remote, uint32_t packet_bytes, int controller, void *owner,
                   packet_fate on_acked, packet_fate on_lost) noexcept nogil
cdef void path_free(Path *p) noexcept nogil
cdef void path_follow_mtu(Path *p) noexcept nogil
cdef void path_handle_number(Path *p, uint64_t number, bint eliciting, uint8_t ecn, uint64_t now_ns,
                             uint64_t max_ack_delay_ns) noexcept nogil
cdef uint8_t *path_write_ack(Path *p, uint8_t *at, uint8_t *end, uint64_t now_ns) noexcept nogil
cdef void path_handle_ack_acked(Path *p, uint64_t largest) noexcept nogil
cdef bint path_handle_ecn(Path *p, const Frame *ack, uint64_t newly_acked_packets) noexcept nogil


cdef inline bint path_is_from(const Path *p, const Endpoint *source) noexcept nogil:
    return memcmp(&p.remote, source, sizeof(Endpoint)) == 0
