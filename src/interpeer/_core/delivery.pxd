from libc.stdint cimport uint32_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.loss cimport SentPacket
from interpeer._core.path cimport Path
from interpeer._core.slab cimport Endpoint

cdef void conn_on_acked(void *owner, uint64_t number, const SentPacket *p) noexcept nogil
cdef void conn_on_lost(void *owner, uint64_t number, const SentPacket *p) noexcept nogil
cdef void conn_count_lost(Conn *c, Path *p, uint64_t packets) noexcept nogil
cdef void conn_probe_again(Conn *c, Path *p) noexcept nogil
cdef void conn_handle_probe_timeout(Conn *c, Path *p) noexcept nogil
cdef void conn_handle_refused(Conn *c, uint32_t path, const Endpoint *remote, uint32_t bytes) noexcept nogil
cdef void conn_handle_recovery_timeout(Conn *c, Path *p, uint64_t now_ns) noexcept nogil
