from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.loss cimport SentPacket
from interpeer._core.path cimport Path

# Each is called as `if c.context.trace != NULL: tracing_...`, so that a node without a trace pays one branch.

cdef void tracing_sent(Conn *c, const Path *p, uint64_t number, uint16_t flags, const uint8_t *payload, size_t n,
                       size_t tail_bytes) noexcept nogil
cdef void tracing_received(Conn *c, const Path *p, uint64_t number, const uint8_t *packet, size_t bytes, size_t n,
                           uint8_t ecn) noexcept nogil
cdef void tracing_dropped(Conn *c, uint32_t path, Py_ssize_t why, size_t bytes) noexcept nogil
cdef void tracing_lost(Conn *c, const Path *p, uint64_t number, const SentPacket *packet) noexcept nogil
cdef void tracing_metrics(Conn *c, const Path *p) noexcept nogil
cdef void tracing_key_update(Conn *c, bint is_ours, uint64_t epoch) noexcept nogil
cdef void tracing_secrets(Conn *c, const uint8_t *send_secret, const uint8_t *recv_secret) noexcept nogil
cdef void tracing_send_secret(Conn *c) noexcept nogil
cdef void tracing_recv_secret(Conn *c) noexcept nogil
