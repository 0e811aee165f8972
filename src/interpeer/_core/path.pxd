from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from interpeer._core.controller cimport Congestion
from interpeer._core.loss cimport AckOutcome, Recovery, packet_fate
from interpeer._core.pmtud cimport Pmtud
from interpeer._core.rangeset cimport RangeSet
from interpeer._core.replay cimport ReplayWindow
from interpeer._core.slab cimport Endpoint
from interpeer._core.wire cimport Frame

cdef enum:
    ACK_EVERY = 2                   # packets that ask for one (RFC 9000, 13.2.2); a batch is one occasion
    PING_EVERY = 32                 # bare acknowledgements, so that ours are acknowledged and ranges can be forgotten

cdef enum:
    LOCAL_RTT_NS = 5000000          # on paths no longer than this the peer's socket may be where packets wait

cdef enum:                          # ECN on a path (RFC 9000, 13.4.2)
    ECN_TESTING = 0                 # packets are marked; no acknowledgement has told yet what became of the marks
    ECN_CAPABLE = 1
    ECN_FAILED = 2                  # marks are cleared or invented on the way: no more are set

cdef enum:                          # states (docs/spec, chapter 14)
    PATH_VALIDATING = 0             # nothing has shown yet that the peer gets what goes there
    PATH_ACTIVE = 1
    PATH_SUSPECT = 2                # probes go unanswered: used only where there is no better one
    PATH_ABANDONED = 3              # given up; what is still on its way is read
    PATH_STATES = 4

cdef enum:                          # inputs
    PATH_IN_PROVEN = 0              # our challenge has come back
    PATH_IN_MOVED = 1               # the peer's packets come from another address
    PATH_IN_SILENT = 2              # probe time-outs have passed in a row
    PATH_IN_HEARD = 3               # the peer has acknowledged something
    PATH_IN_ABANDON = 4             # one of the ends gives it up
    PATH_INPUTS = 5

cdef enum:                          # results of path_handle_response
    RESPONSE_STRANGE = 0            # nobody has asked that
    RESPONSE_PROVES = 1
    RESPONSE_RETURNS = 2            # the peer is still where it was before

cdef enum:
    CHALLENGE_TRIES = 6             # before a validation has failed; the last waits longest
    SUSPECT_PTOS = 2                # probe time-outs in a row after which another path is preferred

cdef struct Validation:             # of a path's address (RFC 9000, 8.2)
    uint8_t challenge[8]            # that has to come back
    bint is_drawn                   # there is such a challenge
    uint8_t tries                   # challenges sent
    uint64_t sent_ns                # the last of them
    uint64_t next_ns                # when another one is due; after the last try, when it has failed
    uint64_t credit_bytes           # what has come from the address, less what has gone there
    # the address before, to which the path returns if the new one comes to nothing (RFC 9000, 9.3)
    bint has_previous
    Endpoint previous
    uint8_t previous_local[16]
    uint8_t previous_challenge[8]   # the same question to the old address: is the new one the peer's, or a thief's?
    uint8_t previous_tries          # one past the number of the challenge that the last one there went with; 0: none yet

cdef struct Answer:                 # to the peer's last challenge; an earlier one that was not answered is forgotten
    bint is_owed
    uint8_t data[8]
    Endpoint remote                 # where the challenge came from, and the answer goes
    uint8_t local[16]

cdef struct Path:                   # one pair of addresses, and everything that belongs to it alone
    uint32_t id
    uint8_t state
    void *conn                      # the Conn that it belongs to
    Endpoint remote
    uint8_t local[16]               # our address on it; zeros: not known
    uint8_t last_local[16]          # the last one that was known
    bint is_opener                  # we have opened it
    bint is_standby                 # used only when there is no other, as we want it
    bint peer_standby               # ... as the peer wants it
    uint32_t status_sequence        # of our last PATH_STATUS
    uint32_t peer_status_sequence   # one past the peer's last
    uint8_t pending                 # PATH_PENDING_*
    Validation *validation          # owned; NULL: the address is proven and has not changed
    Answer answer
    uint64_t remote_cid             # on packets we send
    uint32_t remote_sequence        # its number
    uint32_t packet_bytes           # of the largest packet to be sent on it; follows `mtu`
    Pmtud mtu
    uint64_t pto_probes             # packets that may be sent whatever the window says
    uint64_t keep_alive_ns          # silence after which it is kept open; 0: as the node does
    uint64_t paced_until_ns         # 0: pacing does not hold anything back
    uint64_t next_run_ns            # data wait until then, where many connections do; in the past otherwise
    uint64_t last_sent_ns
    uint64_t last_received_ns
    uint64_t until_ns               # ABANDONED: when it is forgotten
    bint awaits_abandon_ack         # the peer may not know that it is
    uint64_t data_ns                # when data came last that were not followed by silence yet; 0: none
    uint64_t epoch_first            # first packet number sealed in this epoch of keys
    bint epoch_confirmed            # one of them was acknowledged
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

cdef enum:                          # Path.pending: frames that concern it, sent on any path
    PATH_PENDING_PING = 0x01        # on this one
    PATH_PENDING_STATUS = 0x02
    PATH_PENDING_ABANDON = 0x04
    PATH_PENDING_OBSERVED = 0x08    # where the peer's packets come from

cdef void path_init(Path *p, uint32_t id, const Endpoint *remote, uint32_t packet_bytes, int controller,
                    packet_fate on_acked, packet_fate on_lost) noexcept nogil
cdef void path_free(Path *p) noexcept nogil
cdef void path_start_mtu(Path *p, uint32_t packet_bytes) noexcept nogil
cdef int path_input(Path *p, int event) noexcept nogil
cdef int path_start_validation(Path *p) noexcept nogil
cdef int path_doubt(Path *p, uint32_t bytes) noexcept nogil
cdef bint path_challenge_is_due(const Path *p, uint64_t now_ns) noexcept nogil
cdef bint path_asks_previous(const Path *p, uint64_t now_ns) noexcept nogil
cdef void path_challenge_sent(Path *p, uint64_t now_ns, uint64_t pto_ns) noexcept nogil
cdef int path_handle_response(Path *p, const uint8_t *data) noexcept nogil
cdef void path_handle_challenge(Path *p, const uint8_t *data, const Endpoint *source, const uint8_t *local) noexcept nogil
cdef void path_follow_mtu(Path *p) noexcept nogil
cdef void path_handle_number(Path *p, uint64_t number, bint eliciting, uint8_t ecn, uint64_t now_ns,
                             uint64_t max_ack_delay_ns) noexcept nogil
cdef uint8_t *path_write_ack(Path *p, uint8_t *at, uint8_t *end, uint64_t now_ns) noexcept nogil
cdef void path_handle_ack_acked(Path *p, uint64_t largest) noexcept nogil
cdef uint64_t path_handle_ecn(Path *p, const Frame *ack, uint64_t newly_acked_packets) noexcept nogil
cdef void path_handle_outcome(Path *p, const Frame *ack, const AckOutcome *o, uint64_t in_flight_before,
                              uint64_t now_ns) noexcept nogil


cdef inline bint path_is_from(const Path *p, const Endpoint *source) noexcept nogil:
    return memcmp(&p.remote, source, sizeof(Endpoint)) == 0


cdef inline bint path_is_proven(const Path *p) noexcept nogil:
    """Tell whether the peer is known to get what goes there."""
    return p.state != PATH_VALIDATING


cdef inline bint path_is_live(const Path *p) noexcept nogil:
    return p.state != PATH_ABANDONED
