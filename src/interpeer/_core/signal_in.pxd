from libc.stdint cimport uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.wire cimport Frame

cdef uint64_t handle_signal_frame(Conn *c, const Frame *f) noexcept nogil
