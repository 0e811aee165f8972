from libc.stdint cimport uint32_t, uint64_t

from interpeer._core.controller cimport AckSample, Congestion, LossSample

cdef void cc_init(Congestion *c, int kind, uint32_t packet_bytes) noexcept nogil
cdef void cc_set_packet_bytes(Congestion *c, uint32_t packet_bytes) noexcept nogil
cdef void cc_handle_ack(Congestion *c, AckSample *sample, uint64_t in_flight_before) noexcept nogil
cdef void cc_handle_loss(Congestion *c, const LossSample *sample) noexcept nogil
cdef void cc_handle_mark(Congestion *c, uint64_t now_ns, uint64_t newest_sent_ns) noexcept nogil
cdef void cc_handle_sent(Congestion *c, uint64_t now_ns, uint32_t bytes, uint64_t in_flight_before,
                         bint app_limited) noexcept nogil
cdef void cc_forgive(Congestion *c, uint64_t now_ns) noexcept nogil
