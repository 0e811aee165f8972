from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.answer cimport HalfOpen
from interpeer._core.conn cimport Conn
from interpeer._core.registry cimport Registry
from interpeer._core.slab cimport Datagrams, SendBatch

cdef enum:
    RESETS_PER_SECOND = 100
    VERSIONS_PER_SECOND = 100
    COOKIES_PER_SECOND = 2000       # to strangers who ask for the first time; who repeats an init is answered anyway

cdef void reception_handle_message(Registry *r, const uint8_t *p, uint32_t n, const Datagrams *from_,
                                   uint64_t now_ns) noexcept nogil
cdef Conn *reception_handle_first_packet(Registry *r, HalfOpen *h, uint8_t *p, uint32_t n, const Datagrams *from_,
                                         uint64_t now_ns) noexcept nogil
cdef void reception_handle_stray(Registry *r, const uint8_t *p, uint32_t n, const Datagrams *from_,
                                 uint64_t now_ns) noexcept nogil
cdef void reception_decide(Registry *r, uint32_t id, bint is_welcome, uint64_t now_ns) noexcept nogil
