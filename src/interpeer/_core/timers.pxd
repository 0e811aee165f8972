from libc.stdint cimport uint32_t, uint64_t

cdef struct Timer:                  # inside the object that is to be woken
    uint64_t deadline_ns            # 0: not set
    uint32_t place                  # in the heap, counted from 1; 0: not in it
    void *owner                     # the object to be woken

cdef struct Timers:
    Timer **heap                    # owned (the array)
    uint32_t count
    uint32_t capacity

cdef void timers_init(Timers *t) noexcept nogil
cdef void timers_free(Timers *t) noexcept nogil
cdef int timer_set(Timers *t, Timer *timer, uint64_t deadline_ns) noexcept nogil
cdef Timer *timers_due(Timers *t, uint64_t now_ns) noexcept nogil

cdef inline uint64_t timers_next_ns(const Timers *t) noexcept nogil:
    """Return the earliest deadline; 0 when there is none."""
    return t.heap[0].deadline_ns if t.count else 0
