"""Datagrams on their way in or out: bounded queues of messages (RFC 9221).

Messages lie one behind the other in a ring of bytes: no allocation and no object for each. The queue out refuses what
does not fit; the queue in drops its oldest message for a newer one and counts it.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef enum:
    FIRST_BYTES = 512               # of a ring: what a connection keeps that has sent or had a datagram
    LEAST_LIMIT_BYTES = 4096
    LARGEST_BYTES = 1 << 31         # so that offsets fit in 32 bits
    LENGTH_BYTES = 4


cdef void messages_init(Messages *m, uint64_t limit) noexcept nogil:
    """Start an empty queue of at most `limit` bytes (rounded up to a power of two; 2 GiB at the most)."""
    memset(m, 0, sizeof(Messages))
    m.limit = LEAST_LIMIT_BYTES
    while m.limit < limit and m.limit < <uint32_t>LARGEST_BYTES:
        m.limit *= 2


cdef void messages_free(Messages *m) noexcept nogil:
    free(m.ring)
    m.ring = NULL
    m.capacity = 0
    m.head = 0
    m.used = 0
    m.count = 0


cdef inline void copy_out(const Messages *m, uint32_t at, uint8_t *out, uint32_t n) noexcept nogil:
    cdef uint32_t first = m.capacity - (at & (m.capacity - 1))
    at &= m.capacity - 1
    if n <= first:
        memcpy(out, m.ring + at, n)
    else:
        memcpy(out, m.ring + at, first)
        memcpy(out + first, m.ring, n - first)


cdef inline void copy_in(Messages *m, uint32_t at, const uint8_t *data, uint32_t n) noexcept nogil:
    cdef uint32_t first = m.capacity - (at & (m.capacity - 1))
    at &= m.capacity - 1
    if n <= first:
        memcpy(m.ring + at, data, n)
    else:
        memcpy(m.ring + at, data, first)
        memcpy(m.ring, data + first, n - first)


cdef int grow(Messages *m, uint32_t needed) noexcept nogil:
    """See that `needed` bytes fit, within the limit."""
    cdef uint32_t capacity = m.capacity if m.capacity else FIRST_BYTES
    cdef uint8_t *grown
    while capacity < needed:
        capacity *= 2
    if capacity == m.capacity:
        return MESSAGES_OK
    grown = <uint8_t *>malloc(capacity)
    if grown == NULL:
        return MESSAGES_NO_MEMORY
    if m.used:
        copy_out(m, m.head, grown, m.used)
    free(m.ring)
    m.ring = grown
    m.capacity = capacity
    m.head = 0
    return MESSAGES_OK


cdef int messages_push(Messages *m, const uint8_t *data, uint32_t n) noexcept nogil:
    """Append a message. Return MESSAGES_OK, MESSAGES_FULL or MESSAGES_NO_MEMORY."""
    cdef int result
    if m.used + LENGTH_BYTES + n > m.capacity:
        if m.used + LENGTH_BYTES + n > m.limit:
            return MESSAGES_FULL
        result = grow(m, m.used + LENGTH_BYTES + n)
        if result != MESSAGES_OK:
            return result
    copy_in(m, m.head + m.used, <const uint8_t *>&n, LENGTH_BYTES)
    copy_in(m, m.head + m.used + LENGTH_BYTES, data, n)
    m.used += LENGTH_BYTES + n
    m.count += 1
    return MESSAGES_OK


cdef int messages_push_dropping(Messages *m, const uint8_t *data, uint32_t n) noexcept nogil:
    """Append a message, giving up the oldest ones if need be."""
    if LENGTH_BYTES + n > m.limit:
        m.dropped += 1
        return MESSAGES_FULL
    while m.used + LENGTH_BYTES + n > m.limit:
        messages_skip(m)
        m.dropped += 1
    return messages_push(m, data, n)


cdef uint32_t messages_next_bytes(const Messages *m) noexcept nogil:
    """Return the size of the oldest message. There must be one."""
    cdef uint32_t n
    copy_out(m, m.head, <uint8_t *>&n, LENGTH_BYTES)
    return n


cdef void messages_skip(Messages *m) noexcept nogil:
    """Take the oldest message away. There must be one."""
    cdef uint32_t n = LENGTH_BYTES + messages_next_bytes(m)
    m.head = (m.head + n) & (m.capacity - 1)
    m.used -= n
    m.count -= 1


cdef void messages_pop(Messages *m, uint8_t *out) noexcept nogil:
    """Copy the oldest message to `out` and take it away. There must be one."""
    copy_out(m, m.head + LENGTH_BYTES, out, messages_next_bytes(m))
    messages_skip(m)


cdef void messages_trim(Messages *m) noexcept nogil:
    """Give the memory of an empty queue back."""
    if m.count == 0:
        messages_free(m)
