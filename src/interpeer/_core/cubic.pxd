from libc.stdint cimport uint64_t

from interpeer._core.controller cimport AckSample, Congestion

cdef void cubic_on_ack(Congestion *c, const AckSample *s) noexcept nogil
cdef void cubic_on_congestion(Congestion *c, uint64_t now_ns, int what) noexcept nogil
