"""The channels of a connection: opening and accepting, sending and reading, deadlines, loss (docs/spec, chapter 16).

What is the same for streams is in `conn`: states, windows, lists of what is to be sent, and how both end.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.buffer cimport Draft
from interpeer._core.channel cimport (
    Channel, channel_append, channel_count_deadlines, channel_dropped_acked, channel_dropped_lost, channel_expire,
    channel_handle_acked, channel_handle_lost, channel_key, channel_of)
from interpeer._core.conn cimport (
    CONN_OPEN, CONN_PENDING_MAX_CHANNELS, Channels, Conn, conn_add_channel, conn_consumed,
    conn_find_stream, conn_hold, conn_make_channels, conn_queue_stream, conn_reserve, conn_reset_stream,
    conn_send_buffer, conn_settle_stream, conn_stop_stream, conn_stream_changed, conn_unqueue_stream)
from interpeer._core.links cimport Link, first_link, link_last, unlink
from interpeer._core.loss cimport RECORD_CHANNEL, RECORD_DROPPED
from interpeer._core.repairs cimport (
    MAX_DECODERS, Repairs, repairs_expect, repairs_expire, repairs_note_sent, repairs_of)
from interpeer._core.stream cimport (
    PENDING_ANNOUNCE, PENDING_MAX_DATA, RECV_OPEN, SEND_OPEN, Stream, stream_waiting)
from interpeer._core.wire cimport (
    CAN_CLOSE_ON_LOSS, CODE_INTERNAL, CODE_STREAM_LIMIT, CODE_STREAM_STATE, MESSAGE_HEADER_SIZE, Capabilities)

cdef uint64_t CODE_MESSAGE_LOST = 0x3FFFFFFFFFFFFFFF  # of RESET and STOP: the greatest, which applications leave alone


cdef Stream *conn_find_channel(Conn *c, uint64_t id) noexcept nogil:
    return conn_find_stream(c, channel_key(id))


cdef Stream *conn_open_channel(Conn *c, const Capabilities *capabilities) noexcept nogil:
    """Open a channel and announce it; NULL while the peer allows no more of them."""
    cdef Stream *s
    if not conn_make_channels(c) or c.channels.opened >= c.channel_limit:
        return NULL
    s = conn_add_channel(c, c.channels.opened * 2 + (0 if c.is_initiator else 1))
    if s == NULL:
        return NULL
    c.channels.opened += 1
    channel_of(s).is_ours = True
    channel_of(s).is_told = True
    channel_of(s).capabilities = capabilities[0]
    conn_expect_repairs(c, s)
    s.priority = capabilities.priority
    s.pending |= PENDING_ANNOUNCE
    conn_stream_changed(c, s)
    return s


cdef int conn_peer_channel(Conn *c, uint64_t id, Stream **out) noexcept nogil:
    """Find the channel that a frame of the peer names, opening it and those below it if they are new.

    Return 0 with NULL for a channel that is over, or the code of the rule that the peer has broken."""
    cdef bint is_ours = (id & 1) == (0 if c.is_initiator else 1)
    cdef uint64_t number = id >> 1
    out[0] = NULL
    if not conn_make_channels(c):
        return CODE_INTERNAL
    if is_ours and number >= c.channels.opened:
        return CODE_STREAM_STATE
    if not is_ours and number >= c.channels.peer_open_limit:
        return CODE_STREAM_LIMIT
    if is_ours or number < c.channels.peer_opened:
        out[0] = conn_find_channel(c, id)
        return 0
    while c.channels.peer_opened <= number:
        out[0] = conn_add_channel(c, c.channels.peer_opened * 2 + (id & 1))
        if out[0] == NULL:
            return CODE_INTERNAL
        channel_of(out[0]).is_announced = True
        c.channels.peer_opened += 1
    c.last_stream = out[0]
    return 0


cdef Stream *conn_next_channel(Conn *c) noexcept nogil:
    """Return the peer's next channel, once its CHANNEL frame has come; NULL: not yet."""
    cdef Stream *s
    if c.channels == NULL or c.channels.accepted == c.channels.peer_opened:
        return NULL
    s = conn_find_channel(c, c.channels.accepted * 2 + (1 if c.is_initiator else 0))
    return s if channel_of(s).is_told else NULL


cdef Stream *conn_accept_channel(Conn *c) noexcept nogil:
    """Hand the peer's next channel to the application, in the order in which they were opened; NULL: none yet."""
    cdef Stream *s = conn_next_channel(c)
    if s != NULL:
        c.channels.accepted += 1
    return s


cdef void conn_set_channel(Conn *c, Stream *s, const Capabilities *capabilities) noexcept nogil:
    """Send with other capabilities from the next message on, and tell the peer."""
    cdef Channel *ch = channel_of(s)
    ch.capabilities = capabilities[0]
    ch.is_ours = True
    conn_expect_repairs(c, s)
    conn_set_priority(c, s, capabilities.priority)
    if c.state == CONN_OPEN and s.send_state == SEND_OPEN:
        ch.sequence += 1
        s.pending |= PENDING_ANNOUNCE
        conn_stream_changed(c, s)


cdef void conn_expect_repairs(Conn *c, Stream *s) noexcept nogil:
    """Be ready for repairs if the peer sends them, and for no more channels than is reasonable.

    Who has accepted our channel, and said nothing, sends with the capabilities that we have told."""
    cdef Channel *ch = channel_of(s)
    cdef const Capabilities *theirs = &ch.theirs if ch.has_theirs else &ch.capabilities
    cdef bint is_expected = theirs.fec_data and theirs.fec_repair
    cdef bint was_expected = ch.repairs != NULL and ch.repairs.is_decoding
    if is_expected == was_expected or (is_expected and c.channels.decoders >= MAX_DECODERS) \
            or repairs_of(&ch.repairs) == NULL:
        return
    repairs_expect(ch.repairs, is_expected)
    c.channels.decoders += 1 if is_expected else -1


cdef void conn_set_priority(Conn *c, Stream *s, uint8_t priority) noexcept nogil:
    cdef bint is_queued = s.is_queued_for_data
    if is_queued:
        conn_unqueue_stream(c, s)
    s.priority = priority
    if is_queued:
        conn_queue_stream(c, s)


cdef int conn_may_send(const Conn *c, const Stream *s, uint64_t n) noexcept nogil:
    """Tell whether a message would be taken, which is so if it fits or no more than half of the room is taken: SEND_*.

    Half is where those are woken that wait for room: what they have then must be taken, however large it is."""
    cdef uint64_t waiting = stream_waiting(s), most = conn_send_buffer(c)
    if s.send_state != SEND_OPEN or c.state != CONN_OPEN:
        return SEND_NOT_OPEN
    if n > c.max_message_peer:
        return SEND_TOO_LARGE
    if waiting > most // 2 and waiting + MESSAGE_HEADER_SIZE + n > most:
        return SEND_NO_ROOM
    return SEND_TAKEN


cdef int conn_send_message(Conn *c, Stream *s, const uint8_t *data, uint64_t n, Draft *draft) noexcept nogil:
    """Take a message as a whole, if there is room; `draft` has a copy of it, or is NULL. Return SEND_*."""
    cdef Channel *ch = channel_of(s)
    cdef int result = conn_may_send(c, s, n)
    if result != SEND_TAKEN:
        return result
    if channel_append(s, data, n, draft) != 0:
        c.context.counters.no_memory += 1
        conn_stream_changed(c, s)
        return SEND_NO_MEMORY
    if ch.fresh:
        link_last(&c.channels.fresh, &ch.fresh_link)
    conn_stream_changed(c, s)
    return SEND_TAKEN


cdef void conn_message_was_read(Conn *c, Stream *s, uint64_t freed) noexcept nogil:
    """Reading has moved on by `freed` bytes: the peer may send as many."""
    if freed == 0:
        return
    if s.held and channel_of(s).expected <= s.highest:
        conn_hold(c, s, 0)
    if s.recv_state == RECV_OPEN and s.recv_limit - s.in_.read <= s.window // 2:
        s.pending |= PENDING_MAX_DATA
        conn_stream_changed(c, s)
    conn_consumed(c, freed)


# --- loss and deadlines ---

cdef void conn_lose_piece(Conn *c, Stream *s, uint64_t offset, uint64_t n, bint fin, bint is_lost) noexcept nogil:
    """A piece was lost, or may be (`is_lost` is False): send it again, or give its messages up."""
    cdef uint8_t before = s.send_state
    settle(c, s, before, channel_handle_lost(s, offset, n, fin, is_lost))


cdef void settle(Conn *c, Stream *s, uint8_t before, uint32_t dropped) noexcept nogil:
    """After messages were given up: end a channel that is to end then, on both sides and with a code that says why. It may be
    over and freed then."""
    conn_reserve(c, s)
    conn_stream_changed(c, s)
    if dropped and channel_of(s).capabilities.flags & CAN_CLOSE_ON_LOSS:
        conn_reset_stream(c, s, CODE_MESSAGE_LOST)
        conn_stop_stream(c, s, CODE_MESSAGE_LOST)
        return
    conn_settle_stream(c, s, before)


cdef void conn_handle_message_acked(Conn *c, Stream *s, uint64_t offset, uint64_t n, bint fin) noexcept nogil:
    cdef uint8_t before = s.send_state
    channel_handle_acked(s, offset, n, fin)
    conn_settle_stream(c, s, before)


cdef void conn_handle_dropped_acked(Conn *c, Stream *s, uint64_t number, uint32_t what, uint32_t bytes) noexcept nogil:
    """The peer knows of messages that were given up."""
    cdef uint8_t before = s.send_state
    channel_dropped_acked(s, number, what, bytes)
    conn_settle_stream(c, s, before)


cdef void conn_handle_channel_acked(Conn *c, Stream *s) noexcept nogil:
    """The peer knows the channel: before, it may not be forgotten, or the peer could not accept those behind it either."""
    channel_of(s).is_announced = True
    conn_settle_stream(c, s, s.send_state)


cdef void conn_requeue_channel(Conn *c, Stream *s, uint8_t kind, uint64_t first, uint32_t what,
                               bint was_begun) noexcept nogil:
    """A CHANNEL or DROPPED frame was lost: say again what is still so."""
    if kind == RECORD_DROPPED:
        channel_dropped_lost(s, first, what, was_begun)
    elif kind == RECORD_CHANNEL and first == channel_of(s).sequence:
        s.pending |= PENDING_ANNOUNCE
    conn_stream_changed(c, s)


cdef void channels_note_sent(Conn *c, Stream *s, uint64_t now_ns) noexcept nogil:
    """Messages went out: if no more follow, a repair does, so that the last ones are covered."""
    cdef Repairs *r = channel_of(s).repairs
    if r != NULL and repairs_note_sent(r, now_ns, c.path.recovery.rtt.smoothed_ns):
        link_last(&c.channels.dated, &channel_of(s).dated)
        note_due(c.channels, s)


cdef void channels_count_deadlines(Conn *c, uint64_t now_ns) noexcept nogil:
    """Begin to count the deadlines of what was sent since the last turn."""
    cdef Channels *all = c.channels
    cdef Link *link = first_link(&all.fresh)
    cdef Stream *s
    cdef Channel *ch
    while link != NULL:
        s = <Stream *>link.owner
        ch = channel_of(s)
        unlink(link)
        if channel_count_deadlines(s, now_ns):
            link_last(&all.dated, &ch.dated)
            if all.due_ns == 0 or ch.due_ns < all.due_ns:
                all.due_ns = ch.due_ns
        link = first_link(&all.fresh)
    if all.due_ns and all.due_ns <= now_ns:
        channels_expire(c, now_ns)


cdef void channels_expire(Conn *c, uint64_t now_ns) noexcept nogil:
    """Give up what is late, and find the next deadline."""
    cdef Channels *all = c.channels
    cdef Link *link
    cdef Link *following
    cdef Stream *s
    if all == NULL or all.due_ns == 0 or all.due_ns > now_ns:
        return
    all.due_ns = 0
    link = first_link(&all.dated)
    while link != NULL:
        s = <Stream *>link.owner
        following = link.next if link.next != &all.dated else NULL
        if due_of(s) == 0:
            unlink(link)
        elif due_of(s) > now_ns:
            note_due(all, s)
        else:
            expire(c, s, now_ns)
        link = following


cdef void expire(Conn *c, Stream *s, uint64_t now_ns) noexcept nogil:
    """Let one channel give up what is late; it may be over and freed then."""
    cdef uint8_t before = s.send_state
    cdef uint32_t late = channel_expire(s, now_ns)
    if channel_of(s).repairs != NULL:
        repairs_expire(channel_of(s).repairs, now_ns)
    if due_of(s) == 0:
        unlink(&channel_of(s).dated)
    else:
        note_due(c.channels, s)
    settle(c, s, before, late)


cdef inline uint64_t due_of(const Stream *s) noexcept nogil:
    """Return when something of a channel is due; 0: never."""
    cdef const Channel *ch = channel_of(s)
    if ch.repairs == NULL or ch.repairs.idle_ns == 0 or (ch.due_ns and ch.due_ns < ch.repairs.idle_ns):
        return ch.due_ns
    return ch.repairs.idle_ns


cdef inline void note_due(Channels *all, const Stream *s) noexcept nogil:
    if all.due_ns == 0 or due_of(s) < all.due_ns:
        all.due_ns = due_of(s)


cdef void channels_raise_limit(Conn *c) noexcept nogil:
    if c.pending & CONN_PENDING_MAX_CHANNELS:
        c.channels.peer_open_limit = c.channels.peer_done + c.context.limits.max_channels
