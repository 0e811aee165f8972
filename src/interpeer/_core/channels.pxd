from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.buffer cimport Draft
from interpeer._core.conn cimport Conn
from interpeer._core.stream cimport Stream
from interpeer._core.wire cimport Capabilities

cdef enum:
    SEND_TAKEN = 0                  # results of conn_send_message
    SEND_NO_ROOM = 1
    SEND_NO_MEMORY = -1
    SEND_NOT_OPEN = -2
    SEND_TOO_LARGE = -3

cdef Stream *conn_find_channel(Conn *c, uint64_t id) noexcept nogil
cdef Stream *conn_open_channel(Conn *c, const Capabilities *capabilities) noexcept nogil
cdef int conn_peer_channel(Conn *c, uint64_t id, Stream **out) noexcept nogil
cdef Stream *conn_next_channel(Conn *c) noexcept nogil
cdef Stream *conn_accept_channel(Conn *c) noexcept nogil
cdef void conn_set_channel(Conn *c, Stream *s, const Capabilities *capabilities) noexcept nogil
cdef void conn_set_priority(Conn *c, Stream *s, uint8_t priority) noexcept nogil
cdef void conn_expect_repairs(Conn *c, Stream *s) noexcept nogil
cdef int conn_may_send(const Conn *c, const Stream *s, uint64_t n) noexcept nogil
cdef int conn_send_message(Conn *c, Stream *s, const uint8_t *data, uint64_t n, Draft *draft) noexcept nogil
cdef void conn_message_was_read(Conn *c, Stream *s, uint64_t freed) noexcept nogil
cdef void conn_lose_piece(Conn *c, Stream *s, uint64_t offset, uint64_t n, bint fin, bint is_lost) noexcept nogil
cdef void conn_handle_message_acked(Conn *c, Stream *s, uint64_t offset, uint64_t n, bint fin) noexcept nogil
cdef void conn_handle_dropped_acked(Conn *c, Stream *s, uint64_t number, uint32_t what, uint32_t bytes) noexcept nogil
cdef void conn_handle_channel_acked(Conn *c, Stream *s) noexcept nogil
cdef void conn_requeue_channel(Conn *c, Stream *s, uint8_t kind, uint64_t first, uint32_t what,
                               bint was_begun) noexcept nogil
cdef void channels_note_sent(Conn *c, Stream *s, uint64_t now_ns) noexcept nogil
cdef void channels_count_deadlines(Conn *c, uint64_t now_ns) noexcept nogil
cdef void channels_expire(Conn *c, uint64_t now_ns) noexcept nogil
cdef void channels_raise_limit(Conn *c) noexcept nogil
