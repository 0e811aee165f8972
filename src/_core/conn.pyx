"""The connection: one state machine, its streams, its flow control and its deadlines (docs/spec, chapter 5).

What arrives is read by ingress, what goes out is built by egress, and how a connection comes about is the handshake's
business; all three act on the Conn defined here. Nothing here sends, reads a clock or calls Python: whatever happened
is noted in `pending` (for egress) and `events` (for the application), and the connection is put on the engine's lists.

It is one long file because its streams and it call each other (a stream that changes wakes the connection, a connection that
ends gives its streams up), and modules of the core never import each other both ways.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen

from interpeer._core.buffer cimport BUFFER_OK, blocks_bytes, send_buffer_append, send_buffer_lend
from interpeer._core.channel cimport (
    Channel, channel_clear, channel_has_data, channel_init, channel_key, channel_of, channel_reset, channel_unsent)
from interpeer._core.cids cimport CIDS_OK, REMOTE_USED, LocalCid, remote_cids_add, remote_cids_find, remote_cids_free
from interpeer._core.context cimport Context
from interpeer._core.datagram cimport messages_free, messages_init
from interpeer._core.inbox cimport channel_forget_received, channel_has_message
from interpeer._core.links cimport is_linked, link_init, link_last, unlink
from interpeer._core.loss cimport recovery_free
from interpeer._core.path cimport LOCAL_RTT_NS, PATH_PENDING_OBSERVED, Path, path_follow_mtu, path_free, path_is_live
from interpeer._core.pmtud cimport PMTUD_BUFFER_PACKETS, pmtud_limit
from interpeer._core.protection cimport recv_keys_init, recv_keys_wipe, send_keys_init, send_keys_wipe
from interpeer._core.rekey cimport rekey_free, rekey_init
from interpeer._core.signals cimport signals_free, signals_new
from interpeer._core.slab cimport ENDPOINT_ORDINARY, MAX_UDP_PAYLOAD, endpoint_kind, pool_give, pool_take
from interpeer._core.stream cimport (
    PENDING_ANNOUNCE, PENDING_MAX_DATA, RECV_OPEN, RECV_SIZE_KNOWN, SEND_FINISHING, SEND_OPEN, STREAM_EVENT_ACKED,
    STREAM_EVENT_READABLE, STREAM_EVENT_WRITABLE, Stream, stream_clear, stream_finish, stream_has_data, stream_init,
    stream_is_over, stream_read, stream_readable, stream_reset, stream_stop, stream_waiting)
from interpeer._core.table cimport table_find, table_free, table_init, table_put, table_remove
from interpeer._core.trace cimport TRACE_STATE, trace_event
from interpeer._core.wire cimport (
    CODE_INTERNAL, CODE_STREAM_LIMIT, CODE_STREAM_STATE, HEADER_BYTES, MAX_REASON_BYTES, PRIORITIES, Parameters)

cdef enum:
    NOT_ALLOWED = 0xFF
    DEFAULT_RECEIVE_BUFFER = 131072  # of a peer that does not say: what unprivileged programs get everywhere

cdef enum:                          # actions
    DO_NOTHING = 0
    DO_OPEN = 1
    DO_CLOSE = 2                    # tell the peer, and keep answering for a while
    DO_DRAIN = 3                    # say nothing more, and wait until stray packets are gone
    DO_END = 4


# [state][input] -> (next state, action)
cdef uint8_t[5][8][2] TABLE = [
    [  # DIALING
        [CONN_OPEN, DO_OPEN],               # ANSWERED
        [CONN_CLOSED, DO_END],              # FAILED
        [CONN_CLOSED, DO_END],              # CLOSE
        [NOT_ALLOWED, DO_NOTHING],          # VIOLATION: nothing of the peer is read before it has answered
        [NOT_ALLOWED, DO_NOTHING],          # PEER_CLOSE
        [NOT_ALLOWED, DO_NOTHING],          # RESET
        [NOT_ALLOWED, DO_NOTHING],          # SILENCE: the handshake has its own time-out
        [NOT_ALLOWED, DO_NOTHING],          # DRAINED
    ],
    [  # OPEN
        [NOT_ALLOWED, DO_NOTHING],
        [NOT_ALLOWED, DO_NOTHING],
        [CONN_CLOSING, DO_CLOSE],
        [CONN_CLOSING, DO_CLOSE],
        [CONN_DRAINING, DO_DRAIN],
        [CONN_CLOSED, DO_END],
        [CONN_CLOSED, DO_END],
        [NOT_ALLOWED, DO_NOTHING],
    ],
    [  # CLOSING
        [NOT_ALLOWED, DO_NOTHING],
        [NOT_ALLOWED, DO_NOTHING],
        [CONN_CLOSING, DO_NOTHING],
        [CONN_CLOSING, DO_NOTHING],
        [CONN_DRAINING, DO_DRAIN],
        [CONN_CLOSED, DO_END],
        [CONN_CLOSED, DO_END],
        [CONN_CLOSED, DO_END],
    ],
    [  # DRAINING
        [NOT_ALLOWED, DO_NOTHING],
        [NOT_ALLOWED, DO_NOTHING],
        [CONN_DRAINING, DO_NOTHING],
        [CONN_DRAINING, DO_NOTHING],
        [CONN_DRAINING, DO_NOTHING],
        [CONN_DRAINING, DO_NOTHING],
        [CONN_CLOSED, DO_END],
        [CONN_CLOSED, DO_END],
    ],
    [  # CLOSED
        [NOT_ALLOWED, DO_NOTHING],
        [CONN_CLOSED, DO_NOTHING],
        [CONN_CLOSED, DO_NOTHING],
        [CONN_CLOSED, DO_NOTHING],
        [CONN_CLOSED, DO_NOTHING],
        [CONN_CLOSED, DO_NOTHING],
        [CONN_CLOSED, DO_NOTHING],
        [CONN_CLOSED, DO_NOTHING],
    ],
]


cdef int conn_input(Conn *c, int event) noexcept nogil:
    """Move the machine and do what the table says. Return 0, or -1 and no change where it has NOT_ALLOWED."""
    cdef uint8_t action = TABLE[c.state][event][1], before = c.state
    if TABLE[c.state][event][0] == NOT_ALLOWED:
        return -1
    c.state = TABLE[c.state][event][0]
    if c.context.trace != NULL and c.trace_id and c.state != before:
        trace_event(c.context.trace, c.trace_id, 0, TRACE_STATE, before, c.state, event, c.closed_by, c.close_code,
                    c.close_is_app)
    if action == DO_OPEN:
        conn_notify(c, CONN_EVENT_OPEN)
    elif action == DO_CLOSE:
        c.pending = CONN_PENDING_CLOSE
        stop_sending(c)
    elif action == DO_DRAIN:
        c.pending = 0
        stop_sending(c)
    elif action == DO_END:
        c.pending = 0
        stop_sending(c)
    conn_wake(c)
    return 0


cdef Conn *conn_new(Context *x) noexcept nogil:
    """Return a connection in CONN_DIALING that has no path and no keys yet, or NULL without memory."""
    cdef Conn *c = <Conn *>calloc(1, sizeof(Conn))
    cdef int i
    if c == NULL:
        x.counters.no_memory += 1
        return NULL
    c.context = x
    c.controller = x.limits.controller
    link_init(&c.ready, c)
    link_init(&c.eventful, c)
    link_init(&c.member, c)
    c.timer.owner = c
    link_init(&c.urgent, NULL)
    for i in range(PRIORITIES):
        link_init(&c.sendable[i], NULL)
    link_init(&c.eventful_streams, NULL)
    table_init(&c.streams, 0)
    messages_init(&c.messages_out, x.limits.datagram_queue_bytes)
    messages_init(&c.messages_in, x.limits.datagram_queue_bytes)
    return c


cdef void conn_free(Conn *c) noexcept nogil:
    """Release everything. It is in none of the engine's tables any more."""
    cdef uint32_t i
    cdef LocalCid *id
    c.state = CONN_CLOSED
    conn_commit(c, 0)
    conn_set_waiting(c, False)
    for i in range(c.path_count):
        path_free(c.paths[i])
        free(c.paths[i])
    while c.local_cids != NULL:
        id = c.local_cids
        c.local_cids = id.next
        if id != &c.first_cid:
            free(id)
    remote_cids_free(&c.remote_cids)
    free(c.path_events)
    for i in range(c.streams.capacity):
        if c.streams.keys[i]:
            free_stream(c, <Stream *>c.streams.values[i])
    table_free(&c.streams)
    free(c.channels)
    signals_free(c.signals)
    messages_free(&c.messages_out)
    messages_free(&c.messages_in)
    send_keys_wipe(&c.send)
    recv_keys_wipe(&c.recv)
    rekey_free(&c.rekey)
    unlink(&c.ready)
    unlink(&c.eventful)
    unlink(&c.member)
    free(c.close_reason)
    free(c)


cdef void conn_set_waiting(Conn *c, bint is_waiting) noexcept nogil:
    """Note whether there are data that may not go yet."""
    if c.is_waiting != is_waiting:
        c.is_waiting = is_waiting
        c.context.waiting += 1 if is_waiting else -1


cdef int conn_start(Conn *c, int suite, const uint8_t *send_secret, const uint8_t *recv_secret,
                    const Parameters *peer, uint64_t now_ns) noexcept nogil:
    """Take keys and the peer's parameters; the path is set. Return 0, or -1 when the keys cannot be made."""
    cdef Context *x = c.context
    c.suite = suite
    if send_keys_init(&c.send, suite, send_secret) != 0 or recv_keys_init(&c.recv, suite, recv_secret) != 0 \
            or rekey_init(&c.rekey, c.is_initiator, send_secret, recv_secret, x.limits.rekey_ns, now_ns) != 0:
        return -1
    c.data_limit = peer.max_data
    c.first_stream_limit = peer.max_stream_data
    c.open_limit = peer.max_streams
    c.channel_limit = peer.max_channels
    c.max_message_peer = peer.max_message
    c.max_datagram_peer = peer.max_datagram
    c.peer_receive_buffer = peer.receive_buffer if peer.receive_buffer else DEFAULT_RECEIVE_BUFFER
    c.peer_ack_delay_ns = peer.max_ack_delay_us * 1000
    c.peer_max_udp_payload = peer.max_udp_payload
    conn_limit_path(c, c.path)
    c.max_paths = <uint8_t>(x.limits.max_paths if x.limits.max_paths < peer.max_paths else peer.max_paths)
    c.scheduler = x.limits.scheduler
    c.next_path[0] = 2
    c.next_path[1] = 1
    if remote_cids_add(&c.remote_cids, 0, 0, c.path.remote_cid, peer.reset_token) != CIDS_OK:
        return -1
    remote_cids_find(&c.remote_cids, 0, 0).state = REMOTE_USED
    c.ids_changed = True
    c.idle_timeout_ns = x.limits.idle_timeout_ns
    if peer.idle_timeout_ms and (c.idle_timeout_ns == 0 or peer.idle_timeout_ms * 1000000 < c.idle_timeout_ns):
        c.idle_timeout_ns = peer.idle_timeout_ms * 1000000
    c.peer_open_limit = x.limits.max_streams
    conn_report_observed(c, c.path)
    c.data_window = x.limits.connection_window
    c.data_allowed = c.data_window
    conn_commit(c, c.data_window)
    c.last_received_ns = now_ns
    c.last_sent_ns = now_ns
    return 0


cdef void conn_report_observed(Conn *c, Path *p) noexcept nogil:
    """See that the peer is told where its packets on a path come from, where that is an address."""
    if c.context.limits.observe and endpoint_kind(p.remote.address) == ENDPOINT_ORDINARY:
        p.pending |= PATH_PENDING_OBSERVED
        c.pending |= CONN_PENDING_PATHS


cdef bint conn_make_signals(Conn *c) noexcept nogil:
    """See that the connection can keep signals; False without memory."""
    if c.signals == NULL:
        c.signals = signals_new()
        if c.signals == NULL:
            c.context.counters.no_memory += 1
    return c.signals != NULL


cdef void conn_limit_path(const Conn *c, Path *p) noexcept nogil:
    """Before anything is sent on a path: what the peer takes, and what its socket holds several of, bound its packets."""
    cdef uint64_t most = min_u64(c.peer_max_udp_payload, MAX_UDP_PAYLOAD - p.mtu.lead)
    cdef uint64_t ceiling = min_u64(c.context.limits.max_packet_bytes - p.mtu.lead, c.peer_receive_buffer // PMTUD_BUFFER_PACKETS)
    pmtud_limit(&p.mtu, <uint32_t>most, <uint32_t>ceiling)
    path_follow_mtu(p)


cdef inline uint64_t min_u64(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


cdef void stop_sending(Conn *c) noexcept nogil:
    """Forget what was to be sent, and tell everybody who waits. What was received can still be read."""
    cdef uint32_t i
    cdef Stream *s
    for i in range(c.path_count):
        recovery_free(&c.paths[i].recovery)
    messages_free(&c.messages_out)
    for i in range(c.streams.capacity):
        if c.streams.keys[i]:
            s = <Stream *>c.streams.values[i]
            conn_unqueue_stream(c, s)
            s.pending = 0
            give_side_up(c, s, 0)
            s.pending = 0
            conn_notify_stream(c, s)
    conn_notify(c, CONN_EVENT_CLOSED)       # which wakes whoever waits for anything else, too


cdef void conn_wake(Conn *c) noexcept nogil:
    """Let the engine look at it: it may have something to send, or another deadline."""
    link_last(&c.context.ready, &c.ready)


cdef void conn_notify(Conn *c, int events) noexcept nogil:
    """Tell the application, if it waits for any of these."""
    events &= c.wanted | CONN_EVENT_ALWAYS
    if events:
        c.events |= events
        c.wanted &= ~events
        link_last(&c.context.eventful, &c.eventful)


cdef void conn_notify_stream(Conn *c, Stream *s) noexcept nogil:
    """Tell the application what it waits for on a stream, as far as it has come true."""
    cdef uint8_t events = 0
    if s.wanted == 0:
        return
    if s.wanted & STREAM_EVENT_READABLE and (is_readable(s) or s.in_.posted_filled >= s.read_mark or c.state > CONN_OPEN
                                             or s.is_stopped
                                             or (s.recv_state != RECV_OPEN and s.recv_state != RECV_SIZE_KNOWN)):
        events |= STREAM_EVENT_READABLE     # what could not be posted, after a gap, has to be read to make room
    if s.wanted & STREAM_EVENT_WRITABLE and (stream_waiting(s) <= conn_send_buffer(c) // 2
                                             or s.send_state != SEND_OPEN):
        events |= STREAM_EVENT_WRITABLE
    if s.wanted & STREAM_EVENT_ACKED and (s.out.start >= s.acked_mark and s.send_state != SEND_FINISHING
                                          or s.send_state > SEND_FINISHING):
        events |= STREAM_EVENT_ACKED
    if events:
        s.events |= events
        s.wanted &= ~events
        link_last(&c.eventful_streams, &s.eventful)
        link_last(&c.context.eventful, &c.eventful)


cdef bint is_readable(Stream *s) noexcept nogil:
    return channel_has_message(s) if s.channel != NULL else stream_readable(s) != 0


cdef void conn_fail(Conn *c, uint64_t code, const char *reason) noexcept nogil:
    """Close because the peer broke a rule."""
    if c.state == CONN_OPEN:
        conn_close_info(c, CLOSED_BY_ERROR, code, False, <const uint8_t *>reason, <uint32_t>strlen(reason))
        conn_input(c, CONN_IN_VIOLATION)


cdef void conn_close_info(Conn *c, int closed_by, uint64_t code, bint is_app, const uint8_t *reason,
                          uint32_t n) noexcept nogil:
    """Keep why it ended; the first reason stays."""
    if c.closed_by != CLOSED_NOT:
        return
    c.closed_by = closed_by
    c.close_code = code
    c.close_is_app = is_app
    if n > MAX_REASON_BYTES:
        n = MAX_REASON_BYTES
    if n:
        c.close_reason = <uint8_t *>malloc(n)
        if c.close_reason != NULL:
            memcpy(c.close_reason, reason, n)
            c.close_reason_bytes = n


# --- streams ---

cdef Stream *conn_find_stream(Conn *c, uint64_t id) noexcept nogil:
    cdef Stream *s = c.last_stream
    if s == NULL or s.id != id:
        s = <Stream *>table_find(&c.streams, id + 1)
        c.last_stream = s
    return s


cdef Stream *add_stream(Conn *c, uint64_t id) noexcept nogil:
    cdef Stream *s = <Stream *>pool_take(&c.context.streams)
    if s == NULL or table_put(&c.streams, id + 1, s) != 0:
        pool_give(&c.context.streams, s)
        c.context.counters.no_memory += 1
        return NULL
    stream_init(s, id, &c.context.blocks, c.first_stream_limit, c.context.limits.stream_window)
    s.conn = c
    return s


cdef Stream *conn_open_stream(Conn *c) noexcept nogil:
    """Open a stream and announce it; NULL while the peer allows no more of them."""
    cdef Stream *s
    if c.opened >= c.open_limit:
        return NULL
    s = add_stream(c, c.opened * 2 + (0 if c.is_initiator else 1))
    if s == NULL:
        return NULL
    c.opened += 1
    s.pending |= PENDING_ANNOUNCE
    conn_stream_changed(c, s)
    return s


cdef int conn_peer_stream(Conn *c, uint64_t id, Stream **out) noexcept nogil:
    """Find the stream that a frame of the peer names, opening it and those below it if they are new.

    Return 0 with NULL for a stream that is over, or the code of the rule that the peer has broken."""
    cdef bint is_ours = (id & 1) == (0 if c.is_initiator else 1)
    cdef uint64_t number = id >> 1
    out[0] = conn_find_stream(c, id)
    if out[0] != NULL:
        return 0
    if is_ours:
        return 0 if number < c.opened else CODE_STREAM_STATE
    if number < c.peer_opened:
        return 0
    if number >= c.peer_open_limit:
        return CODE_STREAM_LIMIT
    while c.peer_opened <= number:
        out[0] = add_stream(c, c.peer_opened * 2 + (id & 1))
        if out[0] == NULL:
            return CODE_INTERNAL
        c.peer_opened += 1
    c.last_stream = out[0]
    conn_notify(c, CONN_EVENT_STREAM)
    return 0


cdef Stream *conn_accept_stream(Conn *c) noexcept nogil:
    """Hand the peer's next stream to the application, in the order in which they were opened; NULL: none yet."""
    cdef Stream *s
    if c.accepted == c.peer_opened:
        return NULL
    s = conn_find_stream(c, c.accepted * 2 + (1 if c.is_initiator else 0))
    c.accepted += 1
    return s


cdef void conn_stream_changed(Conn *c, Stream *s) noexcept nogil:
    """Queue a stream that has something to send."""
    if c.state == CONN_OPEN and (s.pending or conn_has_data(s)):
        conn_queue_stream(c, s)
        conn_wake(c)


cdef bint conn_has_data(const Stream *s) noexcept nogil:
    """Tell whether a stream or channel has a piece to send, the connection's credit permitting."""
    return channel_has_data(s) if s.channel != NULL else stream_has_data(s)


cdef void conn_queue_stream(Conn *c, Stream *s) noexcept nogil:
    """Put a stream at the end of its list: control frames go before all data, since others wait for what they allow."""
    if s.pending and s.is_queued_for_data:
        conn_unqueue_stream(c, s)
    if is_linked(&s.sendable):
        return
    if s.pending:
        link_last(&c.urgent, &s.sendable)
        return
    link_last(&c.sendable[s.priority], &s.sendable)
    s.is_queued_for_data = True
    c.sendable_classes |= <uint16_t>(1 << s.priority)


cdef void conn_unqueue_stream(Conn *c, Stream *s) noexcept nogil:
    unlink(&s.sendable)
    if s.is_queued_for_data:
        s.is_queued_for_data = False
        if not is_linked(&c.sendable[s.priority]):
            c.sendable_classes &= <uint16_t>~(1 << s.priority)


cdef uint64_t conn_write_stream(Conn *c, Stream *s, const uint8_t *data, uint64_t n) noexcept nogil:
    """Take bytes of the application, as many as the stream's buffer has room for. Return how many."""
    cdef uint64_t waiting = s.out.end - s.out.start, room = conn_send_buffer(c)
    if s.send_state != SEND_OPEN or c.state != CONN_OPEN or waiting >= room:
        return 0
    n = send_buffer_append(&s.out, data, n if n < room - waiting else room - waiting)
    conn_stream_changed(c, s)
    return n


cdef bint conn_lend_stream(Conn *c, Stream *s, const uint8_t *data, uint64_t n) noexcept nogil:
    """Send memory of the application without a copy; it stays lent until acknowledged or reset. Tell if it is taken."""
    if s.send_state != SEND_OPEN or c.state != CONN_OPEN or send_buffer_lend(&s.out, data, n) != BUFFER_OK:
        return False
    conn_stream_changed(c, s)
    return True


cdef uint64_t conn_read_stream(Conn *c, Stream *s, uint8_t *out, uint64_t n) noexcept nogil:
    """Copy what has arrived to the application, and allow the peer as much more. Return how many bytes."""
    n = stream_read(s, out, n)
    if n:
        conn_stream_was_read(c, s, n)
    return n


cdef void conn_stream_was_read(Conn *c, Stream *s, uint64_t n) noexcept nogil:
    """The application has `n` bytes more: the peer may send as many."""
    if s.recv_state == RECV_OPEN and s.recv_limit - s.in_.read <= s.window // 2:
        s.pending |= PENDING_MAX_DATA
        conn_stream_changed(c, s)
    conn_consumed(c, n)


cdef void conn_finish_stream(Conn *c, Stream *s) noexcept nogil:
    if s.send_state == SEND_OPEN:
        stream_finish(s)
        c.finishing += 1
        conn_stream_changed(c, s)


cdef void conn_settle_stream(Conn *c, Stream *s, uint8_t before) noexcept nogil:
    """After the sending side has moved: keep the count of what is promised, tell, and forget what is over."""
    if before == SEND_FINISHING and s.send_state != SEND_FINISHING:
        c.finishing -= 1
        if c.finishing == 0:
            conn_notify(c, CONN_EVENT_FLUSHED)
    conn_notify_stream(c, s)
    conn_reap_stream(c, s)


cdef void conn_reset_stream(Conn *c, Stream *s, uint64_t code) noexcept nogil:
    cdef uint8_t before = s.send_state
    give_side_up(c, s, code)
    conn_stream_changed(c, s)
    conn_settle_stream(c, s, before)


cdef void give_side_up(Conn *c, Stream *s, uint64_t code) noexcept nogil:
    if s.channel != NULL:
        channel_reset(s, code)
        conn_reserve(c, s)
    else:
        stream_reset(s, code)


cdef void conn_stop_stream(Conn *c, Stream *s, uint64_t code) noexcept nogil:
    stop_reading(c, s, code, True)
    conn_stream_changed(c, s)
    conn_notify_stream(c, s)
    conn_reap_stream(c, s)


cdef void stop_reading(Conn *c, Stream *s, uint64_t code, bint at_once) noexcept nogil:
    conn_hold(c, s, 0)
    if s.channel != NULL:
        channel_forget_received(s)
    conn_consumed(c, stream_stop(s, code, at_once))


cdef void conn_release_stream(Conn *c, Stream *s) noexcept nogil:
    """The application has let go: end our side if it is open, and read no more.

    It has not said that what it wrote is all: the peer must not take a part for the whole, so the side is reset, unless
    nothing was written. If everything was read, the peer is asked to stop only when more comes: most peers are done, too,
    and to be asked would look like a failure to them."""
    s.is_released = True
    s.wanted = 0
    if c.state == CONN_OPEN:
        if s.send_state == SEND_OPEN and s.out.end:
            give_side_up(c, s, 0)
        else:
            conn_finish_stream(c, s)
        stop_reading(c, s, 0, False)
        conn_stream_changed(c, s)
    conn_reap_stream(c, s)


cdef void conn_reap_stream(Conn *c, Stream *s) noexcept nogil:
    """Free a stream that is over on both sides and that the application has let go of."""
    if not s.is_released or not (stream_is_over(s) or c.state > CONN_OPEN):
        return
    if s.channel != NULL and not channel_of(s).is_announced and c.state == CONN_OPEN:
        return
    conn_hold(c, s, 0)
    if (s.id & 1) == (0 if c.is_initiator else 1):
        pass
    elif s.channel != NULL:
        c.channels.peer_done += 1
        if c.channels.peer_done + c.context.limits.max_channels - c.channels.peer_open_limit \
                >= (c.context.limits.max_channels + 1) // 2:
            c.pending |= CONN_PENDING_MAX_CHANNELS
            conn_wake(c)
    else:
        c.peer_done += 1
        if c.peer_done + c.context.limits.max_streams - c.peer_open_limit >= (c.context.limits.max_streams + 1) // 2:
            c.pending |= CONN_PENDING_MAX_STREAMS
            conn_wake(c)
    if c.last_stream == s:
        c.last_stream = NULL
    conn_unqueue_stream(c, s)
    unlink(&s.eventful)
    table_remove(&c.streams, s.id + 1)
    free_stream(c, s)


cdef void free_stream(Conn *c, Stream *s) noexcept nogil:
    if s.channel != NULL:
        if channel_of(s).repairs != NULL and channel_of(s).repairs.is_decoding:
            c.channels.decoders -= 1
        channel_clear(s)
        conn_reserve(c, s)
        c.channels.count -= 1
        unlink(&channel_of(s).fresh_link)
        pool_give(&c.context.channels, s.channel)
    stream_clear(s)
    pool_give(&c.context.streams, s)


cdef void conn_hold(Conn *c, Stream *s, uint64_t n) noexcept nogil:
    """Let the connection's window be larger by what a stream has received, or shall receive, that is not read meanwhile: its
    reader is stuck, or waits for the rest of a large message. Otherwise a few such streams would stop all others."""
    c.data_held += n - s.held
    s.held = n
    conn_consumed(c, 0)


cdef void conn_received(Conn *c, uint64_t n) noexcept nogil:
    """Count what came, as far as the greatest offsets moved."""
    c.data_received += n
    if c.data_consumed != c.data_eased:
        conn_ease(c)


cdef void conn_ease(Conn *c) noexcept nogil:
    """When the connection's credit runs out though somebody reads, or waits for something to read: let the window be larger by
    what lies unread, which is others' who do not."""
    if c.data_allowed - c.data_received <= c.data_window // 4:
        c.data_eased = c.data_consumed
        c.data_backlog = c.data_received - c.data_consumed
        conn_consumed(c, 0)


cdef void conn_reserve(Conn *c, Stream *s) noexcept nogil:
    """Keep credit for the rest of a message that was begun: one that waits half-way cannot be read, and frees nothing."""
    cdef Channels *all = c.channels
    cdef Channel *ch = channel_of(s)
    cdef uint64_t rest = channel_unsent(s)
    all.reserved += rest - ch.reserved
    ch.reserved = rest
    if rest and all.large == NULL and all.reserved > c.data_limit - c.data_sent:
        all.large = s
    elif rest == 0 and all.large == s:
        all.large = NULL


# --- channels: their numbers and lists; what they do is in `channels` ---

cdef bint conn_make_channels(Conn *c) noexcept nogil:
    """See that a connection has its Channels; False without memory."""
    if c.channels == NULL:
        c.channels = <Channels *>calloc(1, sizeof(Channels))
        if c.channels == NULL:
            c.context.counters.no_memory += 1
            return False
        c.channels.peer_open_limit = c.context.limits.max_channels
        link_init(&c.channels.fresh, NULL)
        link_init(&c.channels.dated, NULL)
    return True


cdef Stream *conn_add_channel(Conn *c, uint64_t id) noexcept nogil:
    cdef Channel *ch = <Channel *>pool_take(&c.context.channels)
    cdef Stream *s
    if ch == NULL:
        c.context.counters.no_memory += 1
        return NULL
    s = add_stream(c, channel_key(id))
    if s == NULL:
        pool_give(&c.context.channels, ch)
        return NULL
    channel_init(s, ch)
    c.channels.count += 1
    return s


cdef void conn_consumed(Conn *c, uint64_t n) noexcept nogil:
    """Count bytes that the application has read or never will; the peer may send as many more."""
    c.data_consumed += n
    if (n or c.data_held or c.data_backlog) and conn_data_is_due(c):
        c.pending |= CONN_PENDING_MAX_DATA
        conn_wake(c)


cdef uint64_t conn_data_wanted(const Conn *c, uint64_t window) noexcept nogil:
    """Return the limit that allows `window` beyond what is read and held, as far as one peer may make us keep."""
    cdef uint64_t most = c.context.limits.max_connection_window
    window += c.data_held if c.data_held > c.data_backlog else c.data_backlog
    return c.data_consumed + (window if window < most else most)


cdef uint64_t conn_data_granted(const Conn *c, uint64_t window) noexcept nogil:
    """Return what of that the node's memory has room for; the first window it has for everybody."""
    cdef const Context *x = c.context
    cdef uint64_t most = x.limits.connection_window, others = x.committed - c.data_committed
    cdef uint64_t wanted = conn_data_wanted(c, window)
    if others < x.limits.max_memory and x.limits.max_memory - others > most:
        most = x.limits.max_memory - others
    return wanted if wanted - c.data_consumed < most else c.data_consumed + most


cdef void conn_commit(Conn *c, uint64_t n) noexcept nogil:
    c.context.committed += n - c.data_committed
    c.data_committed = n


cdef bint conn_data_is_due(const Conn *c) noexcept nogil:
    """Tell whether half of the connection's window is used up, and the limit can be raised."""
    return c.data_allowed <= conn_data_wanted(c, c.data_window // 2) and c.data_allowed < conn_data_wanted(c, c.data_window)


cdef uint64_t conn_send_buffer(const Conn *c) noexcept nogil:
    """Return how much of a stream may wait to be acknowledged: twice what is on its way when no queue has built up.

    On a path through the world four times as much: a packet that is lost twice holds back what was acknowledged meanwhile."""
    cdef const Path *p
    cdef uint64_t room = c.context.limits.send_buffer_bytes, wanted = 0, of_path
    cdef uint32_t i
    for i in range(c.path_count):
        p = c.paths[i]
        of_path = (4 if p.recovery.rtt.min_ns > LOCAL_RTT_NS else 2) * p.cc.window
        if p.recovery.rtt.min_ns and p.recovery.rtt.min_ns < p.recovery.rtt.smoothed_ns:
            of_path = <uint64_t>(of_path * (<double>p.recovery.rtt.min_ns / p.recovery.rtt.smoothed_ns))
        wanted += of_path
    if wanted > c.context.limits.max_send_buffer_bytes:
        wanted = c.context.limits.max_send_buffer_bytes
    if blocks_bytes(&c.context.blocks) >= c.context.limits.max_memory:
        return room
    return wanted if wanted > room else room


cdef uint32_t conn_max_datagram(const Conn *c) noexcept nogil:
    """Return the largest datagram that fits in a packet of every path and that the peer takes."""
    cdef uint64_t room
    cdef uint32_t i, least
    if c.state != CONN_OPEN:
        return 0
    least = c.path.packet_bytes
    for i in range(c.path_count):
        if path_is_live(c.paths[i]) and c.paths[i].packet_bytes < least:
            least = c.paths[i].packet_bytes
    room = least - HEADER_BYTES - 1 - c.send.aead.tag_bytes
    return <uint32_t>(room if room < c.max_datagram_peer else c.max_datagram_peer)
