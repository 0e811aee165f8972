from libc.stdint cimport uint8_t, uint64_t

from interpeer._core.conn cimport Conn

cdef int conn_handle_packet(Conn *c, uint8_t *packet, size_t bytes, uint8_t ecn, uint64_t now_ns) noexcept nogil
