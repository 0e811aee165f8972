from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.registry cimport Registry
from interpeer._core.slab cimport Datagrams, SendBatch

cdef void calling_claim(Registry *r, Conn *c) noexcept nogil
cdef bint calling_transmit(Registry *r, Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil
cdef void calling_handle_response(Registry *r, Conn *c, const uint8_t *p, uint32_t n, const Datagrams *from_,
                                  uint64_t now_ns) noexcept nogil
cdef void calling_handle_cookie(Registry *r, Conn *c, const uint8_t *p, uint32_t n, const Datagrams *from_,
                                uint64_t now_ns) noexcept nogil
cdef void calling_handle_timeout(Conn *c, uint64_t now_ns) noexcept nogil
