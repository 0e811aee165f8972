from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    MESSAGES_OK = 0
    MESSAGES_FULL = -1
    MESSAGES_NO_MEMORY = -2

cdef struct Messages:               # a queue of datagrams, oldest first, in one ring of bytes
    uint8_t *ring                   # each message: length 4, bytes; may wrap; owned
    uint32_t capacity               # a power of two, or 0
    uint32_t limit                  # the ring grows no larger
    uint32_t head                   # where the oldest message starts
    uint32_t used                   # bytes, lengths included
    uint32_t count                  # messages
    uint64_t dropped                # oldest messages given up for newer ones

cdef void messages_init(Messages *m, uint64_t limit) noexcept nogil
cdef void messages_free(Messages *m) noexcept nogil
cdef int messages_push(Messages *m, const uint8_t *data, uint32_t n) noexcept nogil
cdef int messages_push_dropping(Messages *m, const uint8_t *data, uint32_t n) noexcept nogil
cdef uint32_t messages_next_bytes(const Messages *m) noexcept nogil
cdef void messages_skip(Messages *m) noexcept nogil
cdef void messages_pop(Messages *m, uint8_t *out) noexcept nogil
cdef void messages_trim(Messages *m) noexcept nogil
