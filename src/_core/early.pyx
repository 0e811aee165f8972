"""Calls that have overtaken the signal that announces their leg (docs/spec, chapter 21).

Who opens a leg sends its call right behind, so that it takes one round trip and not two; the relay's application then opens
the leg a moment after the core has seen the call. It is kept for that moment.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy


cdef int early_keep(Early **early, uint64_t leg, const uint8_t *data, const Datagrams *from_, uint64_t now_ns) noexcept nogil:
    """Keep a call of EARLY_BYTES in the place of the oldest. Return 0, or -1 without memory."""
    cdef EarlyCall *call
    if early[0] == NULL:
        early[0] = <Early *>calloc(1, sizeof(Early))
        if early[0] == NULL:
            return -1
    call = &early[0].calls[early[0].next]
    early[0].next = (early[0].next + 1) % EARLY_CALLS
    call.leg = leg
    call.at_ns = now_ns
    call.datagram = from_[0]
    call.datagram.data = call.data
    call.datagram.bytes = call.datagram.segment = EARLY_BYTES
    memcpy(call.data, data, EARLY_BYTES)
    return 0


cdef EarlyCall *early_take(Early *early, uint64_t leg, uint64_t now_ns) noexcept nogil:
    """Return a call that was kept for a leg, which may be used until the next one comes; NULL: there is none (any more)."""
    cdef uint32_t i
    if early == NULL:
        return NULL
    for i in range(EARLY_CALLS):
        if early.calls[i].leg == leg:
            early.calls[i].leg = 0
            if early.calls[i].at_ns + EARLY_NS >= now_ns:
                return &early.calls[i]
    return NULL
