from libc.stdint cimport uint64_t

from interpeer._core.controller cimport Congestion

cdef enum:
    PACING_QUANTUM_NS = 500000      # packets are released together that the rate gives in this time: worth GSO and a timer
    PACING_BURST_NS = 1000000       # after a short pause, what it gives in this time may go at once
    PACING_RUN_PACKETS = 4          # ... and in any case so many packets
    PACING_BURST_PACKETS = 10       # ... or so many when none was wanted for a round trip (RFC 9002, 7.7)
    PACING_PAUSE_NS = 100000000     # after a longer pause no more than those: the path may be another one by now

cdef double pacing_rate(const Congestion *c, uint64_t smoothed_rtt_ns) noexcept nogil
cdef uint64_t pacing_release_ns(Congestion *c, uint64_t now_ns, uint64_t smoothed_rtt_ns) noexcept nogil
cdef void pacing_spend(Congestion *c, uint64_t bytes) noexcept nogil
