"""What goes out on a connection: which packets may be sent, what they carry, and how they lie in a batch.

Packets are built where they will be sent from, one behind the other: as long as they have equal sizes they form one
message for the kernel (GSO). A packet carries an acknowledgement if one is owed, then control frames, then datagrams
and streams in turn. Congestion control, pacing and the peer's limits decide whether there is a packet at all; an
acknowledgement alone is never held back.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.buffer cimport HEADROOM, send_buffer_own
from interpeer._core.cc cimport cc_release_ns, cc_spend
from interpeer._core.conn cimport (
    CLOSED_LOCALLY, CONN_CLOSING, CONN_DRAINING, CONN_EVENT_DATAGRAM_ROOM, CONN_OPEN, CONN_PENDING_CLOSE, CONN_PENDING_MAX_DATA,
    CONN_PENDING_MAX_STREAMS, CONN_PENDING_PING, Conn, conn_fail, conn_notify)
from interpeer._core.context cimport entropy_take
from interpeer._core.datagram cimport messages_next_bytes, messages_pop
from interpeer._core.links cimport Link, first_link, is_linked, link_last, unlink
from interpeer._core.loss cimport (
    RECORD_MAX_STREAM_DATA, RECORD_RESET_STREAM, RECORD_STOP_SENDING, RECORD_STREAM, SENT_ELICITING, SENT_FIN,
    SENT_MAX_DATA, SENT_MAX_STREAMS, SENT_STREAM, FrameRecord, SentPacket, recovery_add, recovery_pto_ns,
    recovery_sent, recovery_skip, recovery_start_at)
from interpeer._core.path cimport ECN_FAILED, PING_EVERY, Path, path_write_ack
from interpeer._core.protection cimport protect, send_keys_update
from interpeer._core.slab cimport (
    MAX_SEGMENTS, MAX_UDP_PAYLOAD, SEND_BATCH_BYTES, SEND_ENTRIES, Datagrams, SendBatch, pool_take)
from interpeer._core.stream cimport (
    PENDING_ANNOUNCE, PENDING_MAX_DATA, PENDING_RESET, PENDING_STOP, READER_PAUSE_NS, Stream, stream_copy,
    stream_has_data, stream_mark_sent, stream_next, stream_raise_limit)
from interpeer._core.wire cimport (
    CODE_AEAD_LIMIT, CODE_INTERNAL, CODE_PROTOCOL, FRAME_CLOSE, FRAME_CLOSE_APP, FRAME_DATAGRAM, FRAME_DATAGRAM_LEN,
    FRAME_MAX_DATA, FRAME_MAX_STREAMS, FRAME_MAX_STREAM_DATA, FRAME_PADDING, FRAME_PING, FRAME_RESET_STREAM,
    FRAME_STOP_SENDING, FRAME_STREAM, HEADER_BYTES, STREAM_FIN, STREAM_LEN, STREAM_OFF, varint_bytes, write_varint)

cdef enum:
    CLOSE_PTOS = 3                  # closing lasts so many probe time-outs (RFC 9000, 10.2)
    FIRST_PACKET_BYTES = 400        # an initiator's first packets are padded to this: it pays for several PINGs
    MAX_UNSETTLED = 65536           # packets remembered beside what is in flight: acknowledgements between unanswered PINGs
    PING_BYTES = 1
    CLOSE_ROOM = 17                 # a CLOSE frame without its reason: a type and two varints
    FRAME_ROOM = 25                 # the longest control frame: a type and three varints
    STREAM_ROOM = 32                # less than this is not worth a STREAM frame
    STREAM_TURN_PACKETS = 16        # that a stream fills before the next one's turn; in one piece they cost less


cdef struct Builder:                # a packet in the making
    Conn *c
    uint8_t *start                  # of the packet
    uint8_t *at                     # where the next frame goes
    uint8_t *end                    # where the tag goes at the latest
    uint8_t *tail                   # the last frame's data, still where they wait in a stream's buffer; NULL: copied
    uint64_t tail_bytes
    SentPacket *sent
    uint64_t now_ns
    bint is_eliciting


cdef int conn_transmit(Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """Build as many packets as may be sent now and as fit in the batch."""
    cdef bint may_send_data
    c.paced_until_ns = 0
    if c.state == CONN_CLOSING or c.state == CONN_DRAINING:
        return transmit_close(c, batch, now_ns)
    if not c.path.is_proven and c.state == CONN_OPEN:
        return transmit_proof(c, batch, now_ns)
    raise_limits(c, now_ns)
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
    if maybe_update_keys(c) != 0:
        return -1
    if p.recovery.next - p.recovery.base > MAX_UNSETTLED + 4 * p.recovery.eliciting_in_flight:
        conn_fail(c, CODE_PROTOCOL, b"nothing is acknowledged")
        return -1
    maybe_skip_number(c)
    b.c = c
    b.now_ns = now_ns
    b.start = batch.buffer + batch.used
    b.at = b.start + HEADER_BYTES
    b.end = b.start + most_bytes(p) - c.send.aead.tag_bytes
    b.tail = NULL
    b.is_eliciting = False
    number = p.recovery.next
    b.sent = recovery_add(&p.recovery, now_ns)
    if b.sent == NULL:
        conn_fail(c, CODE_INTERNAL, b"out of memory")
        return -1
    write_ack(&b)
    if with_data:
        write_frames(&b)
    elif (p.bare_acks >= PING_EVERY and p.recovery.eliciting_in_flight == 0) or not p.is_proven:
        write_ping(&b)              # one at a time: a later one would put the probe time-out of the first off
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


cdef inline uint32_t most_bytes(const Path *p) noexcept nogil:
    """Return how large the next packet may be: to an address that has proved nothing goes no more than came from there."""
    return p.packet_bytes if p.is_proven or p.credit_bytes > p.packet_bytes else <uint32_t>p.credit_bytes


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


# --- frames ---

cdef inline size_t room(const Builder *b) noexcept nogil:
    return b.end - b.at if b.tail == NULL else 0


cdef FrameRecord *add_record(Builder *b, uint8_t kind, uint64_t stream) noexcept nogil:
    """Remember a frame beyond the first STREAM frame, for when the packet is lost; NULL without memory."""
    cdef FrameRecord *record = <FrameRecord *>pool_take(&b.c.context.records)
    if record == NULL:
        b.c.context.counters.no_memory += 1
        return NULL
    memset(record, 0, sizeof(FrameRecord))
    record.kind = kind
    record.stream = stream
    record.next = b.sent.more
    b.sent.more = record
    return record


cdef void write_ack(Builder *b) noexcept nogil:
    """Acknowledge if it is due, or if something has come since and a packet goes anyway."""
    cdef Path *p = &b.c.path
    cdef uint8_t *before = b.at
    if p.ack_now or p.unacked:
        b.at = path_write_ack(p, b.at, b.end, b.now_ns)
        if b.at != before:
            b.sent.ack_largest = p.received.ranges[p.received.count - 1].end


cdef void write_ping(Builder *b) noexcept nogil:
    if room(b):
        b.at = write_varint(b.at, FRAME_PING)
        b.is_eliciting = True
        b.c.pending &= ~CONN_PENDING_PING


cdef void write_frames(Builder *b) noexcept nogil:
    """Fill the packet: control frames, then datagrams and streams, each first in turn."""
    cdef Conn *c = b.c
    if c.pending:
        write_control(b)
    if c.messages_out.count and not (c.streams_first and is_linked(&c.sendable)):
        c.streams_first = True
        write_datagrams(b)
        if c.context.limits.bundle:
            write_streams(b)
    else:
        c.streams_first = False
        write_streams(b)
        if c.context.limits.bundle:
            write_datagrams(b)
    if not b.is_eliciting and c.pto_probes:
        write_ping(b)


cdef void write_number(Builder *b, uint64_t type, uint64_t value) noexcept nogil:
    b.at = write_varint(write_varint(b.at, type), value)
    b.is_eliciting = True


cdef void write_control(Builder *b) noexcept nogil:
    cdef Conn *c = b.c
    if c.pending & CONN_PENDING_PING:
        write_ping(b)
    if c.pending & CONN_PENDING_MAX_DATA and room(b) >= FRAME_ROOM:
        write_number(b, FRAME_MAX_DATA, c.data_allowed)
        b.sent.flags |= SENT_MAX_DATA
        c.pending &= ~CONN_PENDING_MAX_DATA
    if c.pending & CONN_PENDING_MAX_STREAMS and room(b) >= FRAME_ROOM:
        write_number(b, FRAME_MAX_STREAMS, c.peer_open_limit)
        b.sent.flags |= SENT_MAX_STREAMS
        c.pending &= ~CONN_PENDING_MAX_STREAMS


cdef void write_datagrams(Builder *b) noexcept nogil:
    """Write as many whole messages as fit; one, if messages are not to share a packet."""
    cdef Conn *c = b.c
    cdef uint32_t n
    cdef size_t header
    while c.messages_out.count:
        n = messages_next_bytes(&c.messages_out)
        if n + 1 == room(b):
            b.at = write_varint(b.at, FRAME_DATAGRAM)
        else:
            header = 1 + varint_bytes(n)
            if n + header > room(b):
                break
            b.at = write_varint(write_varint(b.at, FRAME_DATAGRAM_LEN), n)
        messages_pop(&c.messages_out, b.at)
        b.at += n
        b.is_eliciting = True
        if not c.context.limits.bundle:
            break
    if c.wanted & CONN_EVENT_DATAGRAM_ROOM and c.messages_out.used <= c.messages_out.limit // 2:
        conn_notify(c, CONN_EVENT_DATAGRAM_ROOM)


cdef void write_streams(Builder *b) noexcept nogil:
    """Let the streams that wait fill the packet, in turn."""
    cdef Conn *c = b.c
    cdef Link *link = first_link(&c.sendable)
    cdef Link *last = c.sendable.prev
    cdef Link *following
    cdef Stream *s
    while link != NULL and room(b) >= STREAM_ROOM:
        s = <Stream *>link.owner
        following = link.next if link != last else NULL
        if s.pending:
            write_stream_control(b, s)
        while write_stream_data(b, s):
            pass
        if not s.pending and not stream_has_data(s):
            unlink(&s.sendable)
        elif room(b) >= STREAM_ROOM:
            # it is held back by the connection's limit: another may have something to send again
            unlink(&s.sendable)
            link_last(&c.sendable, &s.sendable)
        elif c.stream_turn >= STREAM_TURN_PACKETS:
            c.stream_turn = 0
            unlink(&s.sendable)
            link_last(&c.sendable, &s.sendable)
        else:
            c.stream_turn += 1
        link = following


cdef void write_stream_control(Builder *b, Stream *s) noexcept nogil:
    cdef Conn *c = b.c
    # its first data announce it as well, if they may go
    if s.pending & PENDING_ANNOUNCE and not has_piece(c, s) and room(b) >= FRAME_ROOM \
            and add_record(b, RECORD_STREAM, s.id) != NULL:
        b.at = write_varint(write_varint(b.at, FRAME_STREAM | STREAM_LEN), s.id)
        b.at = write_varint(b.at, 0)
        b.is_eliciting = True
        s.pending &= ~PENDING_ANNOUNCE
    if s.pending & PENDING_MAX_DATA and room(b) >= FRAME_ROOM and add_record(b, RECORD_MAX_STREAM_DATA, s.id) != NULL:
        stream_raise_limit(s, b.now_ns, c.path.recovery.rtt.smoothed_ns, c.context.limits.max_stream_window)
        b.at = write_varint(write_varint(b.at, FRAME_MAX_STREAM_DATA), s.id)
        b.at = write_varint(b.at, s.recv_limit)
        b.is_eliciting = True
        s.pending &= ~PENDING_MAX_DATA
    if s.pending & PENDING_RESET and room(b) >= FRAME_ROOM and add_record(b, RECORD_RESET_STREAM, s.id) != NULL:
        b.at = write_varint(write_varint(b.at, FRAME_RESET_STREAM), s.id)
        b.at = write_varint(write_varint(b.at, s.reset_code), s.sent)
        b.is_eliciting = True
        s.pending &= ~PENDING_RESET
    if s.pending & PENDING_STOP and room(b) >= FRAME_ROOM and add_record(b, RECORD_STOP_SENDING, s.id) != NULL:
        b.at = write_varint(write_varint(b.at, FRAME_STOP_SENDING), s.id)
        b.at = write_varint(b.at, s.stop_code)
        b.is_eliciting = True
        s.pending &= ~PENDING_STOP


cdef bint has_piece(const Conn *c, Stream *s) noexcept nogil:
    """Tell whether the stream has something that both its own limit and the connection's let go."""
    cdef uint64_t offset
    return stream_has_data(s) and (stream_next(s, c.data_limit - c.data_sent, &offset) > 0 or offset == s.out.end)


cdef bint write_stream_data(Builder *b, Stream *s) noexcept nogil:
    """Write one STREAM frame, if the stream has a piece and there is room for it; tell whether it was so."""
    cdef Conn *c = b.c
    cdef uint64_t offset, n
    cdef size_t header
    cdef bint fin, is_new
    cdef uint8_t type = FRAME_STREAM
    cdef FrameRecord *record = NULL
    if room(b) < STREAM_ROOM or not has_piece(c, s):
        return False
    n = stream_next(s, c.data_limit - c.data_sent, &offset)
    is_new = offset == s.sent
    header = 1 + varint_bytes(s.id) + (varint_bytes(offset) if offset else 0)
    if offset:
        type |= STREAM_OFF
    if header + n >= room(b):
        n = room(b) - header        # it takes the rest of the packet, and needs no length
    else:
        type |= STREAM_LEN
        header += varint_bytes(n)
        if header + n > room(b):
            header -= varint_bytes(n)
            n = room(b) - header - varint_bytes(n)
            header += varint_bytes(n)
    if b.sent.flags & SENT_STREAM:
        record = add_record(b, RECORD_STREAM, s.id)
        if record == NULL:
            return False
    s.pending &= ~PENDING_ANNOUNCE
    fin = stream_mark_sent(s, offset, n)
    if fin:
        type |= STREAM_FIN
    b.at = write_varint(write_varint(b.at, type), s.id)
    if offset:
        b.at = write_varint(b.at, offset)
    if type & STREAM_LEN:
        b.at = write_varint(b.at, n)
    if not type & STREAM_LEN and b.at - b.start - HEADER_BYTES <= HEADROOM:
        b.tail = send_buffer_own(&s.out, offset, n)
        b.tail_bytes = n
    if b.tail == NULL:
        stream_copy(s, offset, b.at, n)
        b.at += n
    b.is_eliciting = True
    if is_new:
        c.data_sent += n
    if record != NULL:
        record.offset = offset
        record.bytes = <uint32_t>n
        record.fin = fin
    else:
        b.sent.flags |= SENT_STREAM | (SENT_FIN if fin else 0)
        b.sent.stream = s.id
        b.sent.offset = offset
        b.sent.stream_bytes = <uint32_t>n
    return True


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
    if most_bytes(p) < HEADER_BYTES + CLOSE_ROOM + c.close_reason_bytes + c.send.aead.tag_bytes:
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
        b.end = b.start + most_bytes(p) - c.send.aead.tag_bytes - CLOSE_ROOM - c.close_reason_bytes
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
