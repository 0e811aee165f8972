"""Deadlines: a binary heap of timers that live inside the objects they wake.

One timer for each connection, set to the earliest of its deadlines: moving it costs a few comparisons, and nothing
when it does not move.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc

cdef enum:
    FIRST_TIMERS = 64


cdef void timers_init(Timers *t) noexcept nogil:
    t.heap = NULL
    t.count = 0
    t.capacity = 0


cdef void timers_free(Timers *t) noexcept nogil:
    """Forget all timers; they are not touched."""
    free(t.heap)
    timers_init(t)


cdef inline void place(Timers *t, Timer *timer, uint32_t i) noexcept nogil:
    t.heap[i] = timer
    timer.place = i + 1


cdef void sift_up(Timers *t, Timer *timer, uint32_t i) noexcept nogil:
    cdef uint32_t parent
    while i:
        parent = (i - 1) >> 1
        if t.heap[parent].deadline_ns <= timer.deadline_ns:
            break
        place(t, t.heap[parent], i)
        i = parent
    place(t, timer, i)


cdef void sift_down(Timers *t, Timer *timer, uint32_t i) noexcept nogil:
    cdef uint32_t child
    while True:
        child = 2 * i + 1
        if child >= t.count:
            break
        if child + 1 < t.count and t.heap[child + 1].deadline_ns < t.heap[child].deadline_ns:
            child += 1
        if timer.deadline_ns <= t.heap[child].deadline_ns:
            break
        place(t, t.heap[child], i)
        i = child
    place(t, timer, i)


cdef int timer_set(Timers *t, Timer *timer, uint64_t deadline_ns) noexcept nogil:
    """Set, move or (with 0) unset a timer. Return 0, or -1 without memory for a new one."""
    cdef uint32_t capacity
    cdef Timer **grown
    cdef Timer *last
    cdef uint64_t before = timer.deadline_ns
    if deadline_ns == before and (timer.place or deadline_ns == 0):
        return 0
    if deadline_ns == 0:
        t.count -= 1
        last = t.heap[t.count]
        if last != timer:
            if last.deadline_ns < before:
                sift_up(t, last, timer.place - 1)
            else:
                sift_down(t, last, timer.place - 1)
        timer.place = 0
        timer.deadline_ns = 0
        return 0
    if timer.place == 0:
        if t.count == t.capacity:
            capacity = t.capacity * 2 if t.capacity else FIRST_TIMERS
            grown = <Timer **>realloc(t.heap, capacity * sizeof(Timer *))
            if grown == NULL:
                return -1
            t.heap = grown
            t.capacity = capacity
        t.count += 1
        timer.deadline_ns = deadline_ns
        sift_up(t, timer, t.count - 1)
        return 0
    timer.deadline_ns = deadline_ns
    if deadline_ns < before:
        sift_up(t, timer, timer.place - 1)
    else:
        sift_down(t, timer, timer.place - 1)
    return 0


cdef Timer *timers_due(Timers *t, uint64_t now_ns) noexcept nogil:
    """Take out and return a timer whose deadline has come, or NULL."""
    cdef Timer *timer
    if t.count == 0 or t.heap[0].deadline_ns > now_ns:
        return NULL
    timer = t.heap[0]
    timer_set(t, timer, 0)
    return timer
