from libc.stdint cimport uint64_t

from interpeer._core.controller cimport AckSample, Congestion

cdef enum:                          # Ledbat.phase (docs/spec, chapter 18)
    LEDBAT_START = 0                # slow start, slower on short round trips
    LEDBAT_STEADY = 1
    LEDBAT_SLOWDOWN = 2             # next to nothing is sent, so that the round trip without our queue is seen
    LEDBAT_RETURN = 3               # slow start, up to where the slowdown began

cdef void ledbat_on_start(Congestion *c) noexcept nogil
cdef void ledbat_on_ack(Congestion *c, const AckSample *s) noexcept nogil
cdef void ledbat_on_congestion(Congestion *c, uint64_t now_ns, int what) noexcept nogil
