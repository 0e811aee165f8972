from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.slab cimport Datagrams

cdef int conn_handle_packet(Conn *c, uint32_t path, uint8_t *packet, uint32_t bytes, const Datagrams *from_,
                            uint64_t now_ns) noexcept nogil
