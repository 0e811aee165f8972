from libc.stdint cimport uint64_t

from interpeer._core.conn cimport Conn

cdef uint64_t conn_deadline_ns(const Conn *c) noexcept nogil
cdef void conn_handle_timeout(Conn *c, uint64_t now_ns) noexcept nogil
