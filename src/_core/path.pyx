"""A path: two addresses and everything that belongs to them alone. Here: its states, the proof that the peer is where it
seems to be (docs/spec, chapter 14), what is owed in acknowledgements, and ECN.

Packets are acknowledged once for each batch that brought at least two which ask for it, at once when one is missing,
and otherwise within the greatest delay that was promised (RFC 9000, 13.2).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.cc cimport cc_handle_ack, cc_handle_loss, cc_handle_mark, cc_init, cc_set_packet_bytes
from interpeer._core.controller cimport AckSample, LossSample
from interpeer._core.loss cimport (
    MAX_PTO_NS, AckOutcome, packet_fate, recovery_free, recovery_init, recovery_mark_app_limited)
from interpeer._core.pmtud cimport pmtud_init
from interpeer._core.rangeset cimport (
    RANGES_FULL, Range, ranges_add, ranges_drop_lowest, ranges_free, ranges_init, ranges_remove)
from interpeer._core.relay cimport LEG_BYTES
from interpeer._core.replay cimport replay_init
from interpeer._core.slab cimport ENDPOINT_LEG, Endpoint, endpoint_is_ipv4, endpoint_kind
from interpeer._core.wire cimport (
    BASE_DATAGRAM_BYTES, CHALLENGE_BYTES, FRAME_ACK, FRAME_ACK_ECN, MAX_ACK_RANGES, Frame, write_varint)

cdef enum:
    LEAST_CHALLENGE_GAP_NS = 5000000
    ACK_ROOM = 64                   # bytes for an ACK frame's fixed part, its ECN counts and one range


# [state][input] -> next state; the machine never fails: an input that means nothing in a state changes nothing
cdef uint8_t[4][5] TABLE = [
    # PROVEN          MOVED            SILENT           HEARD            ABANDON
    [PATH_ACTIVE,     PATH_VALIDATING, PATH_VALIDATING, PATH_VALIDATING, PATH_ABANDONED],    # VALIDATING
    [PATH_ACTIVE,     PATH_VALIDATING, PATH_SUSPECT,    PATH_ACTIVE,     PATH_ABANDONED],    # ACTIVE
    [PATH_ACTIVE,     PATH_VALIDATING, PATH_SUSPECT,    PATH_ACTIVE,     PATH_ABANDONED],    # SUSPECT
    [PATH_ABANDONED,  PATH_ABANDONED,  PATH_ABANDONED,  PATH_ABANDONED,  PATH_ABANDONED],    # ABANDONED
]


cdef int path_input(Path *p, int event) noexcept nogil:
    """Move the machine; return whether its state has changed."""
    cdef uint8_t before = p.state
    p.state = TABLE[before][event]
    if p.state != before and p.state != PATH_VALIDATING:
        free(p.validation)
        p.validation = NULL
    return p.state != before


cdef void path_init(Path *p, uint32_t id, const Endpoint *remote, uint32_t packet_bytes, int controller,
                    packet_fate on_acked, packet_fate on_lost) noexcept nogil:
    """Start a path as if its address were proven; path_start_validation says that it is not."""
    memset(p, 0, sizeof(Path))
    p.id = id
    p.state = PATH_ACTIVE
    p.remote = remote[0]
    path_start_mtu(p, packet_bytes)
    recovery_init(&p.recovery, p, on_acked, on_lost)
    cc_init(&p.cc, controller, p.packet_bytes)
    replay_init(&p.window)
    ranges_init(&p.received, MAX_ACK_RANGES)


cdef void path_start_mtu(Path *p, uint32_t packet_bytes) noexcept nogil:
    """Start with packets of this size. On a relayed path the leg's id goes in front: they are smaller by that, but not smaller
    than what every path carries, for that much more passes anywhere, too."""
    cdef bint is_relayed = endpoint_kind(p.remote.address) == ENDPOINT_LEG
    if is_relayed:
        packet_bytes = packet_bytes - LEG_BYTES if packet_bytes > BASE_DATAGRAM_BYTES + LEG_BYTES else BASE_DATAGRAM_BYTES
    pmtud_init(&p.mtu, packet_bytes, endpoint_is_ipv4(&p.remote))
    p.mtu.lead = LEG_BYTES if is_relayed else 0
    p.packet_bytes = packet_bytes


cdef void path_free(Path *p) noexcept nogil:
    recovery_free(&p.recovery)
    ranges_free(&p.received)
    free(p.validation)
    p.validation = NULL


# --- validation (RFC 9000, 8.2 and 9.3) ---

cdef int path_start_validation(Path *p) noexcept nogil:
    """Have the present address proved, by a challenge that is drawn when it is sent. Return 0, or -1 without memory."""
    if p.validation == NULL:
        p.validation = <Validation *>malloc(sizeof(Validation))
        if p.validation == NULL:
            return -1
    memset(p.validation, 0, sizeof(Validation))
    path_input(p, PATH_IN_MOVED)
    return 0


cdef int path_doubt(Path *p, uint32_t bytes) noexcept nogil:
    """The handshake has not shown that the peer is where so many bytes came from. Return 0, or -1 without memory."""
    if path_start_validation(p) != 0:
        return -1
    p.validation.credit_bytes = bytes
    return 0


cdef bint path_challenge_is_due(const Path *p, uint64_t now_ns) noexcept nogil:
    """Tell whether to ask, for the first time or again: when the time for it has come, or when the peer says something, for
    then it waits for us; but no more than once in half a round trip."""
    cdef const Validation *v = p.validation
    if v == NULL or p.state != PATH_VALIDATING:
        return False
    if is_time_to_ask(v, now_ns):
        return True
    return p.unacked and now_ns - v.sent_ns >= max_u64(p.recovery.rtt.smoothed_ns // 2, LEAST_CHALLENGE_GAP_NS)


cdef inline bint is_time_to_ask(const Validation *v, uint64_t now_ns) noexcept nogil:
    return v.tries == 0 or (v.next_ns <= now_ns and v.tries < CHALLENGE_TRIES)


cdef bint path_asks_previous(const Path *p, uint64_t now_ns) noexcept nogil:
    """Tell whether the address before is to be asked as well: whenever the new one is, but for when that is in a hurry."""
    cdef const Validation *v = p.validation
    return p.state == PATH_VALIDATING and v.has_previous and v.previous_tries <= v.tries and is_time_to_ask(v, now_ns)


cdef inline uint64_t max_u64(uint64_t a, uint64_t b) noexcept nogil:
    return a if a > b else b


cdef void path_challenge_sent(Path *p, uint64_t now_ns, uint64_t pto_ns) noexcept nogil:
    cdef Validation *v = p.validation
    cdef uint64_t wait_ns = pto_ns << (v.tries if v.tries < CHALLENGE_TRIES else CHALLENGE_TRIES)
    cdef uint64_t longest_ns = max_u64(pto_ns, MAX_PTO_NS)      # data may be waiting for the answer
    v.sent_ns = now_ns
    v.next_ns = now_ns + (wait_ns if wait_ns < longest_ns else longest_ns)
    if v.tries < CHALLENGE_TRIES:
        v.tries += 1


cdef int path_handle_response(Path *p, const uint8_t *data) noexcept nogil:
    """Take what should be our challenge. Return RESPONSE_*."""
    cdef Validation *v = p.validation
    if v == NULL or not v.is_drawn:
        return RESPONSE_STRANGE
    if memcmp(data, v.challenge, CHALLENGE_BYTES) == 0:
        path_input(p, PATH_IN_PROVEN)
        return RESPONSE_PROVES
    if v.has_previous and memcmp(data, v.previous_challenge, CHALLENGE_BYTES) == 0:
        return RESPONSE_RETURNS
    return RESPONSE_STRANGE


cdef void path_handle_challenge(Path *p, const uint8_t *data, const Endpoint *source, const uint8_t *local) noexcept nogil:
    """Owe the peer an answer, which goes to where its question came from."""
    p.answer.is_owed = True
    memcpy(p.answer.data, data, CHALLENGE_BYTES)
    p.answer.remote = source[0]
    memcpy(p.answer.local, local, sizeof(p.answer.local))


cdef void path_follow_mtu(Path *p) noexcept nogil:
    """Send packets as large as the path is known to carry."""
    if p.packet_bytes != p.mtu.bytes:
        p.packet_bytes = p.mtu.bytes
        cc_set_packet_bytes(&p.cc, p.packet_bytes)


# --- acknowledgements ---

cdef void path_handle_number(Path *p, uint64_t number, bint eliciting, uint8_t ecn, uint64_t now_ns,
                             uint64_t max_ack_delay_ns) noexcept nogil:
    """Note that an authentic packet has come, and decide when it is acknowledged."""
    cdef bint in_order = p.received.count == 0 or number == p.received.ranges[p.received.count - 1].end
    if p.received.count == 0 or number >= p.received.ranges[p.received.count - 1].end:
        p.received_ns = now_ns
    if ranges_add(&p.received, number, number + 1) == RANGES_FULL:
        # too many gaps to report: the oldest range is forgotten (aioquic#549)
        ranges_drop_lowest(&p.received)
        ranges_add(&p.received, number, number + 1)
    if ecn == 2:
        p.ecn_received[0] += 1
    elif ecn == 1:
        p.ecn_received[1] += 1
    elif ecn == 3:
        p.ecn_received[2] += 1
    if not eliciting:
        return
    p.unacked += 1
    if p.unacked >= ACK_EVERY or not in_order or ecn == 3:
        p.ack_now = True
    elif p.ack_deadline_ns == 0:
        p.ack_deadline_ns = now_ns + max_ack_delay_ns


cdef uint8_t *path_write_ack(Path *p, uint8_t *at, uint8_t *end, uint64_t now_ns) noexcept nogil:
    """Write an ACK frame with as many of the newest ranges as fit; return where it ends (`at` if none fits)."""
    cdef bint with_ecn = p.ecn_received[0] or p.ecn_received[1] or p.ecn_received[2]
    cdef uint32_t count = p.received.count, i, ranges
    cdef const Range *r
    cdef const Range *above
    if count == 0 or end - at < ACK_ROOM:
        return at
    ranges = <uint32_t>((end - at - ACK_ROOM) // 16) + 1
    if ranges > count:
        ranges = count
    r = &p.received.ranges[count - 1]
    at = write_varint(at, FRAME_ACK_ECN if with_ecn else FRAME_ACK)
    at = write_varint(at, p.id)
    at = write_varint(at, r.end - 1)
    at = write_varint(at, (now_ns - p.received_ns) // 1000)
    at = write_varint(at, ranges - 1)
    at = write_varint(at, r.end - r.start - 1)
    for i in range(1, ranges):
        above = r
        r = &p.received.ranges[count - 1 - i]
        at = write_varint(at, above.start - r.end - 1)
        at = write_varint(at, r.end - r.start - 1)
    if with_ecn:
        for i in range(3):
            at = write_varint(at, p.ecn_received[i])
    p.unacked = 0
    p.ack_now = False
    p.ack_deadline_ns = 0
    return at


cdef void path_handle_ack_acked(Path *p, uint64_t largest) noexcept nogil:
    """The peer has our acknowledgement of everything below `largest`: it need not be told again (RFC 9000, 13.2.4)."""
    if p.received.count and p.received.ranges[p.received.count - 1].end > largest:
        ranges_remove(&p.received, 0, largest)
    elif p.received.count > 1:
        ranges_remove(&p.received, 0, p.received.ranges[p.received.count - 1].start)


cdef uint64_t path_handle_ecn(Path *p, const Frame *ack, uint64_t newly_acked_packets) noexcept nogil:
    """Check the peer's counts against what was sent; return how many packets came marked CE since the last ACK.

    Counts that fall, exceed what was sent, or leave out packets just acknowledged end the use of ECN: a lying peer
    can do no more than that, and than slow itself down."""
    cdef uint64_t total = ack.ecn[0] + ack.ecn[2]
    cdef uint64_t marked
    if p.ecn_state == ECN_FAILED or newly_acked_packets == 0:
        return 0
    if ack.type != FRAME_ACK_ECN or ack.ecn[1] or total > p.ecn_sent or total < p.ecn_acked + newly_acked_packets \
            or ack.ecn[2] < p.ecn_ce:
        p.ecn_state = ECN_FAILED
        return 0
    p.ecn_state = ECN_CAPABLE
    marked = ack.ecn[2] - p.ecn_ce
    p.ecn_ce = ack.ecn[2]
    p.ecn_acked = total
    return marked


# --- congestion control ---

cdef void path_handle_outcome(Path *p, const Frame *ack, const AckOutcome *o, uint64_t in_flight_before,
                              uint64_t now_ns) noexcept nogil:
    """Let congestion control know what an ACK frame, or a time-out (`ack` is NULL then), has settled: once, together."""
    cdef AckSample sample
    cdef LossSample loss
    cdef uint64_t marked = 0
    if ack != NULL and o.largest_moved:
        marked = path_handle_ecn(p, ack, o.acked_packets)
        if marked:
            cc_handle_mark(&p.cc, now_ns, o.newest_acked_sent_ns)
    if o.lost_packets:
        loss.now_ns = now_ns
        loss.lost_bytes = o.lost_bytes
        loss.newest_sent_ns = o.newest_lost_sent_ns
        loss.rtt_ns = p.recovery.rtt.latest_ns
        loss.min_rtt_ns = p.recovery.rtt.min_ns
        loss.in_flight = p.recovery.bytes_in_flight
        loss.acked_bytes = o.acked_bytes
        loss.delivered = p.recovery.delivered
        loss.is_rate_app_limited = o.is_lost_app_limited
        loss.prior_in_flight = o.lost_prior_in_flight
        loss.lost_since = o.lost_lost_since
        loss.is_persistent = o.is_persistent
        cc_handle_loss(&p.cc, &loss)
    if o.acked_bytes:
        sample.now_ns = now_ns
        sample.acked_bytes = o.acked_bytes
        sample.lost_bytes = o.lost_bytes
        sample.marked_packets = marked
        sample.newest_sent_ns = o.newest_acked_sent_ns
        sample.rtt_ns = p.recovery.rtt.latest_ns if o.has_rtt else 0
        sample.min_rtt_ns = p.recovery.rtt.min_ns
        sample.smoothed_rtt_ns = p.recovery.rtt.smoothed_ns
        sample.in_flight = p.recovery.bytes_in_flight
        sample.rate = o.rate
        sample.is_rate_app_limited = o.is_rate_app_limited
        sample.delivered = p.recovery.delivered
        sample.prior_delivered = o.prior_delivered
        sample.prior_in_flight = o.prior_in_flight
        sample.lost_since = o.lost_since
        cc_handle_ack(&p.cc, &sample, in_flight_before)
        if p.cc.wants_app_limited:
            recovery_mark_app_limited(&p.recovery)
