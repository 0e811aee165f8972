from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.slab cimport Endpoint

cdef enum:
    MAX_SIGNAL_BYTES = 1024         # of one: it fits in a packet of the base size
    MAX_SIGNALS = 32                # that wait, each way; nodes take them at every turn
    SIGNAL_WINDOW = 64              # numbers between the oldest that is not acknowledged and the newest

cdef enum:                          # Signal.state, of those going out
    SIGNAL_QUEUED = 0               # to be sent, or sent again
    SIGNAL_SENT = 1

cdef struct Signal:
    Signal *next
    uint64_t number
    uint8_t state
    uint32_t bytes
    uint8_t data[1]                 # `bytes` of them

cdef struct Signals:                # of a connection; made with the first one
    Signal *out                     # not acknowledged, in the order of their numbers; owned
    Signal *last_out
    uint32_t out_count
    uint64_t next                   # number of the next one that is sent
    Signal *in_                     # received and not taken, oldest first; owned
    Signal *last_in
    uint32_t in_count
    uint64_t seen                   # numbers below `highest` that have come, a bit each
    uint64_t highest                # one past the highest that has come
    uint64_t dropped                # received, and there was no room
    uint64_t reports                # of the peer's address, that it was told
    # what the peer says our address is
    bint has_observed
    uint64_t observed_number        # one past that of the report
    Endpoint observed

cdef Signals *signals_new() noexcept nogil
cdef void signals_free(Signals *s) noexcept nogil
cdef int signals_push(Signals *s, const uint8_t *data, uint32_t bytes) noexcept nogil
cdef Signal *signals_due(Signals *s) noexcept nogil
cdef void signals_handle_acked(Signals *s, uint64_t number) noexcept nogil
cdef bint signals_handle_lost(Signals *s, uint64_t number) noexcept nogil
cdef bint signals_handle(Signals *s, uint64_t number, const uint8_t *data, uint32_t bytes) noexcept nogil
cdef Signal *signals_take(Signals *s) noexcept nogil
