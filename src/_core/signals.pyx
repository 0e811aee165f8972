"""Short messages between the nodes at the two ends of a connection, of which its application sees nothing (docs/spec, 20).

They are reliable and come once each, in no order. Few wait at a time: a node that has more to say is told to wait, and one
that is told more than it takes drops it. A connection that has none costs nothing.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy


cdef Signals *signals_new() noexcept nogil:
    """Return the state of a connection that has sent and had none; NULL without memory."""
    return <Signals *>calloc(1, sizeof(Signals))


cdef void signals_free(Signals *s) noexcept nogil:
    if s != NULL:
        free_all(s.out)
        free_all(s.in_)
        free(s)


cdef void free_all(Signal *signal) noexcept nogil:
    cdef Signal *following
    while signal != NULL:
        following = signal.next
        free(signal)
        signal = following


cdef Signal *make(uint64_t number, const uint8_t *data, uint32_t bytes) noexcept nogil:
    cdef Signal *signal = <Signal *>malloc(sizeof(Signal) + <size_t>bytes)
    if signal == NULL:
        return NULL
    signal.next = NULL
    signal.number = number
    signal.state = SIGNAL_QUEUED
    signal.bytes = bytes
    if bytes:                       # otherwise it may be NULL
        memcpy(signal.data, data, bytes)
    return signal


# --- going out ---

cdef int signals_push(Signals *s, const uint8_t *data, uint32_t bytes) noexcept nogil:
    """Queue a message of at most MAX_SIGNAL_BYTES. Return 0, or -1 when there is no room."""
    cdef Signal *signal
    if s.out_count == MAX_SIGNALS or (s.out != NULL and s.next - s.out.number >= SIGNAL_WINDOW):
        return -1
    signal = make(s.next, data, bytes)
    if signal == NULL:
        return -1
    if s.out == NULL:
        s.out = signal
    else:
        s.last_out.next = signal
    s.last_out = signal
    s.out_count += 1
    s.next += 1
    return 0


cdef Signal *signals_due(Signals *s) noexcept nogil:
    """Return the oldest that is to be sent; NULL: none."""
    cdef Signal *signal = s.out
    while signal != NULL and signal.state != SIGNAL_QUEUED:
        signal = signal.next
    return signal


cdef void signals_handle_acked(Signals *s, uint64_t number) noexcept nogil:
    cdef Signal *signal = s.out
    cdef Signal *before = NULL
    while signal != NULL and signal.number != number:
        before = signal
        signal = signal.next
    if signal == NULL:
        return
    if before == NULL:
        s.out = signal.next
    else:
        before.next = signal.next
    if s.last_out == signal:
        s.last_out = before
    s.out_count -= 1
    free(signal)


cdef bint signals_handle_lost(Signals *s, uint64_t number) noexcept nogil:
    """The packet with it is lost, or may be: tell whether it is to be sent again."""
    cdef Signal *signal = s.out
    while signal != NULL and signal.number != number:
        signal = signal.next
    if signal == NULL:
        return False
    signal.state = SIGNAL_QUEUED
    return True


# --- coming in ---

cdef bint signals_handle(Signals *s, uint64_t number, const uint8_t *data, uint32_t bytes) noexcept nogil:
    """Take one that has come. Return whether there is one more to be read: not for a copy, nor where there is no room."""
    cdef Signal *signal
    cdef uint64_t behind
    if number < s.highest:
        behind = s.highest - 1 - number
        if behind >= SIGNAL_WINDOW or s.seen >> behind & 1:
            return False
        s.seen |= <uint64_t>1 << behind
    else:
        behind = number + 1 - s.highest
        s.seen = s.seen << behind if behind < SIGNAL_WINDOW else 0
        s.seen |= 1
        s.highest = number + 1
    signal = make(number, data, bytes) if s.in_count < MAX_SIGNALS else NULL
    if signal == NULL:
        s.dropped += 1
        return False
    if s.in_ == NULL:
        s.in_ = signal
    else:
        s.last_in.next = signal
    s.last_in = signal
    s.in_count += 1
    return True


cdef Signal *signals_take(Signals *s) noexcept nogil:
    """Return the oldest that has come, which is the caller's to free; NULL: none."""
    cdef Signal *signal = s.in_
    if signal == NULL:
        return NULL
    s.in_ = signal.next
    if s.in_ == NULL:
        s.last_in = NULL
    s.in_count -= 1
    return signal
