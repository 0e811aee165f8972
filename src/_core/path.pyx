"""A path: two addresses and everything that belongs to them alone. Here: what is owed in acknowledgements, and ECN.

Packets are acknowledged once for each batch that brought at least two which ask for it, at once when one is missing,
and otherwise within the greatest delay that was promised (RFC 9000, 13.2).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.cc cimport cc_init, cc_set_packet_bytes
from interpeer._core.loss cimport packet_fate, recovery_free, recovery_init
from interpeer._core.pmtud cimport pmtud_init
from interpeer._core.rangeset cimport (
    RANGES_FULL, Range, ranges_add, ranges_drop_lowest, ranges_free, ranges_init, ranges_remove)
from interpeer._core.replay cimport replay_init
from interpeer._core.slab cimport Endpoint, endpoint_is_ipv4
from interpeer._core.wire cimport FRAME_ACK, FRAME_ACK_ECN, MAX_ACK_RANGES, Frame, write_varint

cdef enum:
    ACK_ROOM = 64                   # bytes for an ACK frame's fixed part, its ECN counts and one range


cdef int path_init(Path *p, uint32_t id, const Endpoint *remote, uint32_t packet_bytes, int controller, void *owner,
                   packet_fate on_acked, packet_fate on_lost) noexcept nogil:
    memset(p, 0, sizeof(Path))
    p.id = id
    p.remote = remote[0]
    p.packet_bytes = packet_bytes
    pmtud_init(&p.mtu, packet_bytes, endpoint_is_ipv4(remote))
    recovery_init(&p.recovery, owner, on_acked, on_lost)
    cc_init(&p.cc, controller, packet_bytes)
    replay_init(&p.window)
    ranges_init(&p.received, MAX_ACK_RANGES)
    return 0


cdef void path_free(Path *p) noexcept nogil:
    recovery_free(&p.recovery)
    ranges_free(&p.received)


cdef void path_follow_mtu(Path *p) noexcept nogil:
    """Send packets as large as the path is known to carry."""
    if p.packet_bytes != p.mtu.bytes:
        p.packet_bytes = p.mtu.bytes
        cc_set_packet_bytes(&p.cc, p.packet_bytes)


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


cdef bint path_handle_ecn(Path *p, const Frame *ack, uint64_t newly_acked_packets) noexcept nogil:
    """Check the peer's counts against what was sent; return whether the path has marked packets CE since the last ACK.

    Counts that fall, exceed what was sent, or leave out packets just acknowledged end the use of ECN: a lying peer
    can do no more than that, and than slow itself down."""
    cdef uint64_t total = ack.ecn[0] + ack.ecn[2]
    cdef bint marked
    if p.ecn_state == ECN_FAILED or newly_acked_packets == 0:
        return False
    if ack.type != FRAME_ACK_ECN or ack.ecn[1] or total > p.ecn_sent or total < p.ecn_acked + newly_acked_packets \
            or ack.ecn[2] < p.ecn_ce:
        p.ecn_state = ECN_FAILED
        return False
    p.ecn_state = ECN_CAPABLE
    marked = ack.ecn[2] > p.ecn_ce
    p.ecn_ce = ack.ecn[2]
    p.ecn_acked = total
    return marked
