"""What arrives for the channels of a connection: one function a frame (docs/spec, chapter 16)."""

from libc.stdint cimport uint64_t

from interpeer._core.channel cimport Channel, channel_of
from interpeer._core.channels cimport (
    conn_expect_repairs, conn_message_was_read, conn_next_channel, conn_peer_channel, conn_set_priority)
from interpeer._core.conn cimport (
    CONN_EVENT_CHANNEL, CONN_EVENT_CHANNEL_ROOM, Conn, conn_consumed, conn_hold, conn_notify, conn_notify_stream,
    conn_reap_stream, conn_received, conn_reset_stream, conn_stream_changed)
from interpeer._core.inbox cimport (
    channel_forget_received, channel_handle_dropped, channel_handle_messages, channel_handle_repair)
from interpeer._core.stream cimport (
    PENDING_MAX_DATA, RECV_OPEN, RECV_SIZE_KNOWN, SEND_FINISHING, SEND_OPEN, STREAM_OK, Stream, stream_handle_reset)
from interpeer._core.wire cimport (
    CODE_FRAME_ENCODING, FRAME_CHANNEL, FRAME_CHANNEL_MAX_DATA, FRAME_CHANNEL_RESET, FRAME_CHANNEL_STOP, FRAME_DROPPED,
    FRAME_MAX_CHANNELS, FRAME_MESSAGES, FRAME_REPAIR, Frame)


cdef uint64_t handle_channel_frame(Conn *c, const Frame *f) noexcept nogil:
    """Return 0, or the code of the rule that the frame breaks."""
    cdef Stream *s
    cdef int code
    if f.type == FRAME_MAX_CHANNELS:
        if f.value > c.channel_limit:
            c.channel_limit = f.value
            conn_notify(c, CONN_EVENT_CHANNEL_ROOM)
        return 0
    code = conn_peer_channel(c, f.id, &s)
    if code or s == NULL:
        return code
    if f.type >= FRAME_MESSAGES or f.type == FRAME_REPAIR:
        return handle_messages(c, s, f)
    if f.type == FRAME_CHANNEL:
        return handle_channel(c, s, f)
    if f.type == FRAME_DROPPED:
        return handle_dropped(c, s, f)
    if f.type == FRAME_CHANNEL_MAX_DATA:
        if f.value > s.send_limit:
            s.send_limit = f.value
            conn_stream_changed(c, s)
        return 0
    if f.type == FRAME_CHANNEL_RESET:
        return handle_reset(c, s, f)
    if f.type == FRAME_CHANNEL_STOP:
        if s.send_state == SEND_OPEN or s.send_state == SEND_FINISHING:
            s.peer_stop_code = f.value
            s.was_stopped = True
            conn_reset_stream(c, s, f.value)
        return 0
    return CODE_FRAME_ENCODING


cdef uint64_t handle_channel(Conn *c, Stream *s, const Frame *f) noexcept nogil:
    """Take what the peer says about a channel, unless it has said something newer. Who accepts sends alike, until told."""
    cdef Channel *ch = channel_of(s)
    if ch.has_theirs and f.value <= ch.their_sequence:
        return 0
    ch.has_theirs = True
    ch.theirs = f.capabilities
    ch.their_sequence = f.value
    if not ch.is_ours:
        ch.capabilities = f.capabilities
        conn_set_priority(c, s, f.capabilities.priority)
    conn_expect_repairs(c, s)
    ch.is_told = True
    if conn_next_channel(c) != NULL:
        conn_notify(c, CONN_EVENT_CHANNEL)
    return 0


cdef uint64_t handle_messages(Conn *c, Stream *s, const Frame *f) noexcept nogil:
    """Take messages, or a repair that brings some."""
    cdef uint64_t grown, credit = c.data_allowed - c.data_received, read = s.in_.read
    cdef int code
    if f.type == FRAME_REPAIR:
        code = channel_handle_repair(s, f, credit, c.context.limits.max_message, &grown)
    else:
        code = channel_handle_messages(s, f, credit, c.context.limits.max_message, &grown)
    if code != STREAM_OK:
        return code
    conn_received(c, grown)
    if s.is_stopped:
        conn_consumed(c, grown)
        conn_stream_changed(c, s)
        conn_reap_stream(c, s)
        return 0
    conn_message_was_read(c, s, s.in_.read - read)
    if s.recv_state == RECV_OPEN:
        make_room(c, s)
    if s.wanted:
        conn_notify_stream(c, s)
    return 0


cdef void make_room(Conn *c, Stream *s) noexcept nogil:
    """Let a message come whole that is larger than the windows: it cannot be read before, and nothing be freed."""
    cdef Channel *ch = channel_of(s)
    if ch.expected > s.recv_limit:
        s.pending |= PENDING_MAX_DATA
        conn_stream_changed(c, s)
    if ch.expected > s.highest and ch.expected - s.in_.read > s.held + s.window // 4:
        conn_hold(c, s, ch.expected - s.in_.read)
    elif s.highest == s.recv_limit:
        conn_hold(c, s, s.highest - s.in_.read)


cdef uint64_t handle_dropped(Conn *c, Stream *s, const Frame *f) noexcept nogil:
    cdef uint64_t grown, freed
    cdef int code = channel_handle_dropped(s, f, c.data_allowed - c.data_received, &grown, &freed)
    if code != STREAM_OK:
        return code
    conn_received(c, grown)
    if s.is_stopped:
        conn_consumed(c, grown)
        conn_reap_stream(c, s)
        return 0
    conn_message_was_read(c, s, freed)
    conn_notify_stream(c, s)
    return 0


cdef uint64_t handle_reset(Conn *c, Stream *s, const Frame *f) noexcept nogil:
    cdef uint64_t grown, dropped
    cdef bint is_first = s.recv_state == RECV_OPEN or s.recv_state == RECV_SIZE_KNOWN
    cdef int code = stream_handle_reset(s, f.value, f.offset, c.data_allowed - c.data_received, &grown, &dropped)
    if code != STREAM_OK:
        return code
    conn_received(c, grown)
    if is_first:
        channel_forget_received(s)
        conn_hold(c, s, 0)
    conn_consumed(c, dropped)
    conn_notify_stream(c, s)
    conn_reap_stream(c, s)
    return 0
