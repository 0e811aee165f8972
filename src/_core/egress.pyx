"""What goes out on a connection: which packets may be sent, and how they lie in a batch.

Packets are built where they will be sent from, one behind the other: as long as they have equal sizes they form one
message for the kernel (GSO). What they carry is composed elsewhere. Congestion control, pacing and the peer's limits
decide whether there is a packet at all; an acknowledgement alone is never held back.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.cc cimport cc_release_ns, cc_spend
from interpeer._core.compose cimport Builder, compose_ack, compose_frames, compose_ping
from interpeer._core.conn cimport (
    CLOSED_LOCALLY, CONN_CLOSING, CONN_DRAINING, CONN_OPEN, CONN_PENDING_CLOSE, CONN_PENDING_MAX_DATA,
    CONN_PENDING_MAX_STREAMS, Conn, conn_fail)
from interpeer._core.context cimport entropy_take
from interpeer._core.links cimport is_linked
from interpeer._core.loss cimport (
    SENT_ELICITING, SENT_MTU_PROBE, recovery_add, recovery_pto_ns, recovery_sent, recovery_skip, recovery_start_at)
from interpeer._core.path cimport ECN_FAILED, PING_EVERY, Path, path_write_ack
from interpeer._core.pmtud cimport pmtud_count, pmtud_is_due, pmtud_poll, pmtud_sent
from interpeer._core.protection cimport protect, send_keys_update
from interpeer._core.slab cimport MAX_SEGMENTS, MAX_UDP_PAYLOAD, SEND_BATCH_BYTES, SEND_ENTRIES, Datagrams, SendBatch
from interpeer._core.stream cimport READER_PAUSE_NS
from interpeer._core.wire cimport (
    CODE_AEAD_LIMIT, CODE_INTERNAL, CODE_PROTOCOL, FRAME_CLOSE, FRAME_CLOSE_APP, FRAME_PADDING, HEADER_BYTES,
    write_varint)

cdef enum:
    CLOSE_PTOS = 3                  # closing lasts so many probe time-outs (RFC 9000, 10.2)
    FIRST_PACKET_BYTES = 400        # an initiator's first packets are padded to this: it pays for several PINGs
    MAX_UNSETTLED = 65536           # packets remembered beside what is in flight: acknowledgements between unanswered PINGs
    PING_BYTES = 1
    PROBE_PTOS = 3                  # a probe of the MTU is given up after so many probe time-outs
    PROBE_NS = 1000000000           # ... and not before (RFC 8899, 5.1.1: PROBE_TIMER)
    CLOSE_ROOM = 17                 # a CLOSE frame without its reason: a type and two varints


cdef int conn_transmit(Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """Build as many packets as may be sent now and as fit in the batch."""
    cdef bint may_send_data
    c.paced_until_ns = 0
    if c.state == CONN_CLOSING or c.state == CONN_DRAINING:
        return transmit_close(c, batch, now_ns)
    if not c.path.is_proven and c.state == CONN_OPEN:
        return transmit_proof(c, batch, now_ns)
    raise_limits(c, now_ns)
    if c.pto_probes == 0 and pmtud_is_due(&c.path.mtu) and not probe_mtu(c, batch, now_ns):
        return TRANSMIT_MORE
    while c.state == CONN_OPEN:
        may_send_data = has_data(c) and is_released(c, now_ns)
        if not may_send_data and not c.path.ack_now:
            return TRANSMIT_DONE
        if is_full(batch, &c.path):
            return TRANSMIT_MORE
        if build_packet(c, batch, now_ns, may_send_data) != 0:
            break
    if c.state == CONN_CLOSING:
        return transmit_close(c, batch, now_ns)
    return TRANSMIT_DONE


cdef int transmit_proof(Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """To an address that has proved nothing send only what proves it: a PING, again when it may be lost, and when the peer
    says something. All else waits for its acknowledgement. Without credit the peer has to say more; it will, as it probes.

    The first number is drawn, so that a peer that does not get our packets cannot foresee what it has to acknowledge."""
    cdef Path *p = &c.path
    cdef uint32_t first
    if not (c.pto_probes or p.unacked or p.recovery.eliciting_in_flight == 0) \
            or p.credit_bytes < <uint64_t>HEADER_BYTES + PING_BYTES + c.send.aead.tag_bytes:
        return TRANSMIT_DONE
    if is_full(batch, p):
        return TRANSMIT_MORE
    if p.recovery.next == 0:
        if entropy_take(&c.context.entropy, <uint8_t *>&first, sizeof(first)) != 0:
            return TRANSMIT_DONE
        recovery_start_at(&p.recovery, 1 + <uint64_t>first)
    c.pto_probes = 0
    if build_packet(c, batch, now_ns, False) != 0 and c.state == CONN_CLOSING:
        return transmit_close(c, batch, now_ns)
    return TRANSMIT_DONE


cdef bint probe_mtu(Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """Send the probe that the search for the path's MTU wants, if it wants one now. Return False if there is no room for it.

    It is a message of its own and carries nothing, so that nothing else depends on whether it passes. It may exceed the
    congestion window, of which it is a small part: only as a whole it can go, and data would never leave as much room."""
    cdef Path *p = &c.path
    cdef Builder b
    cdef uint64_t number, wait_ns
    cdef Py_ssize_t bytes
    cdef uint32_t size = pmtud_poll(&p.mtu, now_ns, p.cc.window)
    if size == 0:
        return True
    if batch.count == SEND_ENTRIES or batch.used + MAX_UDP_PAYLOAD > SEND_BATCH_BYTES:
        return False
    if start_packet(c, &b, p, batch, size, now_ns) != 0:
        return True
    number = p.recovery.next - 1
    compose_ping(&b)
    memset(b.at, FRAME_PADDING, b.end - b.at)
    b.at = b.end
    bytes = seal(&b, number)
    if bytes < 0:
        conn_fail(c, CODE_INTERNAL, b"a packet cannot be sealed")
        return True
    b.sent.flags |= SENT_MTU_PROBE
    finish_packet(&b, <uint32_t>bytes)
    batch.run = 0
    enter(batch, p, <uint32_t>bytes)
    batch.run = 0
    wait_ns = PROBE_PTOS * recovery_pto_ns(&p.recovery, c.peer_ack_delay_ns)
    pmtud_sent(&p.mtu, number, now_ns + (wait_ns if wait_ns > PROBE_NS else PROBE_NS))
    c.context.counters.mtu_probes_sent += 1
    return True


cdef bint is_full(const SendBatch *batch, const Path *p) noexcept nogil:
    """Tell whether there is neither room in a message that any packet of this path fits in, nor for another message."""
    cdef const Datagrams *last = NULL
    if batch.count:
        last = <const Datagrams *>&batch.entries[batch.count - 1]
    if batch.run and batch.run < MAX_SEGMENTS and last.owner == <void *>p and last.segment == p.packet_bytes \
            and last.bytes + p.packet_bytes <= MAX_UDP_PAYLOAD:
        return batch.used + p.packet_bytes > SEND_BATCH_BYTES
    return batch.count == SEND_ENTRIES or batch.used + MAX_UDP_PAYLOAD > SEND_BATCH_BYTES


cdef bint has_data(Conn *c) noexcept nogil:
    """Tell whether anything waits that asks for an acknowledgement."""
    return c.pending or c.messages_out.count or is_linked(&c.sendable) or c.pto_probes


cdef bint is_released(Conn *c, uint64_t now_ns) noexcept nogil:
    """Tell whether congestion control and pacing let a packet go now; a probe always may."""
    cdef Path *p = &c.path
    if c.pto_probes:
        return True
    if p.recovery.bytes_in_flight + p.packet_bytes > p.cc.window or queued_bytes(p) > c.peer_receive_buffer:
        return False
    c.paced_until_ns = cc_release_ns(&p.cc, now_ns, p.recovery.rtt.smoothed_ns)
    return c.paced_until_ns == 0


cdef uint64_t queued_bytes(const Path *p) noexcept nogil:
    """Return how much of what is in flight waits in queues, as the round trip tells; the last queue is the peer's socket.

    More than fits there would be lost, if that is where it waits, and is no use anywhere else."""
    cdef uint64_t smoothed = p.recovery.rtt.smoothed_ns, least = p.recovery.rtt.min_ns
    if smoothed <= least:
        return 0
    return <uint64_t>(p.recovery.bytes_in_flight * (<double>(smoothed - least) / smoothed))


cdef void raise_limits(Conn *c, uint64_t now_ns) noexcept nogil:
    """Set the connection's new limits as far as the application has read; the window doubles for a fast reader."""
    cdef uint64_t rtt_ns = c.path.recovery.rtt.smoothed_ns, most = c.context.limits.max_connection_window
    if rtt_ns < READER_PAUSE_NS:
        rtt_ns = READER_PAUSE_NS
    if c.pending & CONN_PENDING_MAX_DATA and c.data_allowed - c.data_consumed <= c.data_window // 2:
        if c.data_window_ns and now_ns - c.data_window_ns < 2 * rtt_ns:
            c.data_window = c.data_window * 2 if c.data_window * 2 < most else most
        c.data_window_ns = now_ns
        c.data_allowed = c.data_consumed + c.data_window
    if c.pending & CONN_PENDING_MAX_STREAMS:
        c.peer_open_limit = c.peer_done + c.context.limits.max_streams


# --- one packet ---

cdef int build_packet(Conn *c, SendBatch *batch, uint64_t now_ns, bint with_data) noexcept nogil:
    """Build, seal and enter one packet. Return 0, or -1 when there was nothing to put in it after all."""
    cdef Builder b
    cdef Path *p = &c.path
    cdef Py_ssize_t bytes
    cdef uint64_t number
    if start_packet(c, &b, p, batch, most_bytes(c, p), now_ns) != 0:
        return -1
    number = p.recovery.next - 1
    compose_ack(&b)
    if with_data:
        compose_frames(&b)
    elif (p.bare_acks >= PING_EVERY and p.recovery.eliciting_in_flight == 0) or not p.is_proven:
        compose_ping(&b)              # one at a time: a later one would put the probe time-out of the first off
    if b.at == b.start + HEADER_BYTES:
        p.recovery.next = number    # nothing to say: the number is not used
        return -1
    if c.is_initiator and not c.is_confirmed:
        pad(&b)
    bytes = seal(&b, number)
    if bytes < 0:
        conn_fail(c, CODE_INTERNAL, b"a packet cannot be sealed")
        return -1
    finish_packet(&b, <uint32_t>bytes)
    enter(batch, p, <uint32_t>bytes)
    return 0


cdef int start_packet(Conn *c, Builder *b, Path *p, SendBatch *batch, uint32_t most, uint64_t now_ns) noexcept nogil:
    """Begin a packet of at most so many bytes, under the next number. Return 0, or -1 when the connection has failed."""
    if maybe_update_keys(c) != 0:
        return -1
    if p.recovery.next - p.recovery.base > MAX_UNSETTLED + 4 * p.recovery.eliciting_in_flight:
        conn_fail(c, CODE_PROTOCOL, b"nothing is acknowledged")
        return -1
    maybe_skip_number(c)
    b.c = c
    b.path = p
    b.now_ns = now_ns
    b.start = batch.buffer + batch.used
    b.at = b.start + HEADER_BYTES
    b.end = b.start + most - c.send.aead.tag_bytes
    b.tail = NULL
    b.is_eliciting = False
    b.sent = recovery_add(&p.recovery, now_ns)
    if b.sent == NULL:
        conn_fail(c, CODE_INTERNAL, b"out of memory")
        return -1
    return 0


cdef inline uint32_t most_bytes(const Conn *c, const Path *p) noexcept nogil:
    """Return how large the next packet may be: to an address that has proved nothing goes no more than came from there.

    Of the two packets of a probe time-out the second has the base size: if it is the only one of all that arrives, it is
    their size that keeps the others from arriving."""
    cdef uint32_t most = p.mtu.base if c.pto_probes == 1 else p.packet_bytes
    return most if p.is_proven or p.credit_bytes > most else <uint32_t>p.credit_bytes


cdef void pad(Builder *b) noexcept nogil:
    """Leave a responder that does not know our address yet enough to answer with."""
    cdef uint8_t *to = b.start + FIRST_PACKET_BYTES - b.c.send.aead.tag_bytes
    if b.c.path.is_proven and b.tail == NULL and b.at < to:
        memset(b.at, FRAME_PADDING, to - b.at)
        b.at = to


cdef Py_ssize_t seal(Builder *b, uint64_t number) noexcept nogil:
    """Seal what was built. Stream data that fill the rest of the packet are sealed from the stream's buffer, not copied
    first: the frames before them are put in front of them there, over bytes that are put back."""
    cdef Path *p = &b.c.path
    cdef uint8_t saved[64]
    cdef uint8_t *payload = b.start + HEADER_BYTES
    cdef size_t n = b.at - payload
    cdef Py_ssize_t bytes
    if b.tail == NULL:
        return protect(&b.c.send, b.start, payload, n, p.remote_cid, p.id, number)
    memcpy(saved, b.tail - n, n)
    memcpy(b.tail - n, payload, n)
    bytes = protect(&b.c.send, b.start, b.tail - n, n + b.tail_bytes, p.remote_cid, p.id, number)
    memcpy(b.tail - n, saved, n)
    return bytes


cdef void finish_packet(Builder *b, uint32_t bytes) noexcept nogil:
    """Account for a packet that is ready."""
    cdef Conn *c = b.c
    cdef Path *p = &c.path
    b.sent.bytes = bytes
    if b.is_eliciting:
        b.sent.flags |= SENT_ELICITING
        cc_spend(&p.cc, bytes)
        pmtud_count(&p.mtu, bytes)
        p.bare_acks = 0
        if c.pto_probes:
            c.pto_probes -= 1
        if c.waiting_since_ns == 0:
            c.waiting_since_ns = b.now_ns
    else:
        p.bare_acks += 1
    recovery_sent(&p.recovery, b.sent)
    c.last_sent_ns = b.now_ns
    count_sent(p, bytes)


cdef inline void count_sent(Path *p, uint32_t bytes) noexcept nogil:
    p.packets_sent += 1
    p.bytes_sent += bytes
    if not p.is_proven:
        p.credit_bytes -= bytes


cdef void enter(SendBatch *batch, Path *p, uint32_t bytes) noexcept nogil:
    """Put the packet that was built at the end of the buffer into the last message, or start another one."""
    cdef Datagrams *d = &batch.entries[batch.count - 1] if batch.count else NULL
    cdef uint8_t *start = batch.buffer + batch.used
    cdef uint8_t ecn = 0
    if p.ecn_state != ECN_FAILED:
        ecn = 2
        p.ecn_sent += 1
    batch.used += bytes
    if batch.run and batch.run < MAX_SEGMENTS and d.owner == <void *>p and d.ecn == ecn and bytes <= d.segment \
            and d.bytes + bytes <= MAX_UDP_PAYLOAD:
        d.bytes += bytes
        batch.run = batch.run + 1 if bytes == d.segment else 0
        return
    d = &batch.entries[batch.count]
    batch.count += 1
    batch.run = 1
    d.owner = <void *>p
    d.data = start
    d.bytes = bytes
    d.segment = bytes
    d.remote = p.remote
    memcpy(d.local, p.local, sizeof(d.local))
    d.interface = 0                 # the way is the system's choice; a link-local address carries its scope
    d.ecn = ecn
    d.is_too_big = False
    d.cid = p.local_cid


cdef int maybe_update_keys(Conn *c) noexcept nogil:
    """Use the next key when this one has sealed enough; end the connection when it must not seal any more.

    An update waits until the peer has acknowledged a packet of this epoch, so that two never overlap."""
    if c.send.sealed < c.context.limits.key_update_packets:
        return 0
    if c.epoch_confirmed:
        if send_keys_update(&c.send) != 0:
            conn_fail(c, CODE_INTERNAL, b"out of memory")
            return -1
        c.epoch_first = c.path.recovery.next
        c.epoch_confirmed = False
        c.context.counters.key_updates += 1
        return 0
    if c.send.sealed >= c.context.limits.key_limit_packets:
        conn_fail(c, CODE_AEAD_LIMIT, b"the key is used up and its successor is not confirmed")
        return -1
    return 0


cdef void maybe_skip_number(Conn *c) noexcept nogil:
    """Leave a packet number out now and then, where the peer cannot foresee it."""
    cdef uint32_t draw
    if c.skip_countdown:
        c.skip_countdown -= 1
        return
    if c.context.limits.skip_every == 0 or entropy_take(&c.context.entropy, <uint8_t *>&draw, sizeof(draw)) != 0:
        return
    c.skip_countdown = 1 + draw % (2 * c.context.limits.skip_every)
    recovery_skip(&c.path.recovery)


# --- closing ---

cdef int transmit_close(Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """Set how long closing lasts, and send the CLOSE frame if one is due, in a packet of its own.

    Before it goes what was received up to an application's end: the peer may wait for nothing but that."""
    cdef Builder b
    cdef Path *p = &c.path
    cdef Py_ssize_t bytes
    cdef uint64_t number
    if c.close_deadline_ns == 0:
        c.close_deadline_ns = now_ns + CLOSE_PTOS * recovery_pto_ns(&p.recovery, c.peer_ack_delay_ns)
    if not c.pending & CONN_PENDING_CLOSE:
        return TRANSMIT_DONE
    if most_bytes(c, p) < HEADER_BYTES + CLOSE_ROOM + c.close_reason_bytes + c.send.aead.tag_bytes:
        c.pending = 0
        return TRANSMIT_DONE
    if is_full(batch, p):
        return TRANSMIT_MORE
    c.pending = 0
    number = p.recovery.next
    p.recovery.next += 1
    p.recovery.base = p.recovery.next
    b.start = batch.buffer + batch.used
    b.at = b.start + HEADER_BYTES
    if c.closed_by == CLOSED_LOCALLY:
        b.end = b.start + most_bytes(c, p) - c.send.aead.tag_bytes - CLOSE_ROOM - c.close_reason_bytes
        b.at = path_write_ack(p, b.at, b.end, now_ns)
    b.at = write_varint(b.at, FRAME_CLOSE_APP if c.close_is_app else FRAME_CLOSE)
    b.at = write_varint(write_varint(b.at, c.close_code), c.close_reason_bytes)
    if c.close_reason_bytes:        # otherwise it may be NULL
        memcpy(b.at, c.close_reason, c.close_reason_bytes)
    b.at += c.close_reason_bytes
    bytes = protect(&c.send, b.start, b.start + HEADER_BYTES, b.at - b.start - HEADER_BYTES, p.remote_cid, p.id, number)
    if bytes > 0:
        count_sent(p, <uint32_t>bytes)
        enter(batch, p, <uint32_t>bytes)
    return TRANSMIT_DONE
