"""Loss detection (RFC 9002): what was sent, what of it arrived, what is lost, and when to probe.

One instance for each path. Packets stand in a ring by number, so that an acknowledgement costs no search; the owner is
told the fate of each packet exactly once, and decides what to send again. Congestion control is told by the owner, once
for each ACK frame, from the AckOutcome.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from interpeer._core.wire cimport PARSE_OK, Frame, ack_next

cdef enum:
    FIRST_PACKETS = 4               # remembered with the first allocation, and by an idle connection
    PERSISTENT_PTOS = 3             # kPersistentCongestionThreshold


cdef void recovery_init(Recovery *r, void *owner, packet_fate on_acked, packet_fate on_lost) noexcept nogil:
    memset(r, 0, sizeof(Recovery))
    r.owner = owner
    r.on_acked = on_acked
    r.on_lost = on_lost


cdef void recovery_free(Recovery *r) noexcept nogil:
    """Forget every packet; the owner is told of each as lost, so that it can drop what belongs to it."""
    cdef uint64_t number
    for number in range(r.base, r.next):
        if packet(r, number).flags & SENT_OUTSTANDING:
            r.on_lost(r.owner, number, packet(r, number))
    free(r.ring)
    r.ring = NULL
    r.capacity = 0
    r.base = r.next
    r.bytes_in_flight = 0
    r.eliciting_in_flight = 0
    r.loss_time_ns = 0


cdef void recovery_give_up_all(Recovery *r) noexcept nogil:
    """Take everything in flight for lost, whatever becomes of it: the path is not to be waited for."""
    cdef uint64_t number
    cdef SentPacket *p
    for number in range(r.base, r.next):
        p = packet(r, number)
        if p.flags & SENT_OUTSTANDING:
            leave_flight(r, p)
            r.on_lost(r.owner, number, p)
    r.loss_time_ns = 0
    move_base(r)


cdef void recovery_seed_rtt(Recovery *r, uint64_t sample_ns) noexcept nogil:
    """Take the handshake's round trip as the first sample."""
    take_rtt_sample(&r.rtt, sample_ns, 0)


cdef void recovery_restart_rtt(Recovery *r, uint64_t now_ns) noexcept nogil:
    """What is sent from now on takes another way: forget how long the last one was."""
    memset(&r.rtt, 0, sizeof(Rtt))
    r.rtt_since_ns = now_ns
    r.pto_count = 0


cdef inline SentPacket *packet(const Recovery *r, uint64_t number) noexcept nogil:
    return &r.ring[number & (r.capacity - 1)]


cdef int make_room(Recovery *r) noexcept nogil:
    """See that the ring can take one more; double it when it is full."""
    cdef uint32_t capacity = r.capacity * 2 if r.capacity else FIRST_PACKETS
    cdef SentPacket *grown
    cdef uint64_t number
    if r.next - r.base < r.capacity:
        return LOSS_OK
    grown = <SentPacket *>malloc(capacity * sizeof(SentPacket))
    if grown == NULL:
        return LOSS_NO_MEMORY
    for number in range(r.base, r.next):
        grown[number & (capacity - 1)] = packet(r, number)[0]
    free(r.ring)
    r.ring = grown
    r.capacity = capacity
    return LOSS_OK


cdef SentPacket *recovery_add(Recovery *r, uint64_t now_ns) noexcept nogil:
    """Take the next number and return its empty record, to be filled by the caller; NULL without memory."""
    cdef SentPacket *p
    if make_room(r) != LOSS_OK:
        return NULL
    p = packet(r, r.next)
    memset(p, 0, sizeof(SentPacket))
    p.sent_ns = now_ns
    p.flags = SENT_OUTSTANDING
    r.next += 1
    return p


cdef int recovery_skip(Recovery *r) noexcept nogil:
    """Leave a number out, to catch a peer that acknowledges what it has not received (RFC 9000, 21.4)."""
    cdef SentPacket *p
    if make_room(r) != LOSS_OK:
        return LOSS_NO_MEMORY
    p = packet(r, r.next)
    memset(p, 0, sizeof(SentPacket))
    p.flags = SENT_SKIPPED
    r.next += 1
    return LOSS_OK


cdef void recovery_sent(Recovery *r, SentPacket *p) noexcept nogil:
    """Count a packet whose `bytes` and `flags` are filled in.

    One that asks for no acknowledgement is settled at once: a peer that only receives sends nothing else, and nobody
    would ever take its records away."""
    if p.flags & SENT_MTU_PROBE:
        r.bytes_in_flight += p.bytes
    elif p.flags & SENT_ELICITING:
        r.bytes_in_flight += p.bytes
        note_delivery(r, p)
        r.eliciting_in_flight += 1
        r.last_eliciting_ns = p.sent_ns
    else:
        p.flags &= ~<uint32_t>SENT_OUTSTANDING
        if r.eliciting_in_flight == 0:
            move_base(r)


cdef inline uint32_t saturated(uint64_t n) noexcept nogil:
    return <uint32_t>n if n >> 32 == 0 else ~<uint32_t>0


cdef inline void note_delivery(Recovery *r, SentPacket *p) noexcept nogil:
    """Note in a packet that is sent how much has been delivered, so that its acknowledgement tells a rate."""
    if r.eliciting_in_flight == 0:
        r.first_sent_ns = p.sent_ns
        r.delivered_ns = p.sent_ns
    p.delivered = <uint32_t>r.delivered
    p.since_delivered = saturated((p.sent_ns - r.delivered_ns) >> SPAN_SHIFT)
    p.since_first_sent = saturated((p.sent_ns - r.first_sent_ns) >> SPAN_SHIFT)
    p.in_flight = saturated(r.bytes_in_flight)
    p.lost = <uint16_t>r.lost
    if r.app_limited:
        p.flags |= SENT_APP_LIMITED


cdef void recovery_mark_app_limited(Recovery *r) noexcept nogil:
    """There is nothing to send, though more could be: what is in flight by now tells nothing of the path's rate."""
    r.app_limited = max_u64(r.delivered + r.bytes_in_flight, 1)


cdef void sample_rate(Recovery *r, const SentPacket *p, uint64_t now_ns, AckOutcome *out) noexcept nogil:
    """Tell the rate at which data were delivered since the newest packet acknowledged was sent: of the rates of sending
    and of acknowledging them the lesser, since either may be bunched (draft-ietf-ccwg-bbr, 4.1.1.3)."""
    cdef uint64_t sent_ns = <uint64_t>p.since_first_sent << SPAN_SHIFT
    cdef uint64_t acked_ns = now_ns - p.sent_ns + (<uint64_t>p.since_delivered << SPAN_SHIFT)
    cdef uint64_t interval_ns = max_u64(sent_ns, acked_ns)
    r.delivered += out.acked_bytes
    r.delivered_ns = now_ns
    r.first_sent_ns = p.sent_ns
    if r.app_limited and r.delivered > r.app_limited:
        r.app_limited = 0
    out.prior_delivered = r.delivered - <uint32_t>(<uint32_t>r.delivered - p.delivered)
    out.prior_in_flight = p.in_flight
    out.is_rate_app_limited = (p.flags & SENT_APP_LIMITED) != 0
    if interval_ns >= r.rtt.min_ns and interval_ns:
        out.rate = (r.delivered - out.prior_delivered) * 1e9 / interval_ns


cdef inline void leave_flight(Recovery *r, SentPacket *p) noexcept nogil:
    p.flags &= ~<uint32_t>SENT_OUTSTANDING
    if p.flags & SENT_ELICITING:
        r.bytes_in_flight -= p.bytes
        if not p.flags & SENT_MTU_PROBE:
            r.eliciting_in_flight -= 1


cdef void recovery_give_up(Recovery *r, uint64_t number) noexcept nogil:
    """Wait no longer for a packet that only its sender's own timer could find lost; the owner knows."""
    if r.base <= number < r.next and packet(r, number).flags & SENT_OUTSTANDING:
        leave_flight(r, packet(r, number))
        move_base(r)


cdef void move_base(Recovery *r) noexcept nogil:
    """Forget the settled packets at the old end; an idle path keeps no large ring.

    A skipped number is kept until later ones are acknowledged, while a lie about it could still come."""
    cdef uint64_t keep_skipped = r.largest_acked
    while r.base < r.next and not packet(r, r.base).flags & SENT_OUTSTANDING:
        if packet(r, r.base).flags & SENT_SKIPPED and r.base >= keep_skipped:
            break
        r.base += 1
    if r.base == r.next and r.capacity > FIRST_PACKETS:
        free(r.ring)
        r.ring = NULL
        r.capacity = 0


cdef int recovery_handle_ack(Recovery *r, Frame *ack, uint64_t now_ns, uint64_t max_ack_delay_ns,
                             AckOutcome *out) noexcept nogil:
    """Settle what an ACK frame acknowledges and what it proves lost. Return LOSS_OK or LOSS_PROTOCOL.

    A duplicate or an old ACK changes nothing."""
    cdef uint64_t low, high, number, newest = 0
    cdef uint64_t delay_ns
    cdef SentPacket *p
    memset(out, 0, sizeof(AckOutcome))
    if ack.value >= r.next:
        return LOSS_PROTOCOL
    while ack_next(ack, &low, &high) == PARSE_OK:
        if high < r.base:
            break
        if low < r.base:
            low = r.base
        for number in range(low, high + 1):
            p = packet(r, number)
            if p.flags & SENT_SKIPPED:
                return LOSS_PROTOCOL
            if not p.flags & SENT_OUTSTANDING:
                continue
            leave_flight(r, p)
            out.acked_packets += 1
            out.acked_bytes += p.bytes
            if number >= newest:
                newest = number + 1
                out.newest_acked_sent_ns = p.sent_ns
            r.on_acked(r.owner, number, p)
    if newest == 0:
        return LOSS_OK
    if (newest == ack.value + 1 or ack.value >= r.largest_acked) and packet(r, ack.value).sent_ns >= r.rtt_since_ns:
        # the largest number is newly acknowledged, even if that packet asked for nothing (RFC 9002, 5.1)
        delay_ns = ack.delay_us * 1000 if ack.delay_us < max_ack_delay_ns // 1000 else max_ack_delay_ns
        if r.rtt.min_ns == 0:
            r.rtt.first_ns = now_ns
        take_rtt_sample(&r.rtt, now_ns - packet(r, ack.value).sent_ns, delay_ns)
        out.has_rtt = True
    if ack.value + 1 > r.largest_acked:
        r.largest_acked = ack.value + 1
        out.largest_moved = True
    r.pto_count = 0
    detect_losses(r, now_ns, max_ack_delay_ns, out)
    if out.acked_bytes:
        sample_rate(r, packet(r, newest - 1), now_ns, out)
        out.lost_since = <uint64_t><uint16_t>(r.lost - packet(r, newest - 1).lost) * packet(r, newest - 1).bytes
    move_base(r)
    return LOSS_OK


cdef void take_rtt_sample(Rtt *rtt, uint64_t sample_ns, uint64_t ack_delay_ns) noexcept nogil:
    """RFC 9002, 5.3."""
    cdef uint64_t deviation
    sample_ns = max_u64(sample_ns, 1)   # 0 means that there is none yet
    rtt.latest_ns = sample_ns
    if rtt.min_ns == 0:
        rtt.min_ns = sample_ns
        rtt.smoothed_ns = sample_ns
        rtt.variance_ns = sample_ns // 2
        return
    if sample_ns < rtt.min_ns:
        rtt.min_ns = sample_ns
    if sample_ns >= rtt.min_ns + ack_delay_ns:
        sample_ns -= ack_delay_ns
    deviation = rtt.smoothed_ns - sample_ns if rtt.smoothed_ns > sample_ns else sample_ns - rtt.smoothed_ns
    rtt.variance_ns = (3 * rtt.variance_ns + deviation) // 4
    rtt.smoothed_ns = (7 * rtt.smoothed_ns + sample_ns) // 8


cdef inline uint64_t loss_delay_ns(const Recovery *r) noexcept nogil:
    """9/8 of the round trip (RFC 9002, 6.1.2)."""
    cdef uint64_t rtt = r.rtt.latest_ns if r.rtt.latest_ns > r.rtt.smoothed_ns else r.rtt.smoothed_ns
    rtt = rtt * 9 // 8
    return rtt if rtt > GRANULARITY_NS else GRANULARITY_NS


cdef void detect_losses(Recovery *r, uint64_t now_ns, uint64_t max_ack_delay_ns, AckOutcome *out) noexcept nogil:
    """Declare lost what was sent long enough before something that was acknowledged (RFC 9002, 6.1).

    Congestion is persistent if two of these were sent that far apart and nothing between them was acknowledged (7.6)."""
    cdef uint64_t number, delay_ns = loss_delay_ns(r)
    cdef uint64_t persistent_ns = PERSISTENT_PTOS * recovery_pto_ns(r, max_ack_delay_ns)
    cdef uint64_t run_ns = 0        # when the first packet was sent of those lost in a row; 0: none
    cdef SentPacket *p
    r.loss_time_ns = 0
    for number in range(r.base, r.largest_acked):
        p = packet(r, number)
        if not p.flags & SENT_OUTSTANDING:
            if p.flags & SENT_ELICITING:
                run_ns = 0          # acknowledged: those lost before are older than all that are lost now
            continue
        if p.sent_ns + delay_ns > now_ns and number + PACKET_THRESHOLD >= r.largest_acked:
            # packets are in order of time, so nothing after this one is lost either
            r.loss_time_ns = p.sent_ns + delay_ns
            break
        leave_flight(r, p)
        if p.flags & SENT_MTU_PROBE:
            out.lost_mtu_probes += 1
            r.on_lost(r.owner, number, p)
            continue
        r.lost += 1
        out.lost_packets += 1
        out.lost_bytes += p.bytes
        out.newest_lost_sent_ns = p.sent_ns
        out.lost_prior_in_flight = p.in_flight
        out.lost_lost_since = <uint64_t><uint16_t>(r.lost - p.lost) * p.bytes
        out.is_lost_app_limited = (p.flags & SENT_APP_LIMITED) != 0
        if run_ns and p.sent_ns - run_ns > persistent_ns:
            out.is_persistent = True
        elif run_ns == 0 and p.sent_ns > r.rtt.first_ns:
            run_ns = p.sent_ns
        r.on_lost(r.owner, number, p)


cdef inline uint64_t max_u64(uint64_t a, uint64_t b) noexcept nogil:
    return a if a > b else b


cdef uint64_t recovery_pto_ns(const Recovery *r, uint64_t max_ack_delay_ns) noexcept nogil:
    """Return the probe time-out without back-off (RFC 9002, 6.2.1)."""
    if r.rtt.min_ns == 0:
        return 3 * <uint64_t>INITIAL_RTT_NS
    return r.rtt.smoothed_ns + max_u64(4 * r.rtt.variance_ns, GRANULARITY_NS) + max_ack_delay_ns


cdef uint64_t recovery_deadline(const Recovery *r, uint64_t max_ack_delay_ns) noexcept nogil:
    """Return when recovery_handle_timeout is due; 0: never."""
    cdef uint64_t pto_ns
    if r.loss_time_ns:
        return r.loss_time_ns
    if r.eliciting_in_flight == 0:
        return 0
    pto_ns = recovery_pto_ns(r, max_ack_delay_ns) << (r.pto_count if r.pto_count < 16 else 16)
    if pto_ns > MAX_PTO_NS:
        pto_ns = max_u64(MAX_PTO_NS, recovery_pto_ns(r, max_ack_delay_ns))
    return r.last_eliciting_ns + pto_ns


cdef void recovery_handle_timeout(Recovery *r, uint64_t now_ns, uint64_t max_ack_delay_ns, AckOutcome *out) noexcept nogil:
    """Either packets are lost by time, told in `out`, or a probe is due: then `pto_count` has grown."""
    memset(out, 0, sizeof(AckOutcome))
    if r.loss_time_ns:
        if r.loss_time_ns <= now_ns:
            detect_losses(r, now_ns, max_ack_delay_ns, out)
            move_base(r)
        return
    r.pto_count += 1


cdef bint recovery_has_copy(const Recovery *r, const SentPacket *of) noexcept nogil:
    """Tell whether a packet with the same frames as one of another path is outstanding here. They were sent at one moment, and
    packets are in order of time: those of that moment are found by halving."""
    cdef uint64_t low = r.base, high = r.next, middle, number
    cdef const SentPacket *p
    while low < high:
        middle = low + (high - low) // 2
        number = middle
        while number < high and packet(r, number).flags & SENT_SKIPPED:
            number += 1             # it has no time
        if number < high and packet(r, number).sent_ns < of.sent_ns:
            low = number + 1
        else:
            high = middle
    while low < r.next:
        p = packet(r, low)
        if not p.flags & SENT_SKIPPED and p.sent_ns > of.sent_ns:
            return False
        if p.flags & SENT_OUTSTANDING and p.flags & SENT_COPIED and is_copy(p, of):
            return True
        low += 1
    return False


cdef bint is_copy(const SentPacket *p, const SentPacket *of) noexcept nogil:
    """Tell whether two packets carry the same pieces of streams and channels, as the first one tells."""
    return p.flags & of.flags & SENT_STREAM and p.stream == of.stream and p.offset == of.offset \
        and p.stream_bytes == of.stream_bytes


cdef const SentPacket *recovery_oldest(const Recovery *r, uint64_t *number) noexcept nogil:
    """Return the oldest packet from `number` on that is outstanding and whose loss would matter, and its number; or NULL."""
    cdef uint32_t nothing_more = SENT_OUTSTANDING | SENT_ELICITING | SENT_MTU_PROBE | SENT_APP_LIMITED | SENT_COPIED
    cdef const SentPacket *p
    if number[0] < r.base:
        number[0] = r.base
    while number[0] < r.next:
        p = packet(r, number[0])
        if p.flags & SENT_OUTSTANDING and (p.flags & ~nothing_more or p.more != NULL):
            return p
        number[0] += 1
    return NULL
