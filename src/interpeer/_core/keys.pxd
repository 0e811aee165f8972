from libc.stdint cimport uint64_t

from interpeer._core.conn cimport CONN_OPEN, Conn
from interpeer._core.rekey cimport REKEY_IDLE
from interpeer._core.wire cimport Frame

cdef int keys_may_seal(Conn *c) noexcept nogil
cdef void keys_advance(Conn *c, uint64_t now_ns) noexcept nogil
cdef uint64_t keys_handle_frame(Conn *c, const Frame *f, uint64_t now_ns) noexcept nogil
cdef void keys_handle_timeout(Conn *c, uint64_t now_ns) noexcept nogil

cdef inline void keys_drive(Conn *c, uint64_t now_ns) noexcept nogil:
    """Go on with an agreement on fresh keys, if there is one or it is time for one. It may end the connection."""
    if (c.rekey.state != REKEY_IDLE or c.rekey.is_due) and c.state == CONN_OPEN:
        keys_advance(c, now_ns)
