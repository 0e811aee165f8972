"""What a packet carries of channels: their control frames, and pieces of their messages (docs/spec, chapter 16)."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.buffer cimport HEADROOM, send_buffer_own
from interpeer._core.builder cimport FRAME_ROOM, STREAM_ROOM, Builder, add_record, room
from interpeer._core.channel cimport (
    Channel, Dropped, Piece, channel_dropped_lost, channel_has_data, channel_mark_sent, channel_must_pass,
    channel_next_dropped, channel_of, channel_pass, channel_piece, channel_wire_id, channel_wire_sent)
from interpeer._core.channels cimport channels_note_sent
from interpeer._core.conn cimport Channels, Conn, conn_hold, conn_queue_stream, conn_reserve
from interpeer._core.fec cimport fec_encoder_repair, fec_encoder_repair_bytes
from interpeer._core.loss cimport (
    RECORD_CHANNEL, RECORD_DROPPED, RECORD_MAX_STREAM_DATA, RECORD_RESET_STREAM, RECORD_STOP_SENDING, RECORD_STREAM,
    SENT_FIN, SENT_STREAM, FrameRecord)
from interpeer._core.stream cimport (
    PENDING_ANNOUNCE, PENDING_DROPPED, PENDING_MAX_DATA, PENDING_RESET, PENDING_STOP, Stream, stream_copy,
    stream_raise_limit)
from interpeer._core.wire cimport (
    FRAME_CHANNEL, FRAME_CHANNEL_MAX_DATA, FRAME_CHANNEL_RESET, FRAME_CHANNEL_STOP, FRAME_DROPPED, FRAME_MESSAGES,
    FRAME_PADDING, FRAME_REPAIR, HEADER_BYTES, STREAM_FIN, STREAM_LEN, varint_bytes, write_varint)

cdef enum:
    CHANNEL_ROOM = 48               # the longest CHANNEL or DROPPED frame


cdef void write_channel_control(Builder *b, Stream *s) noexcept nogil:
    """Write the control frames that a channel has pending, as far as there is room."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t id = channel_wire_id(s)
    cdef FrameRecord *record
    if s.pending & PENDING_ANNOUNCE and room(b) >= CHANNEL_ROOM:
        record = add_record(b, RECORD_CHANNEL, s.id)
        if record != NULL:
            record.offset = ch.sequence
            write_channel_frame(b, ch, id)
            s.pending &= ~PENDING_ANNOUNCE
    if s.pending & PENDING_MAX_DATA and room(b) >= FRAME_ROOM and add_record(b, RECORD_MAX_STREAM_DATA, s.id) != NULL:
        if stream_raise_limit(s, b.now_ns, b.path.recovery.rtt.smoothed_ns, b.c.context.limits.max_stream_window):
            conn_hold(b.c, s, 0)
        if ch.expected > s.recv_limit:
            s.recv_limit = ch.expected
        b.at = write_varint(write_varint(b.at, FRAME_CHANNEL_MAX_DATA), id)
        b.at = write_varint(b.at, s.recv_limit)
        b.is_eliciting = True
        s.pending &= ~PENDING_MAX_DATA
    if s.pending & PENDING_RESET and room(b) >= FRAME_ROOM and add_record(b, RECORD_RESET_STREAM, s.id) != NULL:
        b.at = write_varint(write_varint(b.at, FRAME_CHANNEL_RESET), id)
        b.at = write_varint(write_varint(b.at, s.reset_code), channel_wire_sent(s))
        b.is_eliciting = True
        s.pending &= ~PENDING_RESET
    if s.pending & PENDING_STOP and room(b) >= FRAME_ROOM and add_record(b, RECORD_STOP_SENDING, s.id) != NULL:
        b.at = write_varint(write_varint(b.at, FRAME_CHANNEL_STOP), id)
        b.at = write_varint(b.at, s.stop_code)
        b.is_eliciting = True
        s.pending &= ~PENDING_STOP
    while s.pending & PENDING_DROPPED and room(b) >= CHANNEL_ROOM and write_dropped(b, s, id):
        pass


cdef void write_channel_frame(Builder *b, const Channel *ch, uint64_t id) noexcept nogil:
    b.at = write_varint(write_varint(b.at, FRAME_CHANNEL), id)
    b.at = write_varint(write_varint(b.at, ch.sequence), ch.capabilities.flags)
    b.at = write_varint(write_varint(b.at, ch.capabilities.priority), ch.capabilities.deadline_us)
    b.at = write_varint(write_varint(b.at, ch.capabilities.fec_data), ch.capabilities.fec_repair)
    b.is_eliciting = True


cdef bint write_dropped(Builder *b, Stream *s, uint64_t id) noexcept nogil:
    cdef Dropped d
    cdef FrameRecord *record
    pass_over(b.c, s)
    if not channel_next_dropped(s, &d):
        return False
    record = add_record(b, RECORD_DROPPED, s.id)
    if record == NULL:
        channel_dropped_lost(s, d.number, <uint32_t>(d.within if d.bytes else d.count), d.bytes > 0)
        return False
    record.offset = d.number
    record.bytes = <uint32_t>(d.within if d.bytes else d.count)
    record.extent = <uint32_t>d.bytes
    record.fin = d.bytes > 0
    b.at = write_varint(write_varint(b.at, FRAME_DROPPED), id)
    b.at = write_varint(write_varint(b.at, d.wire), d.within)
    b.at = write_varint(write_varint(b.at, d.bytes), d.number)
    b.at = write_varint(b.at, d.count)
    b.is_eliciting = True
    return True


cdef bint write_dropped_first(Builder *b, Stream *s) noexcept nogil:
    """Tell the peer what was passed over before anything behind it is sent. Return whether that is done.

    It is told in this packet if there is room: a packet without anything in it would not go, and nothing after it either."""
    if s.pending:
        write_channel_control(b, s)
        if not s.pending:
            return True
        conn_queue_stream(b.c, s)
    return False


cdef void pass_over(Conn *c, Stream *s) noexcept nogil:
    """Pass over the rest of a message that was begun and given up, as far as the limits go."""
    if channel_must_pass(s):
        c.data_sent += channel_pass(s, share_of(c, s))
        conn_reserve(c, s)


cdef uint64_t share_of(const Conn *c, const Stream *s) noexcept nogil:
    """Return how much the connection lets a channel send that is new: the rest of what others have begun has its share.

    Only the one message that was begun without credit for all of it has none, and waits for the limit to be raised."""
    cdef const Channels *all = c.channels
    cdef uint64_t credit = c.data_limit - c.data_sent, others = all.reserved - channel_of(s).reserved
    if channel_of(s).reserved and all.large != NULL and all.large != s:
        others -= channel_of(all.large).reserved
    return credit - others if credit > others else 0


cdef bint write_repair(Builder *b, Channel *ch, uint64_t id) noexcept nogil:
    """Write a repair, if there is room for it; it is not written again when it is lost. Return whether it was so."""
    cdef size_t header = 1 + varint_bytes(id) + 2, n = fec_encoder_repair_bytes(&ch.repairs.encoder)
    cdef uint8_t *size_at
    if n:
        n = n - sizeof(uint64_t) + varint_bytes(ch.repairs.encoder.first)
    if n == 0 or header + n > <size_t>(b.end - b.start) - HEADER_BYTES:
        ch.repairs.owed = 0         # the path has become narrower
        return False
    if header + n > room(b):
        return False
    b.at = write_varint(write_varint(b.at, FRAME_REPAIR), id)
    size_at = b.at
    n = fec_encoder_repair(&ch.repairs.encoder, size_at + varint_bytes(n))
    b.at = write_varint(size_at, n) + n
    b.is_eliciting = True
    ch.repairs.owed -= 1
    return True


cdef bint write_messages(Builder *b, Stream *s) noexcept nogil:
    """Write one MESSAGES frame, if the channel has a piece and there is room for it; tell whether it was so."""
    cdef Conn *c = b.c
    cdef Channels *all = c.channels
    cdef Channel *ch = channel_of(s)
    cdef uint64_t id = channel_wire_id(s), credit = share_of(c, s), n
    cdef uint64_t left = room(b), most = b.end - b.start - HEADER_BYTES
    cdef size_t header = 2 + varint_bytes(id) + varint_bytes(s.sent)
    cdef uint8_t type = FRAME_MESSAGES
    cdef FrameRecord *record = NULL
    cdef Piece piece
    cdef bint fin, may_begin = all.large == NULL or all.large == s
    if left < STREAM_ROOM + header or not channel_has_data(s):
        return False
    if ch.repairs != NULL and ch.repairs.owed and not b.sent.flags & SENT_STREAM:
        if write_repair(b, ch, id):
            return True             # not in the packet of what it covers
    if channel_must_pass(s):
        pass_over(c, s)
        return write_dropped_first(b, s)
    if not channel_piece(s, left - header, most - header, credit, may_begin, &piece):
        return False
    header = 1 + varint_bytes(id) + varint_bytes(piece.wire) + varint_bytes(piece.within)
    if header + piece.bytes > left and not channel_piece(s, left - header, most - header, credit, may_begin, &piece):
        return False
    n = piece.bytes
    if header + n + varint_bytes(n) <= left:
        type |= STREAM_LEN
    if b.sent.flags & SENT_STREAM:
        record = add_record(b, RECORD_STREAM, s.id)
        if record == NULL:
            return False
    if not type & STREAM_LEN:       # it goes to the end of the packet, so what is left over is put before it
        memset(b.at, FRAME_PADDING, left - header - n)
        b.at += left - header - n
    fin = channel_mark_sent(s, &piece)
    if fin:
        type |= STREAM_FIN
    b.at = write_varint(write_varint(b.at, type), id)
    b.at = write_varint(write_varint(b.at, piece.wire), piece.within)
    if type & STREAM_LEN:
        b.at = write_varint(b.at, n)
    elif b.at - b.start - HEADER_BYTES <= HEADROOM:
        b.tail = send_buffer_own(&s.out, piece.offset, n)
        b.tail_bytes = n if b.tail != NULL else 0
    if b.tail == NULL:
        stream_copy(s, piece.offset, b.at, n)
        b.at += n
    b.is_eliciting = True
    if piece.is_new:
        c.data_sent += n
        conn_reserve(c, s)
        channels_note_sent(c, s, b.now_ns)
    if record != NULL:
        record.offset = piece.offset
        record.bytes = <uint32_t>n
        record.fin = fin
    else:
        b.sent.flags |= SENT_STREAM | (SENT_FIN if fin else 0)
        b.sent.stream = s.id
        b.sent.offset = piece.offset
        b.sent.stream_bytes = <uint32_t>n
    return True
