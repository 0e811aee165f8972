from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.registry cimport Registry
from interpeer._core.slab cimport Datagrams

cdef void binding_handle(Registry *r, const uint8_t *p, uint32_t n, const Datagrams *from_, uint64_t now_ns) noexcept nogil
