"""What a packet carries: an acknowledgement if one is owed, control frames, then datagrams and streams in turn.

Egress decides that there is a packet, on which path and how large; here it is filled, and what it carries is noted in
its record, for when it is acknowledged or lost.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from interpeer._core.buffer cimport HEADROOM, send_buffer_own
from interpeer._core.builder cimport FRAME_ROOM, STREAM_ROOM, Builder, add_record, room, write_number
from interpeer._core.channel_out cimport write_channel_control, write_messages
from interpeer._core.cids cimport (
    LOCAL_SENT, LOCAL_UNSENT, REMOTE_RETIRED, REMOTE_RETIRING, LocalCid, RemoteCid, remote_cids_in_state)
from interpeer._core.conn cimport (
    CONN_EVENT_DATAGRAM_ROOM, CONN_PENDING_IDS, CONN_PENDING_MAX_CHANNELS, CONN_PENDING_MAX_DATA,
    CONN_PENDING_MAX_STREAMS, CONN_PENDING_PATHS, CONN_PENDING_PING, CONN_PENDING_REKEY, CONN_PENDING_SIGNALS,
    SCHEDULE_REDUNDANT, Conn, conn_has_data, conn_hold, conn_make_signals, conn_max_datagram, conn_notify,
    conn_queue_stream, conn_unqueue_stream)
from interpeer._core.datagram cimport messages_next_bytes, messages_pop, messages_skip
from interpeer._core.links cimport Link, first_link, is_linked, link_last, unlink
from interpeer._core.loss cimport (
    RECORD_MAX_CHANNELS, RECORD_MAX_STREAM_DATA, RECORD_NEW_CID, RECORD_OBSERVED, RECORD_PATH_ABANDON,
    RECORD_PATH_STATUS, RECORD_RESET_STREAM, RECORD_RETIRE_CID, RECORD_SIGNAL, RECORD_STOP_SENDING, RECORD_STREAM,
    SENT_FIN, SENT_MAX_DATA, SENT_MAX_STREAMS, SENT_OUTSTANDING, SENT_REKEY, SENT_STREAM, FrameRecord,
    recovery_pto_ns)
from interpeer._core.path cimport (
    PATH_PENDING_ABANDON, PATH_PENDING_OBSERVED, PATH_PENDING_PING, PATH_PENDING_STATUS, Path, path_challenge_is_due,
    path_challenge_sent, path_is_live, path_write_ack)
from interpeer._core.rekey cimport REKEY_ROOM, rekey_has_message, rekey_note_use, rekey_write
from interpeer._core.signals cimport SIGNAL_SENT, Signal, Signals, signals_due
from interpeer._core.slab cimport endpoint_is_ipv4, pool_give
from interpeer._core.stream cimport (
    PENDING_ANNOUNCE, PENDING_MAX_DATA, PENDING_RESET, PENDING_STOP, Stream, stream_copy, stream_has_data,
    stream_mark_sent, stream_next, stream_raise_limit)
from interpeer._core.wire cimport (
    CHALLENGE_BYTES, CID_BYTES, CODE_NO_ERROR, DEFAULT_PRIORITY, FRAME_DATAGRAM, FRAME_DATAGRAM_LEN,
    FRAME_MAX_CHANNELS, FRAME_MAX_DATA, FRAME_MAX_STREAMS, FRAME_MAX_STREAM_DATA, FRAME_NEW_CONNECTION_ID,
    FRAME_OBSERVED_ADDRESS, FRAME_PATH_ABANDON, FRAME_PATH_CHALLENGE, FRAME_PATH_RESPONSE, FRAME_PATH_STATUS,
    FRAME_PING, FRAME_RESET_STREAM, FRAME_RETIRE_CONNECTION_ID, FRAME_SIGNAL, FRAME_STOP_SENDING, FRAME_STREAM,
    HEADER_BYTES, PRIORITIES, STREAM_FIN, STREAM_LEN, STREAM_OFF, varint_bytes, write_u64, write_varint)

cdef enum:
    NEW_CID_ROOM = 41               # type, two varints, id and token
    OBSERVED_ROOM = 38              # type, size, two varints, address and port
    SIGNAL_HEADER_ROOM = 4          # type and size
    STREAM_TURN_PACKETS = 16        # that a stream fills before the next one's turn; in one piece they cost less


cdef void compose_proof(Builder *b) noexcept nogil:
    """On a path that is not proven: answer the peer's challenge, and ask it ours."""
    cdef Path *p = b.path
    if p.answer.is_owed and b.at + 1 + CHALLENGE_BYTES <= b.end:
        p.answer.is_owed = False
        b.at[0] = FRAME_PATH_RESPONSE
        memcpy(b.at + 1, p.answer.data, CHALLENGE_BYTES)
        b.at += 1 + CHALLENGE_BYTES
    if path_challenge_is_due(p, b.now_ns) and b.at + 1 + CHALLENGE_BYTES <= b.end:
        path_challenge_sent(p, b.now_ns, recovery_pto_ns(&b.c.path.recovery, b.c.peer_ack_delay_ns))
        b.at[0] = FRAME_PATH_CHALLENGE
        memcpy(b.at + 1, p.validation.challenge, CHALLENGE_BYTES)
        b.at += 1 + CHALLENGE_BYTES


cdef int compose_copy(Builder *b, const Builder *of, const uint8_t *frames, size_t n) noexcept nogil:
    """Put another packet's frames into this one, with records of its own. Return 0, or -1 without memory for them."""
    cdef const FrameRecord *record = of.sent.more
    cdef FrameRecord *copy
    memcpy(b.at, frames, n)
    b.at += n
    b.is_eliciting = of.is_eliciting
    b.sent.flags |= of.sent.flags & ~<uint32_t>SENT_OUTSTANDING
    b.sent.stream = of.sent.stream
    b.sent.offset = of.sent.offset
    b.sent.stream_bytes = of.sent.stream_bytes
    while record != NULL:
        copy = add_record(b, record.kind, record.stream)
        if copy == NULL:
            drop_records(b)
            return -1
        copy.offset = record.offset
        copy.bytes = record.bytes
        copy.extent = record.extent
        copy.fin = record.fin
        record = record.next
    return 0


cdef void drop_records(Builder *b) noexcept nogil:
    cdef FrameRecord *record
    while b.sent.more != NULL:
        record = b.sent.more
        b.sent.more = record.next
        pool_give(&b.c.context.records, record)


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
        b.path.pending &= ~PATH_PENDING_PING


cdef void compose_frames(Builder *b) noexcept nogil:
    """Fill the packet: control frames, then datagrams and streams, each first in turn."""
    cdef Conn *c = b.c
    cdef uint8_t *data
    if c.pending:
        write_control(b)
    data = b.at
    if c.messages_out.count and not streams_go_first(c):
        c.streams_first = True
        write_datagrams(b)
        if c.context.limits.bundle:
            write_streams(b)
    else:
        c.streams_first = False
        write_streams(b)
        if c.context.limits.bundle:
            write_datagrams(b)
    if b.at != data:
        rekey_note_use(&c.rekey, b.at - data + b.tail_bytes, b.now_ns)
    if not b.is_eliciting and b.path.pto_probes:
        compose_ping(b)


cdef inline bint streams_go_first(const Conn *c) noexcept nogil:
    """Tell whether streams fill the packet before datagrams, which have the default priority and take turns with its streams."""
    cdef uint16_t more_urgent = c.sendable_classes & ((1 << DEFAULT_PRIORITY) - 1)
    return is_linked(&c.urgent) or more_urgent or (c.streams_first and c.sendable_classes & (1 << DEFAULT_PRIORITY))


cdef void write_control(Builder *b) noexcept nogil:
    cdef Conn *c = b.c
    if c.pending & CONN_PENDING_IDS:
        compose_ids(b)
    if c.pending & CONN_PENDING_PATHS:
        compose_paths(b)
    if c.pending & CONN_PENDING_PING:
        compose_ping(b)
    if c.pending & CONN_PENDING_SIGNALS:
        write_signals(b)
    if c.pending & CONN_PENDING_REKEY and room(b) >= REKEY_ROOM:
        write_rekey(b)
    if c.pending & CONN_PENDING_MAX_DATA and room(b) >= FRAME_ROOM:
        write_number(b, FRAME_MAX_DATA, c.data_allowed)
        b.sent.flags |= SENT_MAX_DATA
        c.pending &= ~CONN_PENDING_MAX_DATA
    if c.pending & CONN_PENDING_MAX_STREAMS and room(b) >= FRAME_ROOM:
        write_number(b, FRAME_MAX_STREAMS, c.peer_open_limit)
        b.sent.flags |= SENT_MAX_STREAMS
        c.pending &= ~CONN_PENDING_MAX_STREAMS
    if c.pending & CONN_PENDING_MAX_CHANNELS and room(b) >= FRAME_ROOM and add_record(b, RECORD_MAX_CHANNELS, 0) != NULL:
        write_number(b, FRAME_MAX_CHANNELS, c.channels.peer_open_limit)
        c.pending &= ~CONN_PENDING_MAX_CHANNELS


cdef void compose_ids(Builder *b) noexcept nogil:
    """Tell the peer its new ids, and which of its own are not used any more."""
    cdef Conn *c = b.c
    cdef LocalCid *ours = c.local_cids
    cdef RemoteCid *theirs = remote_cids_in_state(&c.remote_cids, REMOTE_RETIRING)
    while ours != NULL:
        if ours.state == LOCAL_UNSENT:
            if room(b) < NEW_CID_ROOM or not note(b, RECORD_NEW_CID, ours.path, ours.sequence):
                return
            b.at = write_varint(write_varint(write_varint(b.at, FRAME_NEW_CONNECTION_ID), ours.path), ours.sequence)
            write_u64(b.at, ours.cid)
            memcpy(b.at + CID_BYTES, ours.token, sizeof(ours.token))
            b.at += CID_BYTES + sizeof(ours.token)
            ours.state = LOCAL_SENT
        ours = ours.next
    while theirs != NULL:
        if room(b) < FRAME_ROOM or not note(b, RECORD_RETIRE_CID, theirs.path, theirs.sequence):
            return
        b.at = write_varint(write_varint(b.at, FRAME_RETIRE_CONNECTION_ID), theirs.path)
        b.at = write_varint(b.at, theirs.sequence)
        theirs.state = REMOTE_RETIRED
        theirs = remote_cids_in_state(&c.remote_cids, REMOTE_RETIRING)
    c.pending &= ~CONN_PENDING_IDS


cdef void compose_paths(Builder *b) noexcept nogil:
    """Say what has changed about paths; a PING is for the path that this packet goes on."""
    cdef Conn *c = b.c
    cdef Path *p
    cdef uint32_t i
    cdef uint8_t left = 0
    if b.path.pending & PATH_PENDING_PING:
        compose_ping(b)
    for i in range(c.path_count):
        p = c.paths[i]
        if p.pending & PATH_PENDING_STATUS and room(b) >= FRAME_ROOM and note(b, RECORD_PATH_STATUS, p.id, 0):
            b.at = write_varint(write_varint(b.at, FRAME_PATH_STATUS), p.id)
            b.at = write_varint(write_varint(b.at, p.status_sequence), 0 if p.is_standby else 1)
            p.pending &= ~PATH_PENDING_STATUS
        if p.pending & PATH_PENDING_ABANDON and room(b) >= FRAME_ROOM and note(b, RECORD_PATH_ABANDON, p.id, 0):
            b.at = write_varint(write_varint(write_varint(b.at, FRAME_PATH_ABANDON), p.id), CODE_NO_ERROR)
            p.pending &= ~PATH_PENDING_ABANDON
            p.awaits_abandon_ack = True
        if p.pending & PATH_PENDING_OBSERVED and room(b) >= OBSERVED_ROOM:
            write_observed(b, p)
        if path_is_live(p) or p.pending & PATH_PENDING_ABANDON:
            left |= p.pending
    if not left:
        c.pending &= ~CONN_PENDING_PATHS


cdef void write_observed(Builder *b, Path *p) noexcept nogil:
    """Tell the peer where its packets on a path come from (draft-ietf-quic-address-discovery has the idea)."""
    cdef bint is_ipv4 = endpoint_is_ipv4(&p.remote)
    cdef size_t n = 4 if is_ipv4 else 16
    cdef Signals *s
    p.pending &= ~PATH_PENDING_OBSERVED
    if not conn_make_signals(b.c) or not note(b, RECORD_OBSERVED, p.id, 0):
        return
    s = b.c.signals
    b.at = write_varint(b.at, FRAME_OBSERVED_ADDRESS)
    b.at = write_varint(b.at, varint_bytes(s.reports) + varint_bytes(p.id) + n + 2)
    b.at = write_varint(write_varint(b.at, s.reports), p.id)
    s.reports += 1
    memcpy(b.at, p.remote.address + 16 - n, n)
    b.at[n] = <uint8_t>(p.remote.port >> 8)
    b.at[n + 1] = <uint8_t>p.remote.port
    b.at += n + 2


cdef void write_signals(Builder *b) noexcept nogil:
    """Write as many signals as fit, the oldest first."""
    cdef Signals *s = b.c.signals
    cdef Signal *signal = signals_due(s)
    cdef size_t n
    while signal != NULL:
        n = varint_bytes(signal.number) + signal.bytes
        if room(b) < n + SIGNAL_HEADER_ROOM or not note(b, RECORD_SIGNAL, 0, signal.number):
            return
        b.at = write_varint(write_varint(write_varint(b.at, FRAME_SIGNAL), n), signal.number)
        memcpy(b.at, signal.data, signal.bytes)
        b.at += signal.bytes
        signal.state = SIGNAL_SENT
        signal = signals_due(s)
    b.c.pending &= ~CONN_PENDING_SIGNALS


cdef bint note(Builder *b, uint8_t kind, uint64_t path, uint64_t number) noexcept nogil:
    """Remember a frame about a path, for when the packet is lost; False without memory."""
    cdef FrameRecord *record = add_record(b, kind, path)
    if record == NULL:
        return False
    record.offset = number
    b.is_eliciting = True
    return True


cdef void write_rekey(Builder *b) noexcept nogil:
    """Our message of an agreement on fresh keys, if it still means something."""
    b.c.pending &= ~CONN_PENDING_REKEY
    if rekey_has_message(&b.c.rekey):
        b.at = rekey_write(&b.c.rekey, b.at)
        b.sent.flags |= SENT_REKEY
        b.is_eliciting = True


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
        b.is_repeatable = False     # the application would have it twice
        b.at += n
        b.is_eliciting = True
        if not c.context.limits.bundle:
            break
    if c.wanted & CONN_EVENT_DATAGRAM_ROOM and c.messages_out.used <= c.messages_out.limit // 2:
        conn_notify(c, CONN_EVENT_DATAGRAM_ROOM)


cdef void write_streams(Builder *b) noexcept nogil:
    """Let the streams that wait fill the packet: first their control frames, then data, class by class."""
    cdef Conn *c = b.c
    cdef Link *link = first_link(&c.urgent)
    cdef Stream *s
    cdef int priority = 0
    while link != NULL and room(b) >= STREAM_ROOM:
        s = <Stream *>link.owner
        if s.channel != NULL:
            write_channel_control(b, s)
        else:
            write_stream_control(b, s)
        if s.pending & PENDING_ANNOUNCE and s.channel == NULL:
            write_stream_data(b, s)  # which announces it
        if s.pending:
            return                  # the packet is full
        unlink(&s.sendable)
        if conn_has_data(s):
            conn_queue_stream(c, s)
        link = first_link(&c.urgent)
    while priority < PRIORITIES and c.sendable_classes >> priority and room(b) >= STREAM_ROOM:
        if c.sendable_classes >> priority & 1:
            write_class(b, &c.sendable[priority])
        priority += 1


cdef void write_class(Builder *b, Link *list) noexcept nogil:
    """Let the streams of one class fill the packet, in turn."""
    cdef Conn *c = b.c
    cdef Link *link = first_link(list)
    cdef Link *last = list.prev
    cdef Link *following
    cdef Stream *s
    while link != NULL and room(b) >= STREAM_ROOM:
        s = <Stream *>link.owner
        following = link.next if link != last else NULL
        if s.channel != NULL:
            while write_messages(b, s):
                pass
        else:
            while write_stream_data(b, s):
                pass
        if s.pending:
            pass                    # it was put among the urgent ones
        elif not conn_has_data(s):
            conn_unqueue_stream(c, s)
        elif room(b) >= STREAM_ROOM:
            # it is held back by the connection's limit: another may have something to send again
            unlink(&s.sendable)
            link_last(list, &s.sendable)
        elif c.stream_turn >= STREAM_TURN_PACKETS:
            c.stream_turn = 0
            unlink(&s.sendable)
            link_last(list, &s.sendable)
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
        if stream_raise_limit(s, b.now_ns, b.path.recovery.rtt.smoothed_ns, c.context.limits.max_stream_window):
            conn_hold(c, s, 0)
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
    return stream_has_data(s) and (stream_next(s, credit_of(c), &offset) > 0 or offset == s.out.end)


cdef inline uint64_t credit_of(const Conn *c) noexcept nogil:
    """Return how much the connection lets go that is new, but for what messages need that were begun."""
    cdef uint64_t credit = c.data_limit - c.data_sent
    if c.channels == NULL:
        return credit
    return credit - c.channels.reserved if credit > c.channels.reserved else 0


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
    n = stream_next(s, credit_of(c), &offset)
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
    if not type & STREAM_LEN and b.at - b.start - HEADER_BYTES <= HEADROOM and c.scheduler != SCHEDULE_REDUNDANT:
        b.tail = send_buffer_own(&s.out, offset, n)
        b.tail_bytes = n if b.tail != NULL else 0
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
