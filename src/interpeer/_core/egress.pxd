from libc.stdint cimport uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.slab cimport SendBatch

cdef enum:
    TRANSMIT_DONE = 0               # nothing more to send now; the connection's deadline says when again
    TRANSMIT_MORE = 1               # the batch is full

cdef int conn_transmit(Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil
