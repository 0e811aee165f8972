"""What arrives on a connection: opening packets, reading their frames, acting on each (docs/spec, chapters 3 and 6).

A packet that does not open is dropped and counted. Inside one that does, the peer is authentic, and whatever breaks a
rule closes the connection with the code of that rule. Nothing here is sent: handlers note what is to be done.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from interpeer._core.channel_in cimport handle_channel_frame
from interpeer._core.conn cimport (
    CLOSED_BY_PEER, CLOSED_BY_PEER_ERROR, CONN_CLOSING, CONN_EVENT_DATAGRAM, CONN_EVENT_STREAM_ROOM,
    CONN_IN_PEER_CLOSE, CONN_OPEN, CONN_PENDING_CLOSE, Conn, conn_close_info, conn_consumed, conn_fail, conn_hold,
    conn_input, conn_notify, conn_notify_stream, conn_peer_stream, conn_reap_stream, conn_received, conn_reset_stream,
    conn_stream_changed, conn_stream_was_read, conn_wake)
from interpeer._core.datagram cimport messages_push_dropping
from interpeer._core.delivery cimport conn_count_lost, conn_probe_again
from interpeer._core.keys cimport keys_handle_frame
from interpeer._core.loss cimport LOSS_OK, AckOutcome, recovery_handle_ack
from interpeer._core.path cimport (
    ECN_TESTING, PATH_SUSPECT, SUSPECT_PTOS, Path, path_handle_number, path_handle_outcome, path_is_live, path_is_proven)
from interpeer._core.paths cimport (
    paths_accept, paths_find, paths_follow, paths_give_credit, paths_handle_frame, paths_heard, paths_longest_pto_ns)
from interpeer._core.protection cimport UNPROTECT_FORGED, UNPROTECT_REPLAY, UNPROTECT_SHORT, recv_keys_update, unprotect
from interpeer._core.rekey cimport rekey_handle_epoch, rekey_note_use
from interpeer._core.replay cimport replay_accept
from interpeer._core.signal_in cimport handle_signal_frame
from interpeer._core.slab cimport Datagrams, Endpoint
from interpeer._core.stream cimport (
    RECV_OPEN, SEND_FINISHING, SEND_OPEN, STREAM_OK, Stream, stream_handle_data, stream_handle_reset)
from interpeer._core.tracing cimport tracing_dropped, tracing_key_update, tracing_metrics, tracing_received
from interpeer._core.wire cimport (
    CODE_AEAD_LIMIT, CODE_CONNECTION_ID, CODE_FINAL_SIZE, CODE_FLOW_CONTROL, CODE_FRAME_ENCODING, CODE_GAPS,
    CODE_INTERNAL, CODE_MESSAGE_SIZE, CODE_PROTOCOL, CODE_STREAM_LIMIT, CODE_STREAM_STATE, FRAME_ACK, FRAME_ACK_ECN,
    FRAME_CHANNEL, FRAME_CHANNELS_END, FRAME_CLOSE, FRAME_CLOSE_APP, FRAME_DATAGRAM, FRAME_DATAGRAM_LEN,
    FRAME_IGNORABLE, FRAME_MAX_DATA, FRAME_MAX_STREAMS, FRAME_MAX_STREAM_DATA, FRAME_NEW_CONNECTION_ID,
    FRAME_OBSERVED_ADDRESS, FRAME_PATH_STATUS, FRAME_PING, FRAME_REKEY, FRAME_REKEY_ANSWER, FRAME_RESET_STREAM,
    FRAME_SIGNAL, FRAME_STOP_SENDING, FRAME_STREAM, HEADER_BYTES, PARSE_END, PARSE_OK, Frame, Reader, parse_frame)

cdef enum:
    PREVIOUS_KEY_PTOS = 3           # how long packets of the last epoch are still read
    COMPLETE = 0                    # results of reading a packet's frames
    FAILED = -1                     # the connection is closing, or closed


cdef int conn_handle_packet(Conn *c, uint32_t path, uint8_t *packet, uint32_t bytes, const Datagrams *from_,
                            uint64_t now_ns) noexcept nogil:
    """Take a packet that carries one of our connection ids, of this path. Return 0 if it was authentic, otherwise
    UNPROTECT_*."""
    cdef uint64_t number
    cdef bint is_update, eliciting
    cdef Path *p = c.path if c.path.id == path else paths_find(c, path)
    cdef Py_ssize_t n = unprotect(&c.recv, &p.window if p != NULL else NULL, packet, bytes, path, &number, &is_update)
    if p != NULL and p.validation != NULL:
        paths_give_credit(p, &from_.remote, bytes)
    if n < 0:
        if c.context.trace != NULL:
            tracing_dropped(c, path, n, bytes)
        count_dropped(c, n)
        return <int>n
    if p == NULL:
        p = paths_accept(c, path, from_) if c.state == CONN_OPEN else NULL
        if p == NULL:
            c.context.counters.dropped_unknown += 1
            return 0
        replay_accept(&p.window, number)
        paths_give_credit(p, &from_.remote, bytes)
    elif number + 1 == p.window.next and not is_same_way(p, from_):
        paths_follow(c, p, from_, bytes, now_ns)
    if c.context.trace != NULL:
        tracing_received(c, p, number, packet, bytes, n, from_.ecn)
    p.packets_received += 1
    p.bytes_received += bytes
    p.last_received_ns = now_ns
    c.last_received_ns = now_ns
    c.waiting_since_ns = 0
    c.is_confirmed = True
    if c.state != CONN_OPEN:
        handle_while_closing(c, packet + HEADER_BYTES, n, now_ns)
        return 0
    if is_update:
        if recv_keys_update(&c.recv) != 0:
            conn_fail(c, CODE_INTERNAL, b"out of memory")
            return 0
        if c.context.trace != NULL:
            tracing_key_update(c, False, c.recv.epoch)
        rekey_handle_epoch(&c.rekey, c.recv.epoch, now_ns)
        c.previous_until_ns = now_ns + PREVIOUS_KEY_PTOS * paths_longest_pto_ns(c)
    conn_wake(c)
    if handle_frames(c, p, packet + HEADER_BYTES, n, from_, now_ns, &eliciting) == COMPLETE and path_is_live(p):
        path_handle_number(p, number, eliciting, from_.ecn, now_ns, c.context.limits.max_ack_delay_ns)
        if p.recovery.pto_count >= SUSPECT_PTOS and path_is_proven(p) and p.ecn_state != ECN_TESTING:
            conn_probe_again(c, p)      # were it ECN that is to blame, more time-outs in a row would have to show it
    return 0


cdef inline bint is_same_way(const Path *p, const Datagrams *from_) noexcept nogil:
    return memcmp(&p.remote, &from_.remote, sizeof(Endpoint)) == 0 and memcmp(p.local, from_.local, sizeof(p.local)) == 0


cdef void count_dropped(Conn *c, Py_ssize_t why) noexcept nogil:
    if why == UNPROTECT_SHORT:
        c.context.counters.dropped_short += 1
    elif why == UNPROTECT_REPLAY:
        c.context.counters.dropped_replayed += 1
    elif why == UNPROTECT_FORGED:
        c.context.counters.dropped_forged += 1
        if c.recv.forged >= c.context.limits.forgery_limit:
            conn_fail(c, CODE_AEAD_LIMIT, b"too many forged packets")
    else:
        c.context.counters.dropped_reserved += 1


cdef void handle_while_closing(Conn *c, const uint8_t *payload, Py_ssize_t n, uint64_t now_ns) noexcept nogil:
    """Answer with our CLOSE at the 1st, 2nd, 4th, 8th ... packet, and look for the peer's."""
    cdef Reader r
    cdef Frame f
    if c.state != CONN_CLOSING:
        return
    r.p = payload
    r.end = payload + n
    while parse_frame(&r, &f) == PARSE_OK:
        if f.type == FRAME_CLOSE or f.type == FRAME_CLOSE_APP:
            conn_input(c, CONN_IN_PEER_CLOSE)
            return
    c.close_packets += 1
    if c.close_packets & (c.close_packets - 1) == 0:
        c.pending |= CONN_PENDING_CLOSE
        conn_wake(c)


cdef int handle_frames(Conn *c, Path *p, const uint8_t *payload, Py_ssize_t n, const Datagrams *from_, uint64_t now_ns,
                       bint *eliciting) noexcept nogil:
    """Act on each frame. Return COMPLETE, or FAILED as soon as the connection is not open any more."""
    cdef Reader r
    cdef Frame f
    cdef int result
    cdef uint64_t code
    cdef bint is_use = False
    r.p = payload
    r.end = payload + n
    eliciting[0] = False
    while True:
        result = parse_frame(&r, &f)
        if result == PARSE_END:
            if is_use:
                rekey_note_use(&c.rekey, n, now_ns)
            return COMPLETE
        if result != PARSE_OK:
            conn_fail(c, CODE_FRAME_ENCODING, b"a frame cannot be read")
            return FAILED
        if f.type != FRAME_ACK and f.type != FRAME_ACK_ECN:
            eliciting[0] = True
        # what is neither about packets nor about paths and keys is the application's
        is_use |= FRAME_RESET_STREAM <= f.type <= FRAME_DATAGRAM_LEN or f.type > FRAME_REKEY_ANSWER
        code = handle_frame(c, p, &f, from_, now_ns)
        if code:
            conn_fail(c, code, reason_of(code))
        if c.state != CONN_OPEN:
            return FAILED


cdef const char *reason_of(uint64_t code) noexcept nogil:
    if code == CODE_FLOW_CONTROL:
        return b"more data than was allowed"
    if code == CODE_STREAM_LIMIT:
        return b"more streams than were allowed"
    if code == CODE_STREAM_STATE:
        return b"a frame for a stream that cannot have it"
    if code == CODE_FINAL_SIZE:
        return b"a stream with two sizes"
    if code == CODE_GAPS:
        return b"too many gaps in a stream"
    if code == CODE_CONNECTION_ID:
        return b"connection ids that cannot be"
    if code == CODE_MESSAGE_SIZE:
        return b"a message that is too large"
    if code == CODE_INTERNAL:
        return b"out of memory"
    return b"a rule of the protocol is broken"


cdef uint64_t handle_frame(Conn *c, Path *p, Frame *f, const Datagrams *from_, uint64_t now_ns) noexcept nogil:
    """Return 0, or the code of the rule that the frame breaks."""
    if f.type & ~<uint64_t>7 == FRAME_STREAM:
        p.data_ns = now_ns
        return handle_stream(c, f)
    if f.type == FRAME_DATAGRAM or f.type == FRAME_DATAGRAM_LEN:
        p.data_ns = now_ns
        return handle_datagram(c, f)
    if f.type == FRAME_ACK or f.type == FRAME_ACK_ECN:
        return handle_ack(c, f, now_ns)
    if f.type == FRAME_MAX_DATA:
        if f.value > c.data_limit:
            c.data_limit = f.value
        return 0
    if f.type == FRAME_MAX_STREAM_DATA:
        return handle_max_stream_data(c, f)
    if f.type == FRAME_MAX_STREAMS:
        if f.value > c.open_limit:
            c.open_limit = f.value
            conn_notify(c, CONN_EVENT_STREAM_ROOM)
        return 0
    if f.type == FRAME_RESET_STREAM:
        return handle_reset_stream(c, f)
    if FRAME_CHANNEL <= f.type < FRAME_CHANNELS_END:
        return handle_channel_frame(c, f)
    if f.type == FRAME_STOP_SENDING:
        return handle_stop_sending(c, f)
    if FRAME_NEW_CONNECTION_ID <= f.type <= FRAME_PATH_STATUS:
        return paths_handle_frame(c, p, f, from_, now_ns)
    if f.type == FRAME_CLOSE or f.type == FRAME_CLOSE_APP:
        conn_close_info(c, CLOSED_BY_PEER if f.type == FRAME_CLOSE_APP else CLOSED_BY_PEER_ERROR, f.value,
                        f.type == FRAME_CLOSE_APP, f.data, f.bytes)
        conn_input(c, CONN_IN_PEER_CLOSE)
        return 0
    if f.type == FRAME_REKEY or f.type == FRAME_REKEY_ANSWER:
        return keys_handle_frame(c, f, now_ns)
    if f.type == FRAME_SIGNAL or f.type == FRAME_OBSERVED_ADDRESS:
        return handle_signal_frame(c, f)
    # PING asks for nothing but an acknowledgement, and so does an ignorable frame that we do not know
    return 0 if f.type == FRAME_PING or f.type >= FRAME_IGNORABLE else CODE_FRAME_ENCODING


cdef uint64_t handle_stream(Conn *c, const Frame *f) noexcept nogil:
    cdef Stream *s
    cdef uint64_t grown, filled
    cdef int code = conn_peer_stream(c, f.id, &s)
    if code or s == NULL:
        return code
    filled = s.in_.posted_filled
    code = stream_handle_data(s, f.offset, f.data, f.bytes, f.fin, c.data_allowed - c.data_received, &grown)
    if code != STREAM_OK:
        return code
    conn_received(c, grown)
    if s.highest == s.recv_limit and s.recv_state == RECV_OPEN and not s.is_stopped:
        conn_hold(c, s, s.highest - s.in_.read)
    if s.is_stopped:
        conn_consumed(c, grown)
        conn_stream_changed(c, s)
        conn_reap_stream(c, s)
        return 0
    if s.in_.posted_filled > filled:
        conn_stream_was_read(c, s, s.in_.posted_filled - filled)
    if s.wanted:
        conn_notify_stream(c, s)
    return 0


cdef uint64_t handle_datagram(Conn *c, const Frame *f) noexcept nogil:
    cdef uint64_t before = c.messages_in.dropped
    if f.bytes > c.context.limits.max_datagram:
        return CODE_PROTOCOL
    messages_push_dropping(&c.messages_in, f.data, <unsigned int>f.bytes)
    c.context.counters.datagrams_dropped += c.messages_in.dropped - before
    if c.messages_in.used > c.messages_in.limit // 2:
        c.context.is_pressed = True
    if c.wanted & CONN_EVENT_DATAGRAM:
        conn_notify(c, CONN_EVENT_DATAGRAM)
    return 0


cdef uint64_t handle_ack(Conn *c, Frame *f, uint64_t now_ns) noexcept nogil:
    """RFC 9002: settle packets, and let congestion control know, once for the frame."""
    cdef Path *p = c.path if c.path.id == f.path else paths_find(c, f.path)
    cdef AckOutcome outcome
    cdef uint64_t in_flight
    if p == NULL:
        return 0 if f.path < c.next_path[f.path & 1] else CODE_PROTOCOL     # of a path that is forgotten
    in_flight = p.recovery.bytes_in_flight
    if recovery_handle_ack(&p.recovery, f, now_ns, c.peer_ack_delay_ns, &outcome) != LOSS_OK:
        return CODE_PROTOCOL
    if outcome.acked_packets and (c.path_count > 1 or p.state == PATH_SUSPECT):
        paths_heard(c, p)
    if outcome.lost_packets:
        conn_count_lost(c, p, outcome.lost_packets)
    path_handle_outcome(p, f, &outcome, in_flight, now_ns)
    if outcome.acked_bytes:
        p.pto_probes = 0
    if c.context.trace != NULL:
        tracing_metrics(c, p)
    return 0


cdef uint64_t handle_max_stream_data(Conn *c, const Frame *f) noexcept nogil:
    cdef Stream *s
    cdef int code = conn_peer_stream(c, f.id, &s)
    if code or s == NULL:
        return code
    if f.value > s.send_limit:
        s.send_limit = f.value
        conn_stream_changed(c, s)
    return 0


cdef uint64_t handle_reset_stream(Conn *c, const Frame *f) noexcept nogil:
    cdef Stream *s
    cdef uint64_t grown, dropped
    cdef int code = conn_peer_stream(c, f.id, &s)
    if code or s == NULL:
        return code
    code = stream_handle_reset(s, f.value, f.offset, c.data_allowed - c.data_received, &grown, &dropped)
    if code != STREAM_OK:
        return code
    conn_received(c, grown)
    conn_hold(c, s, 0)
    conn_consumed(c, dropped)
    conn_notify_stream(c, s)
    conn_reap_stream(c, s)
    return 0


cdef uint64_t handle_stop_sending(Conn *c, const Frame *f) noexcept nogil:
    """The peer reads no more: give the sending side up, with the code it gave (RFC 9000, 3.5)."""
    cdef Stream *s
    cdef int code = conn_peer_stream(c, f.id, &s)
    if code or s == NULL:
        return code
    if s.send_state == SEND_OPEN or s.send_state == SEND_FINISHING:
        s.peer_stop_code = f.value
        s.was_stopped = True
        conn_reset_stream(c, s, f.value)
    return 0
