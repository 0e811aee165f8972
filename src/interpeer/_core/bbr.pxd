from libc.stdint cimport uint64_t

from interpeer._core.controller cimport AckSample, Congestion, LossSample

cdef enum:                          # inputs of the machine
    BBR_IN_FULL = 0                 # a higher rate of sending delivers nothing more, or loses much
    BBR_IN_DRAINED = 1              # what is in flight needs no queue
    BBR_IN_PROBE_DUE = 2
    BBR_IN_REFILLED = 3             # a round at the full rate is over
    BBR_IN_PROBED = 4               # the probe has found what there is
    BBR_IN_RTT_STALE = 5            # the least round trip was seen too long ago
    BBR_IN_RTT_SEEN = 6             # it was seen again
    BBR_IN_RTT_SEEN_EARLY = 7       # ... and startup is not over yet
    BBR_INPUTS = 8

cdef void bbr_on_start(Congestion *c) noexcept nogil
cdef void bbr_on_start_lossy(Congestion *c) noexcept nogil
cdef void bbr_on_ack(Congestion *c, const AckSample *s) noexcept nogil
cdef void bbr_on_loss(Congestion *c, const LossSample *s) noexcept nogil
cdef void bbr_on_congestion(Congestion *c, uint64_t now_ns, int what) noexcept nogil
cdef void bbr_on_restart(Congestion *c, uint64_t now_ns, bint app_limited) noexcept nogil
cdef int bbr_input(Congestion *c, int event, uint64_t now_ns, uint64_t delivered, double rate) noexcept nogil
