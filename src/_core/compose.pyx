"""What a packet carries: an acknowledgement if one is owed, control frames, then datagrams and streams in turn.

Egress decides that there is a packet, on which path and how large; here it is filled, and what it carries is noted in
its record, for when it is acknowledged or lost.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.buffer cimport HEADROOM, send_buffer_own
from interpeer._core.conn cimport (
    CONN_EVENT_DATAGRAM_ROOM, CONN_PENDING_MAX_DATA, CONN_PENDING_MAX_STREAMS, CONN_PENDING_PING, Conn,
    conn_max_datagram, conn_notify)
from interpeer._core.datagram cimport messages_next_bytes, messages_pop, messages_skip
from interpeer._core.links cimport Link, first_link, is_linked, link_last, unlink
from interpeer._core.loss cimport (
    RECORD_MAX_STREAM_DATA, RECORD_RESET_STREAM, RECORD_STOP_SENDING, RECORD_STREAM, SENT_FIN, SENT_MAX_DATA,
    SENT_MAX_STREAMS, SENT_STREAM, FrameRecord)
from interpeer._core.path cimport Path, path_write_ack
from interpeer._core.slab cimport pool_take
from interpeer._core.stream cimport (
    PENDING_ANNOUNCE, PENDING_MAX_DATA, PENDING_RESET, PENDING_STOP, Stream, stream_copy, stream_has_data,
    stream_mark_sent, stream_next, stream_raise_limit)
from interpeer._core.wire cimport (
    FRAME_DATAGRAM, FRAME_DATAGRAM_LEN, FRAME_MAX_DATA, FRAME_MAX_STREAMS, FRAME_MAX_STREAM_DATA, FRAME_PING,
    FRAME_RESET_STREAM, FRAME_STOP_SENDING, FRAME_STREAM, HEADER_BYTES, STREAM_FIN, STREAM_LEN, STREAM_OFF,
    varint_bytes, write_varint)

cdef enum:
    FRAME_ROOM = 25                 # the longest control frame: a type and three varints
    STREAM_ROOM = 32                # less than this is not worth a STREAM frame
    STREAM_TURN_PACKETS = 16        # that a stream fills before the next one's turn; in one piece they cost less


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


cdef void compose_ack(Builder *b) noexcept nogil:
    """Acknowledge if it is due, or if something has come since and a packet goes anyway."""
    cdef Path *p = b.path
    cdef uint8_t *before = b.at
    if p.ack_now or p.unacked:
        b.at = path_write_ack(p, b.at, b.end, b.now_ns)
        if b.at != before:
            b.sent.ack_largest = p.received.ranges[p.received.count - 1].end


cdef void compose_ping(Builder *b) noexcept nogil:
    if room(b):
        b.at = write_varint(b.at, FRAME_PING)
        b.is_eliciting = True
        b.c.pending &= ~CONN_PENDING_PING


cdef void compose_frames(Builder *b) noexcept nogil:
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
        compose_ping(b)


cdef void write_number(Builder *b, uint64_t type, uint64_t value) noexcept nogil:
    b.at = write_varint(write_varint(b.at, type), value)
    b.is_eliciting = True


cdef void write_control(Builder *b) noexcept nogil:
    cdef Conn *c = b.c
    if c.pending & CONN_PENDING_PING:
        compose_ping(b)
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
            if n > conn_max_datagram(c):
                messages_skip(&c.messages_out)      # the path has become narrower since it was queued
                c.context.counters.datagrams_too_large += 1
                continue
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
