from libc.stdint cimport uint32_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.registry cimport Registry
from interpeer._core.relay cimport Leg
from interpeer._core.slab cimport Datagrams, SendBatch

cdef int relaying_may_use(Registry *r, uint64_t id) noexcept nogil
cdef void relaying_forward(Registry *r, Leg *leg, const Datagrams *d, uint32_t at, uint32_t end, uint64_t now_ns) noexcept nogil
cdef bint relaying_transmit(Registry *r, SendBatch *batch) noexcept nogil
cdef void relaying_refused(Registry *r, const Datagrams *d) noexcept nogil
cdef void relaying_remove(Registry *r, Leg *leg, bint is_told) noexcept nogil
cdef void relaying_end(Registry *r, Conn *c) noexcept nogil
